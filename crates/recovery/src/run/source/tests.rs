//! Whatever a runtime delivers, in whatever pieces: recorded once, in order.

use std::sync::Arc;

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::run::RunMode;
use control_plane_domain::time::from_unix_ms;
use control_plane_domain::{Run, RunId, RunState, Session, SessionId, SessionState};
use control_plane_projection::Projection;
use control_plane_storage::Recorded;
use control_plane_storage::model::{Append, Lease};
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::ledger::Parts;

fn at(milliseconds: i64) -> Timestamp {
    from_unix_ms(1_700_000_000_000 + milliseconds).unwrap()
}

/// A run whose log has its first `cursor` envelopes.
fn ledger(cursor: Ordinal) -> Ledger {
    let id = RunId::random();
    let session_id = SessionId::random();
    let now = at(0);
    let run = Run {
        id,
        state: RunState::Running,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 7,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: now,
        started_at: Some(now),
        ended_at: None,
        updated_at: now,
        archived_at: None,
        parked_reason: None,
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: "macp.mode.decision.v1".to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "c".to_owned(),
        policy_version: "p".to_owned(),
        initiator: Some("alice".to_owned()),
        state: SessionState::Open,
        participants: vec!["alice".to_owned()],
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: Some(1),
        expires_at: None,
        last_seen_at: None,
        cursor,
        last_message_id: (cursor > 0).then(|| message_id(cursor)),
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: now,
        updated_at: now,
    };
    Ledger::new(Parts {
        lease: Lease { run_id: id, epoch: 1 },
        run,
        session,
        chain: ChainHash::EMPTY,
        projection: Projection::empty(id),
        metrics: RunMetrics::empty(id),
        prices: Arc::default(),
        may_move: false,
        recorded: (1..=cursor)
            .map(|ordinal| Recorded {
                ordinal,
                message_id: message_id(ordinal),
                message_type: "Vote".to_owned(),
            })
            .collect(),
        commitment_last: false,
        snapshot_at: 0,
    })
}

fn message_id(ordinal: Ordinal) -> String {
    format!("m{ordinal}")
}

fn envelope(ordinal: Ordinal) -> Envelope {
    Envelope {
        macp_version: "1.0".to_owned(),
        mode: "macp.mode.decision.v1".to_owned(),
        message_type: "Vote".to_owned(),
        message_id: message_id(ordinal),
        session_id: "s".to_owned(),
        sender: "alice".to_owned(),
        timestamp_unix_ms: 1_700_000_000_000 + ordinal,
        payload: Vec::new(),
        sanitized: false,
    }
}

fn empty_stream() -> Stream {
    futures_util::stream::empty().boxed()
}

fn recorded(batch: &Append) -> Vec<(Ordinal, String)> {
    let raw = batch.raw.iter();
    raw.map(|raw| (raw.ordinal.unwrap(), raw.envelope.message_id.clone())).collect()
}

/// A subscription as a runtime may serve it: from `after` on, with earlier ones once more in
/// between.
#[derive(Debug, Clone)]
struct Delivery {
    after: Ordinal,
    ordinals: Vec<Ordinal>,
}

/// `again` says before which frames how many of the last ones come again.
fn delivery(after: Ordinal, end: Ordinal, again: &[(usize, i64)]) -> Delivery {
    let mut ordinals = Vec::new();
    for (place, ordinal) in (after + 1..=end).enumerate() {
        for (_, count) in again.iter().filter(|(before, _)| *before == place) {
            let first = (ordinal - count).max(after + 1);
            ordinals.extend(first..ordinal);
        }
        ordinals.push(ordinal);
    }
    Delivery { after, ordinals }
}

proptest! {
    /// Two subscriptions at once, as when settling: however their frames interleave, repeat and
    /// overlap, each envelope beyond the cursor is recorded once and in order.
    #[test]
    fn two_streams_of_one_history_make_one_record(
        cursor in 0_i64..20,
        more in 1_i64..60,
        back in 0_i64..2,
        first_again in prop::collection::vec((0_usize..60, 1_i64..8), 0..6),
        second_again in prop::collection::vec((0_usize..60, 1_i64..8), 0..6),
        turns in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let end = cursor + more;
        let mut ledger = ledger(cursor);
        let after = [cursor, (cursor - back).max(0)];
        let mut sources = after.map(|after| Source::new(empty_stream(), after));
        let deliveries =
            [delivery(after[0], end, &first_again), delivery(after[1], end, &second_again)];
        let mut rest = deliveries.each_ref().map(|delivery| delivery.ordinals.iter());
        // Whoever's turn it is; at the end, what is left.
        let order = turns.iter().map(|second| usize::from(*second)).chain([0; 600]).chain([1; 600]);

        for who in order {
            if let Some(ordinal) = rest[who].next() {
                let taken = sources[who].take(&mut ledger, envelope(*ordinal), at(1));
                prop_assert_ne!(taken, Taken::Diverged);
            }
        }

        let wanted: Vec<_> = (cursor + 1..=end).map(|ordinal| (ordinal, message_id(ordinal))).collect();
        prop_assert_eq!(recorded(&ledger.take_batch()), wanted);
        prop_assert_eq!(ledger.session.cursor, end);
        prop_assert_eq!(&deliveries[0].after, &after[0]);
    }

    /// However often the stream breaks and is opened again with its overlap, and whatever is
    /// redelivered, the batches together are the history.
    #[test]
    fn broken_streams_make_one_record(
        pieces in prop::collection::vec((0_i64..12, prop::collection::vec((0_usize..12, 1_i64..20), 0..3)), 1..12),
    ) {
        let mut ledger = ledger(0);
        let mut all = Vec::new();

        for (length, again) in &pieces {
            let after = (ledger.session.cursor - 1).max(0);
            let mut source = Source::new(empty_stream(), after);
            for ordinal in delivery(after, after + length, again).ordinals {
                let taken = source.take(&mut ledger, envelope(ordinal), at(1));
                prop_assert_ne!(taken, Taken::Diverged);
            }
            all.extend(recorded(&ledger.take_batch()));
        }

        let end = ledger.session.cursor;
        let wanted: Vec<_> = (1..=end).map(|ordinal| (ordinal, message_id(ordinal))).collect();
        prop_assert_eq!(all, wanted);
    }

    /// A history that differs anywhere at or below the cursor is noticed at that envelope, and
    /// nothing of it is recorded.
    #[test]
    fn another_history_is_noticed(cursor in 1_i64..50, ours in 1_i64..50) {
        let mut ledger = ledger(0);
        let mut source = Source::new(empty_stream(), 0);
        for ordinal in 1..=cursor {
            source.take(&mut ledger, envelope(ordinal), at(1));
        }
        let differs = ours.min(cursor);
        let mut other = Source::new(empty_stream(), 0);
        for ordinal in 1..differs {
            prop_assert_eq!(other.take(&mut ledger, envelope(ordinal), at(1)), Taken::Known);
        }

        let stranger = Envelope { message_id: "other".to_owned(), ..envelope(differs) };

        prop_assert_eq!(other.take(&mut ledger, stranger, at(1)), Taken::Diverged);
        prop_assert_eq!(ledger.session.cursor, cursor);
    }
}

#[test]
fn after_a_gap_only_what_follows_it_is_known() {
    let mut ledger = ledger(3);
    ledger.gap(10, "HISTORY_UNAVAILABLE", at(1));

    let mut at_the_end = Source::new(empty_stream(), 9);
    let unknown = at_the_end.take(&mut ledger, envelope(10), at(1));
    let next = at_the_end.take(&mut ledger, envelope(11), at(1));

    assert_eq!((unknown, next), (Taken::Known, Taken::Recorded));
    assert_eq!(recorded(&ledger.take_batch()), [(11, message_id(11))]);
}

#[test]
fn what_was_recorded_long_ago_is_counted_without_being_known() {
    let mut ledger = ledger(0);
    let mut ahead = Source::new(empty_stream(), 0);
    for ordinal in 1..=3000 {
        ahead.take(&mut ledger, envelope(ordinal), at(1));
    }

    let mut behind = Source::new(empty_stream(), 0);
    for ordinal in 1..=3000 {
        assert_eq!(behind.take(&mut ledger, envelope(ordinal), at(1)), Taken::Known);
    }

    assert_eq!(behind.take(&mut ledger, envelope(3001), at(1)), Taken::Recorded);
}

#[tokio::test]
async fn a_stream_that_ended_behind_its_frames_is_asked_no_more() {
    let frames = futures_util::stream::unfold(1, |ordinal| async move {
        (ordinal <= 3).then(|| (Ok(envelope(ordinal)), ordinal + 1))
    });
    let mut source = Source::new(frames.boxed(), 0);
    let mut ledger = ledger(0);

    let first = source.next().await.unwrap().unwrap();
    source.take_all(&mut ledger, first, at(1), 1000);

    assert_eq!(ledger.session.cursor, 3);
    assert!(source.next().await.is_none());
    assert!(source.next().await.is_none());
}
