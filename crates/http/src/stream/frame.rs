//! The frames of a stream and their bytes (WHATWG HTML 9.2).
//!
//! **Invariant:** a frame without a cursor writes no `id:` line, since that would corrupt the
//! client's. An event's text is copied as it is stored.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use control_plane_domain::event::ChainHash;
use control_plane_domain::{Clock, Ordinal, RunState, Seq, time};
use control_plane_storage::model::LogEntry;
use control_plane_storage::{KeptEntry, TailEntry};
use serde_json::{Value, json};

use super::request::Reset;
use crate::events::{Row, put_row};

/// A frame that is to be sent.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// The first bytes: how long to wait before reconnecting.
    Opening {
        retry_ms: u64,
    },
    /// How long to wait before reconnecting, when the server is about to close.
    Retry {
        retry_ms: u64,
    },
    Event(Arc<LogEntry>),
    /// An event that the run's other connections send as well: it is encoded once.
    Shared(Arc<KeptEntry>),
    /// An event of all runs: its id is its position.
    FeedEvent(TailEntry),
    /// A frame that [`snapshot`] made, shared by everybody who is at the same place.
    Snapshot(Bytes),
    Heartbeat {
        id: Option<Seq>,
        latest: Seq,
    },
    CaughtUp(Seq),
    Reset(Reset),
    /// The client was too slow for what is kept in memory.
    Lagged {
        from: Seq,
        latest: Seq,
    },
    /// Without an end when nobody can say where the history ended.
    Gap {
        from: Ordinal,
        to: Option<Ordinal>,
    },
    End {
        state: RunState,
        seq: Seq,
        hash: ChainHash,
    },
    Error {
        code: &'static str,
        message: &'static str,
        retryable: bool,
    },
}

impl Frame {
    /// Appends the frame's bytes.
    pub(super) fn write(&self, out: &mut BytesMut, clock: &dyn Clock) {
        match self {
            Self::Opening { retry_ms } => put(out, format_args!("retry: {retry_ms}\n: macp\n\n")),
            Self::Retry { retry_ms } => put(out, format_args!("retry: {retry_ms}\n\n")),
            Self::Event(entry) => put_event(out, entry),
            Self::Shared(entry) => out.put_slice(entry.encoded(event)),
            Self::FeedEvent(TailEntry::Read(entry)) => put_feed_event(out, entry),
            Self::FeedEvent(TailEntry::Kept(entry)) => out.put_slice(entry.encoded(feed_event)),
            Self::Snapshot(frame) => out.put_slice(frame),
            Self::Heartbeat { id, latest } => {
                let ts = time::format(clock.now());
                put_frame(out, "heartbeat", *id, &json!({ "ts": ts, "latestSeq": latest }));
            }
            Self::CaughtUp(seq) => {
                put_frame(out, "caught_up", Some(*seq), &json!({ "seq": seq }));
            }
            Self::Reset(Reset { reason, requested, from }) => {
                let data = json!({ "reason": reason, "requested": requested, "from": from });
                put_frame(out, "reset", None, &data);
            }
            Self::Lagged { from, latest } => {
                put_frame(out, "lagged", None, &json!({ "from": from, "latestSeq": latest }));
            }
            Self::Gap { from, to } => {
                put_frame(out, "gap", None, &json!({ "fromOrdinal": from, "toOrdinal": to }));
            }
            Self::End { state, seq, hash } => {
                let data = json!({
                    "status": state.as_str(),
                    "latestSeq": seq,
                    "totalEvents": seq,
                    "hash": hash.to_string(),
                });
                put_frame(out, "end", Some(*seq), &data);
            }
            Self::Error { code, message, retryable } => {
                let data = json!({ "errorCode": code, "message": message, "retryable": retryable });
                put_frame(out, "stream_error", None, &data);
            }
        }
    }

    /// The frame's bytes, if other connections send the same.
    pub(super) fn shared(&self) -> Option<Bytes> {
        match self {
            Self::Shared(entry) => Some(entry.encoded(event).clone()),
            Self::FeedEvent(TailEntry::Kept(entry)) => Some(entry.encoded(feed_event).clone()),
            Self::Snapshot(frame) => Some(frame.clone()),
            Self::Opening { .. }
            | Self::Retry { .. }
            | Self::Event(_)
            | Self::FeedEvent(TailEntry::Read(_))
            | Self::Heartbeat { .. }
            | Self::CaughtUp(_)
            | Self::Reset(_)
            | Self::Lagged { .. }
            | Self::Gap { .. }
            | Self::End { .. }
            | Self::Error { .. } => None,
        }
    }

    /// Whether it is an event of the log.
    pub(super) fn is_event(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Shared(_) | Self::FeedEvent(_))
    }
}

/// The frame of an event.
fn event(entry: &LogEntry) -> Bytes {
    let mut out = BytesMut::new();
    put_event(&mut out, entry);
    out.freeze()
}

fn put_event(out: &mut BytesMut, entry: &LogEntry) {
    out.reserve(entry.body.len() + 64);
    put(out, format_args!("event: canonical_event\nid: {}\ndata: ", entry.seq));
    out.put_slice(&entry.body);
    out.put_slice(b"\n\n");
}

/// The frame of an event of all runs.
fn feed_event(entry: &LogEntry) -> Bytes {
    let mut out = BytesMut::new();
    put_feed_event(&mut out, entry);
    out.freeze()
}

fn put_feed_event(out: &mut BytesMut, entry: &LogEntry) {
    out.reserve(entry.body.len() + 96);
    put(out, format_args!("event: canonical_event\nid: {}\ndata: ", entry.position));
    put_row(out, entry, Row::WithPosition);
    out.put_slice(b"\n\n");
}

/// The frame of a run's state, from the state's JSON.
pub(super) fn snapshot(state: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(state.len() + 32);
    out.put_slice(b"event: snapshot\ndata: ");
    out.put_slice(state.as_bytes());
    out.put_slice(b"\n\n");
    out.freeze()
}

/// The missing ordinals that a `session.stream.gap` event tells of.
pub(super) fn gap_of(entry: &LogEntry) -> Option<Frame> {
    let event: Value = serde_json::from_slice(&entry.body).ok()?;
    let from = event.pointer("/data/fromOrdinal")?.as_i64()?;
    let to = event.pointer("/data/toOrdinal").and_then(Value::as_i64);
    Some(Frame::Gap { from, to })
}

fn put_frame(out: &mut BytesMut, name: &str, id: Option<Seq>, data: &Value) {
    put(out, format_args!("event: {name}\n"));
    if let Some(id) = id {
        put(out, format_args!("id: {id}\n"));
    }
    put(out, format_args!("data: {data}\n\n"));
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::clock::ManualClock;
    use control_plane_domain::{EventType, RunId};

    fn text(frame: &Frame) -> String {
        let mut out = BytesMut::new();
        frame.write(&mut out, &ManualClock::at_unix_ms(0));
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn event(body: &'static str) -> LogEntry {
        let at = time::from_unix_ms(0).unwrap();
        LogEntry {
            run_id: RunId(uuid::Uuid::nil()),
            seq: 7,
            position: 1,
            ts: at,
            received_at: at,
            event_type: EventType::SessionStreamGap,
            subject: None,
            hash: ChainHash::EMPTY,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn frames_read_as_the_contract_says() {
        let table = [
            (Frame::Opening { retry_ms: 1500 }, "retry: 1500\n: macp\n\n"),
            (Frame::Retry { retry_ms: 1999 }, "retry: 1999\n\n"),
            (
                Frame::Event(Arc::new(event(r#"{"seq":7}"#))),
                "event: canonical_event\nid: 7\ndata: {\"seq\":7}\n\n",
            ),
            (
                Frame::FeedEvent(TailEntry::Read(Arc::new(event(r#"{"seq":7}"#)))),
                "event: canonical_event\nid: 1\ndata: {\"position\":1,\"seq\":7}\n\n",
            ),
            (Frame::Snapshot(snapshot("{}")), "event: snapshot\ndata: {}\n\n"),
            (
                Frame::Heartbeat { id: Some(4), latest: 4 },
                "event: heartbeat\nid: 4\ndata: {\"latestSeq\":4,\"ts\":\"1970-01-01T00:00:00.000Z\"}\n\n",
            ),
            (
                Frame::Heartbeat { id: None, latest: 9 },
                "event: heartbeat\ndata: {\"latestSeq\":9,\"ts\":\"1970-01-01T00:00:00.000Z\"}\n\n",
            ),
            (Frame::CaughtUp(0), "event: caught_up\nid: 0\ndata: {\"seq\":0}\n\n"),
            (
                Frame::Reset(Reset { reason: "beyond_end", requested: Some(9), from: 4 }),
                "event: reset\ndata: {\"from\":4,\"reason\":\"beyond_end\",\"requested\":9}\n\n",
            ),
            (
                Frame::Lagged { from: 3, latest: 5 },
                "event: lagged\ndata: {\"from\":3,\"latestSeq\":5}\n\n",
            ),
            (
                Frame::Gap { from: 3, to: Some(5) },
                "event: gap\ndata: {\"fromOrdinal\":3,\"toOrdinal\":5}\n\n",
            ),
            (
                Frame::Gap { from: 7, to: None },
                "event: gap\ndata: {\"fromOrdinal\":7,\"toOrdinal\":null}\n\n",
            ),
            (
                Frame::Error { code: "RUN_DELETED", message: "gone", retryable: false },
                "event: stream_error\ndata: {\"errorCode\":\"RUN_DELETED\",\"message\":\"gone\",\"retryable\":false}\n\n",
            ),
        ];
        for (frame, expected) in table {
            assert_eq!(text(&frame), expected);
        }
    }

    #[test]
    fn the_end_says_how_the_log_ends() {
        let frame = Frame::End { state: RunState::Completed, seq: 12, hash: ChainHash::EMPTY };
        let text = text(&frame);
        assert!(text.starts_with("event: end\nid: 12\ndata: {"), "{text}");
        assert!(text.contains(&format!("\"hash\":\"sha256:{}\"", "0".repeat(64))), "{text}");
        assert!(text.contains("\"status\":\"completed\"") && text.contains("\"totalEvents\":12"));
    }

    #[test]
    fn a_gap_event_tells_its_ordinals() {
        let entry = event(r#"{"data":{"fromOrdinal":3,"toOrdinal":5}}"#);
        assert!(matches!(gap_of(&entry), Some(Frame::Gap { from: 3, to: Some(5) })));
        let open = event(r#"{"data":{"fromOrdinal":3}}"#);
        assert!(matches!(gap_of(&open), Some(Frame::Gap { from: 3, to: None })));
        assert!(gap_of(&event(r#"{"data":{}}"#)).is_none());
    }
}
