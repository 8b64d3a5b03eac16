//! Group loading: reads all runs that wait to be followed, up to a number, in a few statements.
//!
//! **Invariant:** however many runs are attached at once, after a restart or when the database
//! comes back, the loader takes [`READERS`] connections and no more; nobody else waits for one.

use std::sync::Arc;

use control_plane_domain::RunId;
use control_plane_storage::model::Lease;
use control_plane_storage::{Error, LoadedRun, Store};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::load::{RECORDED, TAIL};

/// Most runs that are read together: what is read of them is in memory at once.
const MAX_RUNS: usize = 64;
/// Readings under way at once: while one waits for the database, the other's runs begin.
const READERS: usize = 2;

struct Job {
    id: RunId,
    done: oneshot::Sender<Result<LoadedRun, Error>>,
}

/// A handle on the reader tasks.
#[derive(Clone)]
pub(crate) struct Loader(mpsc::Sender<Job>);

impl Loader {
    /// Starts the reader tasks. They end with `stop`.
    pub(crate) fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_RUNS);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..READERS {
            tasks.spawn(read(store.clone(), Arc::clone(&receiver), stop.clone()));
        }
        Self(sender)
    }

    /// Reads a run as it is in the database; `None` when the engine stops.
    pub(crate) async fn load(&self, lease: Lease) -> Option<Result<LoadedRun, Error>> {
        let (done, answer) = oneshot::channel();
        self.0.send(Job { id: lease.run_id, done }).await.ok()?;
        answer.await.ok()
    }
}

async fn read(store: Store, jobs: Arc<Mutex<mpsc::Receiver<Job>>>, stop: CancellationToken) {
    loop {
        let mut wanted = Vec::new();
        {
            let mut jobs = jobs.lock().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => return jobs.close(),
                _count = jobs.recv_many(&mut wanted, MAX_RUNS) => {}
            }
        }
        if wanted.is_empty() {
            return;
        }
        let ids: Vec<RunId> = wanted.iter().map(|job| job.id).collect();
        match store.runs_load(&ids, RECORDED, TAIL).await {
            Ok(loaded) => {
                for (job, run) in wanted.into_iter().zip(loaded) {
                    // A task that is gone has no use for the answer.
                    let _ = job.done.send(run);
                }
            }
            Err(Error::Unavailable(text)) => {
                for job in wanted {
                    let _ = job.done.send(Err(Error::Unavailable(text.clone())));
                }
            }
            // One run's rows may be what the database chokes on: that is no other run's business.
            Err(_fault) => {
                for job in wanted {
                    let _ = job.done.send(alone(&store, job.id).await);
                }
            }
        }
    }
}

async fn alone(store: &Store, id: RunId) -> Result<LoadedRun, Error> {
    let loaded = store.runs_load(&[id], RECORDED, TAIL).await?;
    loaded.into_iter().next().unwrap_or(Err(Error::Task))
}
