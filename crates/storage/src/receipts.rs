//! What the runtime attests of the runs that completed, the keys that this is verified with, and
//! which decisions replace which.
//!
//! **Invariant:** the append in which a run completes leaves a row that waits for the runtime's
//! answer, and an answer, once recorded, stays. A key stays what it was when it was first seen.

use control_plane_domain::{RunId, SessionId, Timestamp};

use crate::error::Result;
use crate::store::Store;

/// How far a run's receipt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptState {
    /// The runtime has not answered yet.
    Pending,
    /// It is here.
    Fetched,
    /// The runtime issues none for this session.
    Unavailable,
    /// The runtime knows nothing of the session any more.
    Gone,
    /// The runtime gives none to us.
    Withheld,
}

impl ReceiptState {
    pub(crate) const ALL: [Self; 5] =
        [Self::Pending, Self::Fetched, Self::Unavailable, Self::Gone, Self::Withheld];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fetched => "fetched",
            Self::Unavailable => "unavailable",
            Self::Gone => "gone",
            Self::Withheld => "withheld",
        }
    }
}

/// A run's receipt, or what became of asking for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReceipt {
    pub state: ReceiptState,
    /// The document, byte for byte as the runtime sent it.
    pub document: Option<String>,
    /// What the runtime said instead.
    pub detail: Option<String>,
    /// How often asking failed.
    pub attempts: i32,
    /// When the runtime's answer was recorded.
    pub answered_at: Option<Timestamp>,
}

/// A run whose receipt is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingReceipt {
    pub run_id: RunId,
    pub session_id: Option<SessionId>,
    /// It is here already, and only the keys are missing.
    pub document: Option<String>,
    pub attempts: i32,
    /// Whether [`Store::receipt_index`] was told of the run.
    pub indexed: bool,
}

/// The runtime's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptAnswer {
    pub state: ReceiptState,
    pub document: Option<String>,
    pub detail: Option<String>,
    /// The keys that it publishes at the time; those that are new are pinned.
    pub keys: Vec<KeySeen>,
    pub now: Timestamp,
}

/// A key as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySeen {
    pub issuer: String,
    pub kid: String,
    pub public_key: String,
}

/// A key as it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedKey {
    pub kid: String,
    pub public_key: String,
    pub pinned_at: Timestamp,
    /// Another key that was published under the same id later, and when that was last seen.
    pub refused: Option<(String, Timestamp)>,
}

impl Store {
    /// A run's receipt; `None` when nobody has thought of it yet.
    pub async fn receipt_get(&self, id: RunId) -> Result<Option<RunReceipt>> {
        read!(self, receipts::get(id))
    }

    /// At most `limit` runs whose receipt is due, those that became due last first: who looks at a
    /// run looks soon after its end.
    pub async fn receipts_due(&self, now: Timestamp, limit: i64) -> Result<Vec<PendingReceipt>> {
        read!(self, receipts::due(now, limit))
    }

    /// Notes runs that completed and have no row: an older version ended them. At most `limit`, of
    /// those after the run `after`, in the order of their ids; the last one of them.
    pub async fn receipts_note(
        &self,
        after: Option<RunId>,
        limit: i64,
        now: Timestamp,
    ) -> Result<Option<RunId>> {
        self.task(
            move |store: Self| async move { change!(store, receipts::note(after, limit, now)) },
        )
        .await
    }

    /// Records whose decision the run's own replaces, if it does.
    pub async fn receipt_index(&self, id: RunId, supersedes: Option<String>) -> Result<()> {
        self.task(move |store: Self| async move {
            change!(store, receipts::index(id, supersedes.as_deref()))
        })
        .await
    }

    /// Records the runtime's answer, and pins the keys that are new, in one transaction. An answer
    /// that is there already stays.
    pub async fn receipt_answer(&self, id: RunId, answer: ReceiptAnswer) -> Result<()> {
        self.task(move |store: Self| async move { change!(store, receipts::answer(id, &answer)) })
            .await
    }

    /// Keeps what came so far, and asks again at `due_at`.
    pub async fn receipt_postpone(
        &self,
        id: RunId,
        document: Option<String>,
        detail: String,
        due_at: Timestamp,
    ) -> Result<()> {
        self.task(move |store: Self| async move {
            change!(store, receipts::postpone(id, document.as_deref(), &detail, due_at))
        })
        .await
    }

    /// The keys of an issuer, as they were first seen.
    pub async fn receipt_keys(&self, issuer: &str) -> Result<Vec<PinnedKey>> {
        let issuer = issuer.to_owned();
        read!(self, receipts::keys(&issuer))
    }

    /// At most `limit` runs whose decision says that it replaces that of a session, in the order of
    /// their ids.
    pub async fn runs_superseding(&self, session: &SessionId, limit: i64) -> Result<Vec<RunId>> {
        let session = session.clone();
        read!(self, receipts::superseding(&session, limit))
    }
}
