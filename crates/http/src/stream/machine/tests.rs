//! Orders of things: what was read, folded and waited for, and what must be sent then.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::event::ChainHash;
use control_plane_domain::{RunId, RunState, time};
use control_plane_storage::model::LogEntry;

use super::pace::SNAPSHOT_EVERY;
use super::*;

/// The first wait after a failure.
const RETRY: Duration = Duration::from_millis(250);

/// A client's wishes, a log and a clock; it answers the machine from the log.
struct Script {
    machine: Machine,
    log: Vec<EventType>,
    state: RunState,
    now: Instant,
    /// How many events a read gives at most.
    page: usize,
    /// How far ahead of what is asked the state is folded.
    ahead: Seq,
    /// The next read finds that memory does not reach back to the cursor.
    falls: bool,
}

pub(super) fn entry(seq: Seq, event_type: EventType) -> TailEntry {
    let at = time::from_unix_ms(0).unwrap();
    TailEntry::Read(Arc::new(LogEntry {
        run_id: RunId(uuid::Uuid::nil()),
        seq,
        position: seq,
        ts: at,
        received_at: at,
        event_type,
        subject: None,
        hash: ChainHash::EMPTY,
        body: Bytes::from_static(br#"{"data":{"fromOrdinal":2,"toOrdinal":4}}"#),
    }))
}

fn page(entries: Vec<TailEntry>) -> Page {
    let latest = entries.last().map_or(0, |entry| entry.seq);
    Page { entries, more: false, latest, fell: false }
}

pub(super) fn ask() -> Ask {
    Ask {
        cursor: Some(0),
        log_id: None,
        include_snapshot: true,
        heartbeat: Duration::from_secs(15),
        types: vec![],
        close_on_end: false,
    }
}

impl Script {
    fn new(ask: Ask, log: &[EventType], state: RunState) -> Self {
        let now = Instant::now();
        let latest = Seq::try_from(log.len()).unwrap();
        let after = ask.cursor.unwrap_or(latest);
        let opening = Opening { after, latest, over: state.is_terminal(), reset: None };
        let machine = Machine::new(ask, opening, 1000, now);
        Self { machine, log: log.to_vec(), state, now, page: 512, ahead: 0, falls: false }
    }

    fn end(&self) -> Seq {
        Seq::try_from(self.log.len()).unwrap()
    }

    /// Appends to the log, as the writer would, and wakes the connection.
    fn append(&mut self, event_type: EventType) {
        self.log.push(event_type);
        self.machine.woken();
    }

    /// Runs until the machine waits, and says what it sent.
    fn run(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            match self.machine.step(self.now) {
                Step::Send(frame) => sent.push(describe(&frame)),
                Step::Read => {
                    let after = usize::try_from(self.machine.cursor).unwrap();
                    let page = self.log.iter().enumerate().skip(after).take(self.page);
                    let entries: Vec<_> =
                        page.map(|(index, kind)| entry(index as Seq + 1, *kind)).collect();
                    let fell = std::mem::take(&mut self.falls);
                    let latest = self.end();
                    let more = entries.len() == self.page;
                    self.machine.read(Page { entries, more, latest, fell });
                }
                Step::Fold(seq) => {
                    let version = (seq + self.ahead).min(self.end());
                    self.machine.folded(version, Bytes::from(format!("@{version}")));
                }
                Step::AskHead => {
                    let head = Head {
                        state: self.state,
                        last_seq: self.end(),
                        hash: ChainHash::EMPTY,
                        imported: false,
                    };
                    self.machine.head(&head);
                }
                Step::Wait(until) => {
                    assert!(until > self.now, "a wait that is over");
                    return sent;
                }
                Step::Close(_) => {
                    sent.push("close".to_owned());
                    return sent;
                }
            }
            assert!(sent.len() < 10_000, "it never rests");
        }
    }

    fn pass(&mut self, wait: Duration) {
        self.now += wait;
    }
}

pub(super) fn describe(frame: &Frame) -> String {
    match frame {
        Frame::Opening { .. } => "open".to_owned(),
        Frame::Retry { .. } => "retry".to_owned(),
        Frame::Event(entry) => entry.seq.to_string(),
        Frame::Shared(entry) => entry.seq.to_string(),
        Frame::Lagged { from, latest } => format!("lagged {from}/{latest}"),
        Frame::Snapshot(text) => String::from_utf8(text.to_vec()).unwrap(),
        Frame::Heartbeat { id: Some(id), latest } => format!("beat {id}/{latest}"),
        Frame::Heartbeat { id: None, latest } => format!("beat -/{latest}"),
        Frame::CaughtUp(seq) => format!("caught_up {seq}"),
        Frame::Reset(reset) => format!("reset {}", reset.reason),
        Frame::Gap { from, to: Some(to) } => format!("gap {from}-{to}"),
        Frame::Gap { from, to: None } => format!("gap {from}-"),
        Frame::End { state, seq, .. } => format!("end {state} {seq}"),
        Frame::FeedEvent(entry) => format!("{} of all", entry.position),
        Frame::Error { code, retryable, .. } => format!("error {code} {retryable}"),
    }
}

const MESSAGE: EventType = EventType::MessageReceived;
const DONE: EventType = EventType::RunCompleted;

#[test]
fn the_backlog_comes_first_then_caught_up_then_the_snapshot() {
    for page in [1, 2, 3, 512] {
        let mut script = Script::new(ask(), &[MESSAGE; 3], RunState::Running);
        script.page = page;
        assert_eq!(script.run(), ["open", "1", "2", "3", "caught_up 3", "@3"], "pages of {page}");
    }
}

#[test]
fn an_empty_log_is_caught_up_at_zero() {
    let mut script = Script::new(ask(), &[], RunState::Queued);
    assert_eq!(script.run(), ["open", "caught_up 0", "@0"]);
}

#[test]
fn without_a_cursor_only_what_comes_is_sent() {
    let mut script = Script::new(Ask { cursor: None, ..ask() }, &[MESSAGE; 3], RunState::Running);
    assert_eq!(script.run(), ["open", "caught_up 3", "@3"]);
    script.append(MESSAGE);
    assert_eq!(script.run(), ["4"]);
}

#[test]
fn resuming_after_any_event_gives_the_rest_and_nothing_twice() {
    let log = [MESSAGE, MESSAGE, MESSAGE, MESSAGE, DONE];
    for cursor in 0..=5 {
        for page in [1, 2, 512] {
            let asked = Ask { cursor: Some(cursor), include_snapshot: false, ..ask() };
            let mut script = Script::new(asked, &log, RunState::Completed);
            script.page = page;
            let mut expected = vec!["open".to_owned()];
            expected.extend((cursor + 1..=5).map(|seq| seq.to_string()));
            expected.extend(["caught_up 5".to_owned(), "end completed 5".to_owned()]);
            assert_eq!(script.run(), expected, "after {cursor}, pages of {page}");
        }
    }
}

#[test]
fn a_reset_is_the_first_thing_said() {
    let opening = Opening {
        after: 0,
        latest: 1,
        over: false,
        reset: Some(super::super::request::Reset {
            reason: "beyond_end",
            requested: Some(9),
            from: 0,
        }),
    };
    let mut script = Script::new(ask(), &[MESSAGE], RunState::Running);
    script.machine = Machine::new(ask(), opening, 1000, script.now);
    assert_eq!(script.run(), ["open", "reset beyond_end", "1", "caught_up 1", "@1"]);
}

#[test]
fn live_snapshots_are_coalesced_and_only_sent_when_something_changed() {
    let mut script = Script::new(ask(), &[], RunState::Running);
    assert_eq!(script.run(), ["open", "caught_up 0", "@0"]);
    for expected in ["1", "2", "3"] {
        script.append(MESSAGE);
        assert_eq!(script.run(), [expected], "no second snapshot within the period");
    }
    script.pass(SNAPSHOT_EVERY);
    assert_eq!(script.run(), ["@3"], "one for all three");
    script.pass(SNAPSHOT_EVERY * 4);
    assert_eq!(script.run(), Vec::<String>::new(), "nothing changed");
}

#[test]
fn a_snapshot_never_runs_ahead_of_the_events_it_covers() {
    let mut script = Script::new(ask(), &[MESSAGE; 2], RunState::Running);
    script.page = 2;
    script.ahead = 2;
    script.run();
    // Three more are committed, and the state has them all before this connection read them.
    script.log.extend([MESSAGE; 3]);
    script.pass(SNAPSHOT_EVERY);
    script.machine.changed = true;
    assert_eq!(script.run(), ["3", "4", "@4", "5"]);
}

#[test]
fn a_client_that_wants_no_snapshot_gets_none() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE], RunState::Running);
    assert_eq!(script.run(), ["open", "1", "caught_up 1"]);
    script.append(MESSAGE);
    script.pass(SNAPSHOT_EVERY * 2);
    assert_eq!(script.run(), ["2"]);
}

#[test]
fn a_filter_leaves_events_out_and_the_heartbeat_keeps_the_place() {
    let asked = Ask { types: vec![DONE], include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE; 3], RunState::Running);
    assert_eq!(script.run(), ["open", "caught_up 3"]);
    script.append(MESSAGE);
    assert_eq!(script.run(), Vec::<String>::new());
    script.pass(Duration::from_secs(15));
    assert_eq!(script.run(), ["beat 4/4"]);
}

#[test]
fn a_heartbeat_within_the_backlog_has_no_id() {
    let mut script = Script::new(ask(), &[MESSAGE; 2], RunState::Running);
    assert!(matches!(script.machine.step(script.now), Step::Send(Frame::Opening { .. })));
    script.pass(Duration::from_secs(15));
    assert_eq!(script.run(), ["beat -/2", "1", "2", "caught_up 2", "@2"]);
}

#[test]
fn a_gap_is_told_right_after_the_event_that_records_it() {
    let log = [MESSAGE, EventType::SessionStreamGap, MESSAGE];
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &log, RunState::Running);
    assert_eq!(script.run(), ["open", "1", "2", "gap 2-4", "3", "caught_up 3"]);
}

#[test]
fn a_run_that_ends_gives_its_event_then_the_last_state_then_the_end() {
    let mut script = Script::new(ask(), &[MESSAGE], RunState::Running);
    script.run();
    script.state = RunState::Completed;
    script.append(DONE);
    assert_eq!(script.run(), ["2"], "the state is not due yet");
    script.pass(SNAPSHOT_EVERY);
    assert_eq!(script.run(), ["@2", "end completed 2"]);
}

#[test]
fn a_late_connection_gets_everything_of_a_finished_run() {
    let mut script = Script::new(ask(), &[MESSAGE, DONE], RunState::Completed);
    assert_eq!(script.run(), ["open", "1", "2", "caught_up 2", "@2", "end completed 2"]);
}

#[test]
fn a_stream_closes_after_the_end_only_when_asked_to() {
    let asked = Ask { close_on_end: true, include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[DONE], RunState::Completed);
    assert_eq!(script.run(), ["open", "1", "caught_up 1", "end completed 1", "close"]);
}

#[test]
fn a_parked_stream_lives_on_and_ends_again_when_the_log_grows() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[DONE], RunState::Completed);
    assert_eq!(script.run(), ["open", "1", "caught_up 1", "end completed 1"]);
    script.pass(Duration::from_secs(15));
    assert_eq!(script.run(), ["beat 1/1"], "no second end");
    script.append(EventType::ArtifactCreated);
    assert_eq!(script.run(), ["2", "end completed 2"]);
}

#[test]
fn the_end_waits_for_events_that_the_store_has_and_we_have_not() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[DONE], RunState::Completed);
    let full = std::mem::replace(&mut script.log, vec![DONE]);
    assert_eq!(full.len(), 1);
    // The log grew between the read and the question.
    loop {
        match script.machine.step(script.now) {
            Step::AskHead => break,
            Step::Read => {
                let unread = (script.machine.cursor == 0).then(|| entry(1, DONE));
                script.machine.read(page(unread.into_iter().collect()));
            }
            Step::Send(_) => {}
            Step::Fold(_) | Step::Wait(_) | Step::Close(_) => panic!("not yet"),
        }
    }
    script.machine.head(&Head {
        state: RunState::Completed,
        last_seq: 2,
        hash: ChainHash::EMPTY,
        imported: false,
    });
    script.log.push(MESSAGE);
    assert_eq!(script.run(), ["2", "end completed 2"]);
}

#[test]
fn a_database_fault_is_told_and_the_stream_goes_on() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE], RunState::Running);
    assert!(matches!(script.machine.step(script.now), Step::Send(Frame::Opening { .. })));
    assert!(matches!(script.machine.step(script.now), Step::Read));
    script.machine.failed(script.now);
    assert_eq!(script.run(), ["error SERVICE_UNAVAILABLE true"]);
    script.pass(RETRY);
    assert_eq!(script.run(), ["1", "caught_up 1"]);
}

#[test]
fn a_snapshot_that_fails_does_not_hold_up_events() {
    let mut script = Script::new(ask(), &[MESSAGE], RunState::Running);
    loop {
        match script.machine.step(script.now) {
            Step::Fold(_) => break,
            Step::Read => script.machine.read(page(vec![entry(1, MESSAGE)])),
            Step::Send(_) => {}
            Step::AskHead | Step::Wait(_) | Step::Close(_) => panic!("not yet"),
        }
    }
    script.machine.fold_failed(script.now);
    assert_eq!(script.run(), ["error SERVICE_UNAVAILABLE true", "caught_up 1"]);
    script.append(MESSAGE);
    assert_eq!(script.run(), ["2"]);
    script.pass(RETRY);
    assert_eq!(script.run(), ["@2"]);
}

#[test]
fn a_run_that_is_over_ends_even_if_its_state_can_never_be_had() {
    let mut script = Script::new(ask(), &[DONE], RunState::Completed);
    let mut sent = Vec::new();
    for _ in 0..50 {
        match script.machine.step(script.now) {
            Step::Send(frame) => sent.push(describe(&frame)),
            Step::Read => {
                let unread = (script.machine.cursor == 0).then(|| entry(1, DONE));
                script.machine.read(page(unread.into_iter().collect()));
            }
            Step::Fold(_) => script.machine.fold_failed(script.now),
            Step::AskHead => {
                let head = Head {
                    state: script.state,
                    last_seq: 1,
                    hash: ChainHash::EMPTY,
                    imported: false,
                };
                script.machine.head(&head);
            }
            Step::Wait(until) => script.now = until,
            Step::Close(why) => panic!("{why:?}"),
        }
    }
    assert!(sent.contains(&"end completed 1".to_owned()), "{sent:?}");
}

#[test]
fn the_first_snapshot_comes_right_after_caught_up_even_if_others_are_ahead() {
    let mut script = Script::new(ask(), &[MESSAGE; 3], RunState::Running);
    script.page = 2;
    script.ahead = 2;
    // Between the read of the backlog and the fold two more are committed.
    loop {
        match script.machine.step(script.now) {
            Step::Fold(3) => break,
            Step::Read => {
                let after = usize::try_from(script.machine.cursor).unwrap();
                let unread: Vec<_> = (after..3).map(|it| entry(it as Seq + 1, MESSAGE)).collect();
                script.machine.read(page(unread));
            }
            Step::Send(_) => {}
            Step::Fold(_) | Step::AskHead | Step::Wait(_) | Step::Close(_) => panic!("not yet"),
        }
    }
    script.log.extend([MESSAGE; 3]);
    script.machine.folded(5, Bytes::from_static(b"@5"));
    assert_eq!(script.run(), ["4", "5", "caught_up 5", "@5", "6"]);
}

#[test]
fn a_client_that_was_too_slow_is_told_once_and_gets_everything() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE], RunState::Running);
    script.page = 2;
    assert_eq!(script.run(), ["open", "1", "caught_up 1"]);
    script.log.extend([MESSAGE; 4]);
    script.falls = true;
    script.append(MESSAGE);
    assert_eq!(script.run(), ["lagged 1/6", "2", "3", "4", "5", "6"]);
    script.append(MESSAGE);
    assert_eq!(script.run(), ["7"]);
}

#[test]
fn the_first_backlog_is_no_lag() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE], RunState::Running);
    script.falls = true;
    assert_eq!(script.run(), ["open", "1", "caught_up 1"]);
}

#[test]
fn being_woken_does_not_cost_a_heartbeat_its_bookmark() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[MESSAGE], RunState::Running);
    script.run();
    script.machine.woken();
    script.pass(Duration::from_secs(15));
    assert_eq!(script.run(), ["beat 1/1"]);
}

#[test]
fn a_log_that_is_shorter_than_the_cursor_is_no_end() {
    let asked = Ask { include_snapshot: false, ..ask() };
    let mut script = Script::new(asked, &[DONE], RunState::Completed);
    script.run();
    script.machine.head(&Head {
        state: RunState::Completed,
        last_seq: 0,
        hash: ChainHash::EMPTY,
        imported: false,
    });
    assert_eq!(script.run(), Vec::<String>::new());
}

#[test]
fn a_deleted_run_closes_its_streams() {
    let mut script = Script::new(ask(), &[], RunState::Running);
    script.run();
    script.machine.gone();
    assert_eq!(script.run(), ["error RUN_DELETED false", "close"]);
}
