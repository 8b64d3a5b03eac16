//! Counting: when a session is over, the end of what is recorded is held against the runtime once
//! more.
//!
//! **Invariant:** nothing here changes how a run ends, nor waits for it: a runtime that does not
//! answer leaves less evidence and nothing else. What is shown to be missing is an event.

use std::collections::HashSet;
use std::sync::Arc;

use control_plane_domain::evidence::{Activity, Count, SettledBy};
use control_plane_domain::runtime::{Runtime, RuntimeError, RuntimeErrorKind};
use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Ordinal, SessionId, SessionState, control};
use futures_util::StreamExt;

use super::source::Stream;
use super::{Exit, Task};
use crate::ledger::Ledger;

/// How many of the last envelopes are compared: whole conversations of agents, and little of a long
/// one. A ledger remembers more.
const COMPARED: Ordinal = 128;
/// Most envelopes that are read to find the last one. Whoever lost more has no count.
const MAX_READ: usize = 4096;

/// What the runtime delivers from an ordinal on.
#[derive(Debug, Default)]
struct Tail {
    /// Ids of messages, up to the last one recorded.
    ids: Vec<String>,
    after: Ordinal,
    /// How many envelopes there were, of a history that is compacted.
    compacted: Option<Ordinal>,
    /// Whether the last one recorded was among them.
    is_whole: bool,
}

impl Task<'_> {
    /// Notes what the runtime says of a session that is over: it is final.
    pub(super) fn note_activity(&mut self, info: &SessionInfo) {
        if !info.state.is_over() {
            return;
        }
        let now = self.now();
        let ending = self.ledger.session.evidence.ending();
        ending.activity.get_or_insert_with(|| Activity::new(info.activity.clone(), now));
    }

    /// Notes how many envelopes a session that is over had in all, as the runtime tells when they
    /// are compacted. What is missing of them is recorded apart.
    pub(super) fn note_total(&mut self, total: Ordinal) {
        let count =
            Count { total, compared_from: None, missing: Vec::new(), unplaced: 0, misplaced: 0 };
        self.ledger.session.evidence.ending().count = Some(count);
    }

    /// Looks at the end of the session once more, from another side.
    pub(super) async fn look_back(&mut self, state: SessionState) -> Result<(), Exit> {
        self.note_settled(state);
        let evidence = self.ledger.session.evidence.ending();
        let (counts, asks) = (evidence.count.is_none(), evidence.activity.is_none());
        let session = self.ledger.session.session_id.clone();
        let last = self.ledger.session.last_message_id.clone().filter(|_| counts);
        let runtime = Arc::clone(&self.context.runtime);
        let patience = self.context.config.settle_patience;
        let cursor = self.ledger.session.cursor;
        let after = (cursor - COMPARED).max(0);
        let asking = async { if asks { runtime.get_session(&session).await.ok() } else { None } };
        let reading = async {
            match last {
                Some(last) => tail(&*runtime, &session, (after, cursor), &last).await,
                None => None,
            }
        };
        let both = async {
            // Each for itself: that one hangs says nothing about the other.
            let asking = tokio::time::timeout(patience, asking);
            let reading = tokio::time::timeout(patience, reading);
            let (info, tail) = futures_util::join!(asking, reading);
            (info.ok().flatten(), tail.ok().flatten())
        };
        let (info, tail) = self.serving(both).await?;
        if let Some(info) = info.filter(|info| self.ledger.session.is_same_history(info)) {
            self.note_activity(&info);
        }
        if let Some(tail) = tail {
            self.note_tail(&tail);
        }
        Ok(())
    }

    fn note_settled(&mut self, state: SessionState) {
        let by_commitment = state == SessionState::Resolved && self.ledger.ends_with_commitment();
        let ending = self.ledger.session.evidence.ending();
        let settled_by = match (by_commitment, &ending.count) {
            (true, _) => SettledBy::Commitment,
            (false, Some(_)) => SettledBy::Count,
            (false, None) => SettledBy::Silence,
        };
        ending.settled_by = Some(settled_by);
    }

    fn note_tail(&mut self, tail: &Tail) {
        let cursor = self.ledger.session.cursor;
        let count = match tail.compacted {
            Some(total) => Count {
                total,
                compared_from: None,
                missing: Vec::new(),
                unplaced: total - cursor,
                misplaced: 0,
            },
            None if tail.is_whole => compare(&self.ledger, tail),
            None => return,
        };
        let (now, known_to) = (self.now(), self.ledger.session.evidence.counted_to);
        let session = self.ledger.session.session_id.clone();
        for &(from, to) in &count.missing {
            let draft = control::stream_gap(&session, from, to, control::NOT_DELIVERED, now);
            self.ledger.event(draft, now);
        }
        if count.unplaced > 0 {
            let to = count.compared_from.map_or(count.total, |from| from - 1);
            let to = to.max(known_to + count.unplaced);
            let draft = control::stream_loss(
                &session,
                known_to + 1,
                to,
                count.unplaced,
                control::NOT_DELIVERED,
                now,
            );
            self.ledger.event(draft, now);
        }
        if count.lost() > 0 {
            let lost = count.lost();
            tracing::error!(
                run.id = %self.ledger.run.id, lost,
                "Run {} lacks {lost} envelopes that its session's stream did not deliver", self.ledger.run.id
            );
            metrics::counter!("macp_history_gaps_total").increment(1);
            metrics::counter!("macp_history_gap_envelopes_total")
                .increment(u64::try_from(lost).unwrap_or_default());
        } else if count.misplaced == 0 && count.compared_from.is_some() && count.total == cursor {
            self.ledger.session.evidence.counted(cursor);
        }
        self.ledger.session.evidence.ending().count = Some(count);
    }
}

/// What the runtime delivers after `after`, up to `last`, which we have at `cursor`.
async fn tail(
    runtime: &dyn Runtime,
    session: &SessionId,
    (after, cursor): (Ordinal, Ordinal),
    last: &str,
) -> Option<Tail> {
    let mut tail = Tail { after, ..Tail::default() };
    loop {
        let fault = match runtime.subscribe(session, tail.after).await {
            Ok(mut stream) => match read(&mut stream, &mut tail, last).await {
                Ok(()) => return Some(tail),
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        let RuntimeErrorKind::HistoryUnavailable { lowest_available } = fault.kind else {
            return None;
        };
        if lowest_available >= cursor {
            return Some(Tail { compacted: Some(lowest_available), ..tail });
        }
        if lowest_available <= tail.after {
            // It would be the same again.
            return None;
        }
        tail = Tail { after: lowest_available, ..Tail::default() };
    }
}

/// Reads until `last` has come.
async fn read(stream: &mut Stream, tail: &mut Tail, last: &str) -> Result<(), RuntimeError> {
    while !tail.is_whole && tail.ids.len() < MAX_READ {
        let Some(envelope) = stream.next().await.transpose()? else { break };
        tail.is_whole = envelope.message_id == last;
        tail.ids.push(envelope.message_id);
    }
    Ok(())
}

/// Holds what the runtime delivers against what is recorded.
fn compare(ledger: &Ledger, tail: &Tail) -> Count {
    let cursor = ledger.session.cursor;
    let (mut seen, mut missing) = (HashSet::new(), Vec::new());
    let (mut real, mut misplaced) = (tail.after, 0);
    let (mut unknown, mut last_place) = (0, None);
    for id in &tail.ids {
        // What is delivered twice has one number.
        if !seen.insert(id) {
            continue;
        }
        real += 1;
        match ledger.place(id) {
            Some(place) => {
                if last_place.is_some_and(|last| place < last) {
                    misplaced += 1;
                }
                last_place = last_place.max(Some(place));
            }
            // Before the first one that is known, an id may be recorded and forgotten.
            None if last_place.is_none() && !ledger.knows_all_at(1) => unknown += 1,
            None => push(&mut missing, real),
        }
    }
    if real == cursor {
        // As many as ours: those are in a gap that the log has already.
        missing.clear();
    }
    let placed: Ordinal = missing.iter().map(|(from, to)| to - from + 1).sum();
    // Those of `unknown` that are not recorded are counted here, too.
    let unplaced = (real - cursor - placed).max(0);
    let compared_from = Some(tail.after + 1 + unknown);
    Count { total: real, compared_from, missing, unplaced, misplaced }
}

fn push(ranges: &mut Vec<(Ordinal, Ordinal)>, ordinal: Ordinal) {
    match ranges.last_mut() {
        Some((_, to)) if *to + 1 == ordinal => *to = ordinal,
        _ => ranges.push((ordinal, ordinal)),
    }
}
