//! Runs for sessions that nobody registered, and who gets them.

use std::collections::HashSet;

use control_plane_domain::run::RunState;
use control_plane_domain::{RunId, SessionId};
use control_plane_storage::model::{Created, EventFilter, Lease, NewRun};
use control_plane_storage::{Adopted, Adoption, Error, Store};
use control_plane_testkit::database::TestDb;
use serde_json::json;

use crate::support::{Writer, at, log, new_run};

fn found(count: usize) -> Vec<NewRun> {
    (0..count).map(|_| new_run()).collect()
}

fn ids(runs: &[NewRun]) -> HashSet<RunId> {
    runs.iter().map(|new| new.run.id).collect()
}

fn of(leases: &[Lease]) -> HashSet<RunId> {
    leases.iter().map(|lease| lease.run_id).collect()
}

/// A run of the same session under another id.
fn rival(new: &NewRun) -> NewRun {
    let mut rival = new_run();
    rival.run.session_id.clone_from(&new.run.session_id);
    rival.session.session_id = new.session.session_id.clone();
    rival
}

fn posted(new: &NewRun) -> NewRun {
    let mut posted = rival(new);
    posted.run.request_hash = Some("hash".to_owned());
    posted
}

fn adoption(hash: &str, key: Option<&str>) -> Adoption {
    Adoption {
        request_hash: hash.to_owned(),
        idempotency_key: key.map(str::to_owned),
        kind: "adoption",
        dedup_key: "adoption".to_owned(),
        payload: json!({ "hash": hash }),
        now: at(3),
    }
}

async fn bury(store: &Store) -> NewRun {
    let mut new = new_run();
    new.run.state = RunState::Completed;
    Writer::create_from(store, new.clone()).await;
    store.run_delete(new.run.id, at(9)).await.unwrap();
    new
}

on_both_databases! {
    async fn sessions_that_are_free_get_their_runs_all_at_once(database: TestDb) {
        let store = database.store();
        let new = found(300);

        let leases = store.runs_discover(new.clone()).await.unwrap();

        assert_eq!(of(&leases), ids(&new));
        assert!(leases.iter().all(|lease| lease.epoch == 1));
        for new in [&new[0], &new[299]] {
            let run = store.run_get(new.run.id).await.unwrap();
            assert_eq!(run, new.run);
            assert_eq!(store.session_get(run.id).await.unwrap().as_ref(), Some(&new.session));
            assert_eq!(store.metrics_get(run.id).await.unwrap(), Some(new.metrics.clone()));
            assert_eq!(log(&store, run.id).await.len(), 1);
        }
        let all = EventFilter { limit: 1000, ..EventFilter::default() };
        let feed = store.event_list(&all).await.unwrap().items;
        let positions: Vec<i64> = feed.iter().map(|entry| entry.position).collect();
        assert_eq!(positions, (1..=300).collect::<Vec<_>>());
        let mut writer = Writer {
            lease: leases[0],
            run: store.run_get(leases[0].run_id).await.unwrap(),
            session: store.session_get(leases[0].run_id).await.unwrap().unwrap(),
            chain: store.run_head(leases[0].run_id).await.unwrap().hash,
            metrics: store.metrics_get(leases[0].run_id).await.unwrap().unwrap(),
        };
        let batch = writer.batch(1);
        writer.commit(&store, batch).await;
    }

    async fn sessions_that_have_a_run_or_had_one_get_none(database: TestDb) {
        let store = database.store();
        let taken = new_run();
        store.run_create(taken.clone()).await.unwrap();
        let buried = bury(&store).await;
        let free = new_run();

        let leases = store
            .runs_discover(vec![rival(&taken), rival(&buried), free.clone()])
            .await
            .unwrap();

        assert_eq!(of(&leases), ids(&[free]));
        let session = |new: &NewRun| new.session.session_id.as_str().to_owned();
        assert_eq!(store.run_find(&session(&taken)).await.unwrap().id, taken.run.id);
        assert!(store.run_find(&session(&buried)).await.is_err());
        assert_eq!(store.runs_discover(vec![rival(&buried)]).await.unwrap(), []);
        assert_eq!(store.feed_end().await.unwrap(), 3, "nothing was numbered for those");
    }

    async fn what_is_known_of_sessions_is_told_in_one_answer(database: TestDb) {
        let store = database.store();
        let taken = new_run();
        store.run_create(taken.clone()).await.unwrap();
        let buried = bury(&store).await;
        let again = bury(&store).await;
        store.run_create(rival(&again)).await.unwrap();
        let session = |new: &NewRun| new.session.session_id.clone();
        let like_a_run = SessionId::trusted(taken.run.id.to_string());
        let asked = [session(&taken), session(&buried), session(&again), like_a_run];

        let known = store.sessions_known(&asked).await.unwrap();

        assert_eq!(known.runs.len(), 2);
        assert_eq!(known.runs[&session(&taken)], (taken.run.id, RunState::Queued));
        assert_eq!(known.deleted, HashSet::from([session(&buried)]));
        assert_eq!(known.ids, HashSet::from([taken.run.id]));
    }

    async fn of_many_who_post_a_session_that_was_found_one_gets_its_run(database: TestDb) {
        let store = database.store();
        let new = new_run();
        let id = new.run.id;
        store.runs_discover(vec![new]).await.unwrap();

        let adopt = |number: usize| {
            let store = store.clone();
            async move { store.run_adopt(id, adoption(&number.to_string(), None)).await.unwrap() }
        };
        let outcomes = futures_util::future::join_all((0..8).map(adopt)).await;

        let winners: Vec<usize> = (0..8).filter(|&at| outcomes[at] == Adopted::Done).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(outcomes.iter().filter(|it| **it == Adopted::Taken).count(), 7);
        let run = store.run_get(id).await.unwrap();
        assert_eq!(run.request_hash, Some(winners[0].to_string()));
        let items = store.inbox_list(id).await.unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].payload, json!({ "hash": winners[0].to_string() }));
    }

    async fn an_adoption_takes_its_key_along(database: TestDb) {
        let store = database.store();
        let found = found(2);
        let (first, second) = (found[0].run.id, found[1].run.id);
        store.runs_discover(found.clone()).await.unwrap();

        let taken = store.run_adopt(first, adoption("hash", Some("key"))).await.unwrap();
        let refused = store.run_adopt(second, adoption("other", Some("key"))).await;

        assert_eq!(taken, Adopted::Done);
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        let mut again = posted(&found[0]);
        again.run.idempotency_key = Some("key".to_owned());
        let Created::Existing(run) = store.run_create(again).await.unwrap() else {
            panic!("a second run")
        };
        assert_eq!(run.id, first);
        assert!(store.run_get(second).await.unwrap().is_unclaimed());
        let nobody = store.run_adopt(RunId::random(), adoption("h", None)).await;
        assert!(matches!(nobody, Err(Error::NotFound { .. })), "{nobody:?}");
    }

    async fn a_run_that_failed_before_it_saw_its_session_releases_it(database: TestDb) {
        let store = database.store();
        let mut new = new_run();
        new.run.state = RunState::Failed;
        let session = new.session.session_id.clone();
        store.runs_discover(vec![new.clone()]).await.unwrap();

        let outcome = store.run_adopt(new.run.id, adoption("hash", None)).await.unwrap();

        assert_eq!(outcome, Adopted::Released);
        let next = posted(&new);
        assert!(matches!(store.run_create(next.clone()).await.unwrap(), Created::New(_)));
        assert_eq!(store.run_find(session.as_str()).await.unwrap().id, next.run.id);
        assert!(store.run_get(new.run.id).await.unwrap().is_unclaimed());
    }

    async fn how_an_adopted_run_is_filed_is_written_when_it_is_bound(database: TestDb) {
        let store = database.store();
        let new = new_run();
        let leases = store.runs_discover(vec![new.clone()]).await.unwrap();
        let mut writer = Writer {
            lease: leases[0],
            chain: new.entries[0].hash,
            run: new.run,
            session: new.session,
            metrics: new.metrics,
        };
        let mut batch = writer.batch(1);
        batch.entries[0].event_type = control_plane_domain::EventType::SessionBound;
        batch.run.mode = control_plane_domain::run::RunMode::Sandbox;
        batch.run.tags = vec!["one".to_owned(), "two".to_owned()];
        batch.run.source_kind = Some("playground".to_owned());
        batch.run.source_ref = Some("case-1".to_owned());
        batch.run.metadata.insert("environment".to_owned(), json!("staging"));
        let id = writer.id();

        writer.commit(&store, batch.clone()).await;

        assert_eq!(store.run_get(id).await.unwrap(), batch.run);
        let filter = control_plane_storage::model::RunFilter {
            environment: Some("staging".to_owned()),
            tags: vec!["two".to_owned()],
            include_sandbox: true,
            limit: 10,
            ..Default::default()
        };
        assert_eq!(store.run_list(&filter).await.unwrap().total, 1);
        let mut later = writer.batch(1);
        later.run.tags.clear();
        later.run.source_ref = None;
        writer.commit(&store, later).await;
        assert_eq!(store.run_get(id).await.unwrap().tags, ["one", "two"], "no other batch does");
        assert_eq!(store.run_get(id).await.unwrap().source_ref.as_deref(), Some("case-1"));
    }

    async fn active_runs_come_in_pages_with_their_sessions(database: TestDb) {
        let store = database.store();
        let mut new = found(5);
        new[0].run.state = RunState::Completed;
        new[1].session.started_at_unix_ms = Some(7);
        let bound = new[1].run.id;
        let mut expected = ids(&new[1..]).into_iter().collect::<Vec<_>>();
        expected.sort();
        store.runs_discover(new).await.unwrap();

        let first = store.active_sessions(None, 3).await.unwrap();
        let rest = store.active_sessions(first.last().map(|run| run.run_id), 3).await.unwrap();

        let all: Vec<_> = first.iter().chain(&rest).collect();
        assert_eq!((first.len(), rest.len()), (3, 1));
        assert_eq!(all.iter().map(|run| run.run_id).collect::<Vec<_>>(), expected);
        assert!(all.iter().all(|run| run.bound == (run.run_id == bound)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_find_the_same_sessions_make_one_run_each() {
    let database = TestDb::postgres();
    let (one, other) = (database.store(), database.store());
    for _round in 0..10 {
        let mine = found(60);
        let mut theirs: Vec<NewRun> = mine.iter().map(rival).collect();
        theirs.reverse();

        let (mine_made, theirs_made) =
            tokio::join!(one.runs_discover(mine.clone()), other.runs_discover(theirs.clone()));

        let (mine_made, theirs_made) = (of(&mine_made.unwrap()), of(&theirs_made.unwrap()));
        assert_eq!(mine_made.len() + theirs_made.len(), 60);
        for new in &mine {
            let run = one.run_find(new.session.session_id.as_str()).await.unwrap();
            assert!(mine_made.contains(&run.id) || theirs_made.contains(&run.id));
        }
    }
}
