//! One watch over all sessions of the runtime, shared by every run.
//!
//! `WatchSessions` wakes the runs that wait for a session and tells the others what their session
//! became; a paged `ListSessions` sweep backs it up. So a thousand waiting runs poll nothing. It is
//! also how the end of an outage is noticed: the watch tries often, and wakes those who wait. What
//! nobody here follows is handed to discovery.
//!
//! **Invariant:** reading the watch waits for nothing: the runtime keeps 64 changes for us, and then
//! ends the watch. Whenever it was down, everything is listed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control_plane_domain::SessionState;
use control_plane_domain::envelope::{SessionChange, SessionChangeKind};
use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::session::SessionInfo;
use futures_util::StreamExt;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::engine::Context;
use crate::listeners::Hint;

/// Most pages of one sweep: a million sessions.
const MAX_PAGES: usize = 1000;
/// The longest wait between two attempts to watch: it is one call, whatever waits for it.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Watches until the engine stops.
pub(crate) async fn watch(context: Arc<Context>) {
    let (base, max) = (context.config.backoff_base, context.config.backoff_max);
    let pace = Backoff::new(base.min(MAX_WAIT), max.min(MAX_WAIT));
    let mut told = None;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = watch_once(&context, &pace, &mut told) => ended,
            () = context.stop.cancelled() => return,
        };
        // An outage is told once, and again when its cause changes.
        if let Err(fault) = ended
            && told.as_ref() != Some(&fault.message)
        {
            tracing::warn!(error = %fault, "The watch over sessions broke; starting it again");
            told = Some(fault.message);
        }
        metrics::counter!("macp_session_watch_restarts_total").increment(1);
        // A clean end is a runtime that goes down: the wait is the same.
        tokio::select! {
            () = pace.pause(began) => {}
            () = context.stop.cancelled() => return,
        }
    }
}

async fn watch_once(
    context: &Context,
    pace: &Backoff,
    told: &mut Option<String>,
) -> Result<(), RuntimeError> {
    let mut changes = context.runtime.watch_sessions().await?;
    if told.take().is_some() {
        tracing::info!("The runtime at {} is reached again", context.runtime.address());
    }
    context.backoff.reached();
    context.discovery.ask_for_sweep();
    while let Some(change) = changes.next().await {
        pace.succeeded();
        context.backoff.succeeded();
        let SessionChange { kind, session_id, session, .. } = change?;
        let state = session.as_ref().map(|session| session.state);
        context.listeners.tell(&session_id, hint(kind, state));
        if let Some(session) = session {
            found(context, session);
        }
    }
    Ok(())
}

/// Tells discovery of a session that no run here follows.
fn found(context: &Context, session: SessionInfo) {
    if !context.listeners.hears(&session.session_id) {
        context.discovery.found(session);
    }
}

/// What a change means: its kind, or for `Created`, which is also the initial sync, its metadata.
fn hint(kind: SessionChangeKind, state: Option<SessionState>) -> Hint {
    match kind {
        SessionChangeKind::Resolved => Hint::Became(SessionState::Resolved),
        SessionChangeKind::Expired => Hint::Became(SessionState::Expired),
        SessionChangeKind::Cancelled => Hint::Became(SessionState::Cancelled),
        SessionChangeKind::Suspended => Hint::Became(SessionState::Suspended),
        SessionChangeKind::Resumed => Hint::Became(SessionState::Open),
        SessionChangeKind::Created => state.map_or(Hint::Look, Hint::Seen),
        SessionChangeKind::Unknown => Hint::Look,
    }
}

/// Lists all sessions again and again, and when it is asked to, until the engine stops.
pub(crate) async fn sweep(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.sweep);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.discovery.sweep_asked() => {}
            () = context.stop.cancelled() => return,
        }
        if context.listeners.is_empty() && !context.discovery.is_on_duty() {
            continue;
        }
        let listed = tokio::select! {
            listed = sweep_once(&context) => listed,
            () = context.stop.cancelled() => return,
        };
        if let Err(fault) = listed {
            tracing::debug!(error = %fault, "Could not list the sessions");
            // What was asked for is still to be done, once the runtime answers.
            tokio::select! {
                () = context.backoff.sleep(MAX_WAIT) => {}
                () = context.stop.cancelled() => return,
            }
            context.discovery.ask_for_sweep();
        }
    }
}

async fn sweep_once(context: &Context) -> Result<(), RuntimeError> {
    let mut token: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let page = context.runtime.list_sessions(token.as_deref()).await?;
        for session in page.sessions {
            context.listeners.accepted(&session.session_id, session.accepted_at_least());
            context.listeners.tell(&session.session_id, Hint::Seen(session.state));
            found(context, session);
        }
        // Unlike the watch, a sweep can wait.
        let waited = tokio::time::timeout(MAX_WAIT, context.discovery.has_room()).await;
        if waited.is_err() {
            // Nor may it wait for long: those who follow their sessions need what it says, too.
            tracing::debug!("Discovery has more sessions than it can take in");
        }
        match page.next_page_token {
            Some(next) => token = Some(next),
            None => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_means_its_kind_and_a_creation_its_metadata() {
        use SessionChangeKind as Kind;
        assert_eq!(hint(Kind::Resumed, None), Hint::Became(SessionState::Open));
        assert_eq!(
            hint(Kind::Created, Some(SessionState::Cancelled)),
            Hint::Seen(SessionState::Cancelled)
        );
        assert_eq!(hint(Kind::Created, None), Hint::Look);
        assert_eq!(hint(Kind::Unknown, Some(SessionState::Resolved)), Hint::Look);
    }
}
