//! A run's picture, and its record up to there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::{EventType, RunId};
use control_plane_storage::model::RawEnvelope;
use control_plane_storage::{Entity, Error, OrdinalsRecorded, SignalPlace, Store};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, entry};

/// Makes the batch's envelopes signals of these senders and ids.
async fn signal(writer: &mut Writer, store: &Store, signals: &[(&str, &str)]) {
    let count = i64::try_from(signals.len()).unwrap();
    let mut batch = writer.batch(count);
    batch.session = writer.session.clone();
    for (raw, (sender, message_id)) in batch.raw.iter_mut().zip(signals) {
        (raw.source, raw.ordinal) = (EnvelopeSource::Signal, None);
        raw.envelope.sender = (*sender).to_owned();
        raw.envelope.message_id = (*message_id).to_owned();
    }
    writer.commit(store, batch).await;
}

on_both_databases! {
    async fn a_picture_is_of_one_moment_whoever_writes_meanwhile(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let id = writer.id();
        let done = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn({
            let (store, done) = (store.clone(), Arc::clone(&done));
            async move {
                while !done.load(Ordering::Relaxed) {
                    let batch = writer.batch(3);
                    writer.commit(&store, batch).await;
                }
            }
        });

        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| *last < 60) {
            let picture = store.run_picture(id).await.unwrap();
            let last = picture.run.last_seq;
            // The first event is no envelope's.
            assert_eq!(picture.metrics.unwrap().event_count, last - 1);
            assert_eq!(picture.session.unwrap().cursor, last - 1);
            let end = store.events(id, last - 1, 1).await.unwrap();
            assert_eq!(end[0].hash, picture.hash);
            seen.push(last);
        }

        done.store(true, Ordering::Relaxed);
        writing.await.unwrap();
    }

    async fn nobody_has_a_picture_of_a_run_that_is_not_there(database: TestDb) {
        let picture = database.store().run_picture(RunId::random()).await;
        assert!(matches!(picture, Err(Error::NotFound { entity: Entity::Run, .. })), "{picture:?}");
    }

    async fn signals_are_read_page_by_page_each_once(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let batch = writer.batch(4);
        writer.commit(&store, batch).await;
        let signals = [("bob", "1"), ("ann", "2"), ("bob", "0"), ("ann", "1"), ("ann", "3")];
        signal(&mut writer, &store, &signals).await;
        let mut other = Writer::create(&store).await;
        signal(&mut other, &store, &[("ann", "9")]).await;

        let mut found: Vec<RawEnvelope> = Vec::new();
        loop {
            let place = found.last().map(SignalPlace::of);
            let left = store.count_signals_by_run(writer.id(), place.as_ref()).await.unwrap();
            assert_eq!(left, 5 - i64::try_from(found.len()).unwrap());
            let page = store.list_signals_by_run(writer.id(), place.as_ref(), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }

        let mut expected = signals;
        expected.sort_unstable();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|raw| (raw.envelope.sender.as_str(), raw.envelope.message_id.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    async fn recorded_ordinals_are_counted_between_two(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        for skipped in [0, 2] {
            writer.session.cursor += skipped;
            let batch = writer.batch(3);
            writer.commit(&store, batch).await;
        }
        signal(&mut writer, &store, &[("ann", "1")]).await;
        let counted = async |after, until| {
            let OrdinalsRecorded { first, last, count } =
                store.ordinals_recorded(writer.id(), after, until).await.unwrap();
            (first, last, count)
        };

        assert_eq!(counted(0, 8).await, (Some(1), Some(8), 6));
        assert_eq!(counted(0, 7).await, (Some(1), Some(7), 5));
        assert_eq!(counted(3, 8).await, (Some(6), Some(8), 3));
        assert_eq!(counted(8, 8).await, (None, None, 0));
    }

    async fn events_of_one_type_are_found_between_two(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        for _ in 0..3 {
            let mut batch = writer.batch(2);
            let last = batch.entries.len() - 1;
            let before = batch.entries[0].hash;
            let seq = batch.entries[last].seq;
            batch.entries[last] = entry(writer.id(), seq, EventType::SessionStreamGap, before);
            batch.chain = batch.entries[last].hash;
            writer.commit(&store, batch).await;
        }
        let found = async |after, until, limit| -> Vec<i64> {
            let kind = EventType::SessionStreamGap;
            let page = store.events_of(writer.id(), kind, after, until, limit).await.unwrap();
            page.iter().map(|entry| entry.seq).collect()
        };

        assert_eq!(found(0, 99, 9).await, [3, 5, 7]);
        assert_eq!(found(3, 6, 9).await, [5]);
        assert_eq!(found(0, 99, 2).await, [3, 5]);
    }
}
