//! Lists: their filters, their order, and pages that neither repeat nor leave out.

use control_plane_domain::run::{RunMode, RunState};
use control_plane_domain::{EventType, Run, RunId};
use control_plane_storage::Store;
use control_plane_storage::model::{EventFilter, RunCursor, RunFilter, RunOrder};
use control_plane_testkit::database::TestDb;
use serde_json::json;

use crate::support::{Writer, at, entry, new_run};

fn all() -> RunFilter {
    RunFilter { include_sandbox: true, include_archived: true, limit: 100, ..RunFilter::default() }
}

async fn make(store: &Store, change: impl FnOnce(&mut Run)) -> RunId {
    let mut new = new_run();
    change(&mut new.run);
    Writer::create_from(store, new).await.id()
}

async fn found(store: &Store, filter: RunFilter) -> Vec<RunId> {
    let page = store.run_list(&filter).await.unwrap();
    assert_eq!(page.total, i64::try_from(page.items.len()).unwrap());
    assert!(!page.more);
    page.items.iter().map(|run| run.id).collect()
}

/// Every run, in pages of `limit` that each start after the last run of the one before.
async fn paged(store: &Store, filter: &RunFilter) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    loop {
        let cursor = runs.last().map(|run| RunCursor {
            at: match filter.order {
                RunOrder::CreatedAt => run.created_at,
                RunOrder::UpdatedAt => run.updated_at,
            },
            id: run.id,
        });
        let page = store.run_list(&RunFilter { cursor, ..filter.clone() }).await.unwrap();
        assert_eq!(page.total, 40, "the total is of all matches");
        runs.extend(page.items);
        if !page.more {
            return runs;
        }
    }
}

on_both_databases! {
    async fn each_filter_finds_what_it_names(database: TestDb) {
        let store = database.store();
        let plain = make(&store, |run| run.created_at = at(5)).await;
        let sandbox = make(&store, |run| {
            run.mode = RunMode::Sandbox;
            run.created_at = at(4);
        }).await;
        let archived = make(&store, |run| {
            run.archived_at = Some(at(9));
            run.created_at = at(3);
        }).await;
        let failed = make(&store, |run| {
            run.state = RunState::Failed;
            run.tags = vec!["a".to_owned(), "b".to_owned()];
            run.created_at = at(2);
        }).await;
        let named = make(&store, |run| {
            run.metadata.insert("environment".to_owned(), json!("prod"));
            run.metadata.insert("scenarioRef".to_owned(), json!("Fraud/High_Value@1"));
            run.tags = vec!["a".to_owned(), "Größe \"x\"".to_owned()];
            run.created_at = at(1);
        }).await;

        assert_eq!(found(&store, all()).await, [plain, sandbox, archived, failed, named]);
        assert_eq!(found(&store, RunFilter { include_sandbox: false, ..all() }).await, [plain, archived, failed, named]);
        assert_eq!(found(&store, RunFilter { include_archived: false, ..all() }).await, [plain, sandbox, failed, named]);
        assert_eq!(found(&store, RunFilter { status: Some(RunState::Failed), ..all() }).await, [failed]);
        let tags = |tags: &[&str]| RunFilter { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..all() };
        assert_eq!(found(&store, tags(&["a"])).await, [failed, named]);
        assert_eq!(found(&store, tags(&["a", "b"])).await, [failed]);
        assert_eq!(found(&store, tags(&["Größe \"x\""])).await, [named]);
        assert!(found(&store, tags(&["A"])).await.is_empty());
        assert_eq!(found(&store, RunFilter { created_after: Some(at(3)), ..all() }).await, [plain, sandbox]);
        assert_eq!(found(&store, RunFilter { created_before: Some(at(3)), ..all() }).await, [failed, named]);
        assert_eq!(found(&store, RunFilter { environment: Some("prod".to_owned()), ..all() }).await, [named]);
        assert!(found(&store, RunFilter { environment: Some("pro".to_owned()), ..all() }).await.is_empty());
        let scenario = |part: &str| RunFilter { scenario_ref: Some(part.to_owned()), ..all() };
        assert_eq!(found(&store, scenario("fraud/high_value")).await, [named]);
        assert!(found(&store, scenario("fraud/high%value")).await.is_empty());
        assert!(found(&store, scenario("fraud/highxvalue")).await.is_empty());
    }

    async fn a_search_looks_everywhere_and_takes_wildcards_literally(database: TestDb) {
        let store = database.store();
        let first = make(&store, |run| {
            run.tags = vec!["50%_off".to_owned(), r"back\slash".to_owned()];
            run.metadata.insert("environment".to_owned(), json!("Staging"));
        }).await;
        let second = make(&store, |run| {
            run.metadata.insert("scenarioRef".to_owned(), json!("Loan"));
            run.created_at = at(1);
        }).await;
        let session = store.run_get(second).await.unwrap().session_id.unwrap();
        let search = |text: &str| RunFilter { search: Some(text.to_owned()), ..all() };

        for text in ["50%_OFF", "%_", "staging", r"k\s"] {
            assert_eq!(found(&store, search(text)).await, [first], "{text}");
        }
        for text in ["loan", session.as_str(), &session.as_str()[9..30]] {
            assert_eq!(found(&store, search(text)).await, [second], "{text}");
        }
        assert_eq!(found(&store, search(&first.to_string().to_uppercase())).await, [first]);
        for text in ["5_%", "nothing", "\\\\", "["] {
            assert!(found(&store, search(text)).await.is_empty(), "{text}");
        }
    }

    async fn pages_are_complete_in_either_order_even_with_ties(database: TestDb) {
        let store = database.store();
        for n in 0..40 {
            make(&store, |run| {
                // Whole seconds have no fraction in the database's text.
                run.created_at = at(if n % 3 == 0 { 877 } else { 877 + n / 7 });
                run.updated_at = at(1877 - n / 9 * 1000);
            }).await;
        }
        for order in [RunOrder::CreatedAt, RunOrder::UpdatedAt] {
            for ascending in [true, false] {
                let filter = RunFilter { order, ascending, ..all() };
                let mut expected = store.run_list(&filter).await.unwrap().items;
                let listed = expected.clone();
                expected.sort_by_key(|run| match order {
                    RunOrder::CreatedAt => (run.created_at, run.id),
                    RunOrder::UpdatedAt => (run.updated_at, run.id),
                });
                if !ascending {
                    expected.reverse();
                }
                assert_eq!(listed, expected);
                for limit in [1, 3, 40] {
                    assert_eq!(paged(&store, &RunFilter { limit, ..filter.clone() }).await, expected);
                }
                let middle = store.run_list(&RunFilter { limit: 5, offset: 37, ..filter }).await.unwrap();
                assert_eq!((middle.items, middle.more, middle.total), (expected[37..].to_vec(), false, 40));
            }
        }
    }

    async fn runs_that_arrive_while_somebody_pages_repeat_nothing(database: TestDb) {
        let store = database.store();
        for n in 0..10 {
            make(&store, |run| run.created_at = at(n)).await;
        }
        let first = store.run_list(&RunFilter { limit: 4, ..all() }).await.unwrap();
        make(&store, |run| run.created_at = at(100)).await;
        let last = first.items.last().unwrap();
        let cursor = Some(RunCursor { at: last.created_at, id: last.id });

        let second = store.run_list(&RunFilter { cursor, ..all() }).await.unwrap();

        let times: Vec<_> = second.items.iter().map(|run| run.created_at).collect();
        assert_eq!(times, (0..6).rev().map(at).collect::<Vec<_>>());
    }

    async fn events_are_listed_by_run_type_time_and_scenario(database: TestDb) {
        let store = database.store();
        let mut new = new_run();
        new.run.source_ref = Some("source@1".to_owned());
        new.run.metadata.insert("scenarioRef".to_owned(), json!("Fraud_x"));
        let mut writer = Writer::create_from(&store, new).await;
        let mut other = Writer::create(&store).await;
        let mut batch = writer.batch(2);
        let event = entry(writer.id(), 4, EventType::DecisionFinalized, batch.chain);
        (batch.run.last_seq, batch.chain) = (4, event.hash);
        batch.entries.push(event);
        writer.commit(&store, batch).await;
        let batch = other.batch(2);
        other.commit(&store, batch).await;
        let list = async |filter: EventFilter| {
            let page = store.event_list(&filter).await.unwrap();
            assert!(page.total >= i64::try_from(page.items.len()).unwrap());
            page.items.iter().map(|event| event.position).collect::<Vec<_>>()
        };
        let all = EventFilter { limit: 100, ..EventFilter::default() };

        assert_eq!(list(all.clone()).await, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(list(EventFilter { run_id: Some(other.id()), ..all.clone() }).await, [2, 6, 7]);
        assert_eq!(list(EventFilter { run_id: Some(other.id()), after: 2, ..all.clone() }).await, [7]);
        assert_eq!(list(EventFilter { after: 5, ..all.clone() }).await, [6, 7]);
        let types = vec![EventType::RunCreated, EventType::DecisionFinalized];
        assert_eq!(list(EventFilter { types, ..all.clone() }).await, [1, 2, 5]);
        assert_eq!(list(EventFilter { after_ts: Some(at(2)), ..all.clone() }).await, [4, 5, 7]);
        assert_eq!(list(EventFilter { before_ts: Some(at(2)), ..all.clone() }).await, [1, 2]);
        for scenario in ["source@1", "fraud_", "UD_X"] {
            let filter = EventFilter { scenario_ref: Some(scenario.to_owned()), ..all.clone() };
            assert_eq!(list(filter).await, [1, 3, 4, 5], "{scenario}");
        }
        for scenario in ["source", "fraud%", "fraudyx"] {
            let filter = EventFilter { scenario_ref: Some(scenario.to_owned()), ..all.clone() };
            assert!(list(filter).await.is_empty(), "{scenario}");
        }
        let page = store.event_list(&EventFilter { after: 1, limit: 2, ..all }).await.unwrap();
        assert_eq!((page.items.len(), page.more, page.total), (2, true, 7));
    }
}
