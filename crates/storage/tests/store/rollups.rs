//! The sums over runs are what counting all logs anew gives, whatever happens.

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{
    self, Amount, Fact, Figure, Figures, Filing, Grain, Rollups, Sign,
};
use control_plane_domain::{EventType, RunId, RunState, Seq};
use control_plane_storage::model::{Append, Appended, Deleted, LogEntry, NewRun, RunFilter};
use control_plane_storage::{FilingFilter, Period, Store};
use control_plane_testkit::database::TestDb;
use serde_json::{Value, json};

use crate::support::{Writer, at, new_run};

/// A run of this environment and source.
fn filed(environment: &str, source: &str) -> NewRun {
    let mut new = new_run();
    new.run.metadata.insert("environment".to_owned(), json!(environment));
    new.run.metadata.insert("scenarioRef".to_owned(), json!(format!("Scenario of {source}")));
    new.run.source_ref = Some(source.to_owned());
    new
}

/// An event that is counted, of `alice`.
fn said(run_id: RunId, seq: Seq, event_type: EventType, before: ChainHash) -> LogEntry {
    let data = json!({ "sender": "alice", "decodedPayload": { "confidence": 0.5 } });
    let body = json!({ "seq": seq, "type": event_type, "data": data }).to_string();
    LogEntry {
        run_id,
        seq,
        position: 0,
        ts: at(seq * 1000),
        received_at: at(seq * 1000),
        event_type,
        subject: Some(("participant".to_owned(), "alice".to_owned())),
        hash: before.then(&body),
        body: Bytes::from(body),
    }
}

/// The next batch, of these events, with what it changes in the sums.
fn batch(writer: &Writer, types: &[EventType]) -> Append {
    let mut batch = writer.batch(0);
    let mut figures = Figures::default();
    for event_type in types {
        let entry = said(writer.id(), batch.run.last_seq + 1, *event_type, batch.chain);
        (batch.run.last_seq, batch.chain) = (entry.seq, entry.hash);
        let body: Value = serde_json::from_slice(&entry.body).unwrap();
        let fact = Fact {
            event_type: *event_type,
            ts: entry.ts,
            subject: Some("alice"),
            data: body["data"].as_object().unwrap(),
        };
        rollup::event(&mut figures, &fact, writer.run.created_at);
        batch.entries.push(entry);
    }
    batch.rollups.file(&Filing::of(&batch.run), &figures, Sign::Plus);
    batch
}

/// The same that also completes the run.
fn ending(writer: &Writer, types: &[EventType]) -> Append {
    let mut batch = batch(writer, types);
    batch.run.state = RunState::Completed;
    batch.run.started_at = Some(at(0));
    batch.run.ended_at = Some(at(61_000));
    batch.metrics.total_tokens = 100;
    batch.metrics.estimated_cost_usd = 0.25;
    let filing = Filing::of(&batch.run);
    let before = rollup::standing(&writer.run, &writer.metrics);
    batch.rollups.file(&filing, &before, Sign::Minus);
    batch.rollups.file(&filing, &rollup::standing(&batch.run, &batch.metrics), Sign::Plus);
    batch
}

/// How the sums that are kept differ from those of all logs.
async fn differences(store: &Store) -> Vec<(rollup::Key, Amount)> {
    let filter = RunFilter {
        include_sandbox: true,
        include_archived: true,
        limit: 1000,
        ..RunFilter::default()
    };
    let mut wanted = Rollups::default();
    for run in store.run_list(&filter).await.unwrap().items {
        let metrics = store.metrics_get(run.id).await.unwrap();
        let metrics = metrics.unwrap_or_else(|| RunMetrics::empty(run.id));
        let mut figures = store.rollup_figures(run.id, run.last_seq).await.unwrap();
        figures.merge(&rollup::standing(&run, &metrics));
        wanted.file(&Filing::of(&run), &figures, Sign::Plus);
    }
    let mut wrong = store.rollups_kept().await.unwrap();
    wrong.subtract(&wanted);
    wrong.iter().map(|(key, amount)| (key.clone(), amount)).collect()
}

/// The sum of a figure over all time.
async fn total(store: &Store, figure: Figure, filter: FilingFilter) -> Amount {
    let sums = store.rollup_totals(&[figure], Period::always(), filter).await.unwrap();
    let add =
        |one: Amount, other: Amount| Amount::new(one.count + other.count, one.sum + other.sum);
    sums.into_iter().map(|sum| sum.amount).fold(Amount::default(), add)
}

fn of(environment: Option<&str>, scenario: Option<&str>) -> FilingFilter {
    FilingFilter {
        environment: environment.map(str::to_owned),
        scenario: scenario.map(str::to_owned),
    }
}

const TALK: [EventType; 4] = [
    EventType::ParticipantSeen,
    EventType::MessageReceived,
    EventType::SignalEmitted,
    EventType::DecisionFinalized,
];

on_both_databases! {
    async fn sums_follow_a_run_from_its_beginning_to_its_end(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create_from(&store, filed("staging", "fraud")).await;
        writer.commit(&store, batch(&writer, &TALK)).await;
        writer.commit(&store, ending(&writer, &[EventType::MessageReceived])).await;

        let open = FilingFilter::default();
        assert_eq!(total(&store, Figure::Created, open.clone()).await, Amount::new(1, 0));
        assert_eq!(total(&store, Figure::Completed, open.clone()).await, Amount::new(1, 61_000));
        assert_eq!(total(&store, Figure::Usage, open.clone()).await, Amount::new(100, 250_000));
        assert_eq!(total(&store, Figure::AgentMessages, open.clone()).await, Amount::new(2, 0));
        assert_eq!(total(&store, Figure::AgentConfidence, open).await, Amount::new(2, 1_000_000));
        assert_eq!(differences(&store).await, []);
    }

    async fn a_period_has_what_happened_in_it_to_the_minute(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create_from(&store, filed("staging", "fraud")).await;
        // A signal each second, the first one as the run's second event.
        let signals = vec![EventType::SignalEmitted; 200];
        writer.commit(&store, batch(&writer, &signals)).await;
        let minute = Grain::Minute.floor(at(0)) + Grain::Minute.length();

        let period = Period::new(minute, minute + Grain::Minute.length());
        let sums = store.rollup_sums(&[Figure::Signals], period, FilingFilter::default()).await;

        let sums = sums.unwrap();
        assert_eq!(sums.len(), 1);
        assert_eq!((sums[0].bucket, sums[0].amount), (minute, Amount::new(60, 0)));
    }

    async fn a_filter_takes_the_runs_that_are_filed_so(database: TestDb) {
        let store = database.store();
        for (environment, source) in
            [("staging", "fraud"), ("staging", "Loans"), ("production", "fraud")]
        {
            Writer::create_from(&store, filed(environment, source)).await;
        }
        let created = async |filter| total(&store, Figure::Created, filter).await.count;

        assert_eq!(created(of(None, None)).await, 3);
        assert_eq!(created(of(Some("staging"), None)).await, 2);
        assert_eq!(created(of(Some("Staging"), None)).await, 0);
        assert_eq!(created(of(None, Some("fraud"))).await, 2);
        assert_eq!(created(of(None, Some("OF LOANS"))).await, 1);
        assert_eq!(created(of(Some("production"), Some("scenario"))).await, 1);
        assert_eq!(created(of(None, Some("100%"))).await, 0);
        let sources = store
            .rollup_sources(Figure::Created, Period::always(), FilingFilter::default(), 1)
            .await
            .unwrap();
        assert_eq!((sources[0].source_ref.as_str(), sources[0].count), ("fraud", 2));
        let staging = store.runs_recent(of(Some("staging"), None), 10).await.unwrap();
        assert_eq!(staging.len(), 2);
        assert_eq!(store.runs_recent(of(None, Some("fraud")), 1).await.unwrap().len(), 1);
    }

    async fn a_batch_that_is_fenced_off_changes_no_sum(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut other = Writer::create(&store).await;
        let stale = batch(&writer, &TALK);
        writer.commit(&store, batch(&writer, &[EventType::SignalEmitted])).await;
        let good = batch(&other, &TALK);

        let outcomes = store.append(vec![stale, good.clone()]).await;

        assert_eq!(outcomes, [Appended::Fenced, Appended::Committed]);
        other.follow(&good);
        assert_eq!(total(&store, Figure::Signals, FilingFilter::default()).await.count, 2);
        assert_eq!(differences(&store).await, []);
    }

    async fn writers_at_the_same_sums_lose_nothing(database: TestDb) {
        let store = database.store();
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let new = filed("staging", if number % 2 == 0 { "fraud" } else { "loans" });
                    let mut writer = Writer::create_from(&store, new).await;
                    for _ in 0..10 {
                        writer.commit(&store, batch(&writer, &TALK)).await;
                    }
                    writer.commit(&store, ending(&writer, &TALK)).await;
                    writer.id()
                })
            })
            .collect();
        let mut ids = Vec::new();
        for writer in writers {
            ids.push(writer.await.unwrap());
        }

        assert_eq!(total(&store, Figure::Signals, FilingFilter::default()).await.count, 88);
        assert_eq!(differences(&store).await, []);
        // And while some are deleted, others begin.
        let deleting = ids[..4].iter().map(|id| store.run_delete(*id, at(9)));
        let (deleted, _) = tokio::join!(
            futures_util::future::join_all(deleting),
            async {
                for _ in 0..4 {
                    Writer::create_from(&store, filed("staging", "fraud")).await;
                }
            },
        );
        assert!(deleted.iter().all(|done| matches!(done, Ok(Deleted::Done))));
        assert_eq!(total(&store, Figure::Created, FilingFilter::default()).await.count, 8);
        assert_eq!(differences(&store).await, []);
    }

    async fn a_run_that_is_deleted_takes_its_share_with_it(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create_from(&store, filed("staging", "fraud")).await;
        writer.commit(&store, batch(&writer, &TALK)).await;
        writer.commit(&store, ending(&writer, &TALK)).await;

        assert_eq!(store.run_delete(writer.id(), at(9)).await.unwrap(), Deleted::Done);

        assert!(store.rollups_kept().await.unwrap().is_empty());
    }

    async fn runs_of_an_older_version_are_counted_once(database: TestDb) {
        let store = database.store();
        let mut running = Writer::create_from(&store, filed("staging", "fraud")).await;
        running.commit(&store, batch(&running, &TALK)).await;
        let mut over = Writer::create_from(&store, filed("staging", "fraud")).await;
        over.commit(&store, ending(&over, &TALK)).await;
        database.tamper("DELETE FROM rollups").await;
        database.tamper("UPDATE runs SET rolled_up = false").await;

        // What comes before a run is counted is counted with it, and what comes after by itself.
        running.commit(&store, batch(&running, &TALK)).await;
        assert!(store.rollups_kept().await.unwrap().is_empty());
        assert!(store.rollups_catch_up().await.unwrap());
        assert!(!store.rollups_catch_up().await.unwrap());
        running.commit(&store, ending(&running, &TALK)).await;

        assert_eq!(differences(&store).await, []);
        assert_eq!(total(&store, Figure::Signals, FilingFilter::default()).await.count, 4);
    }

    async fn a_run_that_is_not_counted_takes_nothing_away(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        writer.commit(&store, ending(&writer, &TALK)).await;
        database.tamper("DELETE FROM rollups").await;
        database.tamper("UPDATE runs SET rolled_up = NULL").await;

        assert!(!store.rollups_catch_up().await.unwrap());
        assert_eq!(store.run_delete(writer.id(), at(9)).await.unwrap(), Deleted::Done);

        assert!(store.rollups_kept().await.unwrap().is_empty());
    }

    async fn runs_that_wait_are_looked_up_with_when_they_were_created(database: TestDb) {
        let store = database.store();
        Writer::create_from(&store, filed("staging", "fraud")).await;
        let mut suspended = Writer::create_from(&store, filed("production", "loans")).await;
        let mut change = suspended.batch(0);
        change.run.state = RunState::Suspended;
        suspended.commit(&store, change).await;
        let states = [RunState::Queued, RunState::Suspended];
        let waiting = async |from, to, filter| {
            store.runs_waiting(&states, at(from), at(to), filter).await.unwrap()
        };

        assert_eq!(waiting(0, 1, FilingFilter::default()).await.len(), 2);
        assert_eq!(waiting(1, 2, FilingFilter::default()).await, []);
        let one = waiting(0, 1, of(Some("production"), Some("LOAN"))).await;
        assert_eq!((one[0].state, one[0].created_at), (RunState::Suspended, at(0)));
    }
}
