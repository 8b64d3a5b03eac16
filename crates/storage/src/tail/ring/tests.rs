//! What a ring holds is contiguous and bounded, and who asks the database does so for all.

use std::ops::RangeInclusive;

use control_plane_domain::event::ChainHash;
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{EventType, RunId, RunState};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::news::POLL;

const LIMITS: TailLimits = TailLimits { events: 8, bytes: 64 * 1024 };

fn entry(seq: Seq, size: usize) -> LogEntry {
    LogEntry {
        run_id: RunId(Uuid::nil()),
        seq,
        position: seq,
        ts: from_unix_ms(0).unwrap(),
        received_at: from_unix_ms(0).unwrap(),
        event_type: EventType::MessageReceived,
        subject: None,
        hash: ChainHash::EMPTY,
        body: Bytes::from(vec![b'x'; size]),
    }
}

fn ring(kept: RangeInclusive<Seq>, now: Instant) -> Ring {
    let mut ring = Ring::new(LIMITS);
    ring.publish(kept.map(|seq| entry(seq, 1)), now);
    ring
}

fn held(ring: &Ring) -> Vec<Seq> {
    ring.events.iter().map(|event| event.seq).collect()
}

fn page(range: RangeInclusive<Seq>) -> Vec<Arc<LogEntry>> {
    range.map(|seq| Arc::new(entry(seq, 1))).collect()
}

fn head(state: RunState, last_seq: Seq) -> Head {
    Head { state, last_seq, hash: ChainHash::EMPTY, imported: false }
}

/// What a ring says: events, or in a word.
fn told(ring: &mut Ring, cursor: Seq, limit: usize, now: Instant) -> String {
    match ring.answer(cursor, limit, POLL, now) {
        Answer::Events(events) => {
            let seqs: Vec<String> = events.iter().map(|event| event.seq.to_string()).collect();
            seqs.join(" ")
        }
        Answer::Nothing => "nothing".to_owned(),
        Answer::Poll => "poll".to_owned(),
        Answer::Ask => "ask".to_owned(),
    }
}

#[test]
fn a_ring_answers_only_for_what_it_reaches() {
    let now = Instant::now();
    let mut ring = ring(5..=8, now);
    for (cursor, limit, expected) in
        [(3, 10, "ask"), (4, 10, "5 6 7 8"), (6, 1, "7"), (8, 10, "nothing"), (9, 10, "ask")]
    {
        assert_eq!(told(&mut ring, cursor, limit, now), expected, "after {cursor}");
    }
    assert_eq!(told(&mut Ring::new(LIMITS), 0, 10, now), "ask");
}

#[test]
fn one_follower_polls_for_all_who_wait_at_the_end() {
    let start = Instant::now();
    let mut ring = Ring::new(LIMITS);
    ring.learn(0, &page(1..=3), 10, start);

    assert_eq!(told(&mut ring, 3, 10, start + POLL / 2), "nothing");
    let later = start + POLL;
    assert_eq!(told(&mut ring, 3, 10, later), "poll");
    assert_eq!(told(&mut ring, 3, 10, later), "nothing");
    ring.learn_head(3, &head(RunState::Running, 5), later);
    assert_eq!(told(&mut ring, 3, 10, later), "ask");
    assert!(ring.learn(3, &page(4..=5), 10, later));
    assert_eq!(told(&mut ring, 3, 10, later), "4 5");
    assert!(!ring.learn(5, &[], 10, later));
    assert_eq!(told(&mut ring, 5, 10, later), "nothing");
}

#[test]
fn after_a_full_page_the_next_one_is_asked_for_at_once() {
    let now = Instant::now();
    let mut ring = ring(1..=3, now);
    ring.learn(3, &page(4..=5), 2, now);

    assert_ne!(told(&mut ring, 5, 2, now), "nothing");
}

#[test]
fn a_poll_that_was_overtaken_says_nothing() {
    let now = Instant::now();
    let mut ring = ring(1..=3, now);
    ring.publish([entry(4, 1)].into_iter(), now);

    ring.learn_head(3, &head(RunState::Running, 3), now);

    assert_eq!(held(&ring), [1, 2, 3, 4]);
}

#[test]
fn what_another_instance_tells_is_read_at_once_also_when_a_read_was_under_way() {
    let now = Instant::now();
    let mut ring = ring(1..=3, now);
    assert_eq!(told(&mut ring, 3, 10, now), "nothing");

    ring.hear(5);
    assert_eq!(told(&mut ring, 3, 10, now), "ask");
    // This read began before the other instance wrote.
    ring.learn(3, &page(4..=4), 10, now);

    assert_eq!(told(&mut ring, 4, 10, now), "ask");
    assert!(!ring.ends_at(4));
    ring.learn(4, &page(5..=5), 10, now);
    assert_eq!(told(&mut ring, 5, 10, now), "nothing");
    assert!(ring.ends_at(5));
    ring.doubt();
    assert_eq!(told(&mut ring, 5, 10, now), "poll");
}

#[test]
fn a_log_that_became_shorter_is_forgotten() {
    let now = Instant::now();
    let mut ring = ring(1..=3, now);

    ring.learn_head(3, &head(RunState::Running, 2), now);

    assert_eq!(told(&mut ring, 3, 10, now), "ask");
}

#[test]
fn the_end_of_a_run_is_known_until_an_event_follows() {
    let now = Instant::now();
    let mut ring = ring(1..=3, now);
    ring.learn_head(3, &head(RunState::Running, 3), now);
    assert_eq!(ring.ended_at(3), None);
    ring.learn_head(3, &head(RunState::Completed, 3), now);
    assert_eq!(ring.ended_at(3).map(|head| head.state), Some(RunState::Completed));
    assert_eq!(ring.ended_at(2), None);

    ring.publish([entry(4, 1)].into_iter(), now);

    assert_eq!(ring.ended_at(3), None);
}

#[test]
fn only_what_was_kept_once_counts_as_dropped() {
    let now = Instant::now();
    let mut ring = ring(11..=18, now);
    assert!((0..=20).all(|cursor| !ring.has_dropped(cursor)), "nothing had to go yet");

    ring.publish((19..=21).map(|seq| entry(seq, 1)), now);

    let dropped: Vec<Seq> = (0..=30).filter(|cursor| ring.has_dropped(*cursor)).collect();
    assert_eq!(dropped, [10, 11, 12], "the cursors before 11, 12 and 13");
    ring.clear();
    assert!((0..=30).all(|cursor| !ring.has_dropped(cursor)));
}

#[test]
fn a_page_from_the_middle_of_a_log_is_not_its_end() {
    let now = Instant::now();
    let mut ring = Ring::new(LIMITS);

    assert!(!ring.learn(0, &page(1..=3), 3, now));

    assert!(ring.events.is_empty() && ring.end.is_none());
    ring.push(entry(9, 1));
    assert!(!ring.learn(3, &page(4..=6), 10, now));
    assert_eq!(held(&ring), [9]);
}

#[test]
fn what_was_read_before_it_was_published_is_kept_once() {
    let now = Instant::now();
    let mut ring = Ring::new(LIMITS);
    ring.learn(0, &page(1..=3), 10, now);

    ring.publish((2..=4).map(|seq| entry(seq, 1)), now);

    assert_eq!(held(&ring), [1, 2, 3, 4]);
}

#[test]
fn another_event_in_the_place_of_one_empties_the_ring() {
    let mut ring = ring(1..=3, Instant::now());

    ring.push(LogEntry { hash: ChainHash([7; 32]), ..entry(2, 1) });

    assert_eq!(held(&ring), [2]);
    assert_eq!(ring.end, Some(2));
}

#[test]
fn a_ring_is_bounded_in_bytes() {
    let mut ring = Ring::new(LIMITS);
    for seq in 1..=10 {
        ring.push(entry(seq, LIMITS.bytes / 8));
    }
    assert!(ring.bytes <= LIMITS.bytes);
    assert_eq!(ring.events.back().map(|event| event.seq), Some(10));
    // A single one that is too large is kept all the same: somebody waits for it.
    ring.push(entry(11, LIMITS.bytes));
    assert_eq!(held(&ring), [11]);
}

#[test]
fn an_event_is_encoded_once_for_all() {
    let ring = ring(1..=1, Instant::now());
    let mut count = 0;
    for _ in 0..3 {
        let Some(TailEntry::Kept(event)) = ring.kept(0, 1).and_then(|mut all| all.pop()) else {
            panic!("the event is not kept");
        };
        let form = event.encoded(|entry| {
            count += 1;
            entry.body.clone()
        });
        assert_eq!(form, "x");
    }
    assert_eq!(count, 1);
}

proptest! {
    /// Whatever is published and read in whatever order, what the ring holds is contiguous and ends
    /// where it says.
    #[test]
    fn a_ring_never_has_a_hole(steps in proptest::collection::vec((1_i64..60, 0_usize..4000, 0_i64..9), 0..300)) {
        let mut ring = Ring::new(LIMITS);
        for (seq, size, learned) in steps {
            if learned == 0 {
                ring.push(entry(seq, size));
            } else {
                ring.learn(seq, &page(seq + 1..=seq + learned), 8, Instant::now());
            }
            let held = held(&ring);
            prop_assert!(held.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert!(held.is_empty() || held.last().copied() == ring.end);
            prop_assert!(held.len() <= LIMITS.events);
            prop_assert_eq!(ring.bytes, ring.events.iter().map(|event| weight(event)).sum::<usize>());
        }
    }
}
