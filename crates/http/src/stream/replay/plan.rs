//! From where to where a replay goes. No I/O.

use control_plane_domain::Seq;

use super::super::request::{self, Ask, Log, Reset};
use crate::replay::Options;

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The client has everything: it stops asking.
    NoContent,
    Open(Opening),
}

/// How a replay begins, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// Events after this one are sent.
    pub(super) after: Seq,
    /// The last one that is.
    pub(super) last: Seq,
    /// The log's last event.
    pub(super) latest: Seq,
    pub(super) reset: Option<Reset>,
}

/// Whether a cursor fits the log is decided as for any stream of the run.
pub(super) fn decide(ask: &Ask, options: &Options, log: &Log<'_>) -> Plan {
    let reset = match request::decide(ask, &Log { over: false, ..*log }) {
        request::Plan::NoContent => None,
        request::Plan::Open(opening) => opening.reset,
    };
    let cursor = ask.cursor.filter(|_| reset.is_none());
    let latest = log.last_seq;
    let last = options.to.map_or(latest, |to| to.min(latest));
    if cursor.is_some_and(|cursor| cursor >= last) {
        return Plan::NoContent;
    }
    let before = options.from.map_or(0, |from| from - 1);
    let after = cursor.unwrap_or(0).max(before).min(last);
    Plan::Open(Opening { after, last, latest, reset })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::query::Query;

    fn plan(raw: &str, header: Option<&str>) -> Plan {
        let ask = Ask::parse(raw, header, Duration::from_secs(15)).unwrap();
        let options = Options::of_query(&mut Query::new(raw));
        decide(&ask, &options, &Log { id: "log-1", last_seq: 12, over: true })
    }

    #[test]
    fn a_replay_goes_from_where_it_was_asked_to_or_left_to_its_end() {
        for (raw, header, expected) in [
            ("", None, (0, 12)),
            ("afterSeq=0", None, (0, 12)),
            ("fromSeq=1", None, (0, 12)),
            ("fromSeq=4&toSeq=9", None, (3, 9)),
            ("fromSeq=4&toSeq=4", None, (3, 4)),
            ("fromSeq=12", None, (11, 12)),
            ("toSeq=1000", None, (0, 12)),
            ("fromSeq=4&toSeq=9", Some("6"), (6, 9)),
            ("fromSeq=4&toSeq=9&lastEventId=7", None, (7, 9)),
            ("fromSeq=4&toSeq=9&afterSeq=5&lastEventId=7", Some("8"), (8, 9)),
            ("fromSeq=4", Some("1"), (3, 12)),
            // Nothing to replay: it ends at once.
            ("fromSeq=13", None, (12, 12)),
            ("fromSeq=13&toSeq=20", Some("2"), (12, 12)),
        ] {
            let Plan::Open(opening) = plan(raw, header) else { panic!("no content: {raw}") };
            assert_eq!((opening.after, opening.last), expected, "{raw} {header:?}");
            assert_eq!((opening.latest, opening.reset), (12, None), "{raw} {header:?}");
        }
    }

    #[test]
    fn who_has_the_last_event_is_told_to_stop() {
        for (raw, header) in [
            ("", Some("12")),
            ("afterSeq=12", None),
            ("toSeq=9", Some("9")),
            ("toSeq=9", Some("10")),
            ("fromSeq=3&toSeq=9&lastEventId=9", None),
        ] {
            assert_eq!(plan(raw, header), Plan::NoContent, "{raw} {header:?}");
        }
    }

    #[test]
    fn a_cursor_that_does_not_fit_the_log_starts_the_replay_again() {
        for (raw, header, reason, after) in [
            ("", Some("13"), "beyond_end", 0),
            ("fromSeq=4&toSeq=9", Some("13"), "beyond_end", 3),
            ("logId=log-0", Some("12"), "log_changed", 0),
            ("fromSeq=4&logId=log-0", Some("6"), "log_changed", 3),
        ] {
            let Plan::Open(opening) = plan(raw, header) else { panic!("no content: {raw}") };
            assert_eq!(opening.reset.map(|reset| reset.reason), Some(reason), "{raw}");
            assert_eq!(opening.after, after, "{raw}");
        }
    }
}
