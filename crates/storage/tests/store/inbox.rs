//! What others want of a run waits in its inbox until the append that does it.

use control_plane_domain::run::RunState;
use control_plane_storage::Error;
use control_plane_storage::model::Appended;
use control_plane_testkit::database::TestDb;
use serde_json::json;

use crate::support::{Writer, at};

on_both_databases! {
    async fn an_item_is_taken_once_per_kind_and_key(database: TestDb) {
        let store = database.store();
        let (run, other) = (Writer::create(&store).await.id(), Writer::create(&store).await.id());
        let push = async |id, kind, key: &str, n: i64| {
            store.inbox_push(id, kind, key.to_owned(), json!({ "n": n }), at(n)).await.unwrap()
        };

        assert!(push(run, "cancel", "a", 1).await);
        assert!(!push(run, "cancel", "a", 2).await);
        assert!(push(run, "cancel", "b", 3).await);
        assert!(push(run, "signal", "a", 4).await);
        assert!(push(other, "cancel", "a", 5).await);

        let items = store.inbox_list(run).await.unwrap();
        let shown: Vec<_> = items.iter().map(|item| (item.kind.as_str(), item.dedup_key.as_str(), item.payload.clone(), item.created_at)).collect();
        assert_eq!(shown, [
            ("cancel", "a", json!({ "n": 1 }), at(1)),
            ("cancel", "b", json!({ "n": 3 }), at(3)),
            ("signal", "a", json!({ "n": 4 }), at(4)),
        ]);
        let mut runs = store.inbox_runs().await.unwrap();
        runs.sort();
        let mut expected = [run, other];
        expected.sort();
        assert_eq!(runs, expected);
    }

    async fn the_append_that_does_what_was_asked_uses_the_items_up(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let neighbor = Writer::create(&store).await;
        for key in ["a", "b", "c"] {
            store.inbox_push(writer.id(), "cancel", key.to_owned(), json!(null), at(0)).await.unwrap();
        }
        store.inbox_push(neighbor.id(), "cancel", "d".to_owned(), json!(null), at(0)).await.unwrap();
        let mut used: Vec<i64> = store.inbox_list(writer.id()).await.unwrap().iter().take(2).map(|item| item.id).collect();
        used.push(store.inbox_list(neighbor.id()).await.unwrap()[0].id);
        let mut batch = writer.batch(1);
        batch.inbox_used = used;

        writer.commit(&store, batch).await;

        let left: Vec<String> = store.inbox_list(writer.id()).await.unwrap().into_iter().map(|item| item.dedup_key).collect();
        assert_eq!(left, ["c"]);
        assert_eq!(store.inbox_list(neighbor.id()).await.unwrap().len(), 1, "another run's item");
    }

    async fn an_inbox_is_read_in_pages_beside_what_is_done(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let run = writer.id();
        for key in ["a", "b", "c", "d"] {
            store.inbox_push(run, "cancel", key.to_owned(), json!(null), at(0)).await.unwrap();
        }
        let ids: Vec<i64> = store.inbox_list(run).await.unwrap().iter().map(|item| item.id).collect();
        let page = async |done: &[i64], limit| {
            let page = store.inbox_page(run, done, limit).await.unwrap();
            let items: Vec<i64> = page.items.iter().map(|item| item.id).collect();
            let mut gone: Vec<i64> = page.gone.into_iter().collect();
            gone.sort_unstable();
            (items, gone, page.more)
        };

        assert_eq!(page(&[], 4).await, (ids.clone(), vec![], false));
        assert_eq!(page(&[], 3).await, (ids[..3].to_vec(), vec![], true));
        assert_eq!(page(&ids[..2], 1).await, (vec![ids[2]], vec![], true));
        let mut batch = writer.batch(1);
        batch.inbox_used = ids[..1].to_vec();
        writer.commit(&store, batch).await;
        assert_eq!(page(&ids[..2], 9).await, (ids[2..].to_vec(), ids[..1].to_vec(), false));
        assert!(store.inbox_has(run, "cancel", "b").await.unwrap());
        assert!(!store.inbox_has(run, "cancel", "a").await.unwrap(), "it is done");
        assert!(!store.inbox_has(run, "signal", "b").await.unwrap());
    }

    async fn a_fenced_append_leaves_the_inbox_as_it_is(database: TestDb) {
        let store = database.store();
        let writer = Writer::create(&store).await;
        store.inbox_push(writer.id(), "cancel", "a".to_owned(), json!(null), at(0)).await.unwrap();
        let mut batch = writer.batch(1);
        batch.run.state = RunState::Cancelled;
        batch.inbox_used = vec![store.inbox_list(writer.id()).await.unwrap()[0].id];
        store.run_take(writer.id()).await.unwrap();

        let outcomes = store.append(vec![batch]).await;

        assert_eq!(outcomes, [Appended::Fenced]);
        assert_eq!(store.inbox_list(writer.id()).await.unwrap().len(), 1);
    }

    async fn nothing_can_be_asked_of_a_run_that_does_not_exist(database: TestDb) {
        let store = database.store();
        let unknown = crate::support::new_run().run.id;

        let refused = store.inbox_push(unknown, "cancel", "a".to_owned(), json!(null), at(0)).await;

        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
}
