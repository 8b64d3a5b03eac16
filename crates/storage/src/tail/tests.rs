//! What a tail holds is contiguous and bounded.

use bytes::Bytes;
use control_plane_domain::EventType;
use control_plane_domain::event::ChainHash;
use control_plane_domain::time::from_unix_ms;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

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

fn seqs<'a>(events: impl IntoIterator<Item = &'a Arc<LogEntry>>) -> Vec<Seq> {
    events.into_iter().map(|event| event.seq).collect()
}

fn page(range: std::ops::RangeInclusive<Seq>) -> Vec<Arc<LogEntry>> {
    range.map(|seq| Arc::new(entry(seq, 1))).collect()
}

/// What a ring says: the events, nothing, or to ask the database.
fn told(ring: &mut Ring, cursor: Seq, limit: usize, now: Instant) -> Option<Vec<Seq>> {
    match ring.answer(cursor, limit, now) {
        Answer::Events(events) => Some(seqs(&events)),
        Answer::Nothing => Some(Vec::new()),
        Answer::Ask => None,
    }
}

#[test]
fn a_ring_answers_only_for_what_it_reaches() {
    let (mut ring, now) = (Ring::default(), Instant::now());
    assert_eq!(told(&mut ring, 0, 10, now), None);
    for seq in 5..=8 {
        ring.push(entry(seq, 1));
    }
    ring.checked = Some(now);
    assert_eq!(told(&mut ring, 3, 10, now), None);
    assert_eq!(told(&mut ring, 4, 10, now).unwrap(), [5, 6, 7, 8]);
    assert_eq!(told(&mut ring, 6, 1, now).unwrap(), [7]);
    assert_eq!(told(&mut ring, 8, 10, now).unwrap(), [0; 0]);
    assert_eq!(told(&mut ring, 9, 10, now), None);
}

#[test]
fn one_follower_asks_for_all_who_wait_at_the_end() {
    let (mut ring, start) = (Ring::default(), Instant::now());
    ring.learn(0, &page(1..=3), 10, start);

    assert_eq!(told(&mut ring, 3, 10, start + POLL / 2).unwrap(), [0; 0]);
    let later = start + POLL;
    assert_eq!(told(&mut ring, 3, 10, later), None);
    assert_eq!(told(&mut ring, 3, 10, later).unwrap(), [0; 0]);
    assert!(ring.learn(3, &page(4..=5), 10, later));
    assert_eq!(told(&mut ring, 3, 10, later).unwrap(), [4, 5]);
    assert!(!ring.learn(5, &[], 10, later));
}

#[test]
fn a_page_from_the_middle_of_a_log_is_not_its_end() {
    let (mut ring, now) = (Ring::default(), Instant::now());

    assert!(!ring.learn(0, &page(1..=3), 3, now));

    assert!(ring.events.is_empty() && ring.end.is_none());
    ring.push(entry(9, 1));
    assert!(!ring.learn(3, &page(4..=6), 10, now));
    assert_eq!(seqs(&ring.events), [9]);
}

#[test]
fn what_was_read_before_it_was_published_is_kept_once() {
    let (mut ring, now) = (Ring::default(), Instant::now());
    ring.learn(0, &page(1..=3), 10, now);

    for seq in 2..=4 {
        ring.push(entry(seq, 1));
    }

    assert_eq!(seqs(&ring.events), [1, 2, 3, 4]);
}

#[test]
fn another_event_in_the_place_of_one_empties_the_ring() {
    let mut ring = Ring::default();
    for seq in 1..=3 {
        ring.push(entry(seq, 1));
    }

    ring.push(LogEntry { hash: ChainHash([7; 32]), ..entry(2, 1) });

    assert_eq!(seqs(&ring.events), [2]);
    assert_eq!(ring.end, Some(2));
}

#[test]
fn a_ring_is_bounded_in_bytes() {
    let mut ring = Ring::default();
    for seq in 1..=10 {
        ring.push(entry(seq, MAX_BYTES / 2));
    }
    assert!(ring.bytes <= MAX_BYTES);
    assert_eq!(ring.events.back().unwrap().seq, 10);
}

proptest! {
    /// Whatever is published and read in whatever order, what the ring holds is contiguous and ends
    /// where it says.
    #[test]
    fn a_ring_never_has_a_hole(steps in proptest::collection::vec((1_i64..60, 0_usize..4000, 0_i64..9), 0..300)) {
        let mut ring = Ring::default();
        for (seq, size, learned) in steps {
            if learned == 0 {
                ring.push(entry(seq, size));
            } else {
                ring.learn(seq, &page(seq + 1..=seq + learned), 8, Instant::now());
            }
            let held = seqs(&ring.events);
            prop_assert!(held.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            prop_assert!(held.is_empty() || held.last().copied() == ring.end);
            prop_assert_eq!(ring.bytes, ring.events.iter().map(|event| event.body.len()).sum::<usize>());
        }
    }
}
