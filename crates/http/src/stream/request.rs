//! What a client asks of a stream, and where that puts its cursor. No I/O.

use std::time::Duration;

use control_plane_domain::{EventType, Seq};

use crate::error::ApiError;
use crate::query::{Query, parse_integer};

const MIN_HEARTBEAT_MS: i64 = 1000;
const MAX_HEARTBEAT_MS: i64 = 45_000;

/// A request for a stream, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// The last event that the client has.
    pub(super) cursor: Option<Seq>,
    /// The log that the cursor belongs to, if the client knows.
    pub(super) log_id: Option<String>,
    pub(super) include_snapshot: bool,
    pub(super) heartbeat: Duration,
    /// Which events to send; empty for all.
    pub(super) types: Vec<EventType>,
    pub(super) close_on_end: bool,
}

/// The log as it is when the stream opens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log<'a> {
    pub(super) id: &'a str,
    pub(super) last_seq: Seq,
    /// Whether the run has ended.
    pub(super) over: bool,
}

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The client has everything and wanted to be told: it stops asking.
    NoContent,
    Open(Opening),
}

/// How a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// Events after this one are sent.
    pub(super) after: Seq,
    pub(super) latest: Seq,
    pub(super) over: bool,
    pub(super) reset: Option<Reset>,
}

/// Why a client's cursor was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    pub(super) reason: &'static str,
    pub(super) requested: Option<Seq>,
    /// The cursor from which everything follows.
    pub(super) from: Seq,
}

impl Ask {
    /// Reads a request. The header wins: a reconnecting browser sends it with its first URL.
    pub(super) fn parse(
        raw: &str,
        last_event_id: Option<&str>,
        default_heartbeat: Duration,
    ) -> Result<Self, ApiError> {
        let mut query = Query::new(raw);
        let ask = Self::read(&mut query, last_event_id, default_heartbeat);
        query.finish()?;
        Ok(ask)
    }

    /// Reads what all streams take; what is wrong is noted in the query.
    pub(super) fn read(
        query: &mut Query,
        last_event_id: Option<&str>,
        default_heartbeat: Duration,
    ) -> Self {
        let from_header = last_event_id.and_then(|text| non_negative(query, "Last-Event-ID", text));
        let from_polyfill = query
            .one("lastEventId")
            .filter(|text| !text.is_empty())
            .and_then(|text| non_negative(query, "lastEventId", &text));
        let from_query =
            query.one("afterSeq").and_then(|text| non_negative(query, "afterSeq", &text));
        let heartbeat = query
            .integer("heartbeatMs", MIN_HEARTBEAT_MS..=MAX_HEARTBEAT_MS)
            .and_then(|ms| u64::try_from(ms).ok())
            .map_or(default_heartbeat, Duration::from_millis);
        Self {
            cursor: from_header.or(from_polyfill).or(from_query),
            log_id: query.text("logId"),
            include_snapshot: query.flag("includeSnapshot").unwrap_or(true),
            heartbeat,
            types: query.event_types("types"),
            close_on_end: query.flag("closeOnEnd").unwrap_or(last_event_id.is_some()),
        }
    }
}

fn non_negative(query: &mut Query, name: &str, text: &str) -> Option<Seq> {
    let number = parse_integer(text).filter(|number| *number >= 0 && !text.starts_with('-'));
    if number.is_none() {
        query.fault(format!("{name} must be a non-negative integer"));
    }
    number
}

/// Where the stream starts.
pub(super) fn decide(ask: &Ask, log: &Log<'_>) -> Plan {
    let Log { id, last_seq, over } = *log;
    let changed = ask.log_id.as_deref().is_some_and(|known| known != id);
    let beyond = ask.cursor.is_some_and(|cursor| cursor > last_seq);
    let reason = if changed {
        Some("log_changed")
    } else if beyond {
        Some("beyond_end")
    } else {
        None
    };
    let reset = reason.map(|reason| Reset { reason, requested: ask.cursor, from: 0 });
    if reset.is_none() && over && ask.close_on_end && ask.cursor == Some(last_seq) {
        return Plan::NoContent;
    }
    let after = if reset.is_some() { 0 } else { ask.cursor.unwrap_or(last_seq) };
    Plan::Open(Opening { after, latest: last_seq, over, reset })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(15);

    fn ask(raw: &str, header: Option<&str>) -> Ask {
        Ask::parse(raw, header, HEARTBEAT).unwrap()
    }

    fn opens(ask: &Ask, last_seq: Seq, over: bool) -> (Seq, Option<&'static str>) {
        match decide(ask, &Log { id: "log-1", last_seq, over }) {
            Plan::NoContent => panic!("no content"),
            Plan::Open(opening) => (opening.after, opening.reset.map(|reset| reset.reason)),
        }
    }

    #[test]
    fn the_newest_cursor_wins() {
        for (raw, header, cursor) in [
            ("", None, None),
            ("afterSeq=0", None, Some(0)),
            ("afterSeq=5", None, Some(5)),
            ("afterSeq=5&lastEventId=7", None, Some(7)),
            ("afterSeq=5&lastEventId=", None, Some(5)),
            ("afterSeq=5&lastEventId=7", Some("9"), Some(9)),
        ] {
            assert_eq!(ask(raw, header).cursor, cursor, "{raw} {header:?}");
        }
    }

    #[test]
    fn a_cursor_that_is_no_number_is_refused_before_the_stream_opens() {
        for (raw, header) in [
            ("afterSeq=-1", None),
            ("afterSeq=", None),
            ("afterSeq=1.5", None),
            ("afterSeq=NaN", None),
            ("afterSeq=-0", None),
            ("lastEventId=x", None),
            ("", Some("12abc")),
            ("", Some("99999999999999999999")),
        ] {
            let asked = Ask::parse(raw, header, HEARTBEAT);
            assert!(matches!(asked, Err(ApiError::Validation(_))), "{raw} {header:?}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let plain = ask("", None);
        assert!(plain.include_snapshot && !plain.close_on_end && plain.types.is_empty());
        assert_eq!(plain.heartbeat, HEARTBEAT);
        assert!(ask("", Some("3")).close_on_end);
        assert!(!ask("closeOnEnd=false", Some("3")).close_on_end);
        assert!(!ask("lastEventId=3", None).close_on_end);
    }

    #[test]
    fn options_are_checked() {
        assert_eq!(ask("heartbeatMs=1000", None).heartbeat, Duration::from_secs(1));
        for raw in ["heartbeatMs=999", "heartbeatMs=45001", "includeSnapshot=yes", "types=x.y"] {
            assert!(Ask::parse(raw, None, HEARTBEAT).is_err(), "{raw}");
        }
    }

    #[test]
    fn without_a_cursor_only_what_comes_is_sent() {
        assert_eq!(opens(&ask("", None), 12, false), (12, None));
        assert_eq!(opens(&ask("", None), 0, false), (0, None));
    }

    #[test]
    fn a_cursor_within_the_log_is_kept() {
        for cursor in [0, 1, 12] {
            let ask = ask(&format!("afterSeq={cursor}"), None);
            assert_eq!(opens(&ask, 12, false), (cursor, None));
            assert_eq!(opens(&ask, 12, true), (cursor, None));
        }
    }

    #[test]
    fn a_cursor_beyond_the_end_is_put_back_whether_the_run_is_over_or_not() {
        let ask = ask("", Some("13"));
        assert_eq!(opens(&ask, 12, false), (0, Some("beyond_end")));
        assert_eq!(opens(&ask, 12, true), (0, Some("beyond_end")));
    }

    #[test]
    fn a_cursor_of_another_log_is_put_back() {
        assert_eq!(
            opens(&ask("afterSeq=3&logId=log-0", None), 12, false),
            (0, Some("log_changed"))
        );
        assert_eq!(opens(&ask("afterSeq=3&logId=log-1", None), 12, false), (3, None));
    }

    #[test]
    fn a_reconnect_at_the_end_of_a_finished_run_is_told_to_stop() {
        let at_end = ask("", Some("12"));
        let log = Log { id: "log-1", last_seq: 12, over: true };
        assert_eq!(decide(&at_end, &log), Plan::NoContent);
        assert_eq!(opens(&at_end, 12, false), (12, None), "not before the run is over");
        assert_eq!(opens(&at_end, 13, true), (12, None), "not when the log has grown");
        assert_eq!(opens(&ask("afterSeq=12", None), 12, true), (12, None), "not unless asked for");
    }
}
