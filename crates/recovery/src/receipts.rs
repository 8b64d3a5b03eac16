//! Decision receipts: fetched once when a run has completed, with the keys that verify them.
//!
//! The append in which a run completes leaves a row that waits; whoever has the duty works off what
//! waits, the latest first. A crash in between leaves the row as it was, so the runtime is asked
//! again, and answers with the same bytes.
//!
//! **Invariant:** a receipt is never needed to go on: nothing here writes a run, and what the
//! runtime makes us wait for holds up nobody else.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use control_plane_domain::commitment::Commitment;
use control_plane_domain::receipt::{Receipt, usable_keys};
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::{RunId, SessionId};
use control_plane_storage::{Duty, Error, KeySeen, PendingReceipt, ReceiptAnswer, ReceiptState};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::backoff::Backoff;
use crate::engine::Context;

/// Most receipts that are asked for at once.
const AT_ONCE: i64 = 8;
/// How many runs of an older version are taken up with each sweep: the runtime rations receipts,
/// and those of runs that end now come first.
const NOTED_AT_ONCE: i64 = 100;
/// So many sweeps after all were taken up, they are looked for again.
const SWEEPS_BETWEEN: u32 = 20;
/// The longest wait for a receipt that the runtime fails to give.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Wakes whoever fetches receipts.
#[derive(Default)]
pub(crate) struct Receipts {
    news: Notify,
}

impl Receipts {
    /// A run has completed. Another instance may have the duty: it looks by itself.
    pub(crate) fn look(&self) {
        self.news.notify_one();
    }
}

/// What there is to write for a run, or why to stop asking for now.
enum Outcome {
    Answered(ReceiptState, Option<Receipt>, Option<String>),
    /// This one fails; others may not.
    Failed(String),
    /// Nobody gets an answer now.
    Wait(RuntimeError),
}

/// Fetches receipts while this instance has the duty, until the engine stops.
pub(crate) async fn fetch(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.claim);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backlog = Backlog::default();
    // Of its own: that receipts are rationed is no outage, and must not hold up runs.
    let ration = Backoff::new(context.config.backoff_base, context.config.backoff_max);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.receipts.news.notified() => {}
            () = context.stop.cancelled() => return,
        }
        if !context.store.duty_hold(Duty::Receipts).await.unwrap_or(false) {
            continue;
        }
        if let Err(fault) = backlog.note(&context).await {
            tracing::debug!(error = %fault, "Could not look for runs without a receipt");
        }
        loop {
            let began = Instant::now();
            let worked = tokio::select! {
                worked = work(&context) => worked,
                // What is written by then is written, and the rest is asked for again.
                () = context.stop.cancelled() => return,
            };
            match worked {
                Ok(Worked::Nothing) => break,
                Ok(Worked::Some) => ration.succeeded(),
                Ok(Worked::Wait(fault)) => {
                    tracing::debug!(error = %fault, "Waiting with receipts");
                    let wait = if let RuntimeErrorKind::CircuitOpen { retry_after } = fault.kind {
                        retry_after
                    } else {
                        ration.failed(began, Instant::now())
                    };
                    tokio::select! {
                        () = context.backoff.sleep(wait) => {}
                        () = context.stop.cancelled() => return,
                    }
                }
                Err(fault) => {
                    tracing::debug!(error = %fault, "Receipts are looked at again later");
                    break;
                }
            }
        }
    }
}

/// Runs that completed before there were receipts, or under an older version beside this one.
#[derive(Default)]
struct Backlog {
    after: Option<RunId>,
    looked_at: Option<Instant>,
    /// How many sweeps to let pass.
    rest: u32,
}

impl Backlog {
    async fn note(&mut self, context: &Context) -> Result<(), Error> {
        let sweep = context.config.sweep * (self.rest + 1);
        if self.looked_at.is_some_and(|at| at.elapsed() < sweep) {
            return Ok(());
        }
        let now = context.clock.now();
        self.after = context.store.receipts_note(self.after, NOTED_AT_ONCE, now).await?;
        self.rest = if self.after.is_none() { SWEEPS_BETWEEN } else { 0 };
        self.looked_at = Some(Instant::now());
        Ok(())
    }
}

/// What [`work`] did.
enum Worked {
    Nothing,
    Some,
    Wait(RuntimeError),
}

/// Works off some of what is due.
async fn work(context: &Context) -> Result<Worked, Error> {
    let due = context.store.receipts_due(context.clock.now(), AT_ONCE).await?;
    if due.is_empty() {
        return Ok(Worked::Nothing);
    }
    let mut indexed = HashSet::new();
    for pending in &due {
        if pending.indexed || index(context, pending.run_id).await? {
            indexed.insert(pending.run_id);
        }
    }
    let outcomes = join_all(due.iter().map(|pending| ask(context, pending))).await;
    let (mut wait, mut answers) = (None, Vec::new());
    for (pending, outcome) in due.iter().zip(outcomes) {
        match outcome {
            Outcome::Answered(state, receipt, detail) => {
                answers.push((pending, state, receipt, detail));
            }
            Outcome::Failed(detail) => postpone(context, pending, None, detail).await?,
            Outcome::Wait(fault) => wait = Some(fault),
        }
    }
    let keys = match keys(context, &answers).await {
        Ok(keys) => keys,
        Err(fault) => {
            // Those that somebody signed wait for the keys, with what came.
            for (pending, _, receipt, _) in &answers {
                if let Some(receipt) = receipt.as_ref().filter(|receipt| receipt.has_attestations())
                {
                    postpone(context, pending, Some(receipt), fault.message.clone()).await?;
                }
            }
            answers.retain(|(_, _, receipt, _)| {
                receipt.as_ref().is_none_or(|receipt| !receipt.has_attestations())
            });
            wait = Some(fault);
            BTreeMap::new()
        }
    };
    for (pending, state, receipt, detail) in answers {
        if !indexed.contains(&pending.run_id) {
            // The envelope that decided is not here, so it is as the receipt says, or unknown.
            let told = receipt.as_ref().and_then(|receipt| receipt.document.get("commitment"));
            let replaced = told.and_then(Commitment::from_projection).and_then(replaced);
            context.store.receipt_index(pending.run_id, replaced).await?;
        }
        let issuer = receipt.as_ref().and_then(Receipt::issuer);
        let seen = |issuer: &str| {
            let seen = keys.iter().map(|(kid, public_key)| KeySeen {
                issuer: issuer.to_owned(),
                kid: kid.clone(),
                public_key: public_key.clone(),
            });
            seen.collect()
        };
        let answer = ReceiptAnswer {
            state,
            keys: issuer.map(seen).unwrap_or_default(),
            document: receipt.map(|receipt| receipt.text),
            detail,
            now: context.clock.now(),
        };
        context.store.receipt_answer(pending.run_id, answer).await?;
        metrics::counter!("macp_receipts_total", "outcome" => state.as_str()).increment(1);
    }
    Ok(wait.map_or(Worked::Some, Worked::Wait))
}

/// Asks for one receipt.
async fn ask(context: &Context, pending: &PendingReceipt) -> Outcome {
    if let Some(receipt) = pending.document.as_deref().and_then(Receipt::parse) {
        return Outcome::Answered(ReceiptState::Fetched, Some(receipt), None);
    }
    let Some(session) = &pending.session_id else {
        let detail = "the run has no session".to_owned();
        return Outcome::Answered(ReceiptState::Unavailable, None, Some(detail));
    };
    match context.runtime.decision_receipt(session).await {
        Ok(receipt) => Outcome::Answered(ReceiptState::Fetched, Some(receipt), None),
        Err(fault) => refused(fault),
    }
}

/// What a refusal means.
fn refused(fault: RuntimeError) -> Outcome {
    let answered = |state, fault: RuntimeError| {
        Outcome::Answered(state, None, Some(fault.message.replace('\0', "\u{FFFD}")))
    };
    match fault.kind {
        RuntimeErrorKind::ReceiptUnavailable => answered(ReceiptState::Unavailable, fault),
        RuntimeErrorKind::NotFound => answered(ReceiptState::Gone, fault),
        RuntimeErrorKind::Forbidden
        | RuntimeErrorKind::InvalidArgument
        | RuntimeErrorKind::Unimplemented
        | RuntimeErrorKind::HistoryUnavailable { .. } => answered(ReceiptState::Withheld, fault),
        // Busy or away is no answer, and a token is for the operator to mend.
        RuntimeErrorKind::RateLimited
        | RuntimeErrorKind::Unavailable
        | RuntimeErrorKind::Timeout
        | RuntimeErrorKind::Unauthenticated
        | RuntimeErrorKind::NoCredentials
        | RuntimeErrorKind::CircuitOpen { .. } => Outcome::Wait(fault),
        RuntimeErrorKind::StreamLagged
        | RuntimeErrorKind::Conflict
        | RuntimeErrorKind::Internal => Outcome::Failed(fault.message.replace('\0', "\u{FFFD}")),
    }
}

type Answer<'a> = (&'a PendingReceipt, ReceiptState, Option<Receipt>, Option<String>);

/// The keys that the runtime publishes now, if one of the receipts may need them. A runtime that
/// publishes none, and says so, has none.
async fn keys(
    context: &Context,
    answers: &[Answer<'_>],
) -> Result<BTreeMap<String, String>, RuntimeError> {
    let signed =
        |(_, _, receipt, _): &Answer<'_>| receipt.as_ref().is_some_and(Receipt::has_attestations);
    if !answers.iter().any(signed) {
        return Ok(BTreeMap::new());
    }
    match context.runtime.receipt_keys().await {
        Ok(jwks) => Ok(usable_keys(&jwks)),
        Err(fault) if fault.kind == RuntimeErrorKind::Unimplemented => Ok(BTreeMap::new()),
        Err(fault) => Err(fault),
    }
}

async fn postpone(
    context: &Context,
    pending: &PendingReceipt,
    receipt: Option<&Receipt>,
    detail: String,
) -> Result<(), Error> {
    let doubled = u32::try_from(pending.attempts).unwrap_or_default().min(16);
    let wait = context.config.backoff_base.saturating_mul(1 << doubled).min(LONGEST_WAIT);
    let due_at = context.clock.now() + TimeDelta::from_std(wait).unwrap_or_default();
    let document = receipt.map(|receipt| receipt.text.clone());
    context.store.receipt_postpone(pending.run_id, document, detail, due_at).await
}

/// Records whose decision the run's own replaces, so that it is found from there, whether or not
/// the runtime can be asked; `false` when the run's Commitment is not recorded.
async fn index(context: &Context, run: RunId) -> Result<bool, Error> {
    let last = context.store.envelope_last(run).await?;
    let Some(last) = last.filter(|raw| raw.envelope.message_type == "Commitment") else {
        return Ok(false);
    };
    let commitment = Commitment::from_wire(&last.envelope.payload).ok();
    context.store.receipt_index(run, commitment.and_then(replaced)).await?;
    Ok(true)
}

/// The session whose decision is replaced, if its name can be that of one of ours.
fn replaced(commitment: Commitment) -> Option<String> {
    let session = commitment.supersedes?.session_id;
    let is_name =
        !session.is_empty() && session.len() <= SessionId::MAX_BYTES && !session.contains('\0');
    is_name.then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(kind: RuntimeErrorKind) -> &'static str {
        let fault = RuntimeError { kind, grpc_code: 0, message: "said\0so".to_owned() };
        match refused(fault) {
            Outcome::Answered(state, None, Some(detail)) if detail == "said\u{FFFD}so" => {
                state.as_str()
            }
            Outcome::Answered(..) => "another answer",
            Outcome::Failed(_) => "failed",
            Outcome::Wait(_) => "wait",
        }
    }

    #[test]
    fn only_what_waiting_cannot_change_is_an_answer() {
        let retry_after = Duration::from_secs(1);
        for (kind, meaning) in [
            (RuntimeErrorKind::ReceiptUnavailable, "unavailable"),
            (RuntimeErrorKind::NotFound, "gone"),
            (RuntimeErrorKind::Forbidden, "withheld"),
            (RuntimeErrorKind::Unimplemented, "withheld"),
            (RuntimeErrorKind::RateLimited, "wait"),
            (RuntimeErrorKind::Unavailable, "wait"),
            (RuntimeErrorKind::Timeout, "wait"),
            (RuntimeErrorKind::Unauthenticated, "wait"),
            (RuntimeErrorKind::NoCredentials, "wait"),
            (RuntimeErrorKind::CircuitOpen { retry_after }, "wait"),
            (RuntimeErrorKind::Internal, "failed"),
        ] {
            assert_eq!(kind_of(kind.clone()), meaning, "{kind}");
        }
    }
}
