//! Artifacts of runs (`run_artifacts`).

use control_plane_domain::{RunId, Timestamp};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::Connection;
use super::schema::run_artifacts;
use crate::artifacts::ArtifactCursor;
use crate::error::Result;
use crate::model::Artifact;
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = run_artifacts, treat_none_as_default_value = false)]
pub(super) struct ArtifactRow {
    id: DbUuid,
    run_id: DbUuid,
    kind: String,
    label: String,
    uri: Option<String>,
    inline: Option<Value>,
    created_at: Timestamp,
}

impl From<&Artifact> for ArtifactRow {
    fn from(artifact: &Artifact) -> Self {
        Self {
            id: DbUuid(artifact.id),
            run_id: DbUuid(artifact.run_id.0),
            kind: artifact.kind.clone(),
            label: artifact.label.clone(),
            uri: artifact.uri.clone(),
            inline: artifact.inline.clone(),
            created_at: artifact.created_at,
        }
    }
}

impl From<ArtifactRow> for Artifact {
    fn from(row: ArtifactRow) -> Self {
        Self {
            id: row.id.0,
            run_id: RunId(row.run_id.0),
            kind: row.kind,
            label: row.label,
            uri: row.uri,
            inline: row.inline,
            created_at: row.created_at,
        }
    }
}

/// A run's artifacts, oldest first.
pub(crate) async fn list(conn: &mut Connection, id: RunId) -> Result<Vec<Artifact>> {
    page(conn, id, None, i64::MAX).await
}

/// At most `limit` of them after `after`.
pub(crate) async fn page(
    conn: &mut Connection,
    id: RunId,
    after: Option<ArtifactCursor>,
    limit: i64,
) -> Result<Vec<Artifact>> {
    let mut query = run_artifacts::table
        .filter(run_artifacts::run_id.eq(DbUuid(id.0)))
        .order((run_artifacts::created_at.asc(), run_artifacts::id.asc()))
        .select(ArtifactRow::as_select())
        .limit(limit)
        .into_boxed();
    if let Some(ArtifactCursor { at, id }) = after {
        query = query
            .filter(run_artifacts::created_at.ge(at))
            .filter(run_artifacts::created_at.ne(at).or(run_artifacts::id.gt(DbUuid(id))));
    }
    let rows: Vec<ArtifactRow> = query.load(conn).await?;
    Ok(rows.into_iter().map(Artifact::from).collect())
}

/// The ids of a run's artifacts.
pub(crate) async fn ids(conn: &mut Connection, id: RunId) -> Result<Vec<Uuid>> {
    let ids: Vec<DbUuid> = run_artifacts::table
        .filter(run_artifacts::run_id.eq(DbUuid(id.0)))
        .select(run_artifacts::id)
        .load(conn)
        .await?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// One artifact of a run.
pub(crate) async fn get(
    conn: &mut Connection,
    id: RunId,
    artifact: Uuid,
) -> Result<Option<Artifact>> {
    let row: Option<ArtifactRow> = run_artifacts::table
        .find(DbUuid(artifact))
        .filter(run_artifacts::run_id.eq(DbUuid(id.0)))
        .select(ArtifactRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(Artifact::from))
}

/// Removes one artifact of a run.
pub(crate) async fn delete(conn: &mut Connection, id: RunId, artifact: Uuid) -> Result<bool> {
    let removed = diesel::delete(
        run_artifacts::table.find(DbUuid(artifact)).filter(run_artifacts::run_id.eq(DbUuid(id.0))),
    )
    .execute(conn)
    .await?;
    Ok(removed == 1)
}
