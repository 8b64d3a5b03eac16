//! Receipts that are due, their answers, and the keys that are pinned.

use control_plane_domain::{RunState, SessionId};
use control_plane_storage::{KeySeen, ReceiptAnswer, ReceiptState, RunReceipt, Store};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at};

/// Completes a new run at `ms`; `receipt` came with its end.
async fn completed(store: &Store, ms: i64, receipt: Option<&str>) -> Writer {
    let mut writer = Writer::create(store).await;
    let mut batch = writer.batch(2);
    batch.run.state = RunState::Completed;
    batch.run.updated_at = at(ms);
    batch.receipt = receipt.map(str::to_owned);
    writer.commit(store, batch).await;
    writer
}

fn answer(document: &str, keys: Vec<KeySeen>, ms: i64) -> ReceiptAnswer {
    let document = Some(document.to_owned());
    ReceiptAnswer { state: ReceiptState::Fetched, document, detail: None, keys, now: at(ms) }
}

fn key(issuer: &str, kid: &str, public_key: &str) -> KeySeen {
    KeySeen { issuer: issuer.to_owned(), kid: kid.to_owned(), public_key: public_key.to_owned() }
}

on_both_databases! {
    async fn the_append_that_completes_a_run_leaves_a_receipt_that_is_due(database: TestDb) {
        let store = database.store();
        let mut open = Writer::create(&store).await;
        let batch = open.batch(1);
        open.commit(&store, batch).await;
        let first = completed(&store, 1000, None).await;
        let mut second = completed(&store, 2000, Some("{\"a\":1,  \"b\":\"\\u0000\"}")).await;

        assert_eq!(store.receipt_get(open.id()).await.unwrap(), None);
        assert_eq!(store.receipts_due(at(999), 10).await.unwrap(), []);
        let due = store.receipts_due(at(5000), 10).await.unwrap();
        let ids: Vec<_> = due.iter().map(|pending| pending.run_id).collect();
        assert_eq!(ids, [second.id(), first.id()], "the latest first");
        assert_eq!(due[0].session_id, second.run.session_id);
        assert_eq!(due[0].document.as_deref(), Some("{\"a\":1,  \"b\":\"\\u0000\"}"));
        assert_eq!((&due[1].document, due[1].attempts, due[1].indexed), (&None, 0, false));
        assert_eq!(store.receipts_due(at(5000), 1).await.unwrap().len(), 1);

        // What comes after the end asks for nothing again.
        store.receipt_answer(second.id(), answer("{}", vec![], 3000)).await.unwrap();
        let after = second.batch(1);
        second.commit(&store, after).await;
        let left = store.receipts_due(at(5000), 10).await.unwrap();
        assert_eq!(left.iter().map(|pending| pending.run_id).collect::<Vec<_>>(), [first.id()]);
    }

    async fn an_answer_stays_what_it_is(database: TestDb) {
        let store = database.store();
        let writer = completed(&store, 1000, None).await;

        store.receipt_answer(writer.id(), answer("{\"x\": 1}", vec![], 2000)).await.unwrap();
        store.receipt_answer(writer.id(), answer("{\"x\": 2}", vec![], 3000)).await.unwrap();
        store.receipt_postpone(writer.id(), None, "late".to_owned(), at(9000)).await.unwrap();

        let wanted = RunReceipt {
            state: ReceiptState::Fetched,
            document: Some("{\"x\": 1}".to_owned()),
            detail: None,
            attempts: 0,
            answered_at: Some(at(2000)),
        };
        assert_eq!(store.receipt_get(writer.id()).await.unwrap(), Some(wanted));
    }

    async fn a_receipt_that_is_put_off_is_due_later_and_keeps_what_came(database: TestDb) {
        let store = database.store();
        let writer = completed(&store, 1000, None).await;
        let document = Some("{}".to_owned());

        store
            .receipt_postpone(writer.id(), document.clone(), "no keys".to_owned(), at(4000))
            .await
            .unwrap();

        assert_eq!(store.receipts_due(at(3999), 10).await.unwrap(), []);
        let due = store.receipts_due(at(4000), 10).await.unwrap();
        assert_eq!((due[0].attempts, due[0].document.clone()), (1, document));
        let kept = store.receipt_get(writer.id()).await.unwrap().unwrap();
        assert_eq!((kept.state, kept.detail.as_deref()), (ReceiptState::Pending, Some("no keys")));
    }

    async fn a_key_stays_what_it_was_when_it_was_first_seen(database: TestDb) {
        let store = database.store();
        let one = completed(&store, 1000, None).await;
        let other = completed(&store, 1000, None).await;
        let first = vec![key("runtime:a", "k1", "AAA"), key("runtime:a", "k2", "BBB")];
        let then = vec![
            key("runtime:a", "k1", "CCC"),
            key("runtime:a", "k2", "BBB"),
            key("runtime:b", "k1", "CCC"),
        ];

        store.receipt_answer(one.id(), answer("{}", first, 2000)).await.unwrap();
        store.receipt_answer(other.id(), answer("{}", then, 3000)).await.unwrap();

        let keys = store.receipt_keys("runtime:a").await.unwrap();
        let pins: Vec<_> =
            keys.iter().map(|key| (key.kid.as_str(), key.public_key.as_str())).collect();
        assert_eq!(pins, [("k1", "AAA"), ("k2", "BBB")]);
        assert_eq!(keys[0].pinned_at, at(2000));
        assert_eq!(keys[0].refused, Some(("CCC".to_owned(), at(3000))));
        assert_eq!(keys[1].refused, None);
        assert_eq!(store.receipt_keys("runtime:b").await.unwrap()[0].public_key, "CCC");
        assert_eq!(store.receipt_keys("runtime:c").await.unwrap(), []);
    }

    async fn runs_of_an_older_version_are_noted_a_few_at_a_time(database: TestDb) {
        let store = database.store();
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(completed(&store, 1000, None).await.id());
        }
        ids.sort();
        forget(&database).await;
        completed(&store, 9000, None).await;

        let mut after = None;
        let mut noted = Vec::new();
        loop {
            let last = store.receipts_note(after, 2, at(7000)).await.unwrap();
            noted.push(store.receipts_due(at(8000), 10).await.unwrap().len());
            if last.is_none() {
                break;
            }
            after = last;
        }

        assert_eq!(noted, [2, 4, 5, 5]);
        let mut due: Vec<_> =
            store.receipts_due(at(8000), 10).await.unwrap().iter().map(|it| it.run_id).collect();
        due.sort();
        assert_eq!(due, ids);
    }

    async fn decisions_are_found_by_the_session_that_they_replace(database: TestDb) {
        let store = database.store();
        let session = SessionId::random();
        let mut later = Vec::new();
        for _ in 0..3 {
            let writer = completed(&store, 1000, None).await;
            let replaced = Some(session.as_str().to_owned());
            store.receipt_index(writer.id(), replaced).await.unwrap();
            later.push(writer.id());
        }
        let other = completed(&store, 1000, None).await;
        store.receipt_index(other.id(), None).await.unwrap();
        later.sort();

        assert_eq!(store.runs_superseding(&session, 10).await.unwrap(), later);
        assert_eq!(store.runs_superseding(&session, 2).await.unwrap(), later[..2]);
        assert_eq!(store.runs_superseding(&SessionId::random(), 10).await.unwrap(), []);
        assert!(store.receipts_due(at(5000), 10).await.unwrap().iter().all(|it| it.indexed));
        store.run_delete(later[0], at(6000)).await.unwrap();
        assert_eq!(store.runs_superseding(&session, 10).await.unwrap(), later[1..]);
    }

    async fn the_last_envelope_is_the_one_with_the_highest_ordinal(database: TestDb) {
        let store = database.store();
        let writer = completed(&store, 1000, None).await;
        let empty = Writer::create(&store).await;

        let last = store.envelope_last(writer.id()).await.unwrap().unwrap();

        assert_eq!((last.ordinal, last.envelope.message_id.as_str()), (Some(2), "message-2"));
        assert_eq!(store.envelope_last(empty.id()).await.unwrap(), None);
    }
}

/// What a database looks like that an older version wrote.
async fn forget(database: &TestDb) {
    database.tamper("DELETE FROM run_receipts").await;
}
