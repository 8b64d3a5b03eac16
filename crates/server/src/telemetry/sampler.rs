//! Which traces are recorded (`OTEL_TRACES_SAMPLER`).

use control_plane_domain::trace::TraceId;

/// Decides, always the same for a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampler {
    /// Whether a parent's decision counts.
    pub(crate) follows_parent: bool,
    /// The part of traces that is recorded, from 0 to 1.
    pub(crate) ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// Whether a span of this trace is recorded; `parent` is what its parent's decision was.
    pub(crate) fn decide(self, trace_id: TraceId, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(sampled) => sampled,
            None => self.ratio >= 1.0 || place(trace_id) < self.ratio,
        }
    }
}

/// Where a trace stands between 0 and 1: its last 63 bits, as other implementations take them.
#[expect(clippy::cast_precision_loss, reason = "half of the bits would do")]
fn place(trace_id: TraceId) -> f64 {
    let [.., a, b, c, d, e, f, g, h] = *trace_id.bytes();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1) as f64 / (1_u64 << 63) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(low: u64) -> TraceId {
        let mut bytes = [1; 16];
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        TraceId::new(bytes).unwrap()
    }

    #[test]
    fn a_part_of_the_traces_is_recorded_and_always_the_same() {
        let half = Sampler { follows_parent: true, ratio: 0.5 };
        assert!(half.decide(trace(0), None));
        assert!(half.decide(trace(u64::MAX / 4), None));
        assert!(!half.decide(trace(u64::MAX / 4 * 3), None));
        assert!(!half.decide(trace(u64::MAX), None));
    }

    #[test]
    fn a_parent_decides_where_it_counts() {
        let (never, always) = (0.0, 1.0);
        for (follows_parent, ratio, parent, expected) in [
            (true, never, Some(true), true),
            (true, always, Some(false), false),
            (false, never, Some(true), false),
            (false, always, Some(false), true),
            (true, never, None, false),
            (true, always, None, true),
        ] {
            let sampler = Sampler { follows_parent, ratio };
            assert_eq!(sampler.decide(trace(u64::MAX), parent), expected, "{sampler:?} {parent:?}");
        }
    }
}
