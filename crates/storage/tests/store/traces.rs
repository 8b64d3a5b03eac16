//! Where runs are in their traces, and who tells of them.

use std::collections::HashSet;

use control_plane_domain::trace::{SpanId, TraceId};
use control_plane_domain::{EventType, RunId, RunState, RunTrace, TraceContext};
use control_plane_storage::model::NewRun;
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at, new_run};

fn traced(number: u8) -> NewRun {
    let context = TraceContext {
        trace_id: TraceId::new([number; 16]).unwrap(),
        span_id: SpanId::new([number; 8]).unwrap(),
        sampled: true,
        state: Some("a=1".to_owned()),
    };
    let mut new = new_run();
    new.run.trace_id = Some(context.trace_id.to_string());
    new.trace = Some(RunTrace { context, parent: SpanId::new([9; 8]) });
    new
}

async fn end(store: &control_plane_storage::Store, writer: &mut Writer) {
    let mut batch = writer.batch(1);
    batch.run.state = RunState::Completed;
    batch.run.ended_at = Some(at(9));
    writer.commit(store, batch).await;
}

on_both_databases! {
    async fn a_place_in_a_trace_is_kept_with_the_run(database: TestDb) {
        let store = database.store();
        let (posted, found, plain) = (traced(1), traced(2), new_run());
        store.run_create(posted.clone()).await.unwrap();
        store.run_create(plain.clone()).await.unwrap();
        store.runs_discover(vec![found.clone(), new_run()]).await.unwrap();

        assert_eq!(store.run_trace(posted.run.id).await.unwrap(), posted.trace);
        assert_eq!(store.run_trace(found.run.id).await.unwrap(), found.trace);
        assert_eq!(store.run_trace(plain.run.id).await.unwrap(), None);
        let ids = [posted.run.id, plain.run.id, found.run.id];
        let loaded = store.runs_load(&ids, 10, 10).await.unwrap();
        let places: Vec<_> = loaded.into_iter().map(|run| run.unwrap().trace).collect();
        assert_eq!(places, [posted.trace, None, found.trace]);
    }

    async fn a_run_that_is_over_is_told_of_by_one_alone(database: TestDb) {
        let store = database.store();
        let mut over: Vec<RunId> = Vec::new();
        for number in 1..=12 {
            let mut writer = Writer::create_from(&store, traced(number)).await;
            end(&store, &mut writer).await;
            over.push(writer.id());
        }
        let active = Writer::create_from(&store, traced(99)).await;
        let mut plain = Writer::create(&store).await;
        end(&store, &mut plain).await;

        let asked = (0..6).map(|_| store.traces_claim(at(10), 5));
        let mut taken: Vec<RunId> = Vec::new();
        for answer in futures_util::future::join_all(asked).await {
            taken.extend(answer.unwrap().into_iter().map(|(run, _)| run.id));
        }
        loop {
            let more = store.traces_claim(at(11), 5).await.unwrap();
            if more.is_empty() {
                break;
            }
            taken.extend(more.into_iter().map(|(run, _)| run.id));
        }

        let unique: HashSet<RunId> = taken.iter().copied().collect();
        assert_eq!(taken.len(), unique.len(), "one was given twice");
        assert_eq!(unique, over.into_iter().collect());
        assert!(!unique.contains(&active.id()) && !unique.contains(&plain.id()));
    }

    async fn the_moments_of_a_run_are_its_first_events_of_some_types(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(5);
        writer.commit(&store, batch).await;

        let types: &[EventType] = &[EventType::MessageReceived];
        let found = store.moments(writer.id(), types, 3).await.unwrap();
        let none = store.moments(writer.id(), &[EventType::PolicyDenied], 3).await.unwrap();

        assert_eq!(found.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(none, []);
    }
}
