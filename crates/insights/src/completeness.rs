//! Whether the record of a run is whole, and how we know.
//!
//! **Invariant:** the answer is a pure function of what is stored, of what the runtime was asked if
//! it was, and of the time. It is `complete` only when something speaks for every part of the record
//! and nothing against any; a loss that is recorded or shown is a `gap`; the rest is `unknown`.

mod checks;
mod read;

use control_plane_domain::session::SessionInfo;
use control_plane_domain::{Ordinal, Run, RunId, Seq, Session, Timestamp, time};
use control_plane_projection::Divergence;
use control_plane_storage::{SignalGap, Tally};
use serde::Serialize;
use serde_json::Value;

pub use read::read;

/// What is stored of a run and tells whether its record is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub run: Run,
    pub session: Option<Session>,
    /// What is recorded up to the session's cursor and the end of the log.
    pub tally: Tally,
    /// The end of the log that was tallied.
    pub last_seq: Seq,
    /// Whether the last event is the one that the run's chain hash is of.
    pub chain_ends: bool,
    /// The gaps in the session's history, in the order in which they were recorded.
    pub gaps: Vec<Gap>,
    pub diverged: Option<Divergence>,
    pub signals: Signals,
    pub asked: Asked,
    pub now: Timestamp,
}

/// An event `session.stream.gap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub from: Ordinal,
    /// `None` where nobody can say how much is missing.
    pub to: Option<Ordinal>,
    pub missing: Ordinal,
    pub reason: String,
}

/// What is known of the watch over signals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signals {
    /// Those that touch the run.
    pub gaps: Vec<SignalGap>,
    /// What was sent before is recorded, but for the gaps.
    pub heard_until: Option<Timestamp>,
}

/// What the runtime says of the session now.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// It was not asked.
    No,
    /// It does not answer, and why.
    Silent(String),
    Told(Box<SessionInfo>),
}

/// Whether a record is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Everything speaks for it.
    Complete,
    /// Something is missing, or nobody listened for a time.
    Gap,
    /// Too little speaks for it, or it is not over.
    Unknown,
}

/// What a piece of evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// That the record is whole.
    Supports,
    /// That it is not what it should be.
    Contradicts,
    SaysNothing,
}

/// What a piece of evidence is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whether the run and its session are over.
    End,
    /// Whether there is an envelope, or a recorded gap, at every ordinal.
    Ordinals,
    /// Whether there is an event at every seq, and the chain's head is the last one's.
    Log,
    /// Gaps that the ingest recorded.
    Gaps,
    /// Whether what was recorded last came first, each time that the stream was opened again.
    Overlaps,
    /// The runtime's count of envelopes, when the session was over.
    Count,
    /// The runtime's count of messages per participant.
    Activity,
    /// Why nothing more was waited for.
    Ending,
    /// Whether somebody listened to signals all the time.
    Signals,
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    pub kind: Kind,
    pub result: Says,
    /// What was counted.
    pub figures: Value,
    pub sentence: String,
}

/// Something that is, or may be, missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "kind")]
pub enum Range {
    /// Envelopes of the session: `missing` of those from `fromOrdinal` to `toOrdinal`, which are the
    /// runtime's ordinals.
    Envelopes {
        from_ordinal: Ordinal,
        /// `null` where nobody can say how far it goes.
        to_ordinal: Option<Ordinal>,
        /// `null` where nobody can say how many.
        missing: Option<Ordinal>,
        reason: String,
    },
    /// Messages of a participant, somewhere in the session.
    Messages { participant_id: String, missing: i64 },
    /// Signals that were sent in a time in which nobody listened; there may have been none.
    Signals {
        #[serde(with = "time::millis")]
        from: Timestamp,
        #[serde(with = "time::millis_option")]
        to: Option<Timestamp>,
        reason: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Completeness {
    pub run_id: RunId,
    pub session_id: Option<String>,
    pub status: Status,
    /// All of it as one sentence.
    pub summary: String,
    /// That of the session's history alone.
    pub history: Status,
    /// That of the signals alone.
    pub signals: Status,
    pub ranges: Vec<Range>,
    pub evidence: Vec<Evidence>,
    /// What would have to be known, too.
    pub lacking: Vec<String>,
    /// Up to which ordinal the session is recorded, or known to be missing.
    pub last_ordinal: Ordinal,
    /// How many of its envelopes are recorded.
    pub recorded: i64,
    pub last_seq: Seq,
    #[serde(with = "time::millis")]
    pub checked_at: Timestamp,
}

/// What a check gives.
struct Finding {
    evidence: Evidence,
    ranges: Vec<Range>,
    /// What is lacking when it does not speak for the record.
    lacks: Option<String>,
}

/// Judges a record.
pub fn judge(facts: &Facts) -> Completeness {
    let session = facts.session.as_ref();
    let history = checks::history(facts);
    let signals = checks::signals(facts);
    let history_status = status(&history);
    let signals_status = status(std::slice::from_ref(&signals));
    let (mut ranges, mut evidence, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
    for finding in history.into_iter().chain([signals]) {
        ranges.extend(finding.ranges);
        evidence.push(finding.evidence);
        lacking.extend(finding.lacks);
    }
    let status = match (history_status, signals_status) {
        (Status::Gap, _) | (_, Status::Gap) => Status::Gap,
        (Status::Unknown, _) | (_, Status::Unknown) => Status::Unknown,
        (Status::Complete, Status::Complete) => Status::Complete,
    };
    let mut judged = Completeness {
        run_id: facts.run.id,
        session_id: session.map(|session| session.session_id.to_string()),
        status,
        summary: String::new(),
        history: history_status,
        signals: signals_status,
        ranges,
        evidence,
        lacking,
        last_ordinal: session.map_or(0, |session| session.cursor),
        recorded: facts.tally.envelopes.count,
        last_seq: facts.last_seq,
        checked_at: facts.now,
    };
    judged.summary = summary(&judged);
    judged
}

/// A range wins over all; then everything that must speak for the record has to.
fn status(findings: &[Finding]) -> Status {
    let is_doubtful =
        |finding: &Finding| finding.lacks.is_some() || finding.evidence.result == Says::Contradicts;
    if findings.iter().any(|finding| !finding.ranges.is_empty()) {
        Status::Gap
    } else if findings.iter().any(is_doubtful) {
        Status::Unknown
    } else {
        Status::Complete
    }
}

fn summary(judged: &Completeness) -> String {
    let recorded = judged.recorded;
    match judged.status {
        Status::Complete => {
            format!("The record is complete: {}, and all signals.", many(recorded, "envelope"))
        }
        Status::Gap => {
            let parts: Vec<String> = judged.ranges.iter().map(Range::sentence).collect();
            format!("The record has gaps: {}.", parts.join("; "))
        }
        Status::Unknown => {
            let against = judged.evidence.iter().filter(|one| one.result == Says::Contradicts);
            let reasons: Vec<&str> = against
                .map(|one| one.sentence.as_str())
                .chain(judged.lacking.iter().map(String::as_str))
                .collect();
            format!("Whether the record is complete is not known: {}.", reasons.join("; "))
        }
    }
}

impl Range {
    fn sentence(&self) -> String {
        match self {
            Self::Envelopes { from_ordinal: from, to_ordinal: None, missing, reason } => {
                match missing {
                    None => format!("envelopes from {from} on may be missing ({reason})"),
                    Some(missing) => {
                        format!("from {from} on, {missing} or more are missing ({reason})")
                    }
                }
            }
            Self::Envelopes { from_ordinal: from, to_ordinal: Some(to), missing, reason } => {
                let span = to - from + 1;
                match missing {
                    _ if span == 1 => format!("envelope {from} is missing ({reason})"),
                    Some(1) => {
                        format!("one of the envelopes {from} to {to} is missing ({reason})")
                    }
                    Some(missing) if *missing < span => {
                        format!("{missing} of the envelopes {from} to {to} are missing ({reason})")
                    }
                    _ => format!("envelopes {from} to {to} are missing ({reason})"),
                }
            }
            Self::Messages { participant_id, missing } => {
                let is = if *missing == 1 { "is" } else { "are" };
                format!("{} of {participant_id} {is} missing", many(*missing, "message"))
            }
            Self::Signals { from, to, reason } => {
                let from = time::format(*from);
                let to = to.map_or_else(|| "now".to_owned(), time::format);
                format!("signals from {from} to {to} may be missing ({reason})")
            }
        }
    }
}

/// So many of something.
fn many(count: i64, what: &str) -> String {
    if count == 1 { format!("one {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests;
