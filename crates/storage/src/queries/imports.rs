//! Writing an imported run: everything in one transaction, page by page.

use control_plane_domain::Run;
use diesel_async::{AsyncConnection, RunQueryDsl};
use tokio::sync::mpsc::Receiver;

use super::schema::{run_artifacts, run_snapshots};
use super::{Connection, artifacts, bulk, derived, events, raw, runs, sessions, snapshots};
use crate::error::{Error, Result};
use crate::imports::{ImportPage, ImportedRun};

/// See [`crate::Store::run_import`].
pub(crate) async fn import(
    conn: &mut Connection,
    new: &ImportedRun,
    pages: &mut Receiver<ImportPage>,
) -> Result<()> {
    conn.transaction(async |conn| {
        let ImportedRun { run, session, chain, metrics } = new;
        if !runs::insert(conn, run, *chain, None).await? {
            return Err(taken(conn, run).await?);
        }
        if let Some(session) = session {
            sessions::insert(conn, session).await?;
        }
        derived::metrics_insert(conn, metrics).await?;
        while let Some(page) = pages.recv().await {
            match page {
                ImportPage::Artifacts(artifacts) => {
                    for artifact in &artifacts {
                        diesel::insert_into(run_artifacts::table)
                            .values(artifacts::ArtifactRow::from(artifact))
                            .execute(conn)
                            .await?;
                    }
                }
                ImportPage::Events(entries) => {
                    let rows = entries.iter().map(events::EventRow::unplaced).collect();
                    bulk::events(conn, rows).await?;
                }
                ImportPage::Envelopes(envelopes) => {
                    let rows = envelopes.iter().map(raw::RawRow::from).collect();
                    bulk::envelopes(conn, rows).await?;
                }
                ImportPage::Snapshots(states) => {
                    for state in &states {
                        diesel::insert_into(run_snapshots::table)
                            .values(snapshots::SnapshotColumns::from(state))
                            .execute(conn)
                            .await?;
                    }
                }
                ImportPage::End(state) => return derived::projection_put(conn, &state).await,
            }
        }
        Err(Error::Refused("the import ended before its last page".to_owned()))
    })
    .await
}

/// Which run stands in the way.
async fn taken(conn: &mut Connection, new: &Run) -> Result<Error> {
    if let Some(session_id) = &new.session_id
        && let Some(run) = runs::by_session(conn, session_id).await?
    {
        return Ok(Error::SessionTaken { run_id: run.id });
    }
    Ok(match runs::get(conn, new.id).await {
        Ok(run) => Error::SessionTaken { run_id: run.id },
        Err(Error::NotFound { .. }) => {
            Error::Unavailable("the run that stood in the way is gone by now".to_owned())
        }
        Err(fault) => fault,
    })
}
