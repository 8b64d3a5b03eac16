//! Group commit: takes all batches that wait, up to a size, and writes them in one transaction.

use std::sync::Arc;

use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// Most rows in one transaction: above it a commit only gets longer, not cheaper per row.
const MAX_ROWS: usize = 8_000;
/// Most runs in one transaction.
const MAX_RUNS: usize = 300;
/// Transactions under way at once: while one waits for the disk, the next is prepared.
const WRITERS: usize = 2;

struct Job {
    batch: Append,
    done: oneshot::Sender<Appended>,
}

/// A handle on the writer tasks. They end when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Committer(mpsc::Sender<Job>);

impl Committer {
    /// Starts the writer tasks.
    pub(crate) fn start(store: &Store, tasks: &TaskTracker) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_RUNS);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..WRITERS {
            tasks.spawn(write(store.clone(), Arc::clone(&receiver)));
        }
        Self(sender)
    }

    /// Hands over a batch; the answer tells how it ended. A dropped answer means that the writers
    /// are gone, and nobody knows.
    pub(crate) fn commit(&self, batch: Append) -> oneshot::Receiver<Appended> {
        let (done, answer) = oneshot::channel();
        match self.0.try_send(Job { batch, done }) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            // A run has one batch under way at most, so this wait is bounded by the writers.
            Err(mpsc::error::TrySendError::Full(job)) => {
                let sender = self.0.clone();
                tokio::spawn(async move { sender.send(job).await });
            }
        }
        answer
    }
}

async fn write(store: Store, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    loop {
        let (batches, waiting) = {
            let mut jobs = jobs.lock().await;
            let Some(first) = jobs.recv().await else { return };
            gather(first, &mut jobs)
        };
        let began = std::time::Instant::now();
        let rows: usize = batches.iter().map(|batch| batch.raw.len() + batch.entries.len()).sum();
        let outcomes = store.append(batches).await;
        metrics::histogram!("macp_commit_duration_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("macp_commit_rows")
            .record(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
        for (done, outcome) in waiting.into_iter().zip(outcomes) {
            // A task that is gone has no use for the answer.
            let _ = done.send(outcome);
        }
    }
}

fn gather(
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> (Vec<Append>, Vec<oneshot::Sender<Appended>>) {
    let mut rows = 0;
    let mut batches = Vec::new();
    let mut waiting = Vec::new();
    let mut next = Some(first);
    while let Some(Job { batch, done }) = next {
        rows += batch.raw.len() + batch.entries.len();
        batches.push(batch);
        waiting.push(done);
        next =
            if rows < MAX_ROWS && batches.len() < MAX_RUNS { jobs.try_recv().ok() } else { None };
    }
    (batches, waiting)
}
