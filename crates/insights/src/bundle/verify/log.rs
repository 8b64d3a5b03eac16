//! The events of a bundle: their order, their hash chain, and what follows from them.

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{CanonicalEvent, EventType, Ordinal, RunId, Seq};
use control_plane_projection::{PriceTable, Projection, apply_metrics};
use serde_json::Value;

use super::super::format::{Link, PartHash};
use super::report::Faults;

/// Most gaps that are kept: a log that has more is not one of ours.
const MAX_GAPS: usize = 100_000;

/// What was read of the log so far.
pub(super) struct Log {
    run_id: Option<RunId>,
    /// Where the chain begins, if it is not at the log's beginning.
    from: Option<(Seq, ChainHash)>,
    pub(super) sum: PartHash,
    /// The first and the last event.
    pub(super) first: Option<Seq>,
    pub(super) last: Option<Seq>,
    /// The chain's head, where it can be told.
    pub(super) chain: Option<ChainHash>,
    pub(super) order: Faults,
    pub(super) unreadable: Faults,
    pub(super) foreign: Faults,
    /// Ranges that are recorded as missing; `None` at the end of one that has no end.
    pub(super) gaps: Vec<(Ordinal, Option<Ordinal>)>,
    /// The state and the figures after these events, if they are all from the first on.
    pub(super) state: Option<Projection>,
    pub(super) metrics: Option<RunMetrics>,
    prices: PriceTable,
}

impl Log {
    pub(super) fn new(from: Option<&Link>) -> Self {
        let from = from.and_then(|link| Some((link.seq, parse_hash(&link.hash)?)));
        Self {
            run_id: None,
            from,
            sum: PartHash::default(),
            first: None,
            last: None,
            chain: None,
            order: Faults::default(),
            unreadable: Faults::default(),
            foreign: Faults::default(),
            gaps: Vec::new(),
            state: None,
            metrics: None,
            prices: PriceTable::default(),
        }
    }

    /// Whose events they are to be.
    pub(super) fn belongs_to(&mut self, run_id: RunId) {
        self.run_id = Some(run_id);
    }

    /// What the next event is called in sentences.
    pub(super) fn next_name(&self) -> String {
        let seq = self.last.map_or_else(String::new, |last| format!("event {}, ", last + 1));
        format!("{seq}canonicalEvents[{}]", self.sum.items())
    }

    /// Takes in the next event.
    pub(super) fn take(&mut self, text: &[u8]) {
        let name = self.next_name();
        let read = std::str::from_utf8(text)
            .map_err(|_bytes| "it is not UTF-8".to_owned())
            .and_then(|text| {
                let event = serde_json::from_str::<CanonicalEvent>(text);
                event.map(|event| (text, event)).map_err(|fault| fault.to_string())
            });
        self.sum.item(text);
        let (text, event) = match read {
            Ok(read) => read,
            Err(fault) => {
                self.unreadable.add(format!("{name} cannot be read: {fault}"));
                self.last = self.last.map(|last| last + 1);
                (self.chain, self.state, self.metrics) = (None, None, None);
                return;
            }
        };
        self.place(&event, &name);
        self.chain = self.chain.map(|chain| chain.then(text));
        if self.run_id.is_some_and(|id| id != event.run_id) {
            self.foreign.add(format!("{name} belongs to run {}", event.run_id));
        }
        self.note_gap(&event);
        if let Some(state) = &mut self.state {
            state.apply(&event);
        }
        if let Some(metrics) = &mut self.metrics {
            apply_metrics(metrics, &event, &self.prices);
        }
    }

    fn place(&mut self, event: &CanonicalEvent, name: &str) {
        if let Some(last) = self.last {
            if event.seq != last + 1 {
                self.order.add(format!("after event {last} comes {}", event.seq));
            }
        } else if self.sum.items() > 1 {
            self.order.add(format!("{name} comes after one that cannot be read"));
        } else {
            self.first = Some(event.seq);
            if event.seq == 1 {
                let run_id = self.run_id.unwrap_or(event.run_id);
                self.chain = Some(ChainHash::EMPTY);
                self.state = Some(Projection::empty(run_id));
                self.metrics = Some(RunMetrics::empty(run_id));
            } else if let Some((seq, hash)) = self.from
                && seq + 1 == event.seq
            {
                self.chain = Some(hash);
            }
        }
        self.last = Some(event.seq);
    }

    fn note_gap(&mut self, event: &CanonicalEvent) {
        if event.event_type != EventType::SessionStreamGap || self.gaps.len() >= MAX_GAPS {
            return;
        }
        let ordinal = |key: &str| event.data.get(key).and_then(Value::as_i64);
        if let Some(from) = ordinal("fromOrdinal") {
            self.gaps.push((from, ordinal("toOrdinal")));
        }
    }
}

/// A hash as [`ChainHash`] is written, or its hexadecimal digits alone.
pub fn parse_hash(text: &str) -> Option<ChainHash> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let bytes = hex::decode(digits).ok()?;
    bytes.try_into().ok().map(ChainHash)
}
