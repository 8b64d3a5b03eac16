//! Extends the tickets of open streams, in one task for all of them.
//!
//! **Invariant:** while a stream is open the stored life of its ticket ends [`AFTER_CLOSE`] from now
//! or later, so that it outlives even a killed process; and nothing that goes wrong here reaches a
//! stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use control_plane_domain::{Clock, Timestamp};
use control_plane_storage::{Store, TicketHash};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::AFTER_CLOSE;

/// How soon it is tried again when the database did not take it.
const RETRY: Duration = Duration::from_secs(1);

/// What a stream tells of its ticket.
enum Note {
    Opened(TicketHash),
    Closed(TicketHash),
}

/// Takes notes of streams.
pub(crate) struct Renewals(mpsc::UnboundedSender<Note>);

/// A ticket with an open stream.
pub(crate) struct Held {
    hash: TicketHash,
    notes: mpsc::UnboundedSender<Note>,
}

impl Renewals {
    /// Starts the task; it ends with the last sender of notes.
    pub(crate) fn start(store: Store, clock: Arc<dyn Clock>, every: Duration) -> Self {
        // Each open stream has at most two notes here.
        let (sender, notes) = mpsc::unbounded_channel();
        let renewer = Renewer {
            store,
            clock,
            every,
            open: HashMap::new(),
            fresh: HashSet::new(),
            left: HashSet::new(),
        };
        tokio::spawn(renewer.run(notes));
        Self(sender)
    }

    /// A stream was opened with this ticket; it is closed when the answer is dropped.
    pub(crate) fn hold(&self, hash: TicketHash) -> Held {
        // The task is gone only when its runtime is.
        let _ = self.0.send(Note::Opened(hash));
        Held { hash, notes: self.0.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.notes.send(Note::Closed(self.hash));
    }
}

struct Renewer {
    store: Store,
    clock: Arc<dyn Clock>,
    every: Duration,
    /// How many streams each ticket has open.
    open: HashMap<TicketHash, usize>,
    /// Those that were opened since the last write.
    fresh: HashSet<TicketHash>,
    /// Those whose last stream closed since then.
    left: HashSet<TicketHash>,
}

impl Renewer {
    async fn run(mut self, mut notes: mpsc::UnboundedReceiver<Note>) {
        let mut due = Instant::now() + self.every;
        let mut failing = false;
        loop {
            let mut all = false;
            tokio::select! {
                note = notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                () = sleep_until(due) => all = true,
            }
            // Before the rest of the notes: a stream that closed until now is not extended from now.
            let now = self.clock.now();
            // A thousand reconnects at once are a few writes.
            while let Ok(note) = notes.try_recv() {
                self.take(note);
            }
            if all {
                self.fresh.extend(self.open.keys());
                due = Instant::now() + self.every;
            }
            match self.write(now).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // All of them again, soon, until it works; said once.
                    due = Instant::now() + RETRY.min(self.every);
                    if !failing {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "Stream tickets could not be extended; trying again"
                        );
                    }
                    failing = true;
                }
            }
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Opened(hash) => {
                *self.open.entry(hash).or_default() += 1;
                self.fresh.insert(hash);
            }
            Note::Closed(hash) => {
                let Some(streams) = self.open.get_mut(&hash) else { return };
                *streams -= 1;
                if *streams == 0 {
                    self.open.remove(&hash);
                    self.left.insert(hash);
                }
            }
        }
    }

    async fn write(&mut self, now: Timestamp) -> control_plane_storage::Result<()> {
        // Forgotten only when they are written.
        let fresh: Vec<TicketHash> = self.fresh.iter().copied().collect();
        if !fresh.is_empty() {
            // Until the next time, and a close just before it.
            let margin = AFTER_CLOSE + TimeDelta::from_std(self.every).unwrap_or_default();
            self.store.tickets_extend(fresh, now + margin).await?;
            self.fresh.clear();
        }
        let left: Vec<TicketHash> = self.left.iter().copied().collect();
        if !left.is_empty() {
            self.store.tickets_extend(left, now + AFTER_CLOSE).await?;
            self.left.clear();
        }
        Ok(())
    }
}
