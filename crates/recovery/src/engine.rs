//! The engine: launches runs, recovers them, and supervises the task of each.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control_plane_domain::runtime::Runtime;
use control_plane_domain::{Clock, RunDescriptor, RunId, RunState, RunTrace, SessionId};
use control_plane_storage::model::{Lease, NewRun};
use control_plane_storage::{Error, Store};
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adopt::{self, ADOPTION, Recorded};
use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::committer::Committer;
use crate::config::Config;
use crate::discover::{self, Discovery};
use crate::drift::{self, Drift};
use crate::launch::{self, LaunchError, Launched};
use crate::listeners::{Listener, Listeners};
use crate::loader::Loader;
use crate::modes::ModeCheck;
use crate::receipts::{self, Receipts};
use crate::run::{self, Origin};
use crate::signals::Ear;
use crate::{catch_up, claim, signals, traces, watch};

/// How often a run's task may panic before the run is parked.
const MAX_PANICS: u32 = 3;
/// How many runs are loaded at once; the pool of connections is larger by default.
const MAX_READERS: usize = 8;
/// How long somebody who asks something of a run waits for it to be done.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// What every task of the engine shares.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) stop: CancellationToken,
    pub(crate) committer: Committer,
    pub(crate) loader: Loader,
    pub(crate) backoff: Backoff,
    pub(crate) budget: Arc<Budget>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) modes: ModeCheck,
    /// Runs may wait for an owner.
    pub(crate) look: Notify,
    /// A run is over, and that is committed.
    pub(crate) ended: Arc<Notify>,
    pub(crate) tasks: TaskTracker,
    pub(crate) ear: Ear,
    pub(crate) discovery: Discovery,
    pub(crate) receipts: Receipts,
    /// Who may read a run or its inbox now. Thousands of runs that begin together would otherwise
    /// take every connection, and time out waiting for theirs.
    pub(crate) readers: Arc<Semaphore>,
    /// The engine stops, and no run has a task any more.
    pub(crate) drained: CancellationToken,
    /// Whether runs without an owner were looked for already.
    pub(crate) claimed: AtomicBool,
    /// The runs that have a task here.
    following: Mutex<HashMap<RunId, Followed>>,
}

/// A run that has a task here.
pub(crate) struct Followed {
    /// The newest lease.
    lease: Lease,
    /// For a moment there may be two: the older one learns that it is fenced off.
    tasks: usize,
    /// It was told to leave the run to others.
    recalled: bool,
}

/// Launches and follows runs. Cloning it is cheap.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Context>);

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
        let drained = CancellationToken::new();
        let ended = Arc::<Notify>::default();
        let context = Arc::new(Context {
            committer: Committer::start(&store, &clock, &ended, &tasks, &drained),
            loader: Loader::start(&store, &tasks, &stop),
            backoff: Backoff::new(config.backoff_base, config.backoff_max),
            budget: Arc::default(),
            listeners: Arc::default(),
            modes: ModeCheck::default(),
            ear: Ear::default(),
            discovery: Discovery::default(),
            receipts: Receipts::default(),
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            claimed: AtomicBool::new(false),
            following: Mutex::default(),
            look: Notify::new(),
            ended,
            store,
            runtime,
            clock,
            config,
            stop,
            tasks,
            drained,
        });
        context.tasks.spawn(watch::watch(Arc::clone(&context)));
        context.tasks.spawn(watch::sweep(Arc::clone(&context)));
        context.tasks.spawn(signals::watch(Arc::clone(&context)));
        if context.config.discovery_enabled {
            context.tasks.spawn(discover::live(Arc::clone(&context)));
            context.tasks.spawn(discover::over(Arc::clone(&context)));
        }
        context.tasks.spawn(catch_up::catch_up(Arc::clone(&context)));
        if context.config.receipts_enabled {
            context.tasks.spawn(receipts::fetch(Arc::clone(&context)));
        }
        let claiming = claim::start(&context);
        if let Some(tracer) = context.config.tracer.clone() {
            context.tasks.spawn(traces::tell(Arc::clone(&context), tracer));
        }
        let last = Arc::clone(&context);
        context.tasks.spawn(async move {
            last.stop.cancelled().await;
            last.drain(&last.following());
            last.drained.cancelled().await;
            // Whoever hears that runs are free while we are still counted leaves us a share of them.
            // If it panicked, we leave all the same.
            let _ = claiming.await;
            // Nobody has to wait for us to be seen to be gone.
            match last.store.runs_release().await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(recovery.runs = count, "Left {count} runs to others");
                }
                Err(fault) => tracing::warn!(error = %fault, "Could not leave the runs to others"),
            }
        });
        Self(context)
    }

    /// The runtime that is observed.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.0.runtime
    }

    /// Sets the figures that are looked up rather than counted: how far the run that is furthest
    /// behind is behind.
    pub fn record_figures(&self) {
        let behind = u32::try_from(self.0.listeners.furthest_behind()).unwrap_or(u32::MAX);
        metrics::gauge!("macp_lag_ordinals").set(behind);
        let now = self.0.clock.now();
        metrics::gauge!("macp_lag_seconds").set(self.0.committer.lag().longest(now));
    }

    /// How many runs are followed here.
    pub fn following(&self) -> usize {
        self.0.following().len()
    }

    /// How the runtime's sessions and our runs differ.
    ///
    /// # Errors
    /// [`drift::DriftError`] when there is nothing to compare.
    pub async fn drift(&self) -> Result<Drift, drift::DriftError> {
        drift::look(&self.0.store, &*self.0.runtime).await
    }

    /// Records a run and starts attaching it. The session need not exist yet; where discovery was
    /// faster, its run becomes the caller's.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing was recorded then.
    pub async fn launch(&self, descriptor: RunDescriptor) -> Result<Launched, LaunchError> {
        self.launch_within(descriptor, None).await
    }

    /// The same, with the trace that the run gets if it is new.
    pub(crate) async fn launch_as(
        &self,
        descriptor: RunDescriptor,
        trace: Option<RunTrace>,
    ) -> Result<Launched, LaunchError> {
        if self.0.stop.is_cancelled() {
            return Err(LaunchError::Draining);
        }
        let new = launch::new_run(&descriptor, trace, self.0.clock.now());
        let session_id = new.session.session_id.clone();
        let run_id = new.run.id;
        let trace_id = new.run.trace_id.clone();
        // In a task of its own: the caller may go away, and then nobody would follow the run.
        let context = Arc::clone(&self.0);
        let creating = self.0.tasks.spawn(async move { create(context, new).await });
        let created = creating.await.map_err(|_ended| LaunchError::Draining)??;
        match created {
            Recorded::New(_lease) => Ok(Launched {
                run_id,
                session_id,
                state: RunState::Queued,
                trace_id,
                created: true,
            }),
            Recorded::Adopted(run_id) => {
                // It is the caller's, whether or not its owner has got to it yet.
                match self.carried_out(run_id, ADOPTION, ADOPTION).await {
                    Ok(()) | Err(AskError::Late) => {}
                    Err(AskError::Storage(fault)) => {
                        tracing::warn!(run.id = %run_id, error = %fault, "Could not see an adoption through");
                    }
                }
                let run = self.0.store.run_get(run_id).await?;
                let (state, trace_id) = (run.state, run.trace_id);
                Ok(Launched { run_id, session_id, state, trace_id, created: true })
            }
            Recorded::Existing(run) => {
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
        context.store.run_head(run_id).await?;
        let now = context.clock.now();
        context.store.inbox_push(run_id, kind, dedup_key.clone(), payload, now).await?;
        self.carried_out(run_id, kind, &dedup_key).await
    }

    /// Waits until what is in a run's inbox is done.
    async fn carried_out(
        &self,
        run_id: RunId,
        kind: &'static str,
        dedup_key: &str,
    ) -> Result<(), AskError> {
        let context = &self.0;
        let run = context.store.run_get(run_id).await?;
        let mut follower = context.store.follow(run_id, run.last_seq);
        let done = async {
            loop {
                if !context.store.inbox_has(run_id, kind, dedup_key).await? {
                    return Ok(());
                }
                context.serve_inbox(run_id).await?;
                follower.changed().await;
            }
        };
        tokio::time::timeout(ASK_PATIENCE, done).await.map_err(|_late| AskError::Late)?
    }
}

/// Why something asked of a run was not seen to be done.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Storage(#[from] Error),
    /// It stays in the inbox and is done when the run's owner gets to it.
    #[error("the run's owner has not answered yet")]
    Late,
}

impl Context {
    pub(crate) fn following(&self) -> MutexGuard<'_, HashMap<RunId, Followed>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a run.
    pub(crate) fn follow(self: Arc<Self>, lease: Lease, origin: Origin) {
        self.follow_with(lease, origin, ());
    }

    /// The same; `held` is kept as long as the task.
    pub(crate) fn follow_with<T: Send + 'static>(
        self: Arc<Self>,
        lease: Lease,
        origin: Origin,
        held: T,
    ) {
        {
            let mut following = self.following();
            let new = Followed { lease, tasks: 0, recalled: false };
            let place = following.entry(lease.run_id).or_insert(new);
            place.tasks += 1;
            place.recalled = false;
            gauge(following.len());
        }
        self.renewed(lease);
        self.ear.look();
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            self.guard(lease.run_id, lease, origin).await;
            drop(held);
        });
    }

    /// Tells at most `at_most` of the runs' tasks to commit what they have and to leave their runs
    /// to others; how many were told.
    pub(crate) fn recall(&self, which: impl Fn(&RunId) -> bool, at_most: usize) -> usize {
        let mut following = self.following();
        let told = following.iter_mut().filter(|(id, place)| !place.recalled && which(id));
        let mut count = 0;
        for (id, place) in told.take(at_most) {
            place.recalled = true;
            self.listeners.recall(*id);
            count += 1;
        }
        count
    }

    /// Whether the task of a run was told to leave it to others.
    pub(crate) fn is_recalled(&self, id: RunId) -> bool {
        self.following().get(&id).is_some_and(|place| place.recalled)
    }

    /// The run is followed under this lease now.
    pub(crate) fn renewed(&self, lease: Lease) {
        if let Some(place) = self.following().get_mut(&lease.run_id) {
            place.lease.epoch = place.lease.epoch.max(lease.epoch);
        }
    }

    /// Runs the task of a run. A panic, which only a bug of ours can cause, ends this task and no
    /// other; it is started again, and parked when that does not help.
    async fn guard(self: Arc<Self>, id: RunId, lease: Lease, origin: Origin) {
        let (mut lease, mut panics) = (lease, 0);
        loop {
            // What a panic leaves behind is in the task, which is dropped.
            let task = AssertUnwindSafe(run::supervise(Arc::clone(&self), lease, origin));
            let Err(panic) = task.catch_unwind().await else { break };
            let fault = words(&*panic);
            tracing::error!(run.id = %id, error = fault, "The task of run {id} ended by itself");
            metrics::counter!("macp_run_panics_total").increment(1);
            lease = self.following().get(&id).map_or(lease, |place| place.lease);
            panics += 1;
            if panics >= MAX_PANICS {
                run::park(&self, lease, format!("its task ended by itself: {fault}")).await;
                break;
            }
            let wait = self.config.backoff_base * panics;
            if run::pause(&self, wait).await.is_err() {
                break;
            }
            match run::renew(&self, lease).await {
                Some(renewed) => lease = renewed,
                None => break,
            }
            self.renewed(lease);
        }
        {
            let mut following = self.following();
            if let Some(place) = following.get_mut(&id) {
                place.tasks -= 1;
                if place.tasks == 0 {
                    following.remove(&id);
                    self.committer.lag().forget(id);
                }
            }
            gauge(following.len());
            self.drain(&following);
        }
        // Who asked while the task was ending took it for one that still listens.
        if !self.stop.is_cancelled()
            && let Ok(page) = self.store.inbox_page(id, &[], 1).await
            && !page.items.is_empty()
            && let Err(fault) = self.serve_inbox(id).await
        {
            tracing::debug!(run.id = %id, error = %fault, "The inbox is looked at again later");
        }
    }

    /// Lets the writers go when nobody needs them any more.
    fn drain(&self, following: &HashMap<RunId, Followed>) {
        if self.stop.is_cancelled() && following.is_empty() {
            self.drained.cancel();
        }
    }

    /// Sees to it that somebody here carries out what is in the inbox of a run: its task, or, when
    /// it is over and has none, a task for the moment. Elsewhere, its owner looks by itself.
    pub(crate) async fn serve_inbox(self: &Arc<Self>, id: RunId) -> Result<(), Error> {
        if self.following().contains_key(&id) {
            self.listeners.nudge(id);
            return Ok(());
        }
        let run = self.store.run_get(id).await?;
        if run.state.is_terminal() && run.parked_reason.is_none() && run.imported_at.is_none() {
            let lease = self.store.run_take(id).await?;
            Arc::clone(self).follow(lease, Origin::Inbox);
        }
        Ok(())
    }

    /// The session's listeners key of a run.
    pub(crate) fn listen(&self, session: &SessionId, run: RunId) -> Listener {
        self.listeners.listen(session.clone(), run)
    }
}

/// Records a run and starts its task.
async fn create(context: Arc<Context>, new: NewRun) -> Result<Recorded, LaunchError> {
    let id = new.run.id;
    let recorded = adopt::record(&context, new).await;
    match &recorded {
        Ok(Recorded::New(lease)) => Arc::clone(&context).follow(*lease, Origin::Launched),
        Ok(Recorded::Existing(_) | Recorded::Adopted(_)) => {}
        Err(LaunchError::Storage(fault)) if fault.is_transient() => {
            let tasks = context.tasks.clone();
            tasks.spawn(async move { follow_if_there(&context, id).await });
        }
        Err(_refused) => {}
    }
    recorded
}

/// Follows a run whose record was under way when the database went away, if it is there.
async fn follow_if_there(context: &Arc<Context>, id: RunId) {
    loop {
        match context.store.run_take(id).await {
            Ok(lease) => return Arc::clone(context).follow(lease, Origin::Launched),
            Err(fault) if fault.is_transient() => {}
            Err(_absent) => return,
        }
        if run::pause(context, context.config.claim).await.is_err() {
            return;
        }
    }
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let literal = panic.downcast_ref::<&str>().copied();
    literal.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

fn gauge(following: usize) {
    let count = u32::try_from(following).unwrap_or(u32::MAX);
    metrics::gauge!("macp_attached_runs").set(count);
}
