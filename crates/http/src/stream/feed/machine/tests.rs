//! Orders of things, each a sentence.

use std::sync::Arc;

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::{RunId, time};
use control_plane_storage::model::LogEntry;

use super::*;

const RETRY: Duration = Duration::from_millis(250);
const HEARTBEAT: Duration = Duration::from_secs(15);

fn entry(position: Position, event_type: EventType) -> TailEntry {
    let at = time::from_unix_ms(0).unwrap();
    TailEntry::Read(Arc::new(LogEntry {
        run_id: RunId(uuid::Uuid::nil()),
        seq: 1,
        position,
        ts: at,
        received_at: at,
        event_type,
        subject: None,
        hash: ChainHash::EMPTY,
        body: Bytes::from_static(br#"{"data":{"fromOrdinal":3,"toOrdinal":5}}"#),
    }))
}

fn page(positions: &[Position], cursor: Position, more: bool) -> FeedPage {
    let entries = positions.iter().map(|it| entry(*it, EventType::MessageReceived)).collect();
    FeedPage { entries, cursor, latest: cursor, more, expired: None, fell: false }
}

fn opened(after: Position, reset: Option<Reset>) -> (Machine, Instant) {
    let now = Instant::now();
    let mut machine = Machine::new(FeedOpening { after, latest: 9, reset }, HEARTBEAT, 1500, now);
    assert!(matches!(machine.step(now), Step::Send(Frame::Opening { retry_ms: 1500 })));
    (machine, now)
}

/// The frames until there is something to do, in short, and what that is.
fn sent(machine: &mut Machine, now: Instant) -> (Vec<String>, Step) {
    let mut frames = Vec::new();
    loop {
        let Step::Send(frame) = machine.step(now) else { return (frames, machine.step(now)) };
        frames.push(match frame {
            Frame::FeedEvent(entry) => entry.position.to_string(),
            Frame::CaughtUp(position) => format!("caught_up {position}"),
            Frame::Heartbeat { id, latest } => format!("heartbeat {id:?} of {latest}"),
            Frame::Reset(Reset { reason, requested, from }) => {
                format!("reset {reason} {requested:?} {from}")
            }
            Frame::Gap { from, to: Some(to) } => format!("gap {from} {to}"),
            Frame::Gap { from, to: None } => format!("gap {from}"),
            Frame::Error { code, .. } => code.to_owned(),
            Frame::Lagged { from, latest } => format!("lagged {from} of {latest}"),
            other @ (Frame::Opening { .. }
            | Frame::Retry { .. }
            | Frame::Event(_)
            | Frame::Shared(_)
            | Frame::Snapshot(_)
            | Frame::End { .. }) => panic!("{other:?} has no place here"),
        });
    }
}

#[test]
fn the_backlog_comes_first_then_it_is_said_once_that_it_is_over() {
    let (mut machine, now) = opened(0, None);
    assert!(matches!(sent(&mut machine, now), (none, Step::Read) if none.is_empty()));
    machine.read(page(&[1, 2], 2, true));
    assert!(matches!(sent(&mut machine, now), (events, Step::Read) if events == ["1", "2"]));
    machine.read(page(&[4], 7, false));

    let (frames, step) = sent(&mut machine, now);

    assert_eq!(frames, ["4", "caught_up 7"]);
    assert!(matches!(step, Step::Wait(until) if until == now + HEARTBEAT));
    machine.woken();
    assert!(matches!(machine.step(now), Step::Read));
    machine.read(page(&[8], 8, false));
    assert_eq!(sent(&mut machine, now).0, ["8"]);
}

#[test]
fn a_heartbeat_is_a_bookmark_only_where_everything_was_sent() {
    let (mut machine, start) = opened(0, None);
    let late = |times: u32| start + HEARTBEAT * times;
    assert_eq!(sent(&mut machine, late(1)).0, ["heartbeat None of 9"]);
    machine.read(page(&[3], 6, false));
    assert_eq!(sent(&mut machine, late(2)).0, ["heartbeat None of 9", "3", "caught_up 6"]);
    machine.woken();
    machine.read(page(&[], 12, false));

    assert_eq!(sent(&mut machine, late(3)).0, ["heartbeat Some(12) of 12"]);
    machine.woken();
    assert_eq!(sent(&mut machine, late(4)).0, ["heartbeat None of 12"]);
}

#[test]
fn a_gap_is_told_right_after_its_event() {
    let (mut machine, now) = opened(0, None);
    let mut events = page(&[1, 3], 3, false);
    events.entries.insert(1, entry(2, EventType::SessionStreamGap));
    machine.read(events);

    assert_eq!(sent(&mut machine, now).0, ["1", "2", "gap 3 5", "3", "caught_up 3"]);
}

#[test]
fn a_reset_comes_before_everything_else() {
    let reset = Reset { reason: "beyond_end", requested: Some(40), from: 5 };
    let (mut machine, now) = opened(5, Some(reset));
    assert_eq!(sent(&mut machine, now).0, ["reset beyond_end Some(40) 5"]);
    machine.read(page(&[6], 6, true));
    machine.step(now);

    // What was to come next was deleted in the meantime.
    machine.read(FeedPage { expired: Some(20), ..page(&[], 20, true) });

    assert_eq!(sent(&mut machine, now).0, ["reset expired Some(6) 20"]);
    machine.read(page(&[21], 21, false));
    assert_eq!(sent(&mut machine, now).0, ["21", "caught_up 21"]);
}

#[test]
fn who_fell_behind_is_told_once_where_it_stands() {
    let (mut machine, now) = opened(0, None);
    machine.read(FeedPage { fell: true, ..page(&[1], 1, false) });
    assert_eq!(sent(&mut machine, now).0, ["1", "caught_up 1"]);
    machine.woken();

    machine.read(FeedPage { fell: true, latest: 40, ..page(&[2], 2, true) });

    assert_eq!(sent(&mut machine, now).0, ["lagged 1 of 40", "2"]);
}

#[test]
fn a_fault_is_told_and_the_stream_goes_on_later_and_later() {
    let (mut machine, now) = opened(0, None);
    machine.failed(now);
    let (frames, step) = sent(&mut machine, now);
    assert_eq!(frames, ["SERVICE_UNAVAILABLE"]);
    assert!(matches!(step, Step::Pause(until) if until == now + RETRY));

    let later = now + RETRY;
    assert!(matches!(machine.step(later), Step::Read));
    machine.failed(later);
    let (_, step) = sent(&mut machine, later);
    assert!(matches!(step, Step::Pause(until) if until == later + 2 * RETRY));

    machine.read(page(&[1], 1, false));
    assert_eq!(sent(&mut machine, later).0, ["1", "caught_up 1"]);
    machine.failed(later);
    let (_, step) = sent(&mut machine, later);
    assert!(matches!(step, Step::Pause(until) if until == later + RETRY));
}
