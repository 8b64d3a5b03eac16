//! What must hold after a round, against what those know who took part.
//!
//! **Invariant:** the database is read when nobody writes it any more, and nothing that the server
//! says of itself is believed.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use control_plane_domain::run::FailureCode;
use control_plane_domain::{CanonicalEvent, EventType, Ordinal, Run, RunState, SessionState};
use control_plane_insights::integrity::{self, Integrity};
use control_plane_storage::Store;
use control_plane_storage::model::{EventFilter, RunFilter};
use control_plane_testkit::message::MULTI_ROUND;
use control_plane_testkit::runtime::Durability;
use serde_json::Value;

use crate::load::Told;
use crate::report::Tally;

const PAGE: i64 = 1000;

/// Checks every session, and what holds over all of them.
pub(crate) async fn check(store: &Store, durability: Durability, told: &[Told]) -> Result<Tally> {
    let mut tally = Tally { sessions: told.len(), ..Tally::default() };
    for told in told {
        let before = tally.faults.len();
        check_session(store, durability, told, &mut tally).await?;
        for fault in tally.faults.iter_mut().skip(before) {
            *fault = format!("{} ({}, {}): {fault}", told.session, told.mode, told.state);
        }
    }
    check_feed(store, &mut tally).await?;
    Ok(tally)
}

async fn check_session(
    store: &Store,
    durability: Durability,
    told: &Told,
    tally: &mut Tally,
) -> Result<()> {
    match told.state {
        SessionState::Resolved => tally.resolved += 1,
        SessionState::Cancelled => tally.cancelled += 1,
        SessionState::Expired
        | SessionState::Open
        | SessionState::Suspended
        | SessionState::Unspecified => tally.expired += 1,
    }
    tally.accepted += told.accepted.len();
    let run = match store.run_find(told.session.as_str()).await {
        Ok(run) => run,
        Err(fault) => {
            tally.faults.push(format!("has no run: {fault}"));
            return Ok(());
        }
    };
    check_end(&run, told, tally);
    let found = integrity::check(store, run.id).await?;
    tally.faults.extend(found.faults.iter().cloned());
    check_envelopes(store, &run, told, &found, tally).await?;
    if durability == Durability::KeepsHistory && !found.gaps.is_empty() {
        tally.faults.push(format!("has gaps {:?} where all is kept", found.gaps));
    }
    tally.gaps += found.gaps.len();
    check_events(store, &run, told, &found, tally).await?;
    let waiting = store.inbox_list(run.id).await?;
    if !waiting.is_empty() {
        tally.faults.push(format!("{} requests are left in the inbox", waiting.len()));
    }
    Ok(())
}

/// The run is over as its session is.
fn check_end(run: &Run, told: &Told, tally: &mut Tally) {
    let expired = FailureCode::SessionExpired.as_str();
    let (state, code) = match told.state {
        SessionState::Resolved => (RunState::Completed, None),
        SessionState::Cancelled => (RunState::Cancelled, None),
        SessionState::Expired
        | SessionState::Open
        | SessionState::Suspended
        | SessionState::Unspecified => (RunState::Failed, Some(expired)),
    };
    if (run.state, run.error_code.as_deref()) != (state, code) {
        let Run { state: is, error_code, error_message, .. } = run;
        tally.faults.push(format!(
            "run {} is {is:?} ({error_code:?}: {error_message:?}), not {state:?} ({code:?})",
            run.id
        ));
    }
    if let Some(reason) = &run.parked_reason {
        tally.faults.push(format!("run {} is parked: {reason}", run.id));
    }
}

/// Each ordinal is recorded with the envelope that was accepted there, or it is in a recorded gap.
async fn check_envelopes(
    store: &Store,
    run: &Run,
    told: &Told,
    found: &Integrity,
    tally: &mut Tally,
) -> Result<()> {
    let raw = store.list_raw_by_run(run.id, 0, i64::from(i32::MAX)).await?;
    let mut recorded = BTreeSet::new();
    for envelope in &raw {
        let ordinal = envelope.ordinal.unwrap_or_default();
        let id = &envelope.envelope.message_id;
        let accepted = usize::try_from(ordinal - 1).ok().and_then(|at| told.accepted.get(at));
        if accepted != Some(id) {
            tally.faults.push(format!("ordinal {ordinal} is {id}, not {accepted:?}"));
        }
        recorded.insert(ordinal);
    }
    tally.recorded += recorded.len();
    let last = Ordinal::try_from(told.accepted.len())?;
    for ordinal in (1..=last).filter(|ordinal| !recorded.contains(ordinal)) {
        if found.gaps.iter().any(|(from, to)| (*from..=*to).contains(&ordinal)) {
            tally.missing += 1;
        } else {
            tally.lost += 1;
            tally.faults.push(format!("ordinal {ordinal} of {last} is lost in silence"));
        }
    }
    for (from, to) in &found.gaps {
        if *to > last || (*from..=*to).any(|ordinal| recorded.contains(&ordinal)) {
            tally.faults.push(format!("the gap {from} to {to} is none: {last} were accepted"));
        }
    }
    Ok(())
}

/// The log ends the run once, and tells everything once.
async fn check_events(
    store: &Store,
    run: &Run,
    told: &Told,
    found: &Integrity,
    tally: &mut Tally,
) -> Result<()> {
    let mut events: Vec<CanonicalEvent> = Vec::new();
    loop {
        let page = store.events(run.id, events.last().map_or(0, |event| event.seq), PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in &page {
            events.push(serde_json::from_slice(&entry.body).context("an event that is no JSON")?);
        }
    }
    tally.events += events.len();
    let count = |kind: EventType| events.iter().filter(|event| event.event_type == kind).count();
    let ends = [EventType::RunCompleted, EventType::RunFailed, EventType::RunCancelled];
    let ended: usize = ends.into_iter().map(count).sum();
    if ended != 1 {
        tally.faults.push(format!("the log ends the run {ended} times"));
    }
    let text = |event: &CanonicalEvent, key: &str| {
        event.data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let finalized = count(EventType::DecisionFinalized);
    let by_receipt = |event: &&CanonicalEvent| {
        event.event_type == EventType::DecisionFinalized && text(event, "source") == "receipt"
    };
    tally.receipts += events.iter().filter(by_receipt).count();
    // There are no receipts of extension modes.
    let knows = told.mode != MULTI_ROUND || found.gaps.is_empty();
    let wanted = usize::from(told.state == SessionState::Resolved && knows);
    if finalized != wanted {
        tally.faults.push(format!("{finalized} events say how it was decided, not {wanted}"));
    }
    let received = events.iter().filter(|event| event.event_type == EventType::MessageReceived);
    let mut heard = BTreeSet::new();
    for event in received.filter(|event| event.data.contains_key("senderAuthenticated")) {
        let id = text(event, "messageId");
        if !told.asides.contains(&id) {
            tally.faults.push(format!("{id} was never said beside it"));
        }
        if !heard.insert(id.clone()) {
            tally.faults.push(format!("{id}, said beside it, is recorded twice"));
        }
    }
    tally.heard += heard.len();
    tally.asides += told.asides.len();
    let recovered = |event: &&CanonicalEvent| text(event, "status") == "recovered";
    tally.recovered += events.iter().filter(recovered).count();
    Ok(())
}

/// There is one run for each session, and the feed has every event of every run once.
async fn check_feed(store: &Store, tally: &mut Tally) -> Result<()> {
    let filter = RunFilter { include_sandbox: true, limit: PAGE, ..RunFilter::default() };
    let runs = store.run_list(&filter).await?;
    if usize::try_from(runs.total)? != tally.sessions {
        tally.faults.push(format!("{} sessions have {} runs", tally.sessions, runs.total));
    }
    let logged: i64 = runs.items.iter().map(|run| run.last_seq).sum();
    let end = store.feed_end().await?;
    let mut position = 0;
    let mut seen = 0;
    loop {
        let filter = EventFilter { after: position, limit: PAGE, ..EventFilter::default() };
        let page = store.event_list(&filter).await?;
        for entry in &page.items {
            if entry.position != position + 1 {
                let wanted = position + 1;
                tally.faults.push(format!("{} follows in the feed, not {wanted}", entry.position));
            }
            position = entry.position;
            seen += 1;
        }
        if !page.more {
            break;
        }
    }
    if (seen, position) != (logged, end) {
        tally.faults.push(format!(
            "the feed has {seen} events up to {position}; the logs have {logged}, its end is {end}"
        ));
    }
    Ok(())
}
