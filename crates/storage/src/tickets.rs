//! Tickets: what opens one run's streams in place of an API key, on any instance.
//!
//! **Invariant:** neither a ticket nor a key is here, only their hashes; time comes from the caller;
//! and a ticket's life is only ever made longer.

use control_plane_domain::{RunId, Timestamp};

use crate::error::{Error, Result};
use crate::store::Store;

/// The SHA-256 of a ticket.
pub type TicketHash = [u8; 32];

/// How many tickets one statement extends: SQLite takes a parameter for each.
const AT_ONCE: usize = 500;
/// How many tickets are removed at once.
const REMOVED_AT_ONCE: i64 = 500;

/// A ticket, less its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub run_id: RunId,
    /// Tells whose it is; made from the key's own hash.
    pub key_hash: Vec<u8>,
    pub made_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Store {
    /// Records a ticket.
    ///
    /// # Errors
    /// [`Error::NotFound`] when its run is gone.
    pub async fn ticket_create(&self, hash: TicketHash, ticket: Ticket) -> Result<()> {
        let run_id = ticket.run_id;
        let created = self
            .task(move |store: Self| async move { change!(store, tickets::create(hash, &ticket)) });
        match created.await {
            // Nothing else of it can be refused: the run was deleted just now.
            Err(Error::Refused(_)) => Err(Error::run_not_found(run_id)),
            done => done,
        }
    }

    /// Loads a ticket, good or not.
    pub async fn ticket_find(&self, hash: TicketHash) -> Result<Option<Ticket>> {
        read!(self, tickets::find(hash))
    }

    /// Lets tickets live until then, unless they live longer already; those that are gone stay gone.
    pub async fn tickets_extend(&self, hashes: Vec<TicketHash>, until: Timestamp) -> Result<usize> {
        self.task(move |store: Self| async move {
            let mut extended = 0;
            for hashes in hashes.chunks(AT_ONCE) {
                extended += change!(store, tickets::extend(hashes, until))?;
            }
            Ok(extended)
        })
        .await
    }

    /// Removes some of the tickets that expired before then.
    pub async fn tickets_clean(&self, before: Timestamp) -> Result<usize> {
        self.task(move |store: Self| async move {
            change!(store, tickets::clean(before, REMOVED_AT_ONCE))
        })
        .await
    }
}
