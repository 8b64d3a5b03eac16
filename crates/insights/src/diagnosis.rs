//! Why a run is where it is, in one sentence and in fields.
//!
//! **Invariant:** the answer is a pure function of what is stored and of the time, so every
//! instance gives the same one, and the runtime is not asked: it may be what is missing.

mod read;
mod sentence;
mod waiting;

use control_plane_domain::{Ordinal, Run, RunId, RunState, Seq, Session, Timestamp, time};
use control_plane_projection::{Divergence, HistoryGap, Projection};
use control_plane_storage::Ownership;
use serde::Serialize;

pub use read::read;
pub use waiting::{WaitingFor, What};

/// What is stored of a run and tells where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub run: Run,
    pub session: Option<Session>,
    pub ownership: Ownership,
    pub state: Projection,
    /// When the log last said that the run was suspended.
    pub suspended_at: Option<Timestamp>,
    /// What the log says about why the stream went down.
    pub outage_detail: Option<String>,
    /// When signals of the run may have been missed.
    pub signal_gaps: Vec<SignalGap>,
    pub now: Timestamp,
}

/// A time in which nobody listened to the runtime's signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignalGap {
    #[serde(with = "time::millis")]
    pub from: Timestamp,
    /// Absent while it lasts.
    #[serde(with = "time::millis_option", skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// A word for why.
    pub reason: String,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is over.
    Finished,
    /// It was given up until a server starts anew.
    Parked,
    /// No living instance has it.
    NotFollowed,
    /// The runtime does not answer.
    RuntimeUnreachable,
    /// It is recorded, and nothing was asked of the runtime yet.
    Queued,
    /// Its session does not exist yet.
    WaitingForSession,
    /// Its session is known, and the stream is being opened.
    Binding,
    /// Its session is suspended.
    Suspended,
    /// Participants have to say something.
    WaitingForParticipants,
    /// The decision is made, and the rest of the history is being read.
    Settling,
    /// It is followed, and its mode does not tell whose turn it is.
    Running,
    /// It was loaded from a bundle before it had ended: nobody follows it.
    Imported,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    pub run_id: RunId,
    pub session_id: Option<String>,
    pub status: RunState,
    pub condition: Condition,
    /// All of it that matters now, as one sentence.
    pub summary: String,
    /// Since when it is in this condition, where that is known.
    #[serde(with = "time::millis_option")]
    pub since: Option<Timestamp>,
    /// Whom it waits for.
    pub waiting_for: Option<WaitingFor>,
    pub suspension: Option<Suspension>,
    pub outage: Option<Outage>,
    /// When the session said something last.
    #[serde(with = "time::millis_option")]
    pub last_heard_at: Option<Timestamp>,
    /// How long ago that is, in milliseconds, of a run that is not over.
    pub silent_for_ms: Option<i64>,
    #[serde(with = "time::millis_option")]
    pub expires_at: Option<Timestamp>,
    /// Up to which ordinal the session is recorded, or known to be missing.
    pub last_ordinal: Ordinal,
    pub last_seq: Seq,
    pub owner: Option<Owner>,
    /// How many requests (signals, artifacts, cancellations) wait for the owner.
    pub requests_waiting: i64,
    pub history_gap: Option<HistoryGap>,
    pub diverged: Option<Divergence>,
    pub signal_gaps: Vec<SignalGap>,
    pub parked_reason: Option<String>,
    pub end: Option<End>,
}

/// The session is suspended, and its clock stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    #[serde(with = "time::millis_option")]
    pub since: Option<Timestamp>,
    /// How much time the session has left when it is resumed.
    pub banked_ttl_ms: Option<i64>,
}

/// The runtime does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outage {
    #[serde(with = "time::millis")]
    pub since: Timestamp,
    pub detail: Option<String>,
}

/// The instance that follows the run, or did last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its number, as 16 hexadecimal digits; another one after each start.
    pub instance: String,
    pub alive: bool,
    /// Whether it is the one that answers.
    pub here: bool,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    #[serde(with = "time::millis_option")]
    pub at: Option<Timestamp>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    /// What was decided.
    pub action: Option<String>,
    pub outcome_positive: Option<bool>,
    /// Whether the decision was read from the receipt, because its Commitment could not be.
    pub from_receipt: bool,
}

/// Tells where the run is.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let Facts { run, session, ownership, state, signal_gaps, .. } = facts;
    let session_ref = session.as_ref();
    let is_over = run.state.is_terminal();
    let waiting_for = match run.state {
        RunState::Running => session_ref.and_then(|session| waiting::waiting_for(session, state)),
        RunState::Queued
        | RunState::Starting
        | RunState::BindingSession
        | RunState::Suspended
        | RunState::Completed
        | RunState::Failed
        | RunState::Cancelled => None,
    };
    let condition = condition(facts, waiting_for.is_some());
    let last_heard_at = session_ref.filter(|session| session.cursor > 0);
    let last_heard_at = last_heard_at.and_then(|session| session.last_seen_at);
    let mut diagnosis = Diagnosis {
        run_id: run.id,
        session_id: session_ref.map(|session| session.session_id.to_string()),
        status: run.state,
        condition,
        summary: String::new(),
        since: since(facts, condition),
        waiting_for: waiting_for.filter(|_| condition == Condition::WaitingForParticipants),
        suspension: suspension(facts),
        outage: outage(facts),
        last_heard_at,
        silent_for_ms: last_heard_at
            .filter(|_| !run.is_over())
            .map(|at| (facts.now - at).num_milliseconds().max(0)),
        expires_at: session_ref
            .filter(|_| run.state != RunState::Suspended)
            .and_then(|session| session.expires_at),
        last_ordinal: session_ref.map_or(0, |session| session.cursor),
        last_seq: run.last_seq,
        owner: ownership.owner.map(|owner| Owner {
            instance: format!("{:016x}", owner.instance),
            alive: owner.alive,
            here: owner.here,
        }),
        requests_waiting: ownership.asked,
        history_gap: state.run.history_gap,
        diverged: state.run.diverged.clone(),
        signal_gaps: signal_gaps.clone(),
        parked_reason: run.parked_reason.clone(),
        end: is_over.then(|| end(run, state)),
    };
    diagnosis.summary = sentence::summary(&diagnosis, facts.now);
    diagnosis
}

/// What keeps the run most comes first: nothing below it matters until that is mended.
fn condition(facts: &Facts, is_waiting: bool) -> Condition {
    let Facts { run, session, ownership, state, .. } = facts;
    if run.state.is_terminal() {
        return Condition::Finished;
    }
    if run.imported_at.is_some() {
        return Condition::Imported;
    }
    if run.parked_reason.is_some() {
        return Condition::Parked;
    }
    if ownership.owner.is_none_or(|owner| !owner.alive) {
        return Condition::NotFollowed;
    }
    if session.as_ref().is_some_and(|session| session.unreachable_since().is_some()) {
        return Condition::RuntimeUnreachable;
    }
    match run.state {
        RunState::Queued => Condition::Queued,
        RunState::Starting => Condition::WaitingForSession,
        RunState::BindingSession => Condition::Binding,
        RunState::Suspended => Condition::Suspended,
        RunState::Running => {
            let is_decided = state.decision.current.as_ref().is_some_and(|found| found.finalized);
            match (is_decided, is_waiting) {
                (true, _) => Condition::Settling,
                (false, true) => Condition::WaitingForParticipants,
                (false, false) => Condition::Running,
            }
        }
        RunState::Completed | RunState::Failed | RunState::Cancelled => Condition::Finished,
    }
}

fn since(facts: &Facts, condition: Condition) -> Option<Timestamp> {
    let Facts { run, session, suspended_at, .. } = facts;
    let session = session.as_ref();
    match condition {
        Condition::Finished => run.ended_at,
        Condition::Imported => run.imported_at,
        Condition::RuntimeUnreachable => session.and_then(Session::unreachable_since),
        Condition::Queued => Some(run.created_at),
        Condition::WaitingForSession => run.started_at,
        Condition::Suspended => *suspended_at,
        Condition::Binding => session.map(|session| session.updated_at),
        // Whoever has to speak now, the last word was what made it so.
        Condition::WaitingForParticipants | Condition::Settling | Condition::Running => {
            session.and_then(|session| session.last_seen_at)
        }
        // Nobody was there to write it down.
        Condition::Parked | Condition::NotFollowed => None,
    }
}

/// The session's clock stands still while it is suspended, so what was left then is left now.
fn suspension(facts: &Facts) -> Option<Suspension> {
    if facts.run.state != RunState::Suspended {
        return None;
    }
    let expires_at = facts.session.as_ref().and_then(|session| session.expires_at);
    let left =
        expires_at.zip(facts.suspended_at).map(|(end, from)| (end - from).num_milliseconds());
    // When we noticed it late there is more than this, and nobody says how much.
    Some(Suspension { since: facts.suspended_at, banked_ttl_ms: left.filter(|left| *left > 0) })
}

fn outage(facts: &Facts) -> Option<Outage> {
    if facts.run.is_over() {
        return None;
    }
    let since = facts.session.as_ref().and_then(Session::unreachable_since)?;
    Some(Outage { since, detail: facts.outage_detail.clone() })
}

fn end(run: &Run, state: &Projection) -> End {
    let decided = state.decision.current.as_ref().filter(|found| found.finalized);
    End {
        at: run.ended_at,
        error_code: run.error_code.clone(),
        error: run.error_message.clone(),
        action: decided.map(|found| found.action.clone()),
        outcome_positive: decided.and_then(|found| found.outcome_positive.flatten()),
        from_receipt: decided.is_some_and(|found| found.source.as_deref() == Some("receipt")),
    }
}

#[cfg(test)]
mod tests;
