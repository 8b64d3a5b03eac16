//! A run whose data cannot be stored is refused, and the runs beside it are not.

use bytes::Bytes;
use control_plane_domain::RunId;
use control_plane_storage::Store;
use control_plane_storage::model::{Append, Appended};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, log};

async fn writers(store: &Store, count: usize) -> Vec<Writer> {
    let mut writers = Vec::new();
    for _ in 0..count {
        writers.push(Writer::create(store).await);
    }
    writers
}

/// Appends a batch per writer, of which those at `poisoned` were spoiled, and checks that just
/// those are refused.
async fn assert_refused_alone(
    store: &Store,
    count: usize,
    poisoned: &[usize],
    spoil: impl Fn(&mut Append),
) {
    let writers = writers(store, count).await;
    let mut batches: Vec<Append> = writers.iter().map(|writer| writer.batch(2)).collect();
    for place in poisoned {
        spoil(&mut batches[*place]);
    }

    let outcomes = store.append(batches).await;

    for (place, (outcome, writer)) in outcomes.iter().zip(&writers).enumerate() {
        let refused = matches!(outcome, Appended::Refused(reason) if !reason.is_empty());
        assert_eq!(refused, poisoned.contains(&place), "{place}: {outcome:?}");
        assert!(refused || *outcome == Appended::Committed, "{place}: {outcome:?}");
        let expected = if refused { 1 } else { 3 };
        assert_eq!(log(store, writer.id()).await.len(), expected);
    }
    let written = count + 2 * (count - poisoned.len());
    assert_eq!(store.feed_end().await.unwrap(), i64::try_from(written).unwrap());
}

on_both_databases! {
    async fn a_message_id_that_comes_twice_is_refused_alone(database: TestDb) {
        let store = database.store();
        assert_refused_alone(&store, 300, &[0, 77, 299], |batch| {
            batch.raw[1].envelope.message_id = batch.raw[0].envelope.message_id.clone();
        }).await;
    }

    async fn an_ordinal_that_comes_twice_is_refused_alone(database: TestDb) {
        let store = database.store();
        assert_refused_alone(&store, 30, &[15, 16], |batch| {
            batch.raw[1].ordinal = batch.raw[0].ordinal;
        }).await;
    }

    async fn a_run_that_was_refused_can_be_written_afterwards(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut batch = writer.batch(2);
        batch.raw[1].ordinal = Some(1);
        assert!(matches!(store.append(vec![batch]).await[..], [Appended::Refused(_)]));

        let batch = writer.batch(2);
        writer.commit(&store, batch).await;

        assert_eq!(log(&store, writer.id()).await.len(), 3);
    }

    async fn a_batch_that_contradicts_itself_is_refused(database: TestDb) {
        let store = database.store();
        let (writer, other) = (Writer::create(&store).await, RunId::random());
        let spoilers: [fn(&mut Append, RunId); 9] = [
            |batch, _| batch.entries[1].seq += 1,
            |batch, _| drop(batch.entries.pop()),
            |batch, _| batch.run.last_seq += 1,
            |batch, _| batch.chain = batch.entries[0].hash,
            |batch, _| batch.entries[0].body = Bytes::from_static(b"\xff"),
            |batch, other| batch.entries[1].run_id = other,
            |batch, other| batch.raw[1].run_id = other,
            |batch, other| batch.session.run_id = other,
            |batch, other| batch.metrics.run_id = other,
        ];
        for (place, spoil) in spoilers.into_iter().enumerate() {
            let mut batch = writer.batch(2);
            spoil(&mut batch, other);

            let outcomes = store.append(vec![batch]).await;

            assert!(matches!(outcomes[..], [Appended::Refused(_)]), "{place}: {outcomes:?}");
        }
        assert_eq!(log(&store, writer.id()).await.len(), 1);
    }

    async fn a_session_that_another_run_has_is_refused_alone(database: TestDb) {
        let store = database.store();
        let (holder, writer) = (Writer::create(&store).await, Writer::create(&store).await);
        let mut batch = writer.batch(1);
        batch.run.session_id = holder.run.session_id.clone();

        let outcomes = store.append(vec![batch, holder.batch(1)]).await;

        assert!(matches!(outcomes[..], [Appended::Refused(_), Appended::Committed]), "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_cannot_store_is_refused_alone() {
    let spoilers: [fn(&mut Append); 4] = [
        |batch| batch.raw[0].envelope.message_id = "a\0b".to_owned(),
        |batch| batch.metrics.session_state = Some("a\0b".to_owned()),
        |batch| batch.entries[1].subject = Some(("message".to_owned(), "\0".to_owned())),
        // Longer than an entry of an index may be, and of no help to compression.
        |batch| batch.raw[0].envelope.message_id = long_text(),
    ];
    for spoil in spoilers {
        let database = TestDb::postgres();
        let store = database.store();
        assert_refused_alone(&store, 30, &[12], spoil).await;
    }
}

fn long_text() -> String {
    (0..400).map(|_| RunId::random().0.simple().to_string()).collect()
}
