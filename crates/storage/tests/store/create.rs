//! Making a run: once per idempotency key and once per session, whoever races.

use control_plane_domain::SessionId;
use control_plane_storage::model::{Created, NewRun};
use control_plane_storage::{Error, Head};
use control_plane_testkit::database::TestDb;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Writer, at, log, new_run};

fn with_key(key: &str, hash: &str) -> NewRun {
    let mut new = new_run();
    new.run.idempotency_key = Some(key.to_owned());
    new.run.request_hash = Some(hash.to_owned());
    new
}

on_both_databases! {
    async fn a_new_run_is_stored_whole(database: TestDb) {
        let store = database.store();
        let mut new = with_key("key", "hash");
        new.run.runtime_version = Some("0.13".to_owned());
        new.run.trace_id = Some("trace".to_owned());
        new.run.source_kind = Some("scenario".to_owned());
        new.run.source_ref = Some("a/b".to_owned());
        new.run.tags = vec!["x".to_owned(), "ü%".to_owned()];
        new.run.metadata = json!({ "environment": "e", "deep": { "list": [1, 2.5, null, "ß"] } })
            .as_object().unwrap().clone();
        new.run.started_at = Some(at(1));
        new.run.ended_at = Some(at(2));
        new.run.archived_at = Some(at(3));
        new.run.error_code = Some("CODE".to_owned());
        new.run.error_message = Some("why".to_owned());

        let created = store.run_create(new.clone()).await.unwrap();

        let Created::New(lease) = created else { panic!("{created:?}") };
        let id = new.run.id;
        assert_eq!((lease.run_id, lease.epoch), (id, 1));
        assert_eq!(store.run_get(id).await.unwrap(), new.run);
        assert_eq!(store.session_get(id).await.unwrap(), Some(new.session.clone()));
        assert_eq!(store.metrics_get(id).await.unwrap(), Some(new.metrics.clone()));
        let events = log(&store, id).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].position, 1);
        assert_eq!((&events[0].body, events[0].hash), (&new.entries[0].body, new.entries[0].hash));
        let head = Head { state: new.run.state, last_seq: 1, hash: new.entries[0].hash, imported: false };
        assert_eq!(store.run_head(id).await.unwrap(), head);
        assert_eq!(store.feed_end().await.unwrap(), 1);
        assert_eq!(store.projection_get(id).await.unwrap(), None);
    }

    async fn a_run_is_found_by_its_id_and_by_its_session(database: TestDb) {
        let store = database.store();
        let run = Writer::create(&store).await.run;
        let session = run.session_id.clone().unwrap();

        assert_eq!(store.run_find(&run.id.to_string()).await.unwrap(), run);
        assert_eq!(store.run_find(session.as_str()).await.unwrap(), run);
        for unknown in [SessionId::random().as_str(), "", "no id"] {
            let missing = store.run_find(unknown).await;
            assert!(matches!(missing, Err(Error::NotFound { .. })), "{unknown}: {missing:?}");
        }
    }

    async fn the_same_key_and_body_give_the_same_run(database: TestDb) {
        let store = database.store();
        let first = with_key("key", "hash");
        store.run_create(first.clone()).await.unwrap();
        let second = with_key("key", "hash");

        let again = store.run_create(second.clone()).await.unwrap();

        assert_eq!(again, Created::Existing(Box::new(first.run)));
        assert!(matches!(store.run_get(second.run.id).await, Err(Error::NotFound { .. })));
        assert_eq!(store.feed_end().await.unwrap(), 1);
    }

    async fn the_same_key_with_another_body_conflicts(database: TestDb) {
        let store = database.store();
        let first = with_key("key", "hash");
        store.run_create(first.clone()).await.unwrap();

        let conflict = store.run_create(with_key("key", "other")).await;

        let Err(Error::IdempotencyConflict { run_id }) = conflict else { panic!("{conflict:?}") };
        assert_eq!(run_id, first.run.id);
    }

    async fn a_session_has_one_run(database: TestDb) {
        let store = database.store();
        let first = Writer::create(&store).await;
        let mut second = new_run();
        second.run.session_id = first.run.session_id.clone();

        let taken = store.run_create(second).await;

        let Err(Error::SessionTaken { run_id }) = taken else { panic!("{taken:?}") };
        assert_eq!(run_id, first.id());
    }

    async fn a_released_session_can_have_another_run(database: TestDb) {
        let store = database.store();
        let mut first = Writer::create(&store).await;
        let session = first.run.session_id.clone();
        let mut release = first.batch(1);
        release.run.session_id = None;
        first.commit(&store, release).await;
        let mut second = new_run();
        second.run.session_id = session;

        let created = store.run_create(second.clone()).await.unwrap();

        assert!(matches!(created, Created::New(_)));
        assert_eq!(store.run_get(first.id()).await.unwrap().session_id, None);
    }

    async fn an_id_that_is_taken_is_told(database: TestDb) {
        let store = database.store();
        let first = Writer::create(&store).await;
        let mut second = first.batch(0).run;
        second.session_id = Some(SessionId::random());

        let taken = store.run_create(NewRun { run: second, ..new_run() }).await;

        let Err(Error::SessionTaken { run_id }) = taken else { panic!("{taken:?}") };
        assert_eq!(run_id, first.id());
    }

    async fn twenty_who_race_with_one_key_make_one_run(database: TestDb) {
        let store = database.store();
        let race = (0..20).map(|_| store.run_create(with_key("key", "hash")));

        let created: Vec<Created> = join_all(race).await.into_iter().map(Result::unwrap).collect();

        let made: Vec<_> = created.iter().filter_map(|created| match created {
            Created::New(lease) => Some(lease.run_id),
            Created::Existing(_) => None,
        }).collect();
        assert_eq!(made.len(), 1);
        for created in &created {
            let Created::Existing(run) = created else { continue };
            assert_eq!(run.id, made[0]);
        }
        assert_eq!(store.feed_end().await.unwrap(), 1);
    }

    async fn twenty_who_race_for_one_session_make_one_run(database: TestDb) {
        let store = database.store();
        let session = SessionId::random();
        let race = (0..20).map(|_| {
            let mut new = new_run();
            new.run.session_id = Some(session.clone());
            store.run_create(new)
        });

        let outcomes = join_all(race).await;

        let owner = store.run_find(session.as_str()).await.unwrap().id;
        let new = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Created::New(_)))).count();
        let taken = outcomes.iter().filter(|outcome| {
            matches!(outcome, Err(Error::SessionTaken { run_id }) if *run_id == owner)
        }).count();
        assert_eq!((new, taken), (1, 19));
    }
}
