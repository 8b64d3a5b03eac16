//! The append: batches of several runs in one transaction, each with an outcome of its own.
//!
//! **Invariant:** runs share a transaction, never a fate. A batch that the database refuses is
//! parted from the others by halving, so that one of 300 costs a dozen more transactions and not 300.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use control_plane_domain::{Position, RunId};

use crate::error::{Error, Result};
use crate::model::{Append, Appended, LogEntry};
use crate::store::{Backend, Store};
use crate::{postgres, sqlite};

/// A batch, and its place among those that were handed in.
type Placed = (usize, Arc<Append>);

impl Store {
    /// Writes batches of several runs in one transaction, then publishes their events.
    ///
    /// The results are in the order of the batches. A batch whose run has moved on drops out
    /// alone, and so does one whose data the database refuses. Of two batches of one run the second
    /// is fenced off: it cannot know where the first one leaves the run.
    pub async fn append(&self, batches: Vec<Append>) -> Vec<Appended> {
        let count = batches.len();
        let done =
            self.task(move |store: Self| async move { Ok(store.append_all(batches).await) }).await;
        done.unwrap_or_else(|fault| vec![Appended::Unknown(fault.to_string()); count])
    }

    async fn append_all(&self, batches: Vec<Append>) -> Vec<Appended> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut fit = Vec::with_capacity(batches.len());
        let mut seen = HashSet::new();
        for (place, batch) in batches.into_iter().enumerate() {
            if let Some(fault) = fault_of(&batch) {
                outcomes.push((place, Appended::Refused(fault.to_owned())));
            } else if !seen.insert(batch.lease.run_id) {
                outcomes.push((place, Appended::Fenced));
            } else {
                fit.push((place, Arc::new(batch)));
            }
        }
        let mut waiting = vec![fit];
        while let Some(mut part) = waiting.pop() {
            if part.is_empty() {
                continue;
            }
            match self.append_once(&part).await {
                Ok(bases) => {
                    let settled =
                        part.iter().map(|(place, batch)| (*place, self.publish(batch, &bases)));
                    outcomes.extend(settled);
                }
                Err(fault) if part.len() > 1 && fault.may_be_the_data() => {
                    let second = part.split_off(part.len() / 2);
                    waiting.extend([second, part]);
                }
                Err(fault) => {
                    let outcome = if let Error::Refused(reason) = fault {
                        Appended::Refused(reason)
                    } else {
                        Appended::Unknown(describe(&fault))
                    };
                    outcomes.extend(part.iter().map(|(place, _)| (*place, outcome.clone())));
                }
            }
        }
        // Also when an outcome is unknown: it may be in the log.
        self.feed_news();
        outcomes.sort_by_key(|(place, _)| *place);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn append_once(&self, part: &[Placed]) -> Result<BTreeMap<RunId, Position>> {
        match &self.0.backend {
            Backend::Postgres(db) => {
                let batches: Vec<&Append> = part.iter().map(|(_, batch)| &**batch).collect();
                let mut conn = db.appender().await?;
                let done = postgres::append(&mut conn, &batches).await;
                postgres::settle(conn, &done);
                done
            }
            Backend::Sqlite(db) => {
                let mut writer = db.write().await?;
                // The blocking closure outlives us if we are dropped, so it owns its data.
                let batches = part.iter().map(|(_, batch)| Arc::clone(batch)).collect();
                let done = sqlite::append(writer.connection()?, batches).await;
                writer.settle(&done);
                done
            }
        }
    }

    fn publish(&self, batch: &Append, bases: &BTreeMap<RunId, Position>) -> Appended {
        let run_id = batch.lease.run_id;
        let Some(base) = bases.get(&run_id) else { return Appended::Fenced };
        let entries = batch.entries.iter().map(|entry| LogEntry {
            position: base + entry.seq - batch.expected_seq,
            ..entry.clone()
        });
        self.0.hub.publish(run_id, entries);
        let last = batch.run.last_seq;
        self.tell(|news| news.wrote(run_id, last, base + last - batch.expected_seq));
        Appended::Committed
    }
}

/// What keeps a batch from being stored as it is: a log with a hole would never be whole again.
fn fault_of(batch: &Append) -> Option<&'static str> {
    let id = batch.lease.run_id;
    let mut next = batch.expected_seq;
    for entry in &batch.entries {
        next += 1;
        if entry.seq != next {
            return Some("the batch's events are not contiguous");
        }
        if entry.run_id != id {
            return Some("the batch holds an event of another run");
        }
        if std::str::from_utf8(&entry.body).is_err() {
            return Some("the batch holds an event whose body is not UTF-8");
        }
    }
    if batch.run.last_seq != next {
        return Some("the batch's events do not lead to the run's last seq");
    }
    if batch.entries.last().is_some_and(|last| last.hash != batch.chain) {
        return Some("the batch's chain does not end in its last event");
    }
    let foreign = batch.run.id != id
        || batch.session.run_id != id
        || batch.metrics.run_id != id
        || batch.raw.iter().any(|raw| raw.run_id != id)
        || batch.artifacts.iter().any(|artifact| artifact.run_id != id)
        || batch.snapshots.iter().any(|snapshot| snapshot.run_id != id)
        || batch.projection.as_ref().is_some_and(|projection| projection.run_id != id);
    foreign.then_some("the batch holds something of another run")
}

fn describe(fault: &Error) -> String {
    match std::error::Error::source(fault) {
        Some(source) => format!("{fault}: {source}"),
        None => fault.to_string(),
    }
}
