//! One watch over all sessions of the runtime, shared by every run.
//!
//! `WatchSessions` wakes the runs that wait for a session and tells the others what their session
//! became; a paged `ListSessions` sweep backs it up. So a thousand waiting runs poll nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use control_plane_domain::envelope::{SessionChange, SessionChangeKind};
use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::{RunId, SessionId, SessionState};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::engine::Context;

/// Most pages of one sweep: a million sessions.
const MAX_PAGES: usize = 1000;

/// What a run is told of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The session is there, and in this state.
    State(SessionState),
    /// Something happened that does not tell its meaning: look.
    Look,
    /// Something is in the run's inbox.
    Inbox,
}

/// Which run listens for which session.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<HashMap<SessionId, (RunId, mpsc::Sender<Hint>)>>);

impl Listeners {
    /// Registers a run. It is told of what comes after this call.
    pub(crate) fn listen(self: &Arc<Self>, session: SessionId, run: RunId) -> Listener {
        let (sender, hints) = mpsc::channel(32);
        self.lock().insert(session.clone(), (run, sender));
        Listener { listeners: Arc::clone(self), session, run, hints }
    }

    /// Tells the run that follows `session`, if there is one.
    pub(crate) fn tell(&self, session: &SessionId, hint: Hint) {
        let lock = self.lock();
        if let Some((_, sender)) = lock.get(session) {
            // A full queue is being worked on; the sweep tells again what matters then.
            let _ = sender.try_send(hint);
        }
    }

    fn tell_run(&self, run: RunId, hint: Hint) {
        for (listening, sender) in self.lock().values() {
            if *listening == run {
                let _ = sender.try_send(hint);
            }
        }
    }

    /// Tells a run that something is in its inbox.
    pub(crate) fn nudge(&self, run: RunId) {
        self.tell_run(run, Hint::Inbox);
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, (RunId, mpsc::Sender<Hint>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's place among the listeners; it leaves when dropped.
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    session: SessionId,
    run: RunId,
    hints: mpsc::Receiver<Hint>,
}

impl Listener {
    /// The next hint. Never ends while the listener lives.
    pub(crate) async fn next(&mut self) -> Hint {
        match self.hints.recv().await {
            Some(hint) => hint,
            // Only when another run listens for the same session in our place.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut lock = self.listeners.lock();
        if lock.get(&self.session).is_some_and(|(run, _)| *run == self.run) {
            lock.remove(&self.session);
        }
    }
}

/// Watches until the engine stops.
pub(crate) async fn watch(context: Arc<Context>) {
    let mut sweep = tokio::time::interval(context.config.sweep);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = watch_once(&context) => ended,
            () = sweep_always(&context, &mut sweep) => return,
            () = context.stop.cancelled() => return,
        };
        if let Err(fault) = ended {
            tracing::warn!(error = %fault, "The watch over sessions broke; starting it again");
        }
        // A clean end is a runtime that goes down: the wait is the same.
        let wait = context.backoff.failed(began, Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = context.stop.cancelled() => return,
        }
    }
}

async fn watch_once(context: &Context) -> Result<(), RuntimeError> {
    let mut changes = context.runtime.watch_sessions().await?;
    while let Some(change) = changes.next().await {
        context.backoff.succeeded();
        let SessionChange { kind, session_id, session, .. } = change?;
        let state = session.map(|session| session.state);
        context.listeners.tell(&session_id, hint(kind, state));
    }
    Ok(())
}

/// What a change means: its kind, or for `Created`, which is also the initial sync, its metadata.
fn hint(kind: SessionChangeKind, state: Option<SessionState>) -> Hint {
    match kind {
        SessionChangeKind::Resolved => Hint::State(SessionState::Resolved),
        SessionChangeKind::Expired => Hint::State(SessionState::Expired),
        SessionChangeKind::Cancelled => Hint::State(SessionState::Cancelled),
        SessionChangeKind::Suspended => Hint::State(SessionState::Suspended),
        SessionChangeKind::Resumed => Hint::State(SessionState::Open),
        SessionChangeKind::Created => state.map_or(Hint::Look, Hint::State),
        SessionChangeKind::Unknown => Hint::Look,
    }
}

async fn sweep_always(context: &Context, sweep: &mut tokio::time::Interval) {
    loop {
        sweep.tick().await;
        if context.listeners.is_empty() {
            continue;
        }
        if let Err(fault) = sweep_once(context).await {
            tracing::debug!(error = %fault, "Could not list the sessions");
        }
    }
}

async fn sweep_once(context: &Context) -> Result<(), RuntimeError> {
    let mut token: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let page = context.runtime.list_sessions(token.as_deref()).await?;
        for session in page.sessions {
            context.listeners.tell(&session.session_id, Hint::State(session.state));
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
        assert_eq!(hint(Kind::Resumed, None), Hint::State(SessionState::Open));
        assert_eq!(
            hint(Kind::Created, Some(SessionState::Cancelled)),
            Hint::State(SessionState::Cancelled)
        );
        assert_eq!(hint(Kind::Created, None), Hint::Look);
        assert_eq!(hint(Kind::Unknown, Some(SessionState::Resolved)), Hint::Look);
    }

    #[tokio::test]
    async fn a_listener_hears_of_its_session_until_it_leaves() {
        let listeners = Arc::new(Listeners::default());
        let session = SessionId::random();
        let mut listener = listeners.listen(session.clone(), RunId::random());
        listeners.tell(&session, Hint::Look);
        listeners.tell(&SessionId::random(), Hint::Inbox);
        assert_eq!(listener.next().await, Hint::Look);
        drop(listener);
        assert!(listeners.is_empty());
    }
}
