//! What is remembered of signals, and for how long.

use control_plane_domain::Envelope;
use control_plane_domain::time::from_unix_ms;

use super::*;

const MANY: usize = 100_000;
const LARGE: usize = usize::MAX;

/// Milliseconds after a day in 2026.
fn at(ms: i64) -> Timestamp {
    from_unix_ms(1_795_000_000_000 + ms).unwrap()
}

fn said(n: usize, payload: usize) -> SignalSeen {
    let envelope = Envelope {
        macp_version: "1.0".to_owned(),
        mode: String::new(),
        message_type: "Signal".to_owned(),
        message_id: format!("m{n}"),
        session_id: String::new(),
        sender: "alice".to_owned(),
        timestamp_unix_ms: 0,
        payload: vec![0; payload],
        sanitized: false,
    };
    SignalSeen { envelope, sender_authenticated: true }
}

fn gap(from: i64, to: Option<i64>, reason: &str) -> SignalGap {
    SignalGap { from: at(from), to: to.map(at), reason: reason.to_owned() }
}

fn watched_until(ms: i64) -> SignalWatch {
    SignalWatch { last_heard_at: Some(at(ms)), open: None }
}

/// An ear that listens since 0, and records.
fn recording() -> Ear {
    let ear = Ear::default();
    ear.opened(at(0));
    ear.take_over(&SignalWatch::default(), at(0));
    ear
}

fn ids(work: &Work) -> Vec<&str> {
    work.items.iter().map(|item| item.seen.envelope.message_id.as_str()).collect()
}

/// All that waits; it is recorded then.
fn recorded(ear: &Ear, now: i64) -> Work {
    let work = ear.work(MANY, LARGE, at(now));
    ear.done(&work);
    work
}

#[test]
fn what_is_heard_is_recorded_once_and_in_order() {
    let ear = recording();
    for n in 0..5 {
        ear.heard(at(10 + i64::try_from(n).unwrap()), said(n, 0));
    }

    let first = ear.work(2, LARGE, at(100));
    assert_eq!(
        (ids(&first), first.heard_until, first.more),
        (vec!["m0", "m1"], Some(at(11)), true)
    );
    // It could not be written: the same again.
    assert_eq!(ear.work(2, LARGE, at(101)), first);
    ear.done(&first);

    let rest = recorded(&ear, 102);
    assert_eq!(
        (ids(&rest), rest.heard_until, rest.more),
        (vec!["m2", "m3", "m4"], Some(at(102)), false)
    );
    assert!(recorded(&ear, 103).items.is_empty());
}

#[test]
fn a_batch_is_bounded_in_bytes_but_for_its_last_signal() {
    let ear = recording();
    for n in 0..3 {
        ear.heard(at(1), said(n, 1000));
    }

    assert_eq!(ids(&ear.work(MANY, 1, at(2))), ["m0"]);
    assert_eq!(ids(&ear.work(MANY, 2000, at(2))), ["m0", "m1"]);
}

#[test]
fn an_outage_is_an_open_gap_and_then_one_with_an_end() {
    let ear = recording();
    ear.heard(at(5_000), said(0, 0));
    recorded(&ear, 5_001);

    ear.closed(at(6_000), Closed::Broken);
    ear.closed(at(7_000), Closed::Broken);
    let down = recorded(&ear, 7_001);
    let again = recorded(&ear, 8_000);
    ear.opened(at(9_000));
    let up = recorded(&ear, 9_001);

    assert_eq!(down.gaps, [gap(5_000, None, BROKEN)], "since the last sign of life");
    assert_eq!(down.heard_until, Some(at(5_000)), "the mark waits where the gap begins");
    assert_eq!(again.gaps, []);
    assert_eq!(up.gaps, [gap(5_000, Some(9_000), BROKEN)]);
    assert_eq!(up.heard_until, Some(at(9_001)));
    assert_eq!((down.new_gaps().count(), up.new_gaps().count()), (1, 0), "it is told once");
    assert_eq!(recorded(&ear, 9_002).gaps, []);
}

#[test]
fn where_a_gap_begins_depends_on_how_the_watch_ended() {
    let cases = [
        (Closed::Ended, 100_000, BROKEN),
        (Closed::Left, 100_000, AWAY),
        (Closed::Lagged, 1_000, LAGGED),
        // A connection that is silent that long is given up by then.
        (Closed::Broken, 70_000, BROKEN),
    ];
    for (how, from, reason) in cases {
        let ear = recording();
        ear.heard(at(1_000), said(0, 0));

        ear.closed(at(100_000), how);

        assert_eq!(recorded(&ear, 100_001).gaps, [gap(from, None, reason)], "{how:?}");
    }
}

#[test]
fn what_there_is_no_room_for_is_a_gap() {
    let ear = recording();
    for n in 0..MAX_SIGNALS {
        ear.heard(at(1), said(n, 0));
    }
    ear.heard(at(50), said(MAX_SIGNALS, 0));
    ear.heard(at(60), said(MAX_SIGNALS + 1, 0));

    let full = ear.work(MANY, LARGE, at(70));
    ear.done(&full);
    ear.heard(at(80), said(MAX_SIGNALS + 2, 0));
    let after = recorded(&ear, 90);

    assert_eq!((full.items.len(), full.gaps.len()), (MAX_SIGNALS, 0));
    assert_eq!(full.heard_until, Some(at(50)), "the mark waits where the gap begins");
    assert_eq!(after.gaps, [gap(50, Some(80), OVERFLOW)]);
    assert_eq!(ids(&after), [format!("m{}", MAX_SIGNALS + 2)]);
}

#[test]
fn room_is_measured_in_bytes_too_and_a_silence_ends_the_gap() {
    let ear = recording();
    ear.heard(at(1), said(0, MAX_BYTES / 2));
    ear.heard(at(2), said(1, MAX_BYTES / 2));

    let work = recorded(&ear, 3);
    assert_eq!((ids(&work), &work.gaps[..]), (vec!["m0"], &[gap(2, Some(3), OVERFLOW)][..]));
    assert_eq!(recorded(&ear, 4).heard_until, Some(at(4)));
}

#[test]
fn the_first_start_ever_has_missed_nothing() {
    let ear = Ear::default();
    ear.opened(at(10));
    ear.take_over(&SignalWatch::default(), at(20));

    assert_eq!(recorded(&ear, 30).gaps, []);
}

#[test]
fn a_restart_has_missed_what_came_since_the_mark() {
    let ear = Ear::default();
    ear.opened(at(9_000));
    ear.heard(at(9_500), said(0, 0));
    ear.take_over(&watched_until(4_000), at(10_000));

    let work = recorded(&ear, 10_001);

    assert_eq!(work.gaps, [gap(4_000, Some(9_000), AWAY)]);
    assert_eq!(ids(&work), ["m0"]);
}

#[test]
fn a_restart_ends_the_gap_that_was_open() {
    let ear = Ear::default();
    let open = Some(gap(4_000, None, BROKEN));
    ear.closed(at(8_000), Closed::Broken);
    ear.take_over(&SignalWatch { last_heard_at: Some(at(4_000)), open }, at(8_001));

    let down = recorded(&ear, 8_002);
    ear.opened(at(9_000));
    let up = recorded(&ear, 9_001);

    assert_eq!(down.gaps, [gap(4_000, None, AWAY)], "the row is there and stays as it is");
    assert_eq!(up.gaps, [gap(4_000, Some(9_000), AWAY)]);
}

#[test]
fn a_hand_over_misses_nothing() {
    let ear = Ear::default();
    ear.opened(at(0));
    for n in 0..100 {
        ear.heard(at(i64::try_from(n).unwrap() * 1_000), said(n, 0));
    }

    ear.take_over(&watched_until(95_000), at(100_000));
    let work = recorded(&ear, 100_001);

    assert_eq!(work.gaps, []);
    assert_eq!(ids(&work).first(), Some(&"m90"), "clocks may differ: some come again");
    assert_eq!(ids(&work).last(), Some(&"m99"));
}

#[test]
fn a_hand_over_that_comes_late_says_what_was_forgotten() {
    let ear = Ear::default();
    ear.opened(at(0));
    for n in 0..100 {
        ear.heard(at(i64::try_from(n).unwrap() * 1_000), said(n, 0));
    }

    ear.take_over(&watched_until(10_000), at(100_000));
    let work = recorded(&ear, 100_001);

    assert_eq!(work.gaps, [gap(10_000, Some(39_000), AWAY)]);
    assert_eq!(ids(&work).first(), Some(&"m39"));
}

#[test]
fn the_outage_of_another_instance_was_none_when_we_heard_everything() {
    let ear = Ear::default();
    ear.opened(at(0));
    ear.heard(at(5_000), said(0, 0));
    let open = Some(gap(4_000, None, BROKEN));

    ear.take_over(&SignalWatch { last_heard_at: Some(at(4_000)), open }, at(6_000));
    let work = recorded(&ear, 6_001);

    assert_eq!(work.gaps, [gap(4_000, Some(4_000), BROKEN)], "which forgets it");
    assert_eq!(work.new_gaps().count(), 0);
    assert_eq!(ids(&work), ["m0"]);
}

#[test]
fn who_steps_down_keeps_what_it_did_not_record() {
    let ear = recording();
    ear.heard(at(1_000), said(0, 0));
    ear.step_down(at(2_000));
    ear.heard(at(3_000), said(1, 0));

    ear.take_over(&watched_until(500), at(4_000));
    let work = recorded(&ear, 4_001);

    assert_eq!((ids(&work), work.gaps.len()), (vec!["m0", "m1"], 0));
}

#[test]
fn without_the_duty_the_newest_is_kept() {
    let ear = Ear::default();
    ear.opened(at(0));
    for n in 0..MAX_SIGNALS + 10 {
        ear.heard(at(i64::try_from(n).unwrap()), said(n, 0));
    }

    ear.take_over(&watched_until(0), at(30_000));
    let work = recorded(&ear, 30_001);

    assert_eq!(ids(&work).last().copied(), Some(format!("m{}", MAX_SIGNALS + 9).as_str()));
    assert!(work.items.len() < MAX_SIGNALS);
    let forgotten = work.items.first().unwrap().at - at(0);
    assert_eq!(work.gaps.len(), 1);
    assert_eq!(work.gaps[0].to, Some(at(forgotten.num_milliseconds() - 1)));
}

#[test]
fn gaps_without_end_do_not_fill_the_memory() {
    let ear = recording();
    for n in 0..5_000 {
        ear.closed(at(n * 10), Closed::Ended);
        ear.opened(at(n * 10 + 5));
    }

    let work = recorded(&ear, 100_000);

    assert_eq!(work.gaps.len(), MAX_GAPS);
    assert_eq!(work.gaps.last().unwrap().to, Some(at(49_995)));
}
