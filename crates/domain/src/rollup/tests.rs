//! Sums are the same however a log is cut, and what is taken away leaves nothing.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::event::{EventDraft, Source, Subject, SubjectKind};
use crate::metrics::RunMetrics;
use crate::run::{RunMode, RunState};
use crate::time::from_unix_ms;
use crate::{CanonicalEvent, EventType, RunId};

fn at(ms: i64) -> Timestamp {
    from_unix_ms(1_795_000_000_000 + ms).unwrap()
}

fn run() -> Run {
    Run {
        id: RunId::random(),
        state: RunState::Queued,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: None,
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: Some("fraud".to_owned()),
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: at(0),
        started_at: None,
        ended_at: None,
        updated_at: at(0),
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    }
}

fn event_of(event_type: EventType, sender: &str, ms: i64, confidence: f64) -> CanonicalEvent {
    let data = json!({
        "sender": sender,
        "decodedPayload": { "confidence": confidence, "outcomePositive": ms % 2 == 0, "latencyMs": 7 },
    });
    EventDraft {
        event_type,
        ts: at(ms),
        subject: Some(Subject::new(SubjectKind::Participant, sender)),
        source: Source::control_plane("test"),
        trace: None,
        data: data.as_object().unwrap().clone(),
    }
    .into_event(RunId::random(), 1, at(ms))
}

fn sums(rollups: &Rollups) -> Vec<(Key, Amount)> {
    rollups.iter().map(|(key, amount)| (key.clone(), amount)).collect()
}

/// What is kept under one key, wherever runs are filed.
fn total(rollups: &Rollups, grain: Grain, figure: Figure) -> Amount {
    let mut total = Amount::default();
    for (key, amount) in rollups.iter() {
        if key.filing.is_none() && key.grain == grain && key.figure == figure {
            total.add(amount, Sign::Plus);
        }
    }
    total
}

fn events() -> impl Strategy<Value = Vec<CanonicalEvent>> {
    let types = proptest::sample::select(EventType::ALL);
    let senders = proptest::sample::select(vec!["", "alice", "bob"]);
    let one = (types, senders, 0..200_000_000_i64, -0.5..1.5)
        .prop_map(|(event_type, sender, ms, sure)| event_of(event_type, sender, ms, sure));
    proptest::collection::vec(one, 0..60)
}

fn count(events: &[CanonicalEvent]) -> Figures {
    let mut figures = Figures::default();
    for one in events {
        event(&mut figures, &Fact::from(one), at(0));
    }
    figures
}

proptest! {
    #[test]
    fn any_way_to_cut_a_log_gives_the_same_sums(events in events(), cut in 0..60_usize) {
        let filing = Filing::of(&run());
        let (first, second) = events.split_at(cut.min(events.len()));
        let mut whole = Rollups::default();
        whole.file(&filing, &count(&events), Sign::Plus);

        let mut parts = Rollups::default();
        parts.file(&filing, &count(first), Sign::Plus);
        parts.file(&filing, &count(second), Sign::Plus);
        let mut merged = count(first);
        merged.merge(&count(second));

        prop_assert_eq!(sums(&whole), sums(&parts));
        prop_assert_eq!(merged, count(&events));
    }

    #[test]
    fn what_is_taken_away_leaves_nothing_and_what_is_filed_anew_is_only_there(events in events()) {
        let (old, new) = (Filing::of(&run()), Filing { environment: "x".to_owned(), ..Filing::default() });
        let figures = count(&events);
        let mut moved = Rollups::default();
        moved.file(&old, &figures, Sign::Plus);
        moved.file(&old, &figures, Sign::Minus);
        prop_assert!(moved.is_empty());

        moved.file(&new, &figures, Sign::Plus);
        let mut fresh = Rollups::default();
        fresh.file(&new, &figures, Sign::Plus);
        prop_assert_eq!(sums(&moved), sums(&fresh));
    }

    #[test]
    fn every_grain_has_the_same_total(events in events()) {
        let mut rollups = Rollups::default();
        rollups.file(&Filing::default(), &count(&events), Sign::Plus);
        for figure in [Figure::Signals, Figure::Decisions] {
            let day = total(&rollups, Grain::Day, figure);
            prop_assert_eq!(total(&rollups, Grain::Minute, figure), day);
            prop_assert_eq!(total(&rollups, Grain::Hour, figure), day);
        }
    }
}

#[test]
fn a_run_is_created_once_and_ends_once() {
    let metrics = RunMetrics::empty(RunId::random());
    let mut run = run();
    let queued = standing(&run, &metrics);
    run.state = RunState::Completed;
    run.started_at = Some(at(1000));
    run.ended_at = Some(at(3500));
    run.metadata.insert("outcomePositive".to_owned(), Value::Bool(false));
    let mut rollups = Rollups::default();
    rollups.file(&Filing::of(&run), &queued, Sign::Plus);

    let mut change = Rollups::default();
    change.file(&Filing::of(&run), &standing(&run, &metrics), Sign::Plus);
    change.file(&Filing::of(&run), &queued, Sign::Minus);
    rollups.merge(&change);

    assert_eq!(total(&rollups, Grain::Day, Figure::Created), Amount::new(1, 0));
    assert_eq!(total(&rollups, Grain::Day, Figure::Completed), Amount::new(1, 2500));
    assert_eq!(total(&rollups, Grain::Minute, Figure::Ended), Amount::new(1, 2500));
    let declined = rollups.iter().filter(|(key, _)| key.subject == DECLINED).count();
    // Three grains, over all runs and where it is filed.
    assert_eq!(declined, 6);
    assert!(!change.iter().any(|(key, _)| key.figure == Figure::Created));
}

#[test]
fn nobody_is_said_to_have_sent_what_nobody_vouches_for() {
    let mut doubtful = event_of(EventType::SignalEmitted, "mallory", 5, 0.5);
    doubtful.data.insert("senderAuthenticated".to_owned(), Value::Bool(false));

    let figures = count(&[doubtful]);

    let mut rollups = Rollups::default();
    rollups.file(&Filing::default(), &figures, Sign::Plus);
    assert_eq!(total(&rollups, Grain::Day, Figure::Signals), Amount::new(1, 0));
    assert_eq!(total(&rollups, Grain::Day, Figure::AgentSignals), Amount::default());
}

#[test]
fn a_long_name_is_cut_and_still_its_own() {
    let (one, other) = ("ä".repeat(5000), format!("{}b", "ä".repeat(5000)));

    assert_eq!(name("fraud"), "fraud");
    assert!(name(&one).len() <= MAX_NAME);
    assert_ne!(name(&one), name(&other));
}

#[test]
fn buckets_begin_where_people_expect() {
    let noon = crate::time::from_unix_ms(1_795_003_199_999).unwrap();
    assert_eq!(crate::time::format(noon), "2026-11-18T11:59:59.999Z");
    for (grain, start) in [
        (Grain::Minute, "2026-11-18T11:59:00.000Z"),
        (Grain::Hour, "2026-11-18T11:00:00.000Z"),
        (Grain::Day, "2026-11-18T00:00:00.000Z"),
    ] {
        assert_eq!(crate::time::format(grain.floor(noon)), start);
    }
}
