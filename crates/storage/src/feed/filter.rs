//! Which events of the feed somebody wants.
//!
//! **Invariant:** an event that is filtered in memory passes exactly if the database would let it
//! pass (`of_scenario` in the dialects).

use std::sync::Arc;

use control_plane_domain::{EventType, RunId};

use crate::like;
use crate::model::LogEntry;
use crate::tail::{KeptEntry, weight};

/// Which events of the feed to give out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeedFilter {
    pub run_id: Option<RunId>,
    /// The run's source, or a part of its scenario's name, whatever the case of ASCII letters.
    pub scenario_ref: Option<String>,
    /// Empty for all.
    pub types: Vec<EventType>,
}

/// An event, with what a filter asks of its run.
#[derive(Debug, Clone)]
pub(crate) struct FeedEntry {
    pub(super) entry: Arc<KeptEntry>,
    source_ref: Option<String>,
    scenario_ref: Option<String>,
}

impl FeedEntry {
    pub(crate) fn new(
        entry: LogEntry,
        source_ref: Option<String>,
        scenario_ref: Option<String>,
    ) -> Self {
        Self { entry: Arc::new(KeptEntry::new(entry)), source_ref, scenario_ref }
    }

    /// About how much memory it holds.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.source_ref, &self.scenario_ref];
        weight(&self.entry) + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

impl FeedFilter {
    /// Whether it leaves nothing out.
    pub(super) fn takes_all(&self) -> bool {
        let Self { run_id, scenario_ref, types } = self;
        run_id.is_none() && scenario_ref.is_none() && types.is_empty()
    }

    pub(super) fn takes(&self, event: &FeedEntry) -> bool {
        let Self { run_id, scenario_ref, types } = self;
        run_id.is_none_or(|run_id| run_id == event.entry.run_id)
            && (types.is_empty() || types.contains(&event.entry.event_type))
            && scenario_ref.as_ref().is_none_or(|scenario| {
                event.source_ref.as_ref() == Some(scenario)
                    || like::contains(event.scenario_ref.as_deref().unwrap_or_default(), scenario)
            })
    }
}
