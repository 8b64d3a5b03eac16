//! What is missing, and what is only wrong.

use super::*;

#[test]
fn what_a_gap_accounts_for_is_not_missing_twice() {
    let exact = judged(|facts| {
        facts.tally.envelopes = Counted { count: 3, first: Some(1), last: Some(4) };
        facts.gap(3, Some(3), 1, "HISTORY_UNAVAILABLE");
        facts.counts(&[("alice", 1), ("bob", 3)]);
    });
    assert_eq!(exact.ranges, [envelopes(3, Some(3), Some(1), "HISTORY_UNAVAILABLE")]);
    assert_eq!(says(&exact, Kind::Ordinals), Says::Supports);

    let open = judged(|facts| {
        facts.gap(5, None, 0, "SESSION_EVICTED");
        facts.counts(&[("alice", 1), ("bob", 4)]);
    });
    let bob = Range::Messages { participant_id: "bob".to_owned(), missing: 2 };
    assert_eq!(open.ranges, [envelopes(5, None, None, "SESSION_EVICTED"), bob]);
}

#[test]
fn a_loss_is_a_gap_whoever_shows_it() {
    use Says::Contradicts;
    use Status::{Gap, Unknown};
    holds(&[
        (
            "a recorded gap",
            |facts| facts.gap(5, Some(6), 2, "HISTORY_UNAVAILABLE"),
            Kind::Gaps,
            Contradicts,
            Gap,
        ),
        (
            "envelopes that are not there",
            |facts| facts.tally.envelopes = Counted { count: 3, first: Some(1), last: Some(4) },
            Kind::Ordinals,
            Contradicts,
            Gap,
        ),
        (
            "another history",
            |facts| {
                facts.diverged = Some(Divergence { ordinal: 4, detail: None, ts: at(9) });
            },
            Kind::Overlaps,
            Contradicts,
            Gap,
        ),
        (
            "a count that is higher, of which the log says nothing",
            |facts| facts.ending().count = Some(Count { unplaced: 1, ..count(5) }),
            Kind::Count,
            Contradicts,
            Gap,
        ),
        (
            "a Commitment that is not there",
            |facts| facts.tally.last_type = Some("Vote".to_owned()),
            Kind::Ending,
            Contradicts,
            Gap,
        ),
        (
            "more than the runtime has: wrong, and no loss",
            |facts| facts.ending().count = Some(count(3)),
            Kind::Count,
            Contradicts,
            Unknown,
        ),
        (
            "another order: wrong, and no loss",
            |facts| facts.ending().count = Some(Count { misplaced: 1, ..count(4) }),
            Kind::Count,
            Contradicts,
            Unknown,
        ),
        (
            "an event that is not there",
            |facts| facts.tally.events = Counted { count: 8, first: Some(1), last: Some(9) },
            Kind::Log,
            Contradicts,
            Unknown,
        ),
        (
            "a chain that ends elsewhere",
            |facts| facts.chain_ends = false,
            Kind::Log,
            Contradicts,
            Unknown,
        ),
        (
            "an envelope where a gap is recorded",
            |facts| facts.tally.envelopes = Counted { count: 5, first: Some(1), last: Some(4) },
            Kind::Ordinals,
            Contradicts,
            Unknown,
        ),
    ]);
}

#[test]
fn what_was_not_delivered_leaves_no_hole_in_our_ordinals() {
    let judged = judged(|facts| {
        facts.gap(2, Some(2), 1, "NOT_DELIVERED");
        facts.ending().count = Some(Count { missing: vec![(2, 2)], ..count(5) });
        facts.counts(&[("alice", 1), ("bob", 3)]);
    });

    assert_eq!(judged.status, Status::Gap);
    assert_eq!(judged.ranges, [envelopes(2, Some(2), Some(1), "NOT_DELIVERED")]);
    assert_eq!(says(&judged, Kind::Ordinals), Says::Supports);
    assert_eq!(judged.summary, "The record has gaps: envelope 2 is missing (NOT_DELIVERED).");
}
