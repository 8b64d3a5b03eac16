//! Many runs read at once are what they are one by one; and who follows a run shows from anywhere.

use control_plane_domain::{EventType, RunId};
use control_plane_storage::model::{PROJECTION_SCHEMA_VERSION, ProjectionRow};
use control_plane_storage::{Error, LoadedRun, Store};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_for};
use serde_json::{Value, json};

use crate::support::{Writer, at, log};

/// A snapshot with something of its own in it.
fn snapshot(run_id: RunId, version: i64) -> ProjectionRow {
    let nothing = || Value::Null;
    ProjectionRow {
        run_id,
        version,
        schema_version: PROJECTION_SCHEMA_VERSION,
        run_summary: json!({ "runId": run_id }),
        participants: nothing(),
        graph: nothing(),
        decision: nothing(),
        signals: nothing(),
        progress: nothing(),
        timeline: nothing(),
        trace_summary: nothing(),
        outbound_messages: nothing(),
        policy: nothing(),
        llm: nothing(),
        fold: nothing(),
    }
}

async fn writer(store: &Store, envelopes: i64) -> Writer {
    let mut writer = Writer::create(store).await;
    let batch = writer.batch(envelopes);
    writer.commit(store, batch).await;
    writer
}

fn ordinals(loaded: &LoadedRun) -> Vec<i64> {
    loaded.recorded.iter().map(|envelope| envelope.ordinal).collect()
}

on_both_databases! {
    async fn runs_read_together_are_what_each_is_alone(database: TestDb) {
        let store = database.store();
        let few = writer(&store, 3).await;
        let many = writer(&store, 20).await;
        let bare = Writer::create(&store).await;
        store.projection_put(snapshot(many.id(), 18)).await.unwrap();
        store.inbox_push(few.id(), "artifact", "k".to_owned(), json!({}), at(1)).await.unwrap();
        let nobody = RunId::random();
        let ids = [many.id(), nobody, few.id(), bare.id()];

        let mut loaded = store.runs_load(&ids, 5, 100).await.unwrap();

        assert!(matches!(loaded.remove(1), Err(Error::NotFound { .. })));
        let loaded: Vec<LoadedRun> = loaded.into_iter().map(Result::unwrap).collect();
        for (found, writer) in loaded.iter().zip([&many, &few, &bare]) {
            let id = writer.id();
            assert_eq!(found.run, store.run_get(id).await.unwrap());
            assert_eq!(Some(&found.session), store.session_get(id).await.unwrap().as_ref());
            assert_eq!(found.chain, writer.chain);
            assert_eq!(found.metrics, store.metrics_get(id).await.unwrap());
            assert_eq!(found.snapshot, store.projection_get(id).await.unwrap());
            let after = found.snapshot.as_ref().map_or(0, |row| row.version);
            let tail = store.events(id, after, 1000).await.unwrap();
            assert_eq!(found.tail.as_deref(), Some(&tail[..]));
        }
        assert_eq!(loaded[0].tail.as_ref().unwrap().len(), 3);
        assert_eq!(loaded.iter().map(ordinals).collect::<Vec<_>>(), [
            vec![16, 17, 18, 19, 20],
            vec![1, 2, 3],
            vec![],
        ]);
        assert_eq!(loaded[0].recorded[4].message_id, "message-20");
        assert_eq!(loaded[0].recorded[4].message_type, "Proposal");
        assert_eq!(loaded.iter().map(|run| run.asked).collect::<Vec<_>>(), [false, true, false]);
    }

    async fn a_long_tail_is_left_out_and_only_that_run_s(database: TestDb) {
        let store = database.store();
        let long = writer(&store, 20).await;
        let short = writer(&store, 3).await;

        let loaded = store.runs_load(&[long.id(), short.id()], 5, 10).await.unwrap();

        let tails: Vec<_> = loaded.into_iter().map(|run| run.unwrap().tail).collect();
        assert_eq!(tails[0], None);
        assert_eq!(tails[1].as_ref(), Some(&log(&store, short.id()).await));
    }

    async fn no_runs_are_read_as_none(database: TestDb) {
        let store = database.store();
        assert!(store.runs_load(&[], 5, 10).await.unwrap().is_empty());
    }

    async fn the_owner_of_a_run_is_seen_with_what_waits_for_it(database: TestDb) {
        let store = database.store();
        store.instance_hold().await.unwrap();
        let run = writer(&store, 2).await;
        store.inbox_push(run.id(), "artifact", "k".to_owned(), json!({}), at(1)).await.unwrap();

        let (row, session, ownership) = store.run_ownership(run.id()).await.unwrap();

        assert_eq!((row, session), (run.run.clone(), Some(run.session.clone())));
        let owner = ownership.owner.unwrap();
        assert_eq!((owner.alive, owner.here), (true, true));
        assert_eq!((ownership.epoch, ownership.asked), (1, 1));
        let missing = store.run_ownership(RunId::random()).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
    }

    async fn the_last_event_of_a_type_is_found(database: TestDb) {
        let store = database.store();
        let run = writer(&store, 4).await;

        let last = store.event_last(run.id(), EventType::MessageReceived).await.unwrap();
        let never = store.event_last(run.id(), EventType::RunSuspended).await.unwrap();

        assert_eq!(last.map(|entry| entry.seq), Some(5));
        assert_eq!(never, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_sees_whether_the_owner_lives_and_takes_nothing_by_looking() {
    let database = TestDb::postgres();
    let (owner, onlooker) = (database.store(), database.store());
    owner.instance_hold().await.unwrap();
    let run = writer(&owner, 1).await.id();

    let ask = async || onlooker.run_ownership(run).await.unwrap().2.owner.unwrap();
    let seen = ask().await;
    owner.instance_hold().await.unwrap();
    assert_eq!((seen.alive, seen.here), (true, false));

    drop(owner);
    let gone = wait_for(DEADLINE, ask, |owner| !owner.alive).await;
    assert_eq!(gone.instance, seen.instance);
}
