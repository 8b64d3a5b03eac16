//! What an append writes, and when it writes nothing.

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::ChainHash;
use control_plane_domain::run::RunState;
use control_plane_domain::session::SessionState;
use control_plane_domain::{EventType, RunId};
use control_plane_storage::model::{
    Append, Appended, Artifact, PROJECTION_SCHEMA_VERSION, ProjectionRow, RawEnvelope,
};
use control_plane_storage::{Head, Store};
use control_plane_testkit::database::TestDb;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Writer, at, entry, log};

/// A snapshot in which every section differs from the others.
fn projection(run_id: RunId, version: i64) -> ProjectionRow {
    let section = |name: &str| json!({ "section": name, "list": [1, 0.25, true, null, "ä\n\\"], "empty": {} });
    ProjectionRow {
        run_id,
        version,
        schema_version: PROJECTION_SCHEMA_VERSION,
        run_summary: section("run_summary"),
        participants: json!([section("participants")]),
        graph: section("graph"),
        decision: Value::Null,
        signals: section("signals"),
        progress: section("progress"),
        timeline: section("timeline"),
        trace_summary: section("trace_summary"),
        outbound_messages: section("outbound_messages"),
        policy: section("policy"),
        llm: section("llm"),
        fold: section("fold"),
    }
}

/// A batch that sets everything that a batch can set.
fn full(writer: &Writer) -> Append {
    let id = writer.id();
    let mut batch = writer.batch(2);
    let event = entry(id, batch.run.last_seq + 1, EventType::SessionBound, batch.chain);
    (batch.run.last_seq, batch.chain) = (event.seq, event.hash);
    batch.entries.push(event);
    batch.raw.push(RawEnvelope {
        source: EnvelopeSource::Signal,
        ordinal: None,
        sender_authenticated: false,
        ..batch.raw[0].clone()
    });
    batch.raw[1].envelope.sanitized = true;
    batch.run.state = RunState::Running;
    batch.run.runtime_version = Some("0.13.0".to_owned());
    batch.run.started_at = Some(at(7));
    batch.session.state = SessionState::Open;
    batch.session.mode_version = "2.0.0".to_owned();
    batch.session.configuration_version = "c2".to_owned();
    batch.session.policy_version = "p2".to_owned();
    batch.session.initiator = Some("agent://a".to_owned());
    batch.session.participants = vec!["agent://a".to_owned(), "agent://ö".to_owned()];
    batch.session.context_id = Some("context".to_owned());
    batch.session.extension_keys = vec!["x".to_owned()];
    batch.session.started_at_unix_ms = Some(1_795_000_000_999);
    batch.session.expires_at = Some(at(100));
    batch.session.last_seen_at = Some(at(101));
    batch.session.last_event_ts = Some(at(102));
    batch.session.connected_at = Some(at(103));
    batch.session.disconnected_at = Some(at(104));
    batch.projection = Some(projection(id, batch.run.last_seq));
    batch.metrics.message_count = 1;
    batch.metrics.signal_count = 2;
    batch.metrics.proposal_count = 3;
    batch.metrics.tool_call_count = 4;
    batch.metrics.decision_count = 5;
    batch.metrics.stream_reconnect_count = 6;
    batch.metrics.prompt_tokens = 7;
    batch.metrics.completion_tokens = 8;
    batch.metrics.total_tokens = i64::MAX;
    batch.metrics.estimated_cost_usd = 0.1 + 0.2;
    batch.metrics.first_event_at = Some(at(1));
    batch.metrics.last_event_at = Some(at(2));
    batch.metrics.duration_ms = Some(9);
    batch.metrics.session_state = Some("SESSION_STATE_OPEN".to_owned());
    batch.metrics.ended = true;
    batch.artifacts = vec![
        artifact(id, 1, Some("https://a.example/ü"), None),
        artifact(id, 2, None, Some(json!({ "a": [1, "b"] }))),
    ];
    batch
}

fn artifact(run_id: RunId, ms: i64, uri: Option<&str>, inline: Option<Value>) -> Artifact {
    Artifact {
        id: Uuid::new_v4(),
        run_id,
        kind: "report".to_owned(),
        label: "ein Bericht".to_owned(),
        uri: uri.map(str::to_owned),
        inline,
        created_at: at(ms),
    }
}

async fn assert_stored(store: &Store, batch: &Append) {
    let id = batch.run.id;
    let mut run = store.run_get(id).await.unwrap();
    run.metadata.clone_from(&batch.run.metadata);
    assert_eq!(run, batch.run);
    assert_eq!(store.session_get(id).await.unwrap().unwrap(), batch.session);
    assert_eq!(store.metrics_get(id).await.unwrap().unwrap(), batch.metrics);
    let head = Head {
        state: batch.run.state,
        last_seq: batch.run.last_seq,
        hash: batch.chain,
        imported: false,
    };
    assert_eq!(store.run_head(id).await.unwrap(), head);
}

on_both_databases! {
    async fn what_is_appended_is_what_is_read(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let id = writer.id();
        let batch = full(&writer);

        writer.commit(&store, batch.clone()).await;

        assert_stored(&store, &batch).await;
        assert_eq!(store.projection_get(id).await.unwrap(), batch.projection);
        assert_eq!(store.artifact_list(id).await.unwrap(), batch.artifacts);
        let raw = store.list_raw_by_run(id, 0, 10).await.unwrap();
        assert_eq!(raw, batch.raw[..2], "signals are not part of the history");
        let ids = store.last_message_ids(id, 10).await.unwrap();
        assert_eq!(ids, ["message-1", "message-2"]);
        let key = |n: u8| ("agent://ä".to_owned(), format!("message-{n}"));
        let recorded = store.signals_recorded(id, vec![key(1), key(2)]).await.unwrap();
        assert_eq!(recorded, [key(1)].into(), "the second is no signal");
        for (position, (read, written)) in (2..).zip(log(&store, id).await[1..].iter().zip(&batch.entries)) {
            let mut expected = written.clone();
            expected.position = position;
            assert_eq!(*read, expected);
        }
    }

    async fn what_becomes_absent_is_absent_afterwards(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let before = writer.clone();
        let batch = full(&writer);
        writer.commit(&store, batch).await;
        let mut bare = writer.batch(1);
        let bound = entry(writer.id(), bare.run.last_seq + 1, EventType::SessionBound, bare.chain);
        (bare.run.last_seq, bare.chain) = (bound.seq, bound.hash);
        bare.entries.push(bound);
        bare.session = before.session.clone();
        bare.session.cursor = 3;
        bare.metrics = before.metrics.clone();
        bare.run.runtime_version = None;
        bare.run.started_at = None;

        writer.commit(&store, bare.clone()).await;

        assert_stored(&store, &bare).await;
    }

    async fn a_snapshot_is_written_again_and_put_from_outside(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        for count in [1, 2] {
            let mut batch = writer.batch(count);
            batch.projection = Some(projection(writer.id(), batch.run.last_seq));
            writer.commit(&store, batch).await;
        }
        let batch = writer.batch(1);
        writer.commit(&store, batch).await;
        assert_eq!(store.projection_get(writer.id()).await.unwrap(), Some(projection(writer.id(), 4)));

        store.projection_put(projection(writer.id(), 5)).await.unwrap();

        assert_eq!(store.projection_get(writer.id()).await.unwrap(), Some(projection(writer.id(), 5)));
    }

    async fn the_log_is_contiguous_and_its_hashes_chain(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        for count in [1, 7, 100, 3] {
            let batch = writer.batch(count);
            writer.commit(&store, batch).await;
        }

        let events = log(&store, writer.id()).await;

        let mut head = ChainHash::EMPTY;
        for (seq, event) in (1..).zip(&events) {
            head = head.then(std::str::from_utf8(&event.body).unwrap());
            assert_eq!((event.seq, event.hash), (seq, head));
        }
        assert_eq!(events.len(), 112);
        assert_eq!(store.run_head(writer.id()).await.unwrap().hash, head);
    }

    async fn a_stale_epoch_drops_out_alone(database: TestDb) {
        let store = database.store();
        let (stale, fresh) = (Writer::create(&store).await, Writer::create(&store).await);
        let lease = store.run_take(stale.id()).await.unwrap();
        assert_eq!(lease.epoch, 2);

        let outcomes = store.append(vec![full(&stale), full(&fresh)]).await;

        assert_eq!(outcomes, [Appended::Fenced, Appended::Committed]);
        assert_eq!(store.run_get(stale.id()).await.unwrap(), stale.run);
        assert_eq!(store.session_get(stale.id()).await.unwrap().unwrap(), stale.session);
        assert_eq!(store.metrics_get(stale.id()).await.unwrap().unwrap(), stale.metrics);
        assert_eq!(log(&store, stale.id()).await.len(), 1);
        assert!(store.list_raw_by_run(stale.id(), 0, 10).await.unwrap().is_empty());
        assert!(store.artifact_list(stale.id()).await.unwrap().is_empty());
        assert_eq!(store.projection_get(stale.id()).await.unwrap(), None);
        assert_eq!(log(&store, fresh.id()).await.last().unwrap().position, 5);
        assert_eq!(store.feed_end().await.unwrap(), 5);
    }

    async fn a_batch_on_another_end_of_the_log_is_fenced(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(2);
        writer.commit(&store, batch.clone()).await;

        let again = store.append(vec![batch]).await;

        assert_eq!(again, [Appended::Fenced]);
        assert_eq!(log(&store, writer.id()).await.len(), 3);
    }

    async fn of_two_batches_of_one_run_the_second_is_fenced(database: TestDb) {
        let store = database.store();
        let writer = Writer::create(&store).await;
        let first = writer.batch(2);
        let mut later = writer.clone();
        later.follow(&first);

        let outcomes = store.append(vec![first, later.batch(1)]).await;

        assert_eq!(outcomes, [Appended::Committed, Appended::Fenced]);
        assert_eq!(log(&store, writer.id()).await.len(), 3);
    }

    async fn a_batch_without_events_moves_the_cursor_only(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut batch = writer.batch(0);
        batch.session.cursor = 17;

        writer.commit(&store, batch).await;

        assert_eq!(store.session_get(writer.id()).await.unwrap().unwrap().cursor, 17);
        assert_eq!(store.feed_end().await.unwrap(), 1);
        assert!(store.append(Vec::new()).await.is_empty());
    }

    async fn metadata_is_written_when_a_run_ends(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut batch = writer.batch(1);
        batch.run.metadata.insert("early".to_owned(), json!(1));
        writer.commit(&store, batch).await;
        assert!(store.run_get(writer.id()).await.unwrap().metadata.is_empty());
        let mut batch = writer.batch(1);
        batch.run.state = RunState::Failed;
        batch.run.ended_at = Some(at(9));
        batch.run.error_code = Some("SESSION_EXPIRED".to_owned());
        batch.run.error_message = Some("it expired".to_owned());
        batch.run.metadata.insert("outcome".to_owned(), json!({ "positive": false }));

        writer.commit(&store, batch.clone()).await;

        assert_eq!(store.run_get(writer.id()).await.unwrap(), batch.run);
    }

    async fn an_envelope_of_a_mebibyte_is_stored_to_the_byte(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let payload: Vec<u8> = (0..1_048_576_u32).map(|i| u8::try_from(i.wrapping_mul(i) % 256).unwrap()).collect();
        let mut batch = writer.batch(1);
        batch.raw[0].envelope.payload.clone_from(&payload);

        writer.commit(&store, batch).await;

        let raw = store.list_raw_by_run(writer.id(), 0, 1).await.unwrap();
        assert!(raw[0].envelope.payload == payload);
    }

    async fn three_hundred_runs_share_a_transaction(database: TestDb) {
        let store = database.store();
        let mut writers = Vec::new();
        for _ in 0..300 {
            writers.push(Writer::create(&store).await);
        }

        let outcomes = store.append(writers.iter().map(|writer| writer.batch(3)).collect()).await;

        assert_eq!(outcomes, vec![Appended::Committed; 300]);
        assert_eq!(store.feed_end().await.unwrap(), 1200);
        for writer in &writers {
            let events = log(&store, writer.id()).await;
            assert_eq!(events.len(), 4);
            assert!(events[1..].windows(2).all(|pair| pair[0].position + 1 == pair[1].position));
        }
    }
}
