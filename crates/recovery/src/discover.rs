//! Discovery: a run for each session that nobody registered.
//!
//! **Invariant:** finding a session says only that it is there. Whether it gets a run is decided by
//! the database's unique keys, however many find it and whoever posts it meanwhile; from then on its
//! run is like any other, and attaches as every run does.
//!
//! What is found waits here in a memory that is bounded. What does not fit into it is found again by
//! a sweep, which waits for room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control_plane_domain::session::SessionInfo;
use control_plane_domain::{RunId, SessionId};
use control_plane_storage::model::{Lease, NewRun};
use control_plane_storage::{Duty, Error};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;

use crate::engine::Context;
use crate::launch;
use crate::run::{Origin, pause, renew};

/// Most sessions of a kind that wait for a run.
const MAX_WAITING: usize = 10_000;
/// A sweep goes on when no more than this many wait.
const ROOM: usize = 1000;
/// Most sessions that are looked up in one query.
const LOOKED_UP: usize = 1000;
/// Most runs that are made in one transaction.
const MADE: usize = 250;
/// Most sessions that are over and being read at once: a runtime keeps an hour of them, and each
/// takes a stream for a moment.
const MAX_OVER: usize = 128;
/// As many of them at least are taken up together, so that their runs share transactions.
const OVER_STEP: usize = 32;

/// What was found and has not been taken up yet.
#[derive(Default)]
pub(crate) struct Discovery {
    on_duty: AtomicBool,
    waiting: Mutex<Waiting>,
    live_news: Notify,
    over_news: Notify,
    room: Notify,
    sweep: Notify,
}

#[derive(Default)]
struct Waiting {
    live: BTreeMap<SessionId, SessionInfo>,
    over: BTreeMap<SessionId, SessionInfo>,
    /// Something did not fit in.
    missed: bool,
}

impl Discovery {
    /// Takes note of a session that no run here follows. It waits for nothing.
    pub(crate) fn found(&self, info: SessionInfo) {
        // An empty id, or one that is longer than ids are, can be stored and asked for nowhere.
        let length = info.session_id.as_str().len();
        if !self.is_on_duty() || length == 0 || length > SessionId::MAX_BYTES {
            return;
        }
        let mut waiting = self.waiting();
        let Waiting { live, over, missed } = &mut *waiting;
        let (queue, other, news) = if info.state.is_over() {
            (over, live, &self.over_news)
        } else {
            (live, over, &self.live_news)
        };
        other.remove(&info.session_id);
        if queue.len() < MAX_WAITING {
            queue.insert(info.session_id.clone(), info);
        } else {
            *missed = true;
        }
        drop(waiting);
        news.notify_one();
    }

    /// Whether this instance makes the runs.
    pub(crate) fn is_on_duty(&self) -> bool {
        self.on_duty.load(Ordering::Acquire)
    }

    /// Has all sessions listed soon.
    pub(crate) fn ask_for_sweep(&self) {
        self.sweep.notify_one();
    }

    /// Waits until a sweep is asked for. Dropping the future loses nothing.
    pub(crate) async fn sweep_asked(&self) {
        self.sweep.notified().await;
    }

    /// Waits until a sweep may find more.
    pub(crate) async fn has_room(&self) {
        loop {
            {
                let waiting = self.waiting();
                if waiting.live.len() <= ROOM && waiting.over.len() <= ROOM {
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// Takes up sessions of one kind. When there are no more and some did not fit in, all are
    /// listed again.
    fn take(&self, which: fn(&mut Waiting) -> &mut BTreeMap<SessionId, SessionInfo>) -> Found {
        let mut waiting = self.waiting();
        let queue = which(&mut waiting);
        let mut found = Vec::new();
        while found.len() < LOOKED_UP
            && let Some((_, info)) = queue.pop_first()
        {
            found.push(info);
        }
        if queue.is_empty() && std::mem::take(&mut waiting.missed) {
            self.ask_for_sweep();
        }
        drop(waiting);
        self.room.notify_one();
        found
    }

    /// Begins or ends to make the runs. Whoever begins has missed what others were told.
    fn set_duty(&self, held: bool) {
        let before = self.on_duty.swap(held, Ordering::AcqRel);
        if held && !before {
            tracing::info!("This instance looks for sessions that nobody registered");
            self.ask_for_sweep();
        }
        if before && !held {
            *self.waiting() = Waiting::default();
            self.room.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Found = Vec<SessionInfo>;

/// Keeps the duty, and makes runs of the sessions that are not over, until the engine stops.
pub(crate) async fn live(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.claim);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => keep_duty(&context).await,
            () = context.discovery.live_news.notified() => {}
            () = context.stop.cancelled() => return,
        }
        loop {
            let found = context.discovery.take(|waiting| &mut waiting.live);
            if found.is_empty() {
                break;
            }
            for some in chunks(unknown(&context, found).await, MADE) {
                make(&context, some, None).await;
            }
            if context.stop.is_cancelled() {
                return;
            }
        }
    }
}

/// Makes runs of the sessions that are over, a few at a time, until the engine stops.
pub(crate) async fn over(context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(MAX_OVER));
    loop {
        tokio::select! {
            () = context.discovery.over_news.notified() => {}
            () = context.stop.cancelled() => return,
        }
        loop {
            let found = context.discovery.take(|waiting| &mut waiting.over);
            if found.is_empty() {
                break;
            }
            for some in chunks(unknown(&context, found).await, OVER_STEP) {
                let count = u32::try_from(some.len()).unwrap_or(u32::MAX);
                let free = Arc::clone(&places).acquire_many_owned(count);
                let held = tokio::select! {
                    held = free => held,
                    () = context.stop.cancelled() => return,
                };
                // The semaphore is never closed.
                let Ok(held) = held else { return };
                make(&context, some, Some(held)).await;
            }
            if context.stop.is_cancelled() {
                return;
            }
        }
    }
}

async fn keep_duty(context: &Context) {
    let held = context.store.duty_hold(Duty::Discovery).await;
    if let Err(fault) = &held {
        tracing::debug!(error = %fault, "Could not ask for the duty of discovery");
    }
    context.discovery.set_duty(held.unwrap_or(false));
}

fn chunks(items: Vec<NewRun>, size: usize) -> impl Iterator<Item = Vec<NewRun>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let some: Vec<NewRun> = items.by_ref().take(size).collect();
        (!some.is_empty()).then_some(some)
    })
}

/// The runs of those among `found` that have none. A database that is away is waited for; nothing,
/// when the engine stops.
async fn unknown(context: &Context, found: Found) -> Vec<NewRun> {
    let ids: Vec<SessionId> = found.iter().map(|info| info.session_id.clone()).collect();
    let known = loop {
        match context.store.sessions_known(&ids).await {
            Ok(known) => break known,
            Err(fault) => {
                tracing::warn!(error = %fault, "Could not look sessions up yet");
                if pause(context, context.config.claim).await.is_err() {
                    return Vec::new();
                }
            }
        }
    };
    let now = context.clock.now();
    let is_free = |info: &SessionInfo| {
        launch::run_id(&info.session_id).is_none_or(|id| !known.ids.contains(&id))
    };
    found
        .iter()
        .filter(|info| !known.runs.contains_key(&info.session_id))
        .filter(|info| !known.deleted.contains(&info.session_id))
        .filter(|info| !known.imported.contains(&info.session_id))
        .map(|info| launch::discovered(info, is_free(info), context.new_trace(None), now))
        .collect()
}

/// Records runs and follows them; each keeps one of the places that are `held`, to its end.
async fn make(context: &Arc<Context>, new: Vec<NewRun>, held: Option<OwnedSemaphorePermit>) {
    let mut held = held;
    let mut batches = vec![new];
    while let Some(batch) = batches.pop() {
        match context.store.runs_discover(batch.clone()).await {
            Ok(leases) => {
                let count = u64::try_from(leases.len()).unwrap_or_default();
                metrics::counter!("macp_discovered_sessions_total").increment(count);
                for lease in leases {
                    let place = held.as_mut().and_then(|held| held.split(1));
                    Arc::clone(context).follow_with(lease, Origin::Launched, place);
                }
            }
            Err(fault) if fault.is_transient() => {
                tracing::warn!(error = %fault, "Could not record the sessions that were found yet");
                settle(context, batch.iter().map(|new| new.run.id).collect()).await;
                // Those that were not recorded are found again.
                context.discovery.ask_for_sweep();
            }
            // One of them cannot be recorded; the others must not suffer.
            Err(fault) => match <[NewRun; 1]>::try_from(batch) {
                Ok([refused]) => refuse(&refused, &fault),
                Err(several) => batches.extend(several.into_iter().map(|one| vec![one])),
            },
        }
    }
}

fn refuse(new: &NewRun, fault: &Error) {
    tracing::error!(
        session.id = %new.session.session_id, error = %fault,
        "Session {} cannot be recorded", new.session.session_id
    );
    metrics::counter!("macp_discovery_refused_total").increment(1);
}

/// Follows those runs of which nobody knows whether they were recorded, if they were, and by us.
async fn settle(context: &Arc<Context>, ids: Vec<RunId>) {
    if pause(context, context.config.claim).await.is_err() {
        return;
    }
    for run_id in ids {
        // Nobody else has the first epoch of a run that we own and do not follow.
        if let Some(lease) = renew(context, Lease { run_id, epoch: 1 }).await {
            Arc::clone(context).follow(lease, Origin::Launched);
        }
        if context.stop.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use control_plane_domain::SessionState;
    use futures_util::FutureExt;

    use super::*;

    fn info(number: usize, state: SessionState) -> SessionInfo {
        SessionInfo {
            session_id: SessionId::trusted(format!("session-{number:032}")),
            state,
            mode: "m".to_owned(),
            mode_version: String::new(),
            configuration_version: String::new(),
            policy_version: String::new(),
            initiator: String::new(),
            participants: Vec::new(),
            context_id: None,
            extension_keys: Vec::new(),
            started_at_unix_ms: 1,
            expires_at_unix_ms: 2,
            activity: Vec::new(),
        }
    }

    fn on_duty() -> Discovery {
        let discovery = Discovery::default();
        discovery.set_duty(true);
        discovery.sweep_asked().now_or_never().unwrap();
        discovery
    }

    #[test]
    fn nothing_waits_for_an_instance_that_is_not_on_duty() {
        let discovery = Discovery::default();
        discovery.found(info(1, SessionState::Open));
        assert!(discovery.take(|waiting| &mut waiting.live).is_empty());

        discovery.set_duty(true);
        assert!(discovery.sweep_asked().now_or_never().is_some());
        discovery.found(info(1, SessionState::Open));
        discovery.set_duty(false);
        assert!(discovery.take(|waiting| &mut waiting.live).is_empty());
    }

    #[test]
    fn a_session_waits_once_as_what_it_became_last() {
        let discovery = on_duty();
        for state in [SessionState::Open, SessionState::Suspended, SessionState::Cancelled] {
            discovery.found(info(1, state));
        }

        assert!(discovery.take(|waiting| &mut waiting.live).is_empty());
        let over = discovery.take(|waiting| &mut waiting.over);
        assert_eq!(over, [info(1, SessionState::Cancelled)]);
    }

    #[test]
    fn ids_that_cannot_be_kept_are_left_alone() {
        let discovery = on_duty();
        for id in [String::new(), "x".repeat(129)] {
            let info =
                SessionInfo { session_id: SessionId::trusted(id), ..info(1, SessionState::Open) };
            discovery.found(info);
        }
        assert!(discovery.take(|waiting| &mut waiting.live).is_empty());
    }

    #[tokio::test]
    async fn what_does_not_fit_in_is_listed_again_and_a_sweep_waits_for_room() {
        let discovery = on_duty();
        for number in 0..=MAX_WAITING {
            discovery.found(info(number, SessionState::Open));
        }
        assert!(discovery.has_room().now_or_never().is_none());
        assert!(discovery.sweep_asked().now_or_never().is_none());

        let mut taken = 0;
        while let found @ 1.. = discovery.take(|waiting| &mut waiting.live).len() {
            taken += found;
        }

        assert_eq!(taken, MAX_WAITING);
        assert!(discovery.has_room().now_or_never().is_some());
        assert!(discovery.sweep_asked().now_or_never().is_some());
    }
}
