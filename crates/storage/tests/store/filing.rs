//! A run is archived whoever owns it, and stays so.

use control_plane_domain::run::RunState;
use control_plane_domain::{EventType, RunId};
use control_plane_storage::model::{Append, RunFilter};
use control_plane_storage::{Error, Store};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at, entry, new_run};

fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|&tag| tag.to_owned()).collect()
}

/// The next batch of a run, which binds its session.
fn binding(writer: &Writer) -> Append {
    let mut batch = writer.batch(0);
    let bound = entry(writer.id(), writer.run.last_seq + 1, EventType::SessionBound, writer.chain);
    (batch.run.last_seq, batch.chain) = (bound.seq, bound.hash);
    batch.entries.push(bound);
    batch
}

async fn tagged(store: &Store, tags: &[&str]) -> Writer {
    let mut new = new_run();
    new.run.tags = self::tags(tags);
    Writer::create_from(store, new).await
}

on_both_databases! {
    async fn a_run_is_archived_once_and_taken_out_once(database: TestDb) {
        let store = database.store();
        let id = tagged(&store, &["a"]).await.id();

        let archived = store.run_archive(id, at(5)).await.unwrap();
        let again = store.run_archive(id, at(6)).await.unwrap();
        let back = store.run_unarchive(id, at(7)).await.unwrap();
        let still = store.run_unarchive(id, at(8)).await.unwrap();

        assert_eq!((archived.archived_at, &archived.tags), (Some(at(5)), &tags(&["a", "archived"])));
        assert_eq!(archived.updated_at, at(5));
        assert_eq!(again, archived);
        assert_eq!((back.archived_at, &back.tags), (None, &tags(&["a"])));
        assert_eq!(still, back);
        assert_eq!(store.run_get(id).await.unwrap(), back);
    }

    async fn lists_leave_archived_runs_out_unless_they_are_asked_for(database: TestDb) {
        let store = database.store();
        let (kept, gone) = (tagged(&store, &[]).await.id(), tagged(&store, &[]).await.id());
        store.run_archive(gone, at(5)).await.unwrap();
        let list = async |include_archived: bool| -> Vec<RunId> {
            let filter = RunFilter { include_archived, limit: 9, ..RunFilter::default() };
            store.run_list(&filter).await.unwrap().items.iter().map(|run| run.id).collect()
        };

        assert_eq!(list(false).await, [kept]);
        assert_eq!(list(true).await.len(), 2);
    }

    async fn an_owner_who_knows_nothing_of_it_leaves_a_run_archived(database: TestDb) {
        let store = database.store();
        let mut writer = tagged(&store, &["a"]).await;
        store.run_archive(writer.id(), at(5)).await.unwrap();

        let mut bound = binding(&writer);
        bound.run.tags = tags(&["a", "adopted"]);
        writer.commit(&store, bound).await;
        let mut last = writer.batch(1);
        last.run.state = RunState::Completed;
        writer.commit(&store, last).await;

        let run = store.run_get(writer.id()).await.unwrap();
        assert_eq!((run.state, run.archived_at), (RunState::Completed, Some(at(5))));
        assert_eq!(run.tags, tags(&["a", "adopted", "archived"]));
    }

    async fn an_owner_who_has_it_archived_in_memory_does_not_archive_it_again(database: TestDb) {
        let store = database.store();
        let mut writer = tagged(&store, &["a"]).await;
        writer.run.tags = store.run_archive(writer.id(), at(5)).await.unwrap().tags;
        store.run_unarchive(writer.id(), at(6)).await.unwrap();

        let bound = binding(&writer);
        writer.commit(&store, bound).await;

        let run = store.run_get(writer.id()).await.unwrap();
        assert_eq!((run.archived_at, run.tags), (None, tags(&["a"])));
    }

    async fn a_run_that_is_over_is_filed_too_and_an_unknown_one_is_not_found(database: TestDb) {
        let store = database.store();
        for state in RunState::ALL {
            let mut new = new_run();
            new.run.state = state;
            let id = Writer::create_from(&store, new).await.id();
            assert_eq!(store.run_archive(id, at(5)).await.unwrap().state, state);
        }
        let nobody = RunId::random();
        assert!(matches!(store.run_archive(nobody, at(5)).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.run_unarchive(nobody, at(5)).await, Err(Error::NotFound { .. })));
    }
}
