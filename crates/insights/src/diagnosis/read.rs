//! Reading what a diagnosis is made of.

use control_plane_domain::{EventType, Run, RunId, RunState, Session, Timestamp};
use control_plane_projection::state;
use control_plane_storage::{Result, Store};
use serde_json::Value;

use super::{Facts, SignalGap};
use crate::signals::began;

/// Reads what is stored of a run: its rows in one statement, then its state, which is at least as
/// new.
///
/// # Errors
/// `NotFound`, and those of the database.
pub async fn read(store: &Store, id: RunId, now: Timestamp) -> Result<Facts> {
    let (run, session, ownership) = store.run_ownership(id).await?;
    let suspended_at = match run.state {
        RunState::Suspended => store.event_last(id, EventType::RunSuspended).await?,
        RunState::Queued
        | RunState::Starting
        | RunState::BindingSession
        | RunState::Running
        | RunState::Completed
        | RunState::Failed
        | RunState::Cancelled => None,
    };
    let is_down = session.as_ref().is_some_and(|session| session.unreachable_since().is_some());
    let outage = match is_down && !run.state.is_terminal() {
        true => store.event_last(id, EventType::SessionStreamOpened).await?,
        false => None,
    };
    let outage_detail = outage.and_then(|entry| detail(&entry.body));
    Ok(Facts {
        state: state::load(store, id).await?,
        suspended_at: suspended_at.map(|entry| entry.ts),
        outage_detail,
        signal_gaps: signal_gaps(store, &run, session.as_ref()).await?,
        run,
        session,
        ownership,
        now,
    })
}

/// Why the stream is down, if that is what the event tells.
fn detail(body: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(body).ok()?;
    let data = event.get("data")?;
    let is_outage = data.get("status").and_then(Value::as_str) == Some("reconnecting");
    let detail = data.get("detail").and_then(Value::as_str).filter(|_| is_outage);
    detail.map(str::to_owned)
}

/// When signals of the run may have been missed.
async fn signal_gaps(
    store: &Store,
    run: &Run,
    session: Option<&Session>,
) -> Result<Vec<SignalGap>> {
    let gaps = store.signal_gaps(began(run, session), run.ended_at).await?;
    Ok(gaps
        .into_iter()
        .map(|gap| SignalGap { from: gap.from, to: gap.to, reason: gap.reason })
        .collect())
}
