//! Every order of things, as a row.

use bytes::Bytes;
use control_plane_domain::{RunId, time};

use super::*;
use crate::query::Query;

const HEARTBEAT: Duration = Duration::from_secs(15);
const MAX_DELAY: Duration = Duration::from_secs(2);

fn machine(raw: &str, after: Seq, last: Seq, now: Instant) -> Machine {
    let ask = Ask::parse(raw, None, HEARTBEAT).unwrap();
    let options = Options::of_query(&mut Query::new(raw));
    let opening = Opening { after, last, latest: 99, reset: None };
    let mut machine = Machine::new(ask, Pace::new(&options, MAX_DELAY), opening, 1500, now);
    assert!(matches!(machine.step(now), Step::Send(Frame::Opening { retry_ms: 1500 })));
    machine
}

/// An event `ms` milliseconds into the log.
fn event(seq: Seq, ms: i64, event_type: EventType) -> Arc<LogEntry> {
    let at = time::from_unix_ms(1_795_000_000_000 + ms).unwrap();
    Arc::new(LogEntry {
        run_id: RunId(uuid::Uuid::nil()),
        seq,
        position: seq,
        ts: at,
        received_at: at,
        event_type,
        subject: None,
        hash: hash(seq),
        body: Bytes::from_static(br#"{"data":{"fromOrdinal":3,"toOrdinal":5}}"#),
    })
}

fn message(seq: Seq, ms: i64) -> Arc<LogEntry> {
    event(seq, ms, EventType::MessageReceived)
}

fn hash(seq: Seq) -> ChainHash {
    ChainHash::EMPTY.then(&seq.to_string())
}

/// A step in words; a wait is in milliseconds from `now`.
fn tell(step: &Step, now: Instant) -> String {
    match step {
        Step::Send(Frame::Event(entry)) => format!("event {}", entry.seq),
        Step::Send(Frame::Heartbeat { id: Some(id), latest }) => format!("beat {id} of {latest}"),
        Step::Send(Frame::Gap { from, to: Some(to) }) => format!("gap {from} to {to}"),
        Step::Send(Frame::End { seq, hash: at, .. }) => {
            assert_eq!(*at, hash(*seq));
            format!("end {seq}")
        }
        Step::Send(Frame::Error { code, .. }) => (*code).to_owned(),
        Step::Send(Frame::Reset(reset)) => format!("reset {}", reset.reason),
        Step::Send(other) => format!("{other:?}"),
        Step::Read { after, limit } => format!("read {limit} after {after}"),
        Step::AskHead => "ask".to_owned(),
        Step::Wait(until) => format!("wait {}", (*until - now).as_millis()),
        Step::Close(why) => format!("close {}", why.as_str()),
    }
}

/// The steps up to the first that is no frame.
fn run(machine: &mut Machine, now: Instant) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let step = machine.step(now);
        told.push(tell(&step, now));
        if !matches!(step, Step::Send(_)) {
            return told;
        }
    }
}

#[test]
fn an_instant_replay_sends_what_it_reads_and_ends() {
    for raw in ["mode=instant", "mode=step"] {
        let now = Instant::now();
        let mut machine = machine(raw, 3, 6, now);

        assert_eq!(run(&mut machine, now), ["read 3 after 3"]);
        machine.read([message(4, 0), message(5, 60_000)]);
        assert_eq!(run(&mut machine, now), ["event 4", "event 5", "read 1 after 5"]);
        machine.read([message(6, 999_999)]);
        assert_eq!(run(&mut machine, now), ["event 6", "ask"]);
        machine.head(RunState::Running, now);
        assert_eq!(run(&mut machine, now), ["end 6", "close ended"]);
        assert_eq!(run(&mut machine, now), ["close ended"], "nothing after the end");
    }
}

#[test]
fn a_page_is_bounded() {
    let now = Instant::now();
    assert_eq!(run(&mut machine("mode=instant", 0, 9000, now), now), ["read 512 after 0"]);
    assert_eq!(run(&mut machine("mode=timed", 0, 9000, now), now), ["read 16 after 0"]);
}

#[test]
fn asking_again_without_an_answer_gives_the_same() {
    let now = Instant::now();
    let mut machine = machine("mode=timed", 0, 2, now);
    assert_eq!(run(&mut machine, now), ["read 2 after 0"]);
    assert_eq!(run(&mut machine, now), ["read 2 after 0"]);
    machine.read([message(1, 0), message(2, 700)]);
    assert_eq!(run(&mut machine, now), ["event 1", "wait 700"]);
    assert_eq!(run(&mut machine, now), ["wait 700"]);
}

#[test]
fn a_timed_replay_pauses_as_was_recorded() {
    for (raw, before, after, pause) in [
        ("", 1000, 1700, 700),
        ("speed=2", 1000, 1700, 350),
        ("speed=0.5", 1000, 1700, 1400),
        // Clamped at both ends.
        ("", 1000, 9000, 2000),
        ("speed=0.1", 1000, 1700, 2000),
        ("speed=1e300", 1000, 9000, 0),
    ] {
        let now = Instant::now();
        let mut machine = machine(raw, 0, 2, now);
        machine.read([message(1, before), message(2, after)]);

        let told = run(&mut machine, now);
        let later = run(&mut machine, now + Duration::from_millis(pause));

        if pause == 0 {
            assert_eq!(told, ["event 1", "event 2", "ask"], "{raw}");
        } else {
            assert_eq!(told, ["event 1".to_owned(), format!("wait {pause}")], "{raw}");
            assert_eq!(later, ["event 2", "ask"], "{raw}");
        }
    }
}

#[test]
fn times_that_go_back_are_no_pause() {
    let now = Instant::now();
    let mut machine = machine("", 0, 2, now);
    machine.read([message(1, 5000), message(2, 1000)]);
    assert_eq!(run(&mut machine, now), ["event 1", "event 2", "ask"]);
}

#[test]
fn the_first_event_of_a_connection_comes_at_once() {
    let now = Instant::now();
    let mut machine = machine("", 7, 8, now);
    machine.read([message(8, 1_000_000)]);
    assert_eq!(run(&mut machine, now), ["event 8", "ask"]);
}

#[test]
fn a_timer_that_is_late_does_not_slow_the_replay_down() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut machine = machine("", 0, 3, now);
    machine.read([message(1, 0), message(2, 100), message(3, 200)]);

    assert_eq!(run(&mut machine, now), ["event 1", "wait 100"]);
    assert_eq!(run(&mut machine, at(130)), ["event 2", "wait 70"]);
    assert_eq!(run(&mut machine, at(200)), ["event 3", "ask"]);
}

#[test]
fn a_client_that_read_nothing_for_long_is_not_sent_everything_at_once() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut machine = machine("", 0, 3, now);
    machine.read([message(1, 0), message(2, 1000), message(3, 2000)]);

    assert_eq!(run(&mut machine, now), ["event 1", "wait 1000"]);
    assert_eq!(run(&mut machine, at(9000)), ["event 2", "wait 750"]);
}

#[test]
fn a_long_pause_is_told_from_a_dead_connection_by_heartbeats() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut machine = machine("heartbeatMs=1000", 0, 2, now);
    machine.read([message(1, 0), message(2, 60_000)]);

    assert_eq!(run(&mut machine, now), ["event 1", "wait 1000"]);
    assert_eq!(run(&mut machine, at(1000)), ["beat 1 of 99", "wait 1000"]);
    assert_eq!(run(&mut machine, at(2000)), ["beat 1 of 99", "event 2", "ask"]);
}

#[test]
fn what_is_not_wanted_is_passed_and_not_waited_for() {
    let now = Instant::now();
    let mut machine = machine("types=signal.emitted", 0, 4, now);
    let signal = |seq, ms| event(seq, ms, EventType::SignalEmitted);
    machine.read([signal(1, 0), message(2, 900), signal(3, 1000), message(4, 9000)]);

    assert_eq!(run(&mut machine, now), ["event 1", "wait 1000"]);
    let later = now + Duration::from_secs(1);
    assert_eq!(run(&mut machine, later), ["event 3", "ask"]);
    machine.head(RunState::Completed, later);
    assert_eq!(run(&mut machine, later), ["end 4", "close ended"]);
}

#[test]
fn a_gap_follows_its_event_wanted_or_not() {
    for (raw, expected) in [
        ("mode=instant", vec!["event 1", "gap 3 to 5", "event 2", "ask"]),
        ("mode=instant&types=message.received", vec!["gap 3 to 5", "event 2", "ask"]),
    ] {
        let now = Instant::now();
        let mut machine = machine(raw, 0, 2, now);
        machine.read([event(1, 0, EventType::SessionStreamGap), message(2, 0)]);
        assert_eq!(run(&mut machine, now), expected);
    }
}

#[test]
fn a_replay_of_nothing_ends_with_the_hash_of_its_end() {
    let now = Instant::now();
    let mut machine = machine("mode=instant", 12, 12, now);
    assert_eq!(run(&mut machine, now), ["read 1 after 11"]);
    machine.read([message(12, 0)]);
    assert_eq!(run(&mut machine, now), ["ask"]);
    machine.head(RunState::Failed, now);
    assert_eq!(run(&mut machine, now), ["end 12", "close ended"]);
}

#[test]
fn the_replay_starts_again_after_a_reset() {
    let now = Instant::now();
    let ask = Ask::parse("", None, HEARTBEAT).unwrap();
    let reset = Some(super::super::super::request::Reset {
        reason: "beyond_end",
        requested: None,
        from: 0,
    });
    let opening = Opening { after: 0, last: 1, latest: 1, reset };
    let pace = Pace { speed: None, max_delay: MAX_DELAY };
    let mut machine = Machine::new(ask, pace, opening, 1, now);
    machine.step(now);
    assert_eq!(run(&mut machine, now), ["reset beyond_end", "read 1 after 0"]);
}

#[test]
fn a_run_that_is_deleted_midway_says_so_and_closes() {
    let now = Instant::now();
    let mut machine = machine("mode=instant", 0, 9, now);
    machine.read([message(1, 0)]);
    assert_eq!(run(&mut machine, now), ["event 1", "read 8 after 1"]);
    machine.read([]);
    assert_eq!(run(&mut machine, now), ["ask"]);
    machine.gone();
    assert_eq!(run(&mut machine, now), ["RUN_DELETED", "close deleted"]);
}

#[test]
fn a_database_that_is_away_is_asked_again_later() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    let mut machine = machine("mode=instant", 0, 2, now);
    machine.failed(now);
    assert_eq!(run(&mut machine, now), ["SERVICE_UNAVAILABLE", "wait 250"]);
    assert_eq!(run(&mut machine, at(250)), ["read 2 after 0"]);
    machine.failed(at(250));
    assert_eq!(run(&mut machine, at(250)), ["SERVICE_UNAVAILABLE", "wait 500"]);
    assert_eq!(run(&mut machine, at(750)), ["read 2 after 0"]);
    machine.read([message(1, 0), message(2, 0)]);
    assert_eq!(run(&mut machine, at(750)), ["event 1", "event 2", "ask"]);
}

#[test]
fn events_that_cannot_be_read_of_a_run_that_is_there_are_a_fault() {
    let now = Instant::now();
    let mut machine = machine("mode=instant", 0, 2, now);
    machine.read([message(2, 0)]);
    assert_eq!(run(&mut machine, now), ["ask"]);
    machine.head(RunState::Completed, now);
    assert_eq!(run(&mut machine, now), ["SERVICE_UNAVAILABLE", "wait 250"]);
    assert_eq!(run(&mut machine, now + Duration::from_millis(250)), ["read 2 after 0"]);
}
