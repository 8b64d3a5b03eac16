//! The raw envelopes of a bundle: whether ordinals are missing that nothing tells of.

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::{Ordinal, RunId};
use control_plane_storage::model::RawEnvelope;

use super::super::format::{Gap, PartHash};
use super::super::record::RawRecord;
use super::report::Faults;

/// Most ranges of missing ordinals that are kept.
const MAX_HOLES: usize = 100_000;

/// What was read of the envelopes so far.
#[derive(Default)]
pub(super) struct Envelopes {
    pub(super) run_id: Option<RunId>,
    pub(super) sum: PartHash,
    /// The first and last ordinal.
    pub(super) first: Option<Ordinal>,
    pub(super) last: Option<Ordinal>,
    /// How many have an ordinal.
    pub(super) of_session: i64,
    pub(super) unreadable: Faults,
    pub(super) foreign: Faults,
    pub(super) order: Faults,
    /// Ordinals that are missing between two envelopes.
    holes: Vec<(Ordinal, Ordinal)>,
}

impl Envelopes {
    /// What the next one is called in sentences.
    pub(super) fn next_name(&self) -> String {
        format!("rawEvents[{}]", self.sum.items())
    }

    /// Takes in the next one.
    pub(super) fn take(&mut self, text: &[u8]) {
        let name = self.next_name();
        self.sum.item(text);
        let raw = match read(text) {
            Ok(raw) => raw,
            Err(fault) => {
                self.unreadable.add(format!("{name} cannot be read: {fault}"));
                return;
            }
        };
        if self.run_id.is_some_and(|id| id != raw.run_id) {
            self.foreign.add(format!("{name} belongs to run {}", raw.run_id));
        }
        match (raw.source, raw.ordinal) {
            (EnvelopeSource::Session, Some(ordinal)) => self.place(ordinal, &name),
            (EnvelopeSource::Signal, None) => {}
            (EnvelopeSource::Session, None) => {
                self.order.add(format!("{name} is of the session and has no ordinal"));
            }
            (EnvelopeSource::Signal, Some(_)) => {
                self.order.add(format!("{name} is a signal and has an ordinal"));
            }
        }
    }

    fn place(&mut self, ordinal: Ordinal, name: &str) {
        if let Some(last) = self.last {
            if ordinal <= last {
                self.order.add(format!("{name} has ordinal {ordinal} after {last}"));
            } else if ordinal > last + 1 && self.holes.len() < MAX_HOLES {
                self.holes.push((last + 1, ordinal - 1));
            }
        }
        self.first = self.first.or(Some(ordinal));
        self.last = Some(ordinal);
        self.of_session += 1;
    }

    /// Says which ordinals are missing that the gaps do not tell of, when the envelopes are to be
    /// those after `after` and, if they are `whole`, up to `cursor`.
    pub(super) fn missing(
        &self,
        gaps: &[Gap],
        (after, cursor): (Ordinal, Ordinal),
        whole: bool,
    ) -> Vec<(Ordinal, Ordinal)> {
        let mut holes = self.holes.clone();
        let last = self.last.unwrap_or(after);
        if let Some(first) = self.first {
            holes.push((after + 1, first - 1));
        }
        if whole {
            holes.push((last + 1, cursor));
        }
        holes.retain(|(from, to)| from <= to && !is_told(gaps, *from, *to));
        holes
    }
}

/// The envelope in a text.
pub(super) fn read(text: &[u8]) -> Result<RawEnvelope, String> {
    let record: RawRecord = serde_json::from_slice(text).map_err(|fault| fault.to_string())?;
    RawEnvelope::try_from(record).map_err(|fault| fault.to_string())
}

/// Whether the gaps, which may follow each other, have all these ordinals.
pub(super) fn is_told(gaps: &[Gap], from: Ordinal, to: Ordinal) -> bool {
    let mut next = from;
    while next <= to {
        let end = gaps
            .iter()
            .filter(|gap| gap.from_ordinal <= next)
            .map(|gap| gap.to_ordinal.unwrap_or(Ordinal::MAX))
            .filter(|end| *end >= next)
            .max();
        match end {
            Some(end) if end < to => next = end + 1,
            Some(_) => return true,
            None => return false,
        }
    }
    true
}

/// How many of the ordinals up to `cursor` the gaps have.
pub(super) fn told(gaps: &[Gap], cursor: Ordinal) -> i64 {
    let mut ranges: Vec<(Ordinal, Ordinal)> = gaps
        .iter()
        .map(|gap| (gap.from_ordinal.max(1), gap.to_ordinal.unwrap_or(cursor).min(cursor)))
        .collect();
    ranges.sort_unstable();
    let (mut told, mut next) = (0, 1);
    for (from, to) in ranges {
        let from = from.max(next);
        if from <= to {
            told += to - from + 1;
            next = to + 1;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(from_ordinal: Ordinal, to_ordinal: Option<Ordinal>) -> Gap {
        Gap { from_ordinal, to_ordinal, reason: None }
    }

    #[test]
    fn gaps_tell_of_ordinals_once() {
        let gaps = [gap(8, None), gap(2, Some(4)), gap(4, Some(5))];

        assert_eq!(told(&gaps, 10), 4 + 3);
        assert_eq!(told(&gaps, 3), 2);
        assert!(is_told(&gaps, 2, 5) && is_told(&gaps, 9, 100) && is_told(&gaps, 3, 2));
        assert!(!is_told(&gaps, 1, 2) && !is_told(&gaps, 5, 6));
    }
}
