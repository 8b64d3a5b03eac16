//! What a run decided, and whether anything independent of our record says the same.
//!
//! **Invariant:** `verified` means compared: the hash of the Commitment that we recorded is the one
//! that a decision receipt or a later decision names. Our own record never vouches for itself, and
//! whatever disagrees is told, whoever else agrees.

pub mod lineage;
mod read;
mod receipt;
#[cfg(test)]
mod tests;

use control_plane_domain::commitment::{Check, Commitment, NotHashable};
use control_plane_domain::receipt::Receipt;
use control_plane_domain::time::millis;
use control_plane_domain::{RunId, RunState, SessionId, Timestamp};
use control_plane_storage::{PinnedKey, ReceiptState, RunReceipt};
use serde::Serialize;

pub use read::{decided, read};
pub use receipt::{Attestation, AttestationOutcome, Verdict};

/// What a verification follows from.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub run_id: RunId,
    pub session_id: Option<SessionId>,
    pub mode: String,
    pub state: RunState,
    /// Another server recorded the run; nobody asks for its receipt here.
    pub imported: bool,
    pub decided: Decided,
    pub receipt: Option<RunReceipt>,
    /// The keys of the receipt's issuer.
    pub keys: Vec<PinnedKey>,
    pub superseded_by: Vec<Successor>,
    pub now: Timestamp,
}

/// What is known of a run's Commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// It was recorded as the session's last envelope.
    Recorded(Commitment),
    /// It was recorded, and has no hash.
    NotHashable(NotHashable),
    /// The envelope is not here; a receipt tells of it.
    Attested(Commitment),
    /// There is none.
    Nothing,
}

impl Decided {
    /// The Commitment, whoever told us.
    pub fn commitment(&self) -> Option<&Commitment> {
        match self {
            Self::Recorded(commitment) | Self::Attested(commitment) => Some(commitment),
            Self::NotHashable(_) | Self::Nothing => None,
        }
    }

    /// Where it is from: `envelope` or `receipt`.
    pub fn source(&self) -> Option<&'static str> {
        match self {
            Self::Recorded(_) => Some("envelope"),
            Self::Attested(_) => Some("receipt"),
            Self::NotHashable(_) | Self::Nothing => None,
        }
    }
}

/// A decision that says that it replaces this run's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    pub run_id: RunId,
    pub session_id: Option<SessionId>,
    /// The hash that it says this run's Commitment has.
    pub claimed_hash: String,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The run is not over, or its receipt is still to come.
    Pending,
    /// Something independent names the same hash, and nothing another.
    Verified,
    /// Something independent names another.
    Mismatch,
    /// There is nothing to compare with.
    CannotVerify,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub run_id: RunId,
    pub session_id: Option<SessionId>,
    pub status: Status,
    /// Recomputed just now.
    pub commitment_hash: Option<String>,
    pub commitment: Option<Commitment>,
    /// `envelope`, or `receipt` where that is all there is.
    pub commitment_source: Option<&'static str>,
    /// What the receipt claims, or else the first decision that replaces this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_hash: Option<String>,
    /// Everything that was compared.
    pub sources: Vec<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<receipt::View>,
    /// One sentence.
    pub reason: String,
    #[serde(with = "millis")]
    pub checked_at: Timestamp,
}

/// Something that the hash was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `receipt` or `supersedes`.
    pub kind: &'static str,
    pub outcome: Check,
    pub claimed_hash: Option<String>,
    /// The run that claims it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// One sentence.
    pub reason: String,
}

/// Compares what was decided with whatever is independent of our record.
pub fn verify(facts: &Facts) -> Verification {
    let hash = facts.decided.commitment().map(Commitment::hash);
    let document = facts.receipt.as_ref().and_then(|receipt| receipt.document.as_deref());
    let receipt = document.map(|text| receipt::view(text, facts));
    let mut sources: Vec<Source> = Vec::new();
    if let Some(hash) = &hash {
        if let (Some(text), Some(view)) = (document, &receipt) {
            sources.push(receipt_source(hash, text, view, facts));
        }
        sources.extend(facts.superseded_by.iter().map(|later| successor_source(hash, later)));
    }
    let (status, reason) = conclude(facts, &sources);
    let claimed_hash = sources.iter().find_map(|source| source.claimed_hash.clone());
    Verification {
        run_id: facts.run_id,
        session_id: facts.session_id.clone(),
        status,
        commitment_hash: hash,
        commitment: facts.decided.commitment().cloned(),
        commitment_source: facts.decided.source(),
        claimed_hash,
        sources,
        receipt,
        reason,
        checked_at: facts.now,
    }
}

fn conclude(facts: &Facts, sources: &[Source]) -> (Status, String) {
    let found = |outcome: Check| sources.iter().find(|source| source.outcome == outcome);
    let open = |why: String| (Status::CannotVerify, why);
    if !facts.state.is_terminal() && facts.imported {
        return open(format!("the run was {} when it was exported", facts.state));
    }
    if !facts.state.is_terminal() {
        return (
            Status::Pending,
            format!("the run is {}, and nothing is decided yet", facts.state),
        );
    }
    if facts.state != RunState::Completed {
        return open(format!("the run is {}: nothing was decided", facts.state));
    }
    if let Decided::NotHashable(why) = &facts.decided {
        return open(why.to_string());
    }
    if let Some(source) = found(Check::Mismatch) {
        return (Status::Mismatch, source.reason.clone());
    }
    let waits = match &facts.receipt {
        Some(receipt) => receipt.state == ReceiptState::Pending,
        None => !facts.imported,
    };
    if waits {
        return (Status::Pending, still_to_come(facts.receipt.as_ref()));
    }
    if let Some(source) = found(Check::Match) {
        return (Status::Verified, source.reason.clone());
    }
    if let Some(source) = sources.first() {
        return open(source.reason.clone());
    }
    match &facts.decided {
        Decided::Nothing => open(format!(
            "the envelope that decided is not recorded here, and {}",
            without(facts.receipt.as_ref())
        )),
        Decided::Recorded(_) | Decided::Attested(_) | Decided::NotHashable(_) => open(format!(
            "there is nothing to compare the recorded Commitment with: {}, and no later decision \
             replaces this one",
            without(facts.receipt.as_ref())
        )),
    }
}

fn still_to_come(receipt: Option<&RunReceipt>) -> String {
    match receipt.and_then(|receipt| Some((receipt.attempts, receipt.detail.as_ref()?))) {
        Some((attempts, detail)) => format!(
            "the decision receipt is still to be fetched; {attempts} attempts failed, the last one \
             because {detail}"
        ),
        None => "the decision receipt is still to be fetched".to_owned(),
    }
}

/// Why there is no receipt.
fn without(receipt: Option<&RunReceipt>) -> String {
    let Some(receipt) = receipt else {
        return "the run was imported, and its decision receipt is not here".to_owned();
    };
    let what = match receipt.state {
        ReceiptState::Pending => "its decision receipt is still to come",
        ReceiptState::Fetched => "its decision receipt says nothing of it",
        ReceiptState::Unavailable => "the runtime issues no decision receipt for it",
        ReceiptState::Gone => "the runtime knows nothing of the session any more",
        ReceiptState::Withheld => "the runtime does not give us the decision receipt",
    };
    match &receipt.detail {
        Some(detail) => format!("{what} ({detail})"),
        None => what.to_owned(),
    }
}

/// What a receipt says of the hash. A document that contradicts itself, or another one's signature,
/// is no evidence for anything.
fn receipt_source(hash: &str, text: &str, view: &receipt::View, facts: &Facts) -> Source {
    let parsed = Receipt::parse(text);
    let member = |name: &str| {
        parsed.as_ref().and_then(|receipt| receipt.document.get(name)?.as_str().map(str::to_owned))
    };
    let claimed = member("commitment_hash");
    let issuer = view.issuer.clone().unwrap_or_else(|| "an unnamed issuer".to_owned());
    let source = |outcome: Check, reason: String| Source {
        kind: "receipt",
        outcome,
        claimed_hash: claimed.clone(),
        run_id: None,
        session_id: None,
        reason,
    };
    if view.status == Verdict::Refused {
        return source(Check::CannotVerify, "the receipt is of a format that is not known".into());
    }
    let session = facts.session_id.as_ref().map(SessionId::as_str);
    if member("session_id").as_deref() != session {
        return source(Check::CannotVerify, "the receipt is of another session".into());
    }
    if member("mode").is_some_and(|mode| mode != facts.mode) {
        return source(Check::CannotVerify, "the receipt is of another mode".into());
    }
    let alone = matches!(facts.decided, Decided::Attested(_));
    let differs = claimed.as_deref() != Some(hash);
    match view.integrity {
        Some(Check::Match) if differs => {
            let claimed = claimed.clone().unwrap_or_default();
            source(
                Check::Mismatch,
                format!("the decision receipt of {issuer} is of {claimed}, and what is recorded is {hash}"),
            )
        }
        Some(Check::Match) => match view.refusal() {
            Some(why) => source(Check::CannotVerify, why),
            None if alone => source(
                Check::CannotVerify,
                "the Commitment is known from the receipt alone, so there is nothing to compare it \
                 with"
                    .into(),
            ),
            None => source(Check::Match, view.agreement(&issuer)),
        },
        Some(Check::Mismatch) => source(
            Check::Mismatch,
            format!(
                "the decision receipt of {issuer} contradicts itself: its Commitment does not have \
                 the hash that it names"
            ),
        ),
        Some(Check::CannotVerify) | None => {
            let outcome = if differs { Check::Mismatch } else { Check::CannotVerify };
            let why = "is not whole: it holds no Commitment that can be hashed";
            source(outcome, format!("the decision receipt of {issuer} {why}"))
        }
    }
}

fn successor_source(hash: &str, later: &Successor) -> Source {
    let Successor { run_id, session_id, claimed_hash } = later;
    let session = session_id.as_ref().map_or("another session", SessionId::as_str);
    let (outcome, reason) = if claimed_hash == hash {
        let reason = format!("the decision of {session} replaces this one, and names its hash");
        (Check::Match, reason)
    } else {
        let reason = format!(
            "the decision of {session} replaces this one, and names {claimed_hash}, where what is \
             recorded is {hash}"
        );
        (Check::Mismatch, reason)
    };
    Source {
        kind: "supersedes",
        outcome,
        claimed_hash: Some(claimed_hash.clone()),
        run_id: Some(*run_id),
        session_id: session_id.clone(),
        reason,
    }
}
