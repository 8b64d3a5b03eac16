//! Group commit: takes all batches that wait, up to a size, and writes them in one transaction.

use std::sync::Arc;

use control_plane_domain::Clock;
use control_plane_domain::trace::{LiveSpan, SpanStatus};
use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lag::{Lag, Load};

/// Most rows in one transaction: above it a commit only gets longer, not cheaper per row.
const MAX_ROWS: usize = 8_000;
/// Most bytes of payloads, events and kept states in one transaction, but for its last batch.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most runs in one transaction.
const MAX_RUNS: usize = 300;
/// Transactions under way at once: while one waits for the disk, the next is prepared.
const WRITERS: usize = 2;

struct Job {
    batch: Append,
    done: Waiting,
}

/// Who waits for a batch, and since when what is in it does.
struct Waiting {
    answer: oneshot::Sender<Appended>,
    load: Load,
    /// The batch ends its run.
    ends: bool,
    span: Option<LiveSpan>,
}

/// What the writers share.
#[derive(Clone)]
struct Desk {
    store: Store,
    lag: Arc<Lag>,
    clock: Arc<dyn Clock>,
    /// Told when a run is over.
    ended: Arc<Notify>,
}

/// A handle on the writer tasks.
#[derive(Clone)]
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
    lag: Arc<Lag>,
}

impl Committer {
    /// Starts the writer tasks. They end when `drained` says that nobody will hand over more.
    pub(crate) fn start(
        store: &Store,
        clock: &Arc<dyn Clock>,
        ended: &Arc<Notify>,
        tasks: &TaskTracker,
        drained: &CancellationToken,
    ) -> Self {
        let (jobs, receiver) = mpsc::channel(MAX_RUNS);
        let receiver = Arc::new(Mutex::new(receiver));
        let lag = Arc::<Lag>::default();
        for _ in 0..WRITERS {
            let (lag, clock) = (Arc::clone(&lag), Arc::clone(clock));
            let desk = Desk { store: store.clone(), lag, clock, ended: Arc::clone(ended) };
            tasks.spawn(write(desk, Arc::clone(&receiver), drained.clone()));
        }
        Self { jobs, lag }
    }

    /// How far behind commits are.
    pub(crate) fn lag(&self) -> &Lag {
        &self.lag
    }

    /// Hands over a batch; the answer tells how it ended. A dropped answer means that the writers
    /// are gone, and nobody knows.
    pub(crate) fn commit(
        &self,
        batch: Append,
        span: Option<LiveSpan>,
    ) -> oneshot::Receiver<Appended> {
        let (sender, answer) = oneshot::channel();
        let ends = batch.run.state.is_terminal();
        let done = Waiting { answer: sender, load: self.lag.begins(&batch), ends, span };
        match self.jobs.try_send(Job { batch, done }) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            // A run has one batch under way at most, so this wait is bounded by the writers.
            Err(mpsc::error::TrySendError::Full(job)) => {
                let jobs = self.jobs.clone();
                tokio::spawn(async move { jobs.send(job).await });
            }
        }
        answer
    }
}

async fn write(desk: Desk, jobs: Arc<Mutex<mpsc::Receiver<Job>>>, drained: CancellationToken) {
    loop {
        let (batches, waiting) = {
            let mut jobs = jobs.lock().await;
            let first = tokio::select! {
                biased;
                first = jobs.recv() => first,
                () = drained.cancelled() => None,
            };
            let Some(first) = first else { return };
            gather(first, &mut jobs)
        };
        let began = std::time::Instant::now();
        let rows: usize = batches.iter().map(|batch| batch.raw.len() + batch.entries.len()).sum();
        let outcomes = desk.store.append(batches).await;
        metrics::histogram!("macp_commit_duration_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("macp_commit_rows")
            .record(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
        let now = desk.clock.now();
        for (Waiting { answer, load, ends, span }, outcome) in waiting.into_iter().zip(outcomes) {
            desk.lag.ended(load, &outcome, now);
            if let Some(span) = span {
                span.end(status(&outcome));
            }
            if ends {
                desk.ended.notify_one();
            }
            // A task that is gone has no use for the answer.
            let _ = answer.send(outcome);
        }
    }
}

fn status(outcome: &Appended) -> SpanStatus {
    match outcome {
        Appended::Committed => SpanStatus::Ok,
        Appended::Fenced => SpanStatus::Error("the run has another owner".to_owned()),
        Appended::Refused(reason) | Appended::Unknown(reason) => SpanStatus::Error(reason.clone()),
    }
}

fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>) -> (Vec<Append>, Vec<Waiting>) {
    let (mut rows, mut bytes) = (0, 0);
    let mut batches = Vec::new();
    let mut waiting = Vec::new();
    let mut next = Some(first);
    while let Some(Job { batch, done }) = next {
        rows += batch.raw.len() + batch.entries.len();
        bytes += batch.raw.iter().map(|raw| raw.envelope.payload.len()).sum::<usize>();
        bytes += batch.entries.iter().map(|entry| entry.body.len()).sum::<usize>();
        bytes += batch.snapshots.iter().map(|snapshot| snapshot.state.len()).sum::<usize>();
        batches.push(batch);
        waiting.push(done);
        let full = rows >= MAX_ROWS || bytes >= MAX_BYTES || batches.len() >= MAX_RUNS;
        next = if full { None } else { jobs.try_recv().ok() };
    }
    (batches, waiting)
}
