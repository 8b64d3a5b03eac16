//! The gaps that a run's log tells of, whether its events are in the bundle or not.

use std::collections::BTreeMap;

use control_plane_domain::{CanonicalEvent, EventType, RunId, Seq};
use control_plane_projection::state;
use control_plane_storage::model::LogEntry;
use control_plane_storage::{Result, Store};
use serde_json::Value;

use crate::bundle::format::Gap;

/// Gaps that are read at once.
const PAGE: i64 = 500;

/// The gaps found so far, by the events that tell of them.
#[derive(Debug, Default)]
pub(super) struct Gaps(BTreeMap<Seq, Gap>);

impl Gaps {
    /// Takes in an event about a gap. One that cannot be read goes into the bundle as it is.
    pub(super) fn note(&mut self, entry: &LogEntry) {
        let gap = state::event(entry).ok().as_ref().and_then(gap);
        self.0.extend(gap.map(|gap| (entry.seq, gap)));
    }

    /// All gaps up to event `end`, once those in the events after `streamed.0` and up to
    /// `streamed.1` were noted.
    pub(super) async fn complete(
        &mut self,
        store: &Store,
        run_id: RunId,
        streamed: (Seq, Seq),
        end: Seq,
    ) -> Result<Vec<Gap>> {
        for (mut after, until) in [(0, streamed.0), (streamed.1, end)] {
            while after < until {
                let kind = EventType::SessionStreamGap;
                let page = store.events_of(run_id, kind, after, until, PAGE).await?;
                page.iter().for_each(|entry| self.note(entry));
                let is_last = i64::try_from(page.len()).unwrap_or(i64::MAX) < PAGE;
                after = page.last().filter(|_| !is_last).map_or(until, |entry| entry.seq);
            }
        }
        Ok(self.0.values().cloned().collect())
    }
}

fn gap(event: &CanonicalEvent) -> Option<Gap> {
    let ordinal = |key: &str| event.data.get(key).and_then(Value::as_i64);
    let reason = event.data.get("reason").and_then(Value::as_str).map(str::to_owned);
    let from_ordinal = ordinal("fromOrdinal")?;
    Some(Gap { from_ordinal, to_ordinal: ordinal("toOrdinal"), reason })
}
