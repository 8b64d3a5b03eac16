//! What runs are told while they work: what their session became, that their inbox
//! has news, and that others are to follow them.
//!
//! **Invariant:** nothing told is lost without a trace. A run that is told more than it can take in
//! is told to look for itself instead.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control_plane_domain::{Ordinal, RunId, SessionId, SessionState};
use tokio::sync::Notify;

/// Most hints that wait for one run.
const MAX_HINTS: usize = 32;

/// What a run is told of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The session has just become this. Changes come in their order.
    Became(SessionState),
    /// The session was seen like this a while ago; it may have changed again.
    Seen(SessionState),
    /// Something happened that does not tell its meaning: look.
    Look,
}

/// Who listens, by session. Two runs may: one that is over, and the one that came after it.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<HashMap<SessionId, Vec<Place>>>);

/// A run, and where it is told things.
type Place = (RunId, Arc<Mailbox>);

/// What was told and not heard yet.
#[derive(Default)]
struct Mailbox {
    hints: Mutex<VecDeque<Hint>>,
    news: Notify,
    asked: Notify,
    recalled: Notify,
    /// How many envelopes the runtime has accepted in the session, as far as it told.
    accepted: AtomicI64,
    /// Up to which ordinal they are read.
    read: AtomicI64,
}

impl Listeners {
    /// Registers a run. It is told of what comes after this call.
    pub(crate) fn listen(self: &Arc<Self>, session: SessionId, run: RunId) -> Listener {
        let mailbox = Arc::<Mailbox>::default();
        let place = (run, Arc::clone(&mailbox));
        lock(&self.0).entry(session.clone()).or_default().push(place);
        Listener { listeners: Arc::clone(self), session, mailbox }
    }

    /// Tells the runs that follow `session`, if there are any.
    pub(crate) fn tell(&self, session: &SessionId, hint: Hint) {
        if let Some(places) = lock(&self.0).get(session) {
            places.iter().for_each(|(_, mailbox)| mailbox.tell(hint));
        }
    }

    /// Tells a run that something is in its inbox.
    pub(crate) fn nudge(&self, run: RunId) {
        self.of(run, |mailbox| mailbox.asked.notify_one());
    }

    /// Tells a run's task to leave it to others.
    pub(crate) fn recall(&self, run: RunId) {
        self.of(run, |mailbox| mailbox.recalled.notify_one());
    }

    fn of(&self, run: RunId, tell: impl Fn(&Mailbox)) {
        let lock = lock(&self.0);
        let places = lock.values().flatten().filter(|(listening, _)| *listening == run);
        places.for_each(|(_, mailbox)| tell(mailbox));
    }

    /// Whether a run here follows `session`.
    pub(crate) fn hears(&self, session: &SessionId) -> bool {
        lock(&self.0).contains_key(session)
    }

    /// The runtime says that it has accepted at least so many envelopes in `session`.
    pub(crate) fn accepted(&self, session: &SessionId, at_least: Ordinal) {
        if let Some(places) = lock(&self.0).get(session) {
            places.iter().for_each(|(_, mailbox)| mailbox.accepted(at_least));
        }
    }

    /// How many envelopes the run is behind that is furthest behind its session.
    pub(crate) fn furthest_behind(&self) -> Ordinal {
        let lock = lock(&self.0);
        let behind = lock.values().flatten().map(|(_, mailbox)| mailbox.behind());
        behind.max().unwrap_or_default()
    }

    /// Whether nobody listens.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

impl Mailbox {
    fn accepted(&self, at_least: Ordinal) {
        self.accepted.fetch_max(at_least, Relaxed);
    }

    fn behind(&self) -> Ordinal {
        (self.accepted.load(Relaxed) - self.read.load(Relaxed)).max(0)
    }

    fn tell(&self, hint: Hint) {
        let mut hints = lock(&self.hints);
        if hints.len() >= MAX_HINTS {
            hints.clear();
            hints.push_back(Hint::Look);
        } else if hints.back() != Some(&hint) {
            hints.push_back(hint);
        }
        drop(hints);
        self.news.notify_one();
    }
}

/// A run's place among the listeners; it leaves when dropped.
pub(crate) struct Listener {
    listeners: Arc<Listeners>,
    session: SessionId,
    mailbox: Arc<Mailbox>,
}

impl Listener {
    /// The next hint. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Hint {
        loop {
            let hint = lock(&self.mailbox.hints).pop_front();
            match hint {
                Some(hint) => return hint,
                None => self.mailbox.news.notified().await,
            }
        }
    }

    /// The runtime says that it has accepted at least so many envelopes.
    pub(crate) fn accepted(&self, at_least: Ordinal) {
        self.mailbox.accepted(at_least);
    }

    /// The session is read up to here.
    pub(crate) fn has_read(&self, cursor: Ordinal) {
        self.mailbox.read.store(cursor, Relaxed);
    }

    /// There is more in the inbox.
    pub(crate) fn ask_again(&self) {
        self.mailbox.asked.notify_one();
    }

    /// Waits until something may be in the inbox. Dropping the future loses nothing.
    pub(crate) async fn asked(&self) {
        self.mailbox.asked.notified().await;
    }

    /// Waits until the run is to be left to others. Dropping the future loses nothing.
    pub(crate) async fn recalled(&self) {
        self.mailbox.recalled.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut lock = lock(&self.listeners.0);
        if let Some(places) = lock.get_mut(&self.session) {
            places.retain(|(_, mailbox)| !Arc::ptr_eq(mailbox, &self.mailbox));
            if places.is_empty() {
                lock.remove(&self.session);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_listener_hears_of_its_session_until_it_leaves() {
        let listeners = Arc::new(Listeners::default());
        let session = SessionId::random();
        let listener = listeners.listen(session.clone(), RunId::random());

        listeners.tell(&session, Hint::Look);
        listeners.tell(&SessionId::random(), Hint::Became(SessionState::Resolved));

        assert_eq!(listener.next().now_or_never(), Some(Hint::Look));
        assert_eq!(listener.next().now_or_never(), None);
        drop(listener);
        assert!(listeners.is_empty());
    }

    #[tokio::test]
    async fn who_is_told_too_much_is_told_to_look() {
        let listeners = Arc::new(Listeners::default());
        let session = SessionId::random();
        let listener = listeners.listen(session.clone(), RunId::random());

        for _ in 0..MAX_HINTS {
            listeners.tell(&session, Hint::Became(SessionState::Suspended));
            listeners.tell(&session, Hint::Became(SessionState::Open));
        }

        let mut heard = Vec::new();
        while let Some(hint) = listener.next().now_or_never() {
            heard.push(hint);
        }
        assert_eq!(heard.first(), Some(&Hint::Look));
        assert!(heard.len() <= MAX_HINTS);
    }

    #[tokio::test]
    async fn the_run_that_is_furthest_behind_its_session_is_known() {
        let listeners = Arc::new(Listeners::default());
        let sessions = [SessionId::random(), SessionId::random()];
        let [near, far] =
            sessions.each_ref().map(|one| listeners.listen(one.clone(), RunId::random()));
        near.has_read(9);
        far.has_read(3);

        listeners.accepted(&sessions[0], 10);
        listeners.accepted(&sessions[1], 7);
        assert_eq!(listeners.furthest_behind(), 4);
        // An older answer that comes late takes nothing back.
        far.accepted(5);
        far.has_read(7);
        assert_eq!(listeners.furthest_behind(), 1);
        drop(near);
        assert_eq!(listeners.furthest_behind(), 0);
    }

    #[tokio::test]
    async fn two_runs_of_one_session_do_not_silence_each_other() {
        let listeners = Arc::new(Listeners::default());
        let session = SessionId::random();
        let run = RunId::random();
        let first = listeners.listen(session.clone(), run);
        let second = listeners.listen(session.clone(), run);

        drop(first);
        listeners.tell(&session, Hint::Look);
        listeners.nudge(run);

        assert_eq!(second.next().now_or_never(), Some(Hint::Look));
        assert!(second.asked().now_or_never().is_some());
    }
}
