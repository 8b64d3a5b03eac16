//! Rows of `runtime_sessions`.

use control_plane_domain::evidence::Evidence;
use control_plane_domain::session::Session;
use control_plane_domain::{RunId, SessionId, Timestamp};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};

use super::Connection;
use super::schema::runtime_sessions;
use crate::error::{Entity, Error, Result};
use crate::types::DbUuid;

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = runtime_sessions, treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct SessionRow {
    run_id: DbUuid,
    runtime_kind: String,
    runtime_session_id: String,
    mode_name: String,
    mode_version: String,
    configuration_version: String,
    policy_version: String,
    initiator_participant_id: Option<String>,
    session_state: String,
    metadata: Value,
    started_at_unix_ms: Option<i64>,
    expires_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    last_stream_cursor: i64,
    last_message_id: Option<String>,
    last_event_ts: Option<Timestamp>,
    stream_connected_at: Option<Timestamp>,
    stream_disconnected_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    reattaches: i64,
    overlaps_shown: i64,
    counted_to: i64,
    ending: Option<String>,
}

/// What the `metadata` column holds.
pub(crate) fn metadata(session: &Session) -> Value {
    json!({
        "participants": session.participants,
        "contextId": session.context_id,
        "extensionKeys": session.extension_keys,
    })
}

/// What the `ending` column holds.
pub(crate) fn ending(session: &Session) -> Option<String> {
    let ending = session.evidence.ending.as_deref()?;
    serde_json::to_string(ending).ok()
}

impl From<&Session> for SessionRow {
    fn from(session: &Session) -> Self {
        Self {
            run_id: DbUuid(session.run_id.0),
            runtime_kind: session.runtime_kind.clone(),
            runtime_session_id: session.session_id.as_str().to_owned(),
            mode_name: session.mode_name.clone(),
            mode_version: session.mode_version.clone(),
            configuration_version: session.configuration_version.clone(),
            policy_version: session.policy_version.clone(),
            initiator_participant_id: session.initiator.clone(),
            session_state: session.state.as_str().to_owned(),
            metadata: metadata(session),
            started_at_unix_ms: session.started_at_unix_ms,
            expires_at: session.expires_at,
            last_seen_at: session.last_seen_at,
            last_stream_cursor: session.cursor,
            last_message_id: session.last_message_id.clone(),
            last_event_ts: session.last_event_ts,
            stream_connected_at: session.connected_at,
            stream_disconnected_at: session.disconnected_at,
            created_at: session.created_at,
            updated_at: session.updated_at,
            reattaches: session.evidence.reattaches,
            overlaps_shown: session.evidence.overlaps_shown,
            counted_to: session.evidence.counted_to,
            ending: ending(session),
        }
    }
}

impl TryFrom<SessionRow> for Session {
    type Error = Error;

    fn try_from(row: SessionRow) -> Result<Self> {
        let corrupt = |column| Error::Corrupt {
            entity: Entity::Session,
            id: row.run_id.0.to_string(),
            column,
        };
        let texts = |key: &str| -> Vec<String> {
            row.metadata
                .get(key)
                .and_then(Value::as_array)
                .map(|items| items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let ending = match &row.ending {
            Some(text) => serde_json::from_str(text).map_err(|_fault| corrupt("ending"))?,
            None => None,
        };
        Ok(Self {
            evidence: Evidence {
                reattaches: row.reattaches,
                overlaps_shown: row.overlaps_shown,
                counted_to: row.counted_to,
                ending,
            },
            run_id: RunId(row.run_id.0),
            state: row.session_state.parse().map_err(|_unknown| corrupt("session_state"))?,
            participants: texts("participants"),
            context_id: row.metadata.get("contextId").and_then(Value::as_str).map(str::to_owned),
            extension_keys: texts("extensionKeys"),
            runtime_kind: row.runtime_kind,
            session_id: SessionId::trusted(row.runtime_session_id),
            mode_name: row.mode_name,
            mode_version: row.mode_version,
            configuration_version: row.configuration_version,
            policy_version: row.policy_version,
            initiator: row.initiator_participant_id,
            started_at_unix_ms: row.started_at_unix_ms,
            expires_at: row.expires_at,
            last_seen_at: row.last_seen_at,
            cursor: row.last_stream_cursor,
            last_message_id: row.last_message_id,
            last_event_ts: row.last_event_ts,
            connected_at: row.stream_connected_at,
            disconnected_at: row.stream_disconnected_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Loads a run's session.
pub(crate) async fn get(conn: &mut Connection, id: RunId) -> Result<Option<Session>> {
    let row = runtime_sessions::table
        .find(DbUuid(id.0))
        .select(SessionRow::as_select())
        .first(conn)
        .await
        .optional()?;
    row.map(Session::try_from).transpose()
}

/// Inserts a run's session.
pub(crate) async fn insert(conn: &mut Connection, session: &Session) -> Result<()> {
    diesel::insert_into(runtime_sessions::table)
        .values(SessionRow::from(session))
        .execute(conn)
        .await?;
    Ok(())
}
