//! Each piece of evidence for itself.

use std::collections::BTreeMap;

use control_plane_domain::control::NOT_DELIVERED;
use control_plane_domain::evidence::{Activity, SettledBy};
use control_plane_domain::{Ordinal, RunState, Session, SessionState};
use control_plane_storage::Counted;
use serde_json::{Value, json};

use super::{Asked, Evidence, Facts, Finding, Gap, Kind, Range, Says, many};

/// Everything about the session's history.
pub(super) fn history(facts: &Facts) -> Vec<Finding> {
    let count = count(facts);
    let activity = activity(facts);
    // One witness that knows how much there was is enough, and there must be one.
    let witnesses = [&count, &activity];
    let is_witnessed = witnesses.iter().any(|one| one.evidence.result != Says::SaysNothing);
    let lacks = "nothing that the runtime said tells how many envelopes there were";
    let count = Finding { lacks: (!is_witnessed).then(|| lacks.to_owned()), ..count };
    vec![
        end(facts),
        ordinals(facts),
        log(facts),
        gaps(facts),
        overlaps(facts),
        count,
        activity,
        ending(facts),
    ]
}

fn finding(kind: Kind, result: Says, figures: Value, sentence: impl Into<String>) -> Finding {
    let evidence = Evidence { kind, result, figures, sentence: sentence.into() };
    Finding { evidence, ranges: Vec::new(), lacks: None }
}

impl Finding {
    /// Of what must speak for the record.
    fn needed(mut self) -> Self {
        if self.evidence.result == Says::SaysNothing {
            self.lacks = Some(self.evidence.sentence.clone());
        }
        self
    }

    fn with(mut self, ranges: Vec<Range>) -> Self {
        self.ranges = ranges;
        self
    }
}

fn cursor(facts: &Facts) -> Ordinal {
    facts.session.as_ref().map_or(0, |session| session.cursor)
}

fn session_state(facts: &Facts) -> SessionState {
    facts.session.as_ref().map_or(SessionState::Unspecified, |session| session.state)
}

fn end(facts: &Facts) -> Finding {
    let (run, state) = (facts.run.state, session_state(facts));
    let figures = json!({ "status": run, "sessionState": state });
    let (result, sentence) = match (run.is_terminal(), state.is_over(), run) {
        (false, ..) => (Says::SaysNothing, format!("the run is {run}, so more may come")),
        (true, true, _) => (Says::Supports, format!("the session is over, and the run is {run}")),
        (true, false, RunState::Failed) => {
            let code = facts.run.error_code.as_deref().unwrap_or("UNKNOWN");
            (Says::SaysNothing, format!("the run was given up ({code}) before its session ended"))
        }
        (true, false, _) => {
            (Says::SaysNothing, "the run ended without its session being seen to end".to_owned())
        }
    };
    finding(Kind::End, result, figures, sentence).needed()
}

/// How many ordinals of ours are in recorded gaps, once each.
fn in_gaps(gaps: &[Gap], cursor: Ordinal) -> Ordinal {
    let holes = gaps.iter().filter(|gap| gap.reason != NOT_DELIVERED);
    let mut holes: Vec<(Ordinal, Ordinal)> =
        holes.filter_map(|gap| Some((gap.from, gap.to?.min(cursor)))).collect();
    holes.sort_unstable();
    let (mut sum, mut done) = (0, 0);
    for (from, to) in holes {
        let from = from.max(done + 1);
        sum += (to - from + 1).max(0);
        done = done.max(to);
    }
    sum
}

fn ordinals(facts: &Facts) -> Finding {
    let cursor = cursor(facts);
    let Counted { count, first, last } = facts.tally.envelopes;
    let in_gaps = in_gaps(&facts.gaps, cursor);
    let figures = json!({
        "lastOrdinal": cursor, "recorded": count, "first": first, "last": last, "inGaps": in_gaps,
    });
    let lost = cursor - count - in_gaps;
    if lost > 0 {
        let sentence =
            format!("of {cursor} envelopes, {lost} cannot be found, and no event says why");
        let range = Range::Envelopes {
            from_ordinal: 1,
            to_ordinal: Some(cursor),
            missing: Some(lost),
            reason: "NOT_RECORDED".to_owned(),
        };
        return finding(Kind::Ordinals, Says::Contradicts, figures, sentence).with(vec![range]);
    }
    if lost < 0 {
        let sentence = "there are envelopes where the log says that there is a gap";
        return finding(Kind::Ordinals, Says::Contradicts, figures, sentence);
    }
    if cursor == 0 {
        let sentence = "nothing of the session was seen";
        return finding(Kind::Ordinals, Says::SaysNothing, figures, sentence).needed();
    }
    let sentence = match in_gaps {
        0 => format!("there is an envelope at every ordinal from 1 to {cursor}"),
        _ => format!("every ordinal from 1 to {cursor} is recorded, or in a recorded gap"),
    };
    finding(Kind::Ordinals, Says::Supports, figures, sentence)
}

fn log(facts: &Facts) -> Finding {
    let (events, last_seq) = (facts.tally.events, facts.last_seq);
    let figures = json!({
        "lastSeq": last_seq, "events": events.count, "chainEnds": facts.chain_ends,
    });
    let is_contiguous = events.count == last_seq
        && events.last.unwrap_or(0) == last_seq
        && events.first.unwrap_or(1) == 1;
    match (is_contiguous, facts.chain_ends) {
        (true, true) => {
            let sentence =
                format!("events 1 to {last_seq} are there, and the chain ends with the last");
            finding(Kind::Log, Says::Supports, figures, sentence)
        }
        (true, false) => {
            let sentence = "the last event is not the one that the run's chain hash is of";
            finding(Kind::Log, Says::Contradicts, figures, sentence)
        }
        (false, _) => {
            let sentence = format!("of events 1 to {last_seq}, only {} can be found", events.count);
            finding(Kind::Log, Says::Contradicts, figures, sentence)
        }
    }
}

fn gaps(facts: &Facts) -> Finding {
    let known: Ordinal = facts.gaps.iter().map(|gap| gap.missing).sum();
    let figures = json!({ "gaps": facts.gaps.len(), "missing": known });
    if facts.gaps.is_empty() {
        return finding(Kind::Gaps, Says::Supports, figures, "no gap was recorded");
    }
    let range = |gap: &Gap| Range::Envelopes {
        from_ordinal: gap.from,
        to_ordinal: gap.to,
        missing: gap.to.map(|_| gap.missing),
        reason: gap.reason.clone(),
    };
    let is_open = facts.gaps.iter().any(|gap| gap.to.is_none());
    let more = if is_open { ", and more that nobody can count" } else { "" };
    let sentence = format!("the log names {} as missing{more}", many(known, "envelope"));
    finding(Kind::Gaps, Says::Contradicts, figures, sentence)
        .with(facts.gaps.iter().map(range).collect())
}

fn overlaps(facts: &Facts) -> Finding {
    let Some(seen) = facts.session.as_ref().map(|session| &session.evidence) else {
        return finding(Kind::Overlaps, Says::SaysNothing, json!({}), "there is no session");
    };
    let (opened, shown) = (seen.reattaches, seen.overlaps_shown);
    let figures = json!({
        "reattaches": opened, "overlapsShown": shown, "countedTo": seen.counted_to,
    });
    if let Some(diverged) = &facts.diverged {
        let detail = diverged.detail.as_deref().unwrap_or("an envelope differs");
        let sentence = format!("the runtime's history is another one than ours: {detail}");
        let range = Range::Envelopes {
            from_ordinal: seen.counted_to + 1,
            to_ordinal: None,
            missing: None,
            reason: "SESSION_DIVERGED".to_owned(),
        };
        return finding(Kind::Overlaps, Says::Contradicts, figures, sentence).with(vec![range]);
    }
    let (result, sentence) = if opened == 0 {
        (
            Says::SaysNothing,
            "the stream was never opened again behind something recorded".to_owned(),
        )
    } else if shown == opened {
        let sentence = format!(
            "each time that the stream was opened again ({shown}), what was recorded last came first"
        );
        (Says::Supports, sentence)
    } else {
        let sentence = format!(
            "of {opened} times that the stream was opened again, {shown} could be held against what was recorded last"
        );
        (Says::SaysNothing, sentence)
    };
    finding(Kind::Overlaps, result, figures, sentence)
}

fn count(facts: &Facts) -> Finding {
    let cursor = cursor(facts);
    let seen = facts.session.as_ref().and_then(|session| session.evidence.ending.as_ref());
    let Some(count) = seen.and_then(|ending| ending.count.as_ref()) else {
        let sentence = "the runtime did not tell how many envelopes there were";
        return finding(Kind::Count, Says::SaysNothing, json!({}), sentence);
    };
    let mut figures = serde_json::to_value(count).unwrap_or_default();
    if let Value::Object(figures) = &mut figures {
        figures.insert("lastOrdinal".to_owned(), cursor.into());
    }
    let (total, lost) = (count.total, count.lost());
    if lost > 0 {
        let sentence =
            format!("the runtime has {}, of which {lost} never came", many(total, "envelope"));
        // The log says it too; a record that does not is no better for it.
        let is_told = facts.gaps.iter().any(|gap| gap.reason == NOT_DELIVERED);
        let range = Range::Envelopes {
            from_ordinal: 1,
            to_ordinal: Some(total),
            missing: Some(lost),
            reason: NOT_DELIVERED.to_owned(),
        };
        let ranges = if is_told { Vec::new() } else { vec![range] };
        return finding(Kind::Count, Says::Contradicts, figures, sentence).with(ranges);
    }
    if count.misplaced > 0 {
        let sentence = format!(
            "the order of {} differs from the runtime's",
            many(count.misplaced, "envelope")
        );
        return finding(Kind::Count, Says::Contradicts, figures, sentence);
    }
    if total != cursor {
        let sentence =
            format!("the runtime has {}, and we count {cursor}", many(total, "envelope"));
        return finding(Kind::Count, Says::Contradicts, figures, sentence);
    }
    let sentence = match count.compared_from {
        Some(1) => format!("after the end, the runtime delivered the same {total} envelopes again"),
        Some(from) => format!(
            "after the end, the runtime delivered the same envelopes {from} to {total} again"
        ),
        None => format!("the runtime says that it accepted {total} envelopes, as many as we count"),
    };
    finding(Kind::Count, Says::Supports, figures, sentence)
}

/// What the runtime counted of each participant when the session was over, if it said so.
fn counted(facts: &Facts) -> Result<Activity, String> {
    let session = facts.session.as_ref().ok_or("there is no session")?;
    let ending = session.evidence.ending.as_ref();
    if let Some(activity) = ending.and_then(|ending| ending.activity.clone()) {
        return Ok(activity);
    }
    match &facts.asked {
        Asked::No if facts.run.state.is_terminal() => {
            Err("the runtime was not asked what it counted when the session was over".to_owned())
        }
        Asked::No => Err("the runtime counts on while the session goes on".to_owned()),
        Asked::Silent(why) => Err(format!("the runtime does not say what it counted: {why}")),
        Asked::Told(info) if !session.is_same_history(info) => {
            Err("the runtime has another session under this id now".to_owned())
        }
        // What is not recorded yet is not lost.
        Asked::Told(info) if !info.state.is_over() => {
            Err("the runtime counts on while the session goes on".to_owned())
        }
        Asked::Told(info) => Ok(Activity::new(info.activity.clone(), facts.now)),
    }
}

fn activity(facts: &Facts) -> Finding {
    let activity = match counted(facts) {
        Ok(activity) => activity,
        Err(why) => return finding(Kind::Activity, Says::SaysNothing, json!({}), why),
    };
    // Ours, the runtime's.
    let mut both: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for (sender, recorded) in &facts.tally.senders {
        both.entry(sender).or_default().0 += recorded;
    }
    for (participant, messages) in &activity.messages {
        both.entry(participant).or_default().1 += i64::from(*messages);
    }
    let rows: Vec<Value> = both
        .iter()
        .map(|(id, (ours, theirs))| {
            json!({ "participantId": id, "recorded": ours, "runtime": theirs })
        })
        .collect();
    let figures =
        json!({ "participants": rows, "askedAt": control_plane_domain::time::format(activity.at) });
    let more: Vec<(&str, i64)> = both
        .iter()
        .filter(|(_, (ours, theirs))| theirs > ours)
        .map(|(id, (ours, theirs))| (*id, theirs - ours))
        .collect();
    let missing: i64 = more.iter().map(|(_, missing)| missing).sum();
    if missing > 0 {
        let known: Ordinal = facts.gaps.iter().map(|gap| gap.missing).sum();
        let sentence =
            format!("the runtime counted {} more than recorded", many(missing, "message"));
        if missing <= known {
            let sentence = format!("{sentence}, which the gaps account for");
            return finding(Kind::Activity, Says::SaysNothing, figures, sentence);
        }
        let ranges = more.iter().map(|(id, missing)| Range::Messages {
            participant_id: (*id).to_owned(),
            missing: *missing,
        });
        return finding(Kind::Activity, Says::Contradicts, figures, sentence)
            .with(ranges.collect());
    }
    let is_less = both.values().any(|(ours, theirs)| theirs < ours);
    let (result, sentence) = match (is_less, activity.messages.is_empty()) {
        (true, true) => {
            (Says::SaysNothing, "the runtime has counted nothing, as after a restart of its own")
        }
        (true, false) => (
            Says::SaysNothing,
            "the runtime counted fewer messages than are recorded, as after a restart of its own",
        ),
        (false, _) => {
            (Says::Supports, "the runtime counted as many messages of everybody as are recorded")
        }
    };
    finding(Kind::Activity, result, figures, sentence)
}

fn ending(facts: &Facts) -> Finding {
    let settled_by = facts
        .session
        .as_ref()
        .and_then(|session| session.evidence.ending.as_ref())
        .and_then(|ending| ending.settled_by);
    let last_type = facts.tally.last_type.as_deref();
    let figures = json!({ "settledBy": settled_by, "lastMessageType": last_type });
    let is_last = facts.tally.envelopes.last == Some(cursor(facts));
    let state = session_state(facts);
    let ended = |session: &Session| session.state.is_over();
    if !facts.session.as_ref().is_some_and(ended) {
        let sentence = "the session was not seen to end";
        return finding(Kind::Ending, Says::SaysNothing, figures, sentence);
    }
    if state == SessionState::Resolved {
        return if last_type == Some("Commitment") && is_last {
            let sentence = "the session resolved, and its Commitment is the last envelope";
            finding(Kind::Ending, Says::Supports, figures, sentence)
        } else {
            let sentence = "the session resolved, and its Commitment is not the last envelope";
            let range = Range::Envelopes {
                from_ordinal: cursor(facts) + 1,
                to_ordinal: None,
                missing: None,
                reason: "COMMITMENT_MISSING".to_owned(),
            };
            // A gap up to the end has it.
            let ranges = if facts.gaps.is_empty() { vec![range] } else { Vec::new() };
            finding(Kind::Ending, Says::Contradicts, figures, sentence).with(ranges)
        };
    }
    let (result, sentence) = match settled_by {
        Some(SettledBy::Silence) => (
            Says::Supports,
            "after the end, a new subscription brought what was recorded last, and nothing more",
        ),
        Some(SettledBy::Count) => {
            (Says::Supports, "the runtime said where the history of the session ends")
        }
        // A session that did not resolve has no last word.
        Some(SettledBy::Commitment) | None => {
            (Says::SaysNothing, "nothing tells whether the rest of the history was waited for")
        }
    };
    finding(Kind::Ending, result, figures, sentence).needed()
}

/// Whether somebody listened to the runtime's signals from the session's start to the run's end.
pub(super) fn signals(facts: &Facts) -> Finding {
    let seen = &facts.signals;
    let heard_until = seen.heard_until.map(control_plane_domain::time::format);
    let figures = json!({ "gaps": seen.gaps.len(), "heardUntil": heard_until });
    if facts.run.imported_at.is_some() {
        let sentence =
            "the run was imported, and who listened where it was recorded is not known here";
        return finding(Kind::Signals, Says::SaysNothing, json!({}), sentence).needed();
    }
    if !seen.gaps.is_empty() {
        let ranges = seen.gaps.iter().map(|gap| Range::Signals {
            from: gap.from,
            to: gap.to,
            reason: gap.reason.clone(),
        });
        let sentence = "there were times in which nobody listened to signals";
        return finding(Kind::Signals, Says::Contradicts, figures, sentence).with(ranges.collect());
    }
    let (result, sentence) = match (facts.run.ended_at, seen.heard_until) {
        (Some(ended), Some(heard)) if heard >= ended => {
            (Says::Supports, "somebody listened to signals as long as the run was active")
        }
        (Some(_), Some(_)) => {
            (Says::SaysNothing, "signals are not known to be recorded up to the run's end yet")
        }
        (_, None) => (Says::SaysNothing, "nobody has listened to signals"),
        (None, Some(_)) => (Says::SaysNothing, "signals may come as long as the run goes on"),
    };
    finding(Kind::Signals, result, figures, sentence).needed()
}
