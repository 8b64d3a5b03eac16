//! What a client asks of the stream of all runs, and where that puts its cursor. No I/O.

use std::time::Duration;

use control_plane_domain::Position;
use control_plane_storage::FeedBounds;

use crate::error::ApiError;
use crate::query::Query;
use crate::stream::request::{Ask, Reset};

/// A request for the feed, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeedAsk {
    pub(super) ask: Ask,
    /// A run's id or its session's, as the client wrote it.
    pub(super) run_id: Option<String>,
    pub(super) scenario_ref: Option<String>,
}

impl FeedAsk {
    /// Reads a request; everything that is wrong with it is told at once.
    pub(super) fn parse(
        raw: &str,
        last_event_id: Option<&str>,
        default_heartbeat: Duration,
    ) -> Result<Self, ApiError> {
        let mut query = Query::new(raw);
        let ask = Ask::read(&mut query, last_event_id, default_heartbeat);
        let (run_id, scenario_ref) = (query.text("runId"), query.text("scenarioRef"));
        query.finish()?;
        Ok(Self { ask, run_id, scenario_ref })
    }
}

/// How the stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeedOpening {
    /// Events after this one are sent.
    pub(super) after: Position,
    pub(super) latest: Position,
    pub(super) reset: Option<Reset>,
}

/// Where the stream starts. After a `reset` it is the beginning of what is retained.
pub(super) fn decide(ask: &Ask, log_id: &str, bounds: FeedBounds) -> FeedOpening {
    let (start, latest) = (bounds.start(), bounds.last);
    let changed = ask.log_id.as_deref().is_some_and(|known| known != log_id);
    let reason = match ask.cursor {
        _ if changed => Some("log_changed"),
        Some(cursor) if cursor > latest => Some("beyond_end"),
        Some(cursor) if cursor < start => Some("expired"),
        Some(_) | None => None,
    };
    let reset = reason.map(|reason| Reset { reason, requested: ask.cursor, from: start });
    let after = if reset.is_some() { start } else { ask.cursor.unwrap_or(latest) };
    FeedOpening { after, latest, reset }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(15);

    #[test]
    fn a_request_names_a_run_and_a_scenario() {
        let asked = FeedAsk::parse("runId=r&scenarioRef=Fraud%25&afterSeq=3", Some("7"), HEARTBEAT);

        let FeedAsk { ask, run_id, scenario_ref } = asked.unwrap();
        assert_eq!((run_id.as_deref(), scenario_ref.as_deref()), (Some("r"), Some("Fraud%")));
        assert_eq!(ask.cursor, Some(7));
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let asked =
            FeedAsk::parse("afterSeq=x&types=no&scenarioRef=a&scenarioRef=b", None, HEARTBEAT);

        let Err(ApiError::Validation(faults)) = asked else { panic!("{asked:?}") };
        let named = ["afterSeq", "types", "scenarioRef"];
        assert!(
            faults.len() == 3 && named.iter().zip(&faults).all(|(it, fault)| fault.starts_with(it)),
            "{faults:?}"
        );
    }

    #[test]
    fn a_cursor_is_kept_where_the_log_has_all_that_follows() {
        let bounds = FeedBounds { first: 11, last: 20 };
        for (raw, after, reset) in [
            ("", 20, None),
            ("afterSeq=10", 10, None),
            ("afterSeq=15&logId=log", 15, None),
            ("afterSeq=20", 20, None),
            ("afterSeq=9", 10, Some(("expired", Some(9)))),
            ("afterSeq=0", 10, Some(("expired", Some(0)))),
            ("afterSeq=21", 10, Some(("beyond_end", Some(21)))),
            ("afterSeq=15&logId=other", 10, Some(("log_changed", Some(15)))),
            ("logId=other", 10, Some(("log_changed", None))),
        ] {
            let ask = FeedAsk::parse(raw, None, HEARTBEAT).unwrap().ask;
            let reset = reset.map(|(reason, requested)| Reset { reason, requested, from: 10 });
            let opening = FeedOpening { after, latest: 20, reset };
            assert_eq!(decide(&ask, "log", bounds), opening, "{raw}");
        }
    }

    #[test]
    fn an_empty_log_has_nothing_that_could_have_expired() {
        let bounds = FeedBounds { first: 1, last: 0 };
        for raw in ["", "afterSeq=0"] {
            let ask = FeedAsk::parse(raw, None, HEARTBEAT).unwrap().ask;
            assert_eq!(
                decide(&ask, "log", bounds),
                FeedOpening { after: 0, latest: 0, reset: None }
            );
        }
    }
}
