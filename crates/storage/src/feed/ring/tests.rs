//! What a ring holds is complete and bounded.

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{EventType, RunId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::LogEntry;

fn event(position: Position, size: usize) -> FeedEntry {
    let at = from_unix_ms(0).unwrap();
    let kinds = [EventType::MessageReceived, EventType::RunCreated];
    let entry = LogEntry {
        run_id: RunId(Uuid::nil()),
        seq: position,
        position,
        ts: at,
        received_at: at,
        event_type: kinds[usize::from(position % 3 == 0)],
        subject: None,
        hash: ChainHash::EMPTY,
        body: Bytes::from(vec![b'x'; size]),
    };
    FeedEntry::new(entry, Some("source".to_owned()), Some("Fraud".to_owned()))
}

fn keeping(events: usize) -> TailLimits {
    TailLimits { events, bytes: 1_000_000 }
}

fn page(positions: impl IntoIterator<Item = Position>) -> Vec<FeedEntry> {
    positions.into_iter().map(|position| event(position, 1)).collect()
}

/// What a ring says: the positions and the cursor after them, or nothing.
fn told(
    ring: &Ring,
    cursor: Position,
    limit: usize,
    filter: &FeedFilter,
) -> Option<(Vec<Position>, Position, bool)> {
    match ring.answer(cursor, limit, filter) {
        Answer::Events { entries, cursor, rest } => {
            Some((entries.iter().map(|entry| entry.position).collect(), cursor, rest))
        }
        Answer::AtEnd | Answer::Before(_) => None,
    }
}

#[test]
fn a_ring_answers_only_for_what_it_reaches() {
    let mut ring = Ring::new(4, keeping(3));
    let all = FeedFilter::default();
    assert!(matches!(ring.answer(4, 9, &all), Answer::AtEnd));
    ring.extend(page([5, 7, 8, 9]));

    assert!(matches!(ring.answer(4, 9, &all), Answer::Before(9)));
    assert_eq!(told(&ring, 5, 9, &all), Some((vec![7, 8, 9], 9, false)));
    assert_eq!(told(&ring, 6, 9, &all), Some((vec![7, 8, 9], 9, false)));
    assert_eq!(told(&ring, 6, 2, &all), Some((vec![7, 8], 8, true)));
    assert_eq!(told(&ring, 7, 2, &all), Some((vec![8, 9], 9, false)));
    assert!(matches!(ring.answer(9, 9, &all), Answer::AtEnd));
    assert!(matches!(ring.answer(10, 9, &all), Answer::AtEnd));
}

#[test]
fn a_cursor_moves_over_what_its_filter_leaves_out() {
    let mut ring = Ring::new(0, keeping(100));
    ring.extend(page(1..=8));
    let filter = FeedFilter { types: vec![EventType::RunCreated], ..FeedFilter::default() };

    assert_eq!(told(&ring, 0, 1, &filter), Some((vec![3], 3, true)));
    assert_eq!(told(&ring, 0, 2, &filter), Some((vec![3, 6], 8, false)));
    assert_eq!(told(&ring, 6, 2, &filter), Some((vec![], 8, false)));
}

#[test]
fn a_filter_asks_for_the_run_its_scenario_and_the_type() {
    let event = event(3, 1);
    let run_id = Some(RunId(Uuid::nil()));
    let scenario = |text: &str| FeedFilter {
        run_id,
        scenario_ref: Some(text.to_owned()),
        types: vec![EventType::RunCreated],
    };
    assert!(FeedFilter::default().takes(&event) && FeedFilter::default().takes_all());
    for text in ["source", "fraud", "RAU"] {
        assert!(scenario(text).takes(&event) && !scenario(text).takes_all(), "{text}");
    }
    for text in ["Source", "sourc", "fraud%", "f_aud"] {
        assert!(!scenario(text).takes(&event), "{text}");
    }
    let other_run = FeedFilter { run_id: Some(RunId::random()), ..scenario("fraud") };
    let other_type = FeedFilter { types: vec![EventType::RunFailed], ..scenario("fraud") };
    assert!(!other_run.takes(&event) && !other_type.takes(&event));
}

#[test]
fn a_ring_is_bounded_in_bytes() {
    let limits = TailLimits { events: 100, bytes: 30_000 };
    let mut ring = Ring::new(0, limits);
    ring.extend((1..=10).map(|position| event(position, 5_000)).collect());

    assert!(ring.bytes <= limits.bytes);
    assert_eq!((ring.start, ring.end), (8, 10));
    ring.extend(vec![event(11, limits.bytes)]);
    assert_eq!((ring.start, ring.end, ring.events.len()), (10, 11, 1));
}

proptest! {
    /// Whatever the pages, their holes and the bounds, a cursor that the ring answers gets exactly
    /// what follows it.
    #[test]
    fn a_ring_never_leaves_anything_out(
        steps in proptest::collection::vec((0_usize..20, 1_i64..4), 0..30),
        keep in 1_usize..60,
        limit in 1_usize..30,
    ) {
        let mut ring = Ring::new(0, keeping(keep));
        let mut log = Vec::new();
        let all = FeedFilter::default();
        for (count, step) in steps {
            let from = ring.end;
            let positions: Vec<Position> =
                (1..).map(|n| from + n * step).take(count).collect();
            log.extend(positions.iter().copied());
            ring.extend(page(positions));
            for cursor in 0..=ring.end {
                let rest: Vec<_> = log.iter().copied().filter(|it| *it > cursor).collect();
                match told(&ring, cursor, limit, &all) {
                    Some((found, after, more)) => {
                        prop_assert_eq!(&found[..], &rest[..limit.min(rest.len())]);
                        prop_assert_eq!(more, rest.len() > limit);
                        prop_assert!(found.last().is_none_or(|last| *last <= after));
                        prop_assert!(after == ring.end || Some(&after) == found.last());
                    }
                    None if cursor == ring.end => prop_assert!(rest.is_empty()),
                    None => prop_assert!(cursor < ring.start && rest.len() > ring.events.len()),
                }
            }
            prop_assert!(ring.events.len() <= keep);
            prop_assert_eq!(ring.bytes, ring.events.iter().map(FeedEntry::bytes).sum::<usize>());
        }
    }
}
