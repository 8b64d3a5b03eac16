//! The engine: launches runs, recovers them, and supervises the task of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_plane_domain::runtime::Runtime;
use control_plane_domain::{Clock, RunDescriptor, RunId, RunState, SessionId};
use control_plane_storage::Store;
use control_plane_storage::model::{Created, Lease};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::committer::Committer;
use crate::config::Config;
use crate::launch::{self, LaunchError, Launched};
use crate::modes::ModeCheck;
use crate::run::{self, Origin};
use crate::watch::{self, Listeners};

/// What every task of the engine shares.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) stop: CancellationToken,
    pub(crate) committer: Committer,
    pub(crate) backoff: Backoff,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) modes: ModeCheck,
    tasks: TaskTracker,
    /// The runs that have a task here, each with the lease it was started under.
    following: Mutex<HashMap<RunId, Lease>>,
}

/// Launches and follows runs. Cloning it is cheap.
#[derive(Clone)]
pub struct Engine(Arc<Context>);

impl Engine {
    /// Starts the engine: it watches the runtime's sessions and attaches every run that is not
    /// over and that nobody living follows. It ends when `stop` is canceled; what it spawns is in
    /// `tasks`.
    pub fn start(
        store: Store,
        runtime: Arc<dyn Runtime>,
        clock: Arc<dyn Clock>,
        config: Config,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let context = Arc::new(Context {
            committer: Committer::start(&store, &tasks),
            backoff: Backoff::new(config.backoff_base, config.backoff_max),
            listeners: Arc::default(),
            modes: ModeCheck::default(),
            following: Mutex::default(),
            store,
            runtime,
            clock,
            config,
            stop,
            tasks,
        });
        context.tasks.spawn(watch::watch(Arc::clone(&context)));
        context.tasks.spawn(claim(Arc::clone(&context)));
        Self(context)
    }

    /// The runtime that is observed.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.0.runtime
    }

    /// How many runs are followed here.
    pub fn following(&self) -> usize {
        self.0.following().len()
    }

    /// Records a run and starts attaching it. The session need not exist yet.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing was recorded then.
    pub async fn launch(&self, descriptor: RunDescriptor) -> Result<Launched, LaunchError> {
        if self.0.stop.is_cancelled() {
            return Err(LaunchError::Draining);
        }
        let new = launch::new_run(&descriptor, self.0.clock.now());
        let session_id = new.session.session_id.clone();
        let run_id = new.run.id;
        let trace_id = new.run.trace_id.clone();
        match self.0.store.run_create(new).await? {
            Created::New(lease) => {
                Arc::clone(&self.0).follow(lease, Origin::Launched);
                Ok(Launched {
                    run_id,
                    session_id,
                    state: RunState::Queued,
                    trace_id,
                    created: true,
                })
            }
            Created::Existing(run) => {
                let session = self.0.store.session_get(run.id).await?;
                Ok(Launched {
                    run_id: run.id,
                    session_id: session.map_or(session_id, |session| session.session_id),
                    state: run.state,
                    trace_id: run.trace_id,
                    created: false,
                })
            }
        }
    }

    /// Asks something of a run through its inbox, and waits until it is done.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        run_id: RunId,
        kind: &'static str,
        dedup_key: String,
        payload: serde_json::Value,
    ) -> Result<(), AskError> {
        let context = &self.0;
        let run = context.store.run_get(run_id).await?;
        let mut follower = context.store.follow(run_id, run.last_seq);
        let now = context.clock.now();
        context.store.inbox_push(run_id, kind, dedup_key.clone(), payload, now).await?;
        if run.state.is_terminal() {
            let lease = context.store.run_take(run_id).await?;
            Arc::clone(context).follow(lease, Origin::Inbox);
        } else {
            context.listeners.nudge(run_id);
        }
        let done = async {
            loop {
                let items = context.store.inbox_list(run_id).await?;
                if !items.iter().any(|item| item.kind == kind && item.dedup_key == dedup_key) {
                    return Ok(());
                }
                follower.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), done).await.map_err(|_late| AskError::Late)?
    }
}

/// Why something asked of a run was not seen to be done.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Storage(#[from] control_plane_storage::Error),
    /// It stays in the inbox and is done when the run's owner gets to it.
    #[error("the run's owner has not answered yet")]
    Late,
}

impl Context {
    fn following(&self) -> MutexGuard<'_, HashMap<RunId, Lease>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a run.
    pub(crate) fn follow(self: Arc<Self>, lease: Lease, origin: Origin) {
        self.following().insert(lease.run_id, lease);
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            // Named so that a panic, which only a bug of ours can cause, ends this run's task and
            // no other; the claim below starts it again.
            let task = tokio::spawn(run::supervise(Arc::clone(&self), lease, origin));
            if let Err(fault) = task.await {
                tracing::error!(run.id = %lease.run_id, error = %fault, "The run's task ended by itself");
            }
            let mut following = self.following();
            if following.get(&lease.run_id) == Some(&lease) {
                following.remove(&lease.run_id);
            }
            metrics::gauge!("macp_attached_runs").set(u32::try_from(following.len()).unwrap_or(u32::MAX));
        });
    }

    /// The session's listeners key of a run.
    pub(crate) fn listen(&self, session: &SessionId, run: RunId) -> watch::Listener {
        self.listeners.listen(session.clone(), run)
    }
}

/// Keeps this process alive in the database's eyes, and takes the runs of those that are not.
async fn claim(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.claim);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.stop.cancelled() => return,
        }
        if let Err(fault) = claim_once(&context).await {
            tracing::warn!(error = %fault, "Could not look for runs without an owner");
        }
    }
}

async fn claim_once(context: &Arc<Context>) -> Result<(), control_plane_storage::Error> {
    context.store.instance_hold().await?;
    if !context.config.recovery_enabled {
        return Ok(());
    }
    let leases = context.store.runs_claim().await?;
    if !leases.is_empty() {
        tracing::info!(recovery.runs = leases.len(), "Attaching {} runs again", leases.len());
    }
    for lease in leases {
        metrics::counter!("macp_recovery_total", "status" => "claimed").increment(1);
        Arc::clone(context).follow(lease, Origin::Recovered);
    }
    Ok(())
}
