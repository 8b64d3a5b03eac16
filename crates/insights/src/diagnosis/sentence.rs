//! A diagnosis as one sentence for people.

use chrono::TimeDelta;
use control_plane_domain::{RunState, Timestamp, time};

use super::{Condition, Diagnosis, End, SignalGap, WaitingFor, What};

/// Most names in a sentence.
const MAX_NAMES: usize = 5;
/// Silence that is shorter is how people talk.
const SILENCE: TimeDelta = TimeDelta::seconds(10);

/// What holds the run, and after it what else one must know.
pub(super) fn summary(diagnosis: &Diagnosis, now: Timestamp) -> String {
    let mut clauses = vec![main_clause(diagnosis, now)];
    clauses.extend(notes(diagnosis));
    format!("{}.", clauses.join("; "))
}

fn main_clause(diagnosis: &Diagnosis, now: Timestamp) -> String {
    let since = since(diagnosis.since, now);
    match diagnosis.condition {
        Condition::Finished => finished(diagnosis),
        Condition::Imported => format!(
            "Imported: another server recorded it, and it was {} when it was exported",
            diagnosis.status
        ),
        Condition::Parked => {
            let reason = diagnosis.parked_reason.as_deref().unwrap_or_default();
            format!("Parked until a server starts anew: {}", clause(reason))
        }
        Condition::NotFollowed => match &diagnosis.owner {
            None => "Not followed: no instance has taken it yet".to_owned(),
            Some(owner) => {
                format!(
                    "Not followed: instance {} is gone, and no other has taken it yet",
                    owner.instance
                )
            }
        },
        Condition::RuntimeUnreachable => {
            let outage = diagnosis.outage.as_ref();
            let detail = outage.and_then(|outage| outage.detail.as_deref()).map(clause);
            let detail = detail.map(|text| format!(": {text}")).unwrap_or_default();
            format!("The runtime cannot be reached{since}{detail}")
        }
        Condition::Queued => format!("Recorded, and not begun yet{since}"),
        Condition::WaitingForSession => {
            format!("Waiting for the session to be started{since}")
        }
        Condition::Binding => {
            format!("The session is found, and its stream is being opened{since}")
        }
        Condition::Suspended => {
            let banked = diagnosis.suspension.and_then(|suspension| suspension.banked_ttl_ms);
            let banked = banked.map(|left| {
                format!(", with {} of its time banked", span(TimeDelta::milliseconds(left)))
            });
            format!("Suspended{since}{}", banked.unwrap_or_default())
        }
        Condition::WaitingForParticipants => {
            let waiting = diagnosis.waiting_for.as_ref().map(waiting).unwrap_or_default();
            format!("Waiting for {waiting}{}", silence(diagnosis))
        }
        Condition::Settling => {
            format!(
                "The Commitment is recorded, and the end of the session is being confirmed{since}"
            )
        }
        Condition::Running => format!("Followed{}", silence(diagnosis)),
    }
}

fn finished(diagnosis: &Diagnosis) -> String {
    let Some(end) = &diagnosis.end else { return "Over".to_owned() };
    let at = end.at.map(|at| format!(" at {}", time::format(at))).unwrap_or_default();
    match diagnosis.status {
        RunState::Failed => {
            let code = end.error_code.as_deref().unwrap_or("an unknown error");
            let error = end.error.as_deref().map(|text| format!(": {}", clause(text)));
            format!("Failed{at} with {code}{}", error.unwrap_or_default())
        }
        RunState::Cancelled => format!("Cancelled{at}"),
        RunState::Completed
        | RunState::Queued
        | RunState::Starting
        | RunState::BindingSession
        | RunState::Running
        | RunState::Suspended => format!("Completed{at}{}", decided(end)),
    }
}

fn decided(end: &End) -> String {
    let Some(action) = &end.action else {
        return " without a decision that could be read".to_owned();
    };
    let outcome = match end.outcome_positive {
        Some(true) => " (positive)",
        Some(false) => " (negative)",
        None => "",
    };
    let source = if end.from_receipt { ", as the decision receipt says" } else { "" };
    format!(": {action}{outcome}{source}")
}

/// What is worth knowing besides.
fn notes(diagnosis: &Diagnosis) -> Vec<String> {
    let mut notes = Vec::new();
    let is_over = diagnosis.condition == Condition::Finished;
    if let Some(gap) = diagnosis.history_gap {
        let from = gap.from_ordinal;
        let what = match gap.to_ordinal {
            None => format!("what was accepted from envelope {from} on, if anything,"),
            Some(to) if to == from => format!("envelope {from} of its history"),
            Some(to) if to - from + 1 == gap.missing => {
                format!("envelopes {from} to {to} of its history")
            }
            Some(to) => {
                format!("{} envelopes between {from} and {to} of its history", gap.missing)
            }
        };
        notes.push(format!("{what} cannot be read any more"));
    }
    if let Some(diverged) = &diagnosis.diverged {
        notes.push(format!(
            "another history stands under the session's id after envelope {}",
            diverged.ordinal
        ));
    }
    if let Some(first) = diagnosis.signal_gaps.first() {
        notes.push(signals(first, diagnosis.signal_gaps.len()));
    }
    if diagnosis.requests_waiting > 0 && !is_over {
        let count = diagnosis.requests_waiting;
        notes.push(match count {
            1 => "one request waits for its instance".to_owned(),
            _ => format!("{count} requests wait for its instance"),
        });
    }
    if let Some(owner) = diagnosis.owner.as_ref().filter(|owner| owner.alive && !owner.here)
        && !is_over
        && diagnosis.condition != Condition::Parked
    {
        notes.push(format!("followed by another instance, {}", owner.instance));
    }
    notes
}

fn signals(first: &SignalGap, count: usize) -> String {
    let from = time::format(first.from);
    let reason = clause(&first.reason);
    let first = match first.to {
        Some(to) => format!("between {from} and {} ({reason})", time::format(to)),
        None => format!("since {from} ({reason})"),
    };
    match count {
        1 => format!("signals may be missing {first}"),
        _ => format!("signals may be missing {first}, and {} more times", count - 1),
    }
}

fn waiting(waiting: &WaitingFor) -> String {
    let WaitingFor { what, subject_id, participants } = waiting;
    let on = |word: &str| {
        let subject = subject_id.as_deref();
        subject.map(|id| format!(" {word} {}", clause(id))).unwrap_or_default()
    };
    let all = names(participants, "and");
    let one = names(participants, "or");
    match what {
        What::Proposal => format!("a proposal of {one}"),
        What::Evaluations => format!("evaluations or votes of {all}{}", on("on")),
        What::Votes => format!("votes of {all}{}", on("on")),
        What::Acceptances => format!("acceptances of {all}{}", on("of")),
        What::TaskRequest => format!("a task to be requested by {one}"),
        What::TaskAcceptance => format!("the task{} to be accepted by {one}", on("named")),
        What::TaskResult => format!("{one} to complete the task{}", on("named")),
        What::HandoffOffer => format!("a handoff to be offered by {one}"),
        What::HandoffAnswer => format!("the handoff{} to be answered by {one}", on("named")),
        What::ApprovalRequest => format!("an approval to be requested by {one}"),
        What::Ballots => format!("approvals of {all}{}", on("on")),
        What::Contributions => format!("contributions of {all}"),
        What::Commitment => format!("the Commitment of {one}, who began the session"),
    }
}

/// `a`, `a and b`, `a, b and c`; a long list is cut.
fn names(names: &[String], word: &str) -> String {
    let mut shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| clause(name)).collect();
    if names.len() > MAX_NAMES {
        shown.push(format!("{} more", names.len() - MAX_NAMES));
    }
    let Some(last) = shown.pop() else { return "somebody".to_owned() };
    if shown.is_empty() { last } else { format!("{} {word} {last}", shown.join(", ")) }
}

fn silence(diagnosis: &Diagnosis) -> String {
    let silent = diagnosis.silent_for_ms.map(TimeDelta::milliseconds);
    let long = silent.filter(|silent| *silent >= SILENCE);
    long.map(|silent| format!(", silent for {}", span(silent))).unwrap_or_default()
}

fn since(at: Option<Timestamp>, now: Timestamp) -> String {
    let at = at.map(|at| format!(" since {} ({})", time::format(at), span(now - at)));
    at.unwrap_or_default()
}

/// A length of time in its two largest units.
fn span(length: TimeDelta) -> String {
    let seconds = length.num_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => two(minutes, "min", seconds % 60, "s"),
        (0, _, _) => two(hours, "h", minutes % 60, "min"),
        (_, _, _) => two(days, "d", hours % 24, "h"),
    }
}

fn two(large: i64, unit: &str, small: i64, part: &str) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {part}") }
}

/// A text that somebody else wrote, as a part of a sentence: on one line, without its full stop,
/// and not too long.
fn clause(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches('.');
    match line.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_two_largest_units() {
        let cases = [
            (-5, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3605, "1 h"),
            (90_000, "1 d 1 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn many_names_are_cut() {
        let all: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned).to_vec();
        assert_eq!(names(&all[..1], "and"), "a");
        assert_eq!(names(&all[..3], "or"), "a, b or c");
        assert_eq!(names(&all, "and"), "a, b, c, d, e and 2 more");
        assert_eq!(names(&[], "and"), "somebody");
    }

    #[test]
    fn what_others_wrote_does_not_break_the_sentence() {
        assert_eq!(clause("it broke.\nBadly."), "it broke. Badly");
        assert!(clause(&"x".repeat(1000)).chars().count() <= 301);
    }
}
