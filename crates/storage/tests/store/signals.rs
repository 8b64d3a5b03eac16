//! Signals reach the inbox of their run, or are held for it, once; and gaps are kept.

use std::collections::BTreeSet;

use control_plane_domain::RunId;
use control_plane_storage::{About, NewSignal, SIGNAL, SignalGap, SignalNews, SignalWatch, Store};
use control_plane_testkit::database::TestDb;
use serde_json::json;

use crate::support::{Writer, at, new_run};

fn signal(about: About, n: i64) -> NewSignal {
    NewSignal {
        about,
        sender: "agent://ä".to_owned(),
        message_id: format!("signal-{n}"),
        payload: json!({ "n": n }),
        heard_at: at(n),
    }
}

fn session(id: &str) -> About {
    About::Session(id.to_owned())
}

fn message(id: &str) -> About {
    About::Message(id.to_owned())
}

fn news(signals: Vec<NewSignal>) -> SignalNews {
    SignalNews { signals, hold_at_most: 1000, ..SignalNews::default() }
}

fn gap(from: i64, to: Option<i64>) -> SignalGap {
    SignalGap { from: at(from), to: to.map(at), reason: "broken".to_owned() }
}

async fn inbox(store: &Store, id: RunId) -> Vec<i64> {
    let items = store.inbox_list(id).await.unwrap();
    assert!(items.iter().all(|item| item.kind == SIGNAL));
    items.iter().map(|item| item.payload["n"].as_i64().unwrap()).collect()
}

on_both_databases! {
    async fn a_signal_goes_to_the_run_of_its_session(database: TestDb) {
        let store = database.store();
        let (run, other) = (Writer::create(&store).await, Writer::create(&store).await);
        let of = |writer: &Writer| session(writer.session.session_id.as_str());

        let signals = vec![signal(of(&run), 1), signal(of(&other), 2), signal(of(&run), 3)];
        let done = store.signals_record(news(signals.clone())).await.unwrap();
        let again = store.signals_record(news(signals)).await.unwrap();

        let runs: BTreeSet<RunId> = done.runs.iter().copied().collect();
        assert_eq!((done.runs.len(), runs), (2, BTreeSet::from([run.id(), other.id()])));
        assert_eq!((done.recorded, done.held, done.ambiguous), (3, 0, 0));
        assert_eq!(again.runs, done.runs);
        assert_eq!(inbox(&store, run.id()).await, [1, 3]);
        assert_eq!(inbox(&store, other.id()).await, [2]);
    }

    async fn a_message_counts_when_one_run_has_it(database: TestDb) {
        let store = database.store();
        let mut one = Writer::create(&store).await;
        let mut two = Writer::create(&store).await;
        // Both have `message-1`; only the second has `message-2`.
        let (first, second) = (one.batch(1), two.batch(2));
        one.commit(&store, first).await;
        two.commit(&store, second).await;

        let signals = vec![signal(message("message-1"), 1), signal(message("message-2"), 2), signal(message("message-3"), 3)];
        let done = store.signals_record(news(signals)).await.unwrap();

        assert_eq!((done.recorded, done.held, done.ambiguous), (1, 1, 1));
        assert_eq!(done.runs, [two.id()]);
        assert_eq!(inbox(&store, two.id()).await, [2]);
        assert_eq!(inbox(&store, one.id()).await, Vec::<i64>::new());
    }

    async fn a_message_that_many_runs_have_does_not_hide_another(database: TestDb) {
        let store = database.store();
        let mut last = None;
        for _ in 0..520 {
            let mut writer = Writer::create(&store).await;
            let batch = writer.batch(1 + i64::from(last.is_none()));
            writer.commit(&store, batch).await;
            last.get_or_insert(writer.id());
        }
        // Enough rows of `message-1` to fill what is read at once.
        for _ in 0..500 {
            let mut writer = Writer::create(&store).await;
            let batch = writer.batch(1);
            writer.commit(&store, batch).await;
        }

        let signals = vec![signal(message("message-1"), 1), signal(message("message-2"), 2)];
        let done = store.signals_record(news(signals)).await.unwrap();

        assert_eq!((done.recorded, done.ambiguous), (1, 1));
        assert_eq!(done.runs, [last.unwrap()]);
    }

    async fn a_held_signal_is_handed_over_when_its_run_is_there(database: TestDb) {
        let store = database.store();
        let new = new_run();
        let id = new.run.id;
        let early = session(new.session.session_id.as_str());
        let signals = vec![signal(early.clone(), 1), signal(message("message-1"), 2), signal(session("never"), 3)];
        let held = store.signals_record(news(signals.clone())).await.unwrap();
        // Another instance heard them too.
        store.signals_record(news(signals)).await.unwrap();

        assert_eq!((held.recorded, held.held), (0, 3));
        assert_eq!(store.signals_held().await.unwrap(), 3);
        assert_eq!(store.signals_deliver().await.unwrap().held, 3);
        let mut writer = Writer::create_from(&store, new).await;
        let created = store.signals_deliver().await.unwrap();
        let batch = writer.batch(1);
        writer.commit(&store, batch).await;
        let spoken = store.signals_deliver().await.unwrap();
        let late = store.signals_record(news(vec![signal(early, 4)])).await.unwrap();

        assert_eq!((created.runs, created.recorded, created.held), (vec![id], 1, 2));
        assert_eq!((spoken.runs, spoken.recorded, spoken.held), (vec![id], 1, 1));
        assert_eq!(late.recorded, 1);
        assert_eq!(inbox(&store, id).await, [1, 2, 4]);
        assert_eq!(store.signals_held().await.unwrap(), 1);
    }

    async fn a_held_signal_whose_message_becomes_ambiguous_is_dropped(database: TestDb) {
        let store = database.store();
        store.signals_record(news(vec![signal(message("message-1"), 1)])).await.unwrap();
        for _ in 0..2 {
            let mut writer = Writer::create(&store).await;
            let batch = writer.batch(1);
            writer.commit(&store, batch).await;
        }

        let done = store.signals_deliver().await.unwrap();

        assert_eq!((done.recorded, done.ambiguous, done.held), (0, 1, 0));
        assert_eq!(store.signals_held().await.unwrap(), 0);
    }

    async fn holding_is_bounded_in_number_and_age(database: TestDb) {
        let store = database.store();
        let signals = (1..=5).map(|n| signal(session("never"), n)).collect();

        let done = store.signals_record(SignalNews { hold_at_most: 3, ..news(signals) }).await.unwrap();

        assert_eq!(done.crowded_out, 2);
        assert_eq!(store.signals_held().await.unwrap(), 3, "the newest");
        assert_eq!(store.signals_expire(at(4)).await.unwrap(), 1);
        assert_eq!(store.signals_expire(at(4)).await.unwrap(), 0);
        assert_eq!(store.signals_held().await.unwrap(), 2);
    }

    async fn many_held_signals_are_all_looked_at(database: TestDb) {
        let store = database.store();
        let new = new_run();
        let named = new.session.session_id.as_str().to_owned();
        let signals = (0..1200).map(|n| signal(session(if n % 2 == 0 { "never" } else { &named }), n)).collect();
        store.signals_record(SignalNews { hold_at_most: 2000, ..news(signals) }).await.unwrap();
        let writer = Writer::create_from(&store, new).await;

        let done = store.signals_deliver().await.unwrap();

        assert_eq!((done.recorded, done.held, done.runs.len()), (600, 600, 1));
        let expected: Vec<i64> = (0..1200).filter(|n| n % 2 == 1).collect();
        assert_eq!(inbox(&store, writer.id()).await, expected, "in their order");
    }

    async fn a_gap_is_opened_and_closed_and_found_by_time(database: TestDb) {
        let store = database.store();
        assert_eq!(store.signal_watch().await.unwrap(), SignalWatch::default());
        let put = async |gaps: Vec<SignalGap>, until| {
            let news = SignalNews { gaps, heard_until: Some(at(until)), ..SignalNews::default() };
            store.signals_record(news).await.unwrap();
        };

        put(vec![gap(100, Some(200)), gap(300, None)], 300).await;
        let open = store.signal_watch().await.unwrap();
        put(vec![gap(300, Some(400)), gap(500, None)], 500).await;
        put(vec![gap(500, Some(500)), gap(300, Some(350))], 450).await;
        let watch = store.signal_watch().await.unwrap();

        assert_eq!(open, SignalWatch { last_heard_at: Some(at(300)), open: Some(gap(300, None)) });
        assert_eq!(watch, SignalWatch { last_heard_at: Some(at(500)), open: None }, "it never goes back");
        let found = async |from: i64, to: Option<i64>| store.signal_gaps(at(from), to.map(at)).await.unwrap();
        assert_eq!(found(0, None).await, [gap(100, Some(200)), gap(300, Some(400))]);
        assert_eq!(found(0, Some(99)).await, []);
        assert_eq!(found(0, Some(100)).await, [gap(100, Some(200))]);
        assert_eq!(found(201, Some(299)).await, []);
        assert_eq!(found(400, Some(900)).await, [gap(300, Some(400))]);
        put(vec![gap(600, None)], 600).await;
        assert_eq!(found(900, Some(950)).await, [gap(600, None)], "one that lasts touches everything after it");
    }
}
