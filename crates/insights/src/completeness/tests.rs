//! Row by row: what each piece of evidence does to the verdict.

use control_plane_domain::evidence::{Activity, Count, Ending, Evidence as Seen, SettledBy};
use control_plane_domain::run::RunMode;
use control_plane_domain::{RunState, SessionId, SessionState};
use control_plane_storage::Counted;
use serde_json::Map;

use super::*;

mod losses;

/// 2025-11-22T08:26:40.000Z and so many seconds.
fn at(seconds: i64) -> Timestamp {
    time::from_unix_ms(1_763_800_000_000 + seconds * 1000).unwrap()
}

fn counted(count: i64) -> Counted {
    Counted { count, first: (count > 0).then_some(1), last: (count > 0).then_some(count) }
}

fn count(total: Ordinal) -> Count {
    Count { total, compared_from: Some(1), missing: Vec::new(), unplaced: 0, misplaced: 0 }
}

/// A session of four envelopes that resolved, with everything that can speak for it.
fn whole() -> Facts {
    let id: RunId = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".parse().unwrap();
    let session_id = SessionId::trusted("0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e");
    let run = Run {
        id,
        state: RunState::Completed,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 9,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: at(0),
        started_at: Some(at(1)),
        ended_at: Some(at(10)),
        updated_at: at(10),
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let ending = Ending {
        settled_by: Some(SettledBy::Commitment),
        activity: Some(Activity::new(vec![("bob".to_owned(), 2), ("alice".to_owned(), 1)], at(10))),
        count: Some(count(4)),
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: "macp.mode.decision.v1".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "c".to_owned(),
        policy_version: String::new(),
        initiator: Some("alice".to_owned()),
        state: SessionState::Resolved,
        participants: Vec::new(),
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: Some(1),
        expires_at: None,
        last_seen_at: None,
        cursor: 4,
        last_message_id: Some("m4".to_owned()),
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: at(0),
        updated_at: at(10),
        evidence: Seen {
            reattaches: 1,
            overlaps_shown: 1,
            counted_to: 4,
            ending: Some(Box::new(ending)),
        },
    };
    let tally = Tally {
        envelopes: counted(4),
        events: counted(9),
        last_type: Some("Commitment".to_owned()),
        senders: vec![("alice".to_owned(), 1), ("bob".to_owned(), 2)],
    };
    Facts {
        run,
        session: Some(session),
        tally,
        last_seq: 9,
        chain_ends: true,
        gaps: Vec::new(),
        diverged: None,
        signals: Signals { gaps: Vec::new(), heard_until: Some(at(11)) },
        asked: Asked::No,
        now: at(12),
    }
}

impl Facts {
    fn seen(&mut self) -> &mut Seen {
        &mut self.session.as_mut().unwrap().evidence
    }

    fn ending(&mut self) -> &mut Ending {
        self.seen().ending()
    }

    fn session_mut(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    fn counts(&mut self, messages: &[(&str, u32)]) {
        let messages = messages.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect();
        self.ending().activity = Some(Activity::new(messages, at(10)));
    }

    fn gap(&mut self, from: Ordinal, to: Option<Ordinal>, missing: Ordinal, reason: &str) {
        self.gaps.push(Gap { from, to, missing, reason: reason.to_owned() });
    }
}

fn judged(change: impl FnOnce(&mut Facts)) -> Completeness {
    let mut facts = whole();
    change(&mut facts);
    judge(&facts)
}

fn says(judged: &Completeness, kind: Kind) -> Says {
    judged.evidence.iter().find(|one| one.kind == kind).unwrap().result
}

fn envelopes(from: Ordinal, to: Option<Ordinal>, missing: Option<Ordinal>, why: &str) -> Range {
    let reason = why.to_owned();
    Range::Envelopes { from_ordinal: from, to_ordinal: to, missing, reason }
}

#[test]
fn a_record_that_everything_speaks_for_is_complete() {
    let judged = judged(|_| {});

    assert_eq!(judged.status, Status::Complete, "{judged:#?}");
    assert!(judged.evidence.iter().all(|one| one.result == Says::Supports));
    assert_eq!((judged.ranges.len(), judged.lacking.len()), (0, 0));
    assert_eq!(judged.summary, "The record is complete: 4 envelopes, and all signals.");
}

/// A row: what changes, about what it speaks, what it says, and what follows from it.
type Row = (&'static str, fn(&mut Facts), Kind, Says, Status);

fn holds(rows: &[Row]) {
    for (name, change, kind, result, status) in rows {
        let judged = judged(change);
        assert_eq!(
            (says(&judged, *kind), judged.status),
            (*result, *status),
            "{name}: {judged:#?}"
        );
        assert_eq!(judged.status == Status::Gap, !judged.ranges.is_empty(), "{name}: {judged:#?}");
        assert!(judged.summary.ends_with('.'), "{name}: {}", judged.summary);
    }
}

#[test]
fn one_witness_of_the_number_is_enough_and_there_must_be_one() {
    use Says::{SaysNothing, Supports};
    use Status::{Complete, Unknown};
    holds(&[
        ("no count", |facts| facts.ending().count = None, Kind::Count, SaysNothing, Complete),
        (
            "no activity",
            |facts| facts.ending().activity = None,
            Kind::Activity,
            SaysNothing,
            Complete,
        ),
        ("a count alone", |facts| facts.ending().activity = None, Kind::Count, Supports, Complete),
        (
            "neither",
            |facts| {
                facts.ending().activity = None;
                facts.ending().count = None;
            },
            Kind::Count,
            SaysNothing,
            Unknown,
        ),
        (
            "none of an older version",
            |facts| *facts.seen() = Seen::default(),
            Kind::Overlaps,
            SaysNothing,
            Unknown,
        ),
        (
            "a restarted runtime that counts nothing, and no count",
            |facts| {
                facts.counts(&[]);
                facts.ending().count = None;
            },
            Kind::Activity,
            SaysNothing,
            Unknown,
        ),
        (
            "a compacted history's number",
            |facts| facts.ending().count = Some(Count { compared_from: None, ..count(4) }),
            Kind::Count,
            Supports,
            Complete,
        ),
    ]);
}

#[test]
fn activity_counts_where_it_is_at_least_ours() {
    use Says::{Contradicts, SaysNothing, Supports};
    use Status::{Complete, Gap};
    holds(&[
        (
            "equal",
            |facts| facts.counts(&[("alice", 1), ("bob", 2)]),
            Kind::Activity,
            Supports,
            Complete,
        ),
        ("none", |facts| facts.counts(&[]), Kind::Activity, SaysNothing, Complete),
        ("lower", |facts| facts.counts(&[("bob", 2)]), Kind::Activity, SaysNothing, Complete),
        (
            "higher",
            |facts| facts.counts(&[("alice", 1), ("bob", 3)]),
            Kind::Activity,
            Contradicts,
            Gap,
        ),
        (
            "one higher, the other lower",
            |facts| facts.counts(&[("bob", 4)]),
            Kind::Activity,
            Contradicts,
            Gap,
        ),
        (
            "somebody who is not recorded at all",
            |facts| facts.counts(&[("alice", 1), ("bob", 2), ("carol", 1)]),
            Kind::Activity,
            Contradicts,
            Gap,
        ),
    ]);
    let carol = judged(|facts| facts.counts(&[("alice", 1), ("bob", 2), ("carol", 3)]));
    assert_eq!(carol.ranges, [Range::Messages { participant_id: "carol".to_owned(), missing: 3 }]);
    assert_eq!(carol.summary, "The record has gaps: 3 messages of carol are missing.");
}

#[test]
fn only_what_is_over_can_be_complete() {
    use Says::{SaysNothing, Supports};
    use Status::{Complete, Unknown};
    holds(&[
        (
            "running",
            |facts| {
                facts.run.state = RunState::Running;
                facts.run.ended_at = None;
                facts.session_mut().state = SessionState::Open;
            },
            Kind::End,
            SaysNothing,
            Unknown,
        ),
        (
            "given up",
            |facts| {
                facts.run.state = RunState::Failed;
                facts.run.error_code = Some("FORBIDDEN".to_owned());
                facts.session_mut().state = SessionState::Open;
            },
            Kind::End,
            SaysNothing,
            Unknown,
        ),
        (
            "cancelled, and the rest was waited for",
            |facts| {
                facts.run.state = RunState::Cancelled;
                facts.session_mut().state = SessionState::Cancelled;
                facts.ending().settled_by = Some(SettledBy::Silence);
            },
            Kind::Ending,
            Supports,
            Complete,
        ),
        (
            "expired, and the runtime said where it ends",
            |facts| {
                facts.run.state = RunState::Failed;
                facts.session_mut().state = SessionState::Expired;
                facts.ending().settled_by = Some(SettledBy::Count);
            },
            Kind::Ending,
            Supports,
            Complete,
        ),
        (
            "cancelled, and nothing tells",
            |facts| {
                facts.run.state = RunState::Cancelled;
                facts.session_mut().state = SessionState::Cancelled;
                facts.ending().settled_by = None;
            },
            Kind::Ending,
            SaysNothing,
            Unknown,
        ),
        (
            "cancelled before anything was seen",
            |facts| {
                facts.run.state = RunState::Cancelled;
                *facts.seen() = Seen::default();
                facts.tally = Tally { events: counted(9), ..Tally::default() };
                let session = facts.session_mut();
                (session.cursor, session.state) = (0, SessionState::Unspecified);
            },
            Kind::Ordinals,
            SaysNothing,
            Unknown,
        ),
    ]);
}

#[test]
fn overlaps_that_could_not_be_shown_say_nothing() {
    use Says::{SaysNothing, Supports};
    use Status::Complete;
    holds(&[
        (
            "never opened again",
            |facts| facts.seen().reattaches = 0,
            Kind::Overlaps,
            SaysNothing,
            Complete,
        ),
        (
            "one not shown",
            |facts| facts.seen().reattaches = 2,
            Kind::Overlaps,
            SaysNothing,
            Complete,
        ),
        (
            "all shown",
            |facts| (facts.seen().reattaches, facts.seen().overlaps_shown) = (3, 3),
            Kind::Overlaps,
            Supports,
            Complete,
        ),
    ]);
}

#[test]
fn signals_are_judged_for_themselves() {
    let gap = SignalGap { from: at(3), to: None, reason: "broken".to_owned() };
    let gapped = judged(|facts| facts.signals.gaps = vec![gap]);
    assert_eq!((gapped.history, gapped.signals), (Status::Complete, Status::Gap));
    assert_eq!(
        gapped.summary,
        "The record has gaps: signals from 2025-11-22T08:26:43.000Z to now may be missing (broken)."
    );

    for heard_until in [None, Some(at(9))] {
        let early = judged(|facts| facts.signals.heard_until = heard_until);
        assert_eq!((early.history, early.signals), (Status::Complete, Status::Unknown));
        assert_eq!(early.status, Status::Unknown);
    }
}

#[test]
fn what_the_runtime_is_asked_now_stands_in_for_what_it_was_not_asked_then() {
    let info = |state, bob| SessionInfo {
        session_id: SessionId::trusted("0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e"),
        state,
        mode: "m".to_owned(),
        mode_version: String::new(),
        configuration_version: String::new(),
        policy_version: String::new(),
        initiator: "alice".to_owned(),
        participants: Vec::new(),
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: 1,
        expires_at_unix_ms: 2,
        activity: vec![("alice".to_owned(), 1), ("bob".to_owned(), bob)],
    };
    let (open, over) = (SessionState::Open, SessionState::Resolved);
    let other = SessionInfo { started_at_unix_ms: 7, ..info(over, 3) };
    let told = |info| Asked::Told(Box::new(info));
    for (asked, result) in [
        (Asked::No, Says::SaysNothing),
        (Asked::Silent("no route".to_owned()), Says::SaysNothing),
        (told(info(over, 2)), Says::Supports),
        (told(info(over, 3)), Says::Contradicts),
        (told(info(open, 3)), Says::SaysNothing),
        (told(other), Says::SaysNothing),
    ] {
        let judged = judged(|facts| {
            facts.ending().activity = None;
            facts.asked = asked.clone();
        });
        assert_eq!(says(&judged, Kind::Activity), result, "{asked:?}");
    }
}
