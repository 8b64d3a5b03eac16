//! Reading what a verification follows from.

use control_plane_domain::commitment::Commitment;
use control_plane_domain::receipt::Receipt;
use control_plane_domain::{Run, RunId, RunState, SessionId, Timestamp};
use control_plane_storage::{Error, Result, RunReceipt, Store};

use super::{Decided, Facts, Successor};

/// The type of the message that resolves a session.
const COMMITMENT: &str = "Commitment";
/// Most decisions that replace one, of those that are compared with it.
const MAX_SUCCESSORS: i64 = 100;

/// Reads what is stored of a run's decision.
///
/// # Errors
/// `NotFound`, and those of the database.
pub async fn read(store: &Store, run: &Run, now: Timestamp) -> Result<Facts> {
    let session = store.session_get(run.id).await?;
    let receipt = store.receipt_get(run.id).await?;
    let superseded_by = match &run.session_id {
        Some(session) => successors(store, session, MAX_SUCCESSORS).await?,
        None => Vec::new(),
    };
    let document = receipt.as_ref().and_then(|receipt| Receipt::parse(receipt.document.clone()?));
    let keys = match document.as_ref().and_then(Receipt::issuer) {
        Some(issuer) => store.receipt_keys(issuer).await?,
        None => Vec::new(),
    };
    Ok(Facts {
        run_id: run.id,
        session_id: run.session_id.clone(),
        mode: session.map(|session| session.mode_name).unwrap_or_default(),
        state: run.state,
        imported: run.imported_at.is_some(),
        decided: decided_by(store, run, receipt.as_ref()).await?,
        receipt,
        keys,
        // A decision that names its own session replaces nothing.
        superseded_by: superseded_by.into_iter().filter(|later| later.run_id != run.id).collect(),
        now,
    })
}

/// What a run decided.
///
/// # Errors
/// Those of the database.
pub async fn decided(store: &Store, run: &Run) -> Result<Decided> {
    let receipt = store.receipt_get(run.id).await?;
    decided_by(store, run, receipt.as_ref()).await
}

async fn decided_by(store: &Store, run: &Run, receipt: Option<&RunReceipt>) -> Result<Decided> {
    if run.state != RunState::Completed {
        return Ok(Decided::Nothing);
    }
    // A session that resolved accepts nothing after its Commitment. One with a gap behind it left
    // its session open.
    let cursor = store.session_get(run.id).await?.map(|session| session.cursor);
    let last = store.envelope_last(run.id).await?;
    let last = last.filter(|last| last.ordinal == cursor);
    if let Some(last) = last.filter(|last| last.envelope.message_type == COMMITMENT) {
        return Ok(match Commitment::from_wire(&last.envelope.payload) {
            Ok(commitment) => Decided::Recorded(commitment),
            Err(why) => Decided::NotHashable(why),
        });
    }
    let receipt = receipt.and_then(|receipt| Receipt::parse(receipt.document.clone()?));
    let receipt = receipt.filter(|receipt| {
        let session = receipt.document.get("session_id").and_then(|id| id.as_str());
        session == run.session_id.as_ref().map(SessionId::as_str)
    });
    let told = receipt
        .and_then(|receipt| Commitment::from_projection(receipt.document.get("commitment")?));
    Ok(told.map_or(Decided::Nothing, Decided::Attested))
}

/// The decisions that say that they replace that of a session.
pub(super) async fn successors(
    store: &Store,
    session: &SessionId,
    limit: i64,
) -> Result<Vec<Successor>> {
    let mut found = Vec::new();
    for id in store.runs_superseding(session, limit).await? {
        let Some(later) = run_of(store, id).await? else { continue };
        let decided = decided(store, &later).await?;
        let reference = decided.commitment().and_then(|it| it.supersedes.clone());
        // The index is a hint; the Commitment decides.
        let Some(reference) = reference.filter(|it| it.session_id == session.as_str()) else {
            continue;
        };
        found.push(Successor {
            run_id: later.id,
            session_id: later.session_id,
            claimed_hash: reference.commitment_hash,
        });
    }
    Ok(found)
}

/// A run, unless it was deleted meanwhile.
pub(super) async fn run_of(store: &Store, id: RunId) -> Result<Option<Run>> {
    match store.run_get(id).await {
        Ok(run) => Ok(Some(run)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}
