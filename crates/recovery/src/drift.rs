//! Drift: the runtime's sessions held against our runs.
//!
//! **Invariant:** what could not be looked at is not taken for absent. A comparison that is not
//! complete says so, and names nothing as missing.

use std::collections::HashMap;
use std::time::Duration;

use control_plane_domain::runtime::{Runtime, RuntimeError};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{RunId, RunState, SessionId, SessionState};
use control_plane_storage::{ActiveSession, Error, Store};
use tokio::time::Instant;

/// Most pages that are asked for: a hundred thousand sessions.
const MAX_PAGES: u32 = 100;
/// Most active runs that are compared.
const MAX_RUNS: usize = 100_000;
const RUN_PAGE: i64 = 5000;
/// How long listing may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most entries of each list.
const MAX_LISTED: usize = 1000;

/// What differs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Drift {
    /// Why not everything was looked at.
    pub incomplete: Option<String>,
    pub pages: u32,
    pub sessions: usize,
    /// Those that are not over.
    pub live_sessions: usize,
    /// Runs that are not over.
    pub active_runs: usize,
    /// Those of them that wait for their session to start.
    pub waiting_runs: usize,
    /// Sessions that are not over and have no run.
    pub untracked: Listed<Untracked>,
    /// Runs that follow a session which the runtime does not list.
    pub missing: Listed<Missing>,
    /// Runs and sessions that both exist and disagree about what they are.
    pub state: Listed<StateDrift>,
}

/// A list that is cut, and how long it would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    pub total: usize,
}

/// A session without a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Untracked {
    pub session: SessionInfo,
    /// Its run was deleted, so discovery leaves it alone.
    pub deleted: bool,
}

/// A run without a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub run_id: RunId,
    pub session_id: SessionId,
    pub state: RunState,
}

/// A run that is something else than its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDrift {
    pub run_id: RunId,
    pub session_id: SessionId,
    pub run_state: RunState,
    pub session_state: SessionState,
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    #[error(transparent)]
    Storage(#[from] Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { items: Vec::new(), total: 0 }
    }
}

impl<T> Listed<T> {
    fn push(&mut self, item: T) {
        self.total += 1;
        if self.items.len() < MAX_LISTED {
            self.items.push(item);
        }
    }
}

/// Looks. Runs are read first and sessions then: a session that has started since is looked up, and
/// a run that seems to have lost its session is read again.
pub(crate) async fn look(store: &Store, runtime: &dyn Runtime) -> Result<Drift, DriftError> {
    let mut drift = Drift::default();
    let mut active = active_runs(store, &mut drift).await?;
    let deadline = Instant::now() + PATIENCE;
    let mut token: Option<String> = None;
    loop {
        let page = match page(runtime, token.as_deref(), deadline).await {
            Ok(page) => page,
            // Without the first page there is nothing to tell.
            Err(fault) if drift.pages == 0 => return Err(fault.into()),
            Err(fault) => {
                drift.incomplete = Some(format!("the runtime did not list them all: {fault}"));
                break;
            }
        };
        drift.pages += 1;
        compare(store, page.sessions, &mut active, &mut drift).await?;
        match page.next_page_token {
            None => break,
            Some(_) if drift.pages >= MAX_PAGES => {
                drift.incomplete = Some(format!("there are more than {} sessions", drift.sessions));
                break;
            }
            Some(next) => token = Some(next),
        }
    }
    if drift.incomplete.is_none() {
        note_missing(store, active, &mut drift).await?;
    }
    Ok(drift)
}

async fn page(
    runtime: &dyn Runtime,
    token: Option<&str>,
    deadline: Instant,
) -> Result<control_plane_domain::runtime::SessionPage, RuntimeError> {
    let listing = tokio::time::timeout_at(deadline, runtime.list_sessions(token));
    listing.await.unwrap_or_else(|_late| {
        Err(RuntimeError {
            // Clients know this answer as one to come back for.
            kind: control_plane_domain::runtime::RuntimeErrorKind::Unavailable,
            grpc_code: 14,
            message: format!("listing the sessions took longer than {} s", PATIENCE.as_secs()),
        })
    })
}

type Active = HashMap<SessionId, ActiveSession>;

async fn active_runs(store: &Store, drift: &mut Drift) -> Result<Active, Error> {
    let mut active = HashMap::new();
    let mut after = None;
    loop {
        let some = store.active_sessions(after, RUN_PAGE).await?;
        let is_last = i64::try_from(some.len()).unwrap_or(i64::MAX) < RUN_PAGE;
        after = some.last().map(|run| run.run_id);
        for run in some {
            drift.active_runs += 1;
            drift.waiting_runs += usize::from(!run.bound);
            active.insert(run.session_id.clone(), run);
        }
        if is_last {
            return Ok(active);
        }
        if drift.active_runs >= MAX_RUNS {
            drift.incomplete = Some(format!("there are more than {} runs", drift.active_runs));
            return Ok(active);
        }
    }
}

/// Holds a page of sessions against the runs, and takes out of `active` those that it explains.
async fn compare(
    store: &Store,
    sessions: Vec<SessionInfo>,
    active: &mut Active,
    drift: &mut Drift,
) -> Result<(), Error> {
    let mut others = Vec::new();
    for session in sessions {
        drift.sessions += 1;
        let live = !session.state.is_over();
        drift.live_sessions += usize::from(live);
        match active.remove(&session.session_id) {
            Some(run) => {
                // A run that is being attached has not caught up yet.
                let bound = run.bound && run.state != RunState::BindingSession;
                if bound && !agree(run.state, session.state) {
                    note_state(drift, run.run_id, run.state, session);
                }
            }
            None if live => others.push(session),
            None => {}
        }
    }
    let ids: Vec<SessionId> = others.iter().map(|session| session.session_id.clone()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let known = store.sessions_known(&ids).await?;
    for session in others {
        match known.runs.get(&session.session_id) {
            None => {
                let deleted = known.deleted.contains(&session.session_id);
                drift.untracked.push(Untracked { session, deleted });
            }
            Some((run_id, state)) if state.is_terminal() => {
                note_state(drift, *run_id, *state, session);
            }
            // It has come since the runs were read.
            Some(_active) => {}
        }
    }
    Ok(())
}

fn note_state(drift: &mut Drift, run_id: RunId, run_state: RunState, session: SessionInfo) {
    let SessionInfo { session_id, state: session_state, .. } = session;
    drift.state.push(StateDrift { run_id, session_id, run_state, session_state });
}

/// Whether a run may be in this state while its session is in that one.
fn agree(run: RunState, session: SessionState) -> bool {
    match session {
        SessionState::Open => run == RunState::Running,
        SessionState::Suspended => run == RunState::Suspended,
        SessionState::Resolved => run == RunState::Completed,
        SessionState::Expired => run == RunState::Failed,
        SessionState::Cancelled => run == RunState::Cancelled,
        SessionState::Unspecified => true,
    }
}

/// The runs that no session explains, unless they have ended since.
async fn note_missing(store: &Store, active: Active, drift: &mut Drift) -> Result<(), Error> {
    let mut left: Vec<ActiveSession> = active.into_values().filter(|run| run.bound).collect();
    left.sort_by_key(|run| run.run_id);
    for run in left {
        match store.run_head(run.run_id).await {
            Ok(head) if head.state.is_terminal() => {}
            Ok(head) => drift.missing.push(Missing {
                run_id: run.run_id,
                session_id: run.session_id,
                state: head.state,
            }),
            Err(Error::NotFound { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_and_its_session_agree_or_do_not() {
        use RunState as Run;
        use SessionState as Session;
        for (run, session, agreed) in [
            (Run::Running, Session::Open, true),
            (Run::Suspended, Session::Suspended, true),
            (Run::Running, Session::Unspecified, true),
            (Run::Running, Session::Suspended, false),
            (Run::Suspended, Session::Open, false),
            (Run::Running, Session::Resolved, false),
            (Run::Failed, Session::Open, false),
        ] {
            assert_eq!(agree(run, session), agreed, "{run} {session}");
        }
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mut listed = Listed::default();
        for number in 0..MAX_LISTED + 5 {
            listed.push(number);
        }
        assert_eq!((listed.items.len(), listed.total), (MAX_LISTED, MAX_LISTED + 5));
    }
}
