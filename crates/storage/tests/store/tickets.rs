//! Tickets: they live as long as they were told to, and no longer than their run.

use control_plane_domain::{RunId, RunState, Timestamp};
use control_plane_storage::model::Deleted;
use control_plane_storage::{Error, Store, Ticket, TicketHash};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at, new_run};

fn ticket(run_id: RunId, expires_at: Timestamp) -> Ticket {
    Ticket { run_id, key_hash: vec![7; 32], made_at: at(0), expires_at }
}

async fn expiry(store: &Store, hash: TicketHash) -> Option<Timestamp> {
    store.ticket_find(hash).await.unwrap().map(|ticket| ticket.expires_at)
}

on_both_databases! {
    async fn a_ticket_is_found_by_its_hash_alone(database: TestDb) {
        let store = database.store();
        let run = Writer::create(&store).await;
        let made = ticket(run.id(), at(60_000));

        store.ticket_create([1; 32], made.clone()).await.unwrap();

        assert_eq!(store.ticket_find([1; 32]).await.unwrap(), Some(made));
        assert_eq!(store.ticket_find([2; 32]).await.unwrap(), None);
    }

    async fn a_ticket_for_a_run_that_is_gone_is_refused_by_the_runs_name(database: TestDb) {
        let store = database.store();

        let refused = store.ticket_create([1; 32], ticket(RunId::random(), at(1))).await;

        assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    }

    async fn a_ticket_is_extended_and_never_shortened(database: TestDb) {
        let store = database.store();
        let run = Writer::create(&store).await;
        // More than one statement takes.
        let hash = |index: u16| {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&index.to_be_bytes());
            hash
        };
        let hashes: Vec<TicketHash> = (0..700).map(hash).collect();
        for hash in &hashes {
            store.ticket_create(*hash, ticket(run.id(), at(60_000))).await.unwrap();
        }
        store.ticket_create([9; 32], ticket(run.id(), at(60_000))).await.unwrap();

        let longer = store.tickets_extend(hashes.clone(), at(150_500)).await.unwrap();
        let shorter = store.tickets_extend(hashes.clone(), at(150_000)).await.unwrap();
        let unknown = store.tickets_extend(vec![[8; 32]], at(150_000)).await.unwrap();

        assert_eq!((longer, shorter, unknown), (700, 0, 0));
        for hash in [hashes[0], hashes[699]] {
            assert_eq!(expiry(&store, hash).await, Some(at(150_500)));
        }
        assert_eq!(expiry(&store, [9; 32]).await, Some(at(60_000)));
    }

    async fn tickets_that_expired_are_removed_and_no_others(database: TestDb) {
        let store = database.store();
        let run = Writer::create(&store).await;
        store.ticket_create([1; 32], ticket(run.id(), at(1_000))).await.unwrap();
        store.ticket_create([2; 32], ticket(run.id(), at(2_500))).await.unwrap();

        assert_eq!(store.tickets_clean(at(500)).await.unwrap(), 0);
        assert_eq!(store.tickets_clean(at(2_000)).await.unwrap(), 1);

        assert_eq!(expiry(&store, [1; 32]).await, None);
        assert_eq!(expiry(&store, [2; 32]).await, Some(at(2_500)));
    }

    async fn a_ticket_ends_with_its_run(database: TestDb) {
        let store = database.store();
        let mut over = new_run();
        over.run.state = RunState::Completed;
        let run = Writer::create_from(&store, over).await;
        let other = Writer::create(&store).await;
        store.ticket_create([1; 32], ticket(run.id(), at(60_000))).await.unwrap();
        store.ticket_create([2; 32], ticket(other.id(), at(60_000))).await.unwrap();

        assert_eq!(store.run_delete(run.id(), at(1)).await.unwrap(), Deleted::Done);

        assert_eq!(expiry(&store, [1; 32]).await, None);
        assert_eq!(expiry(&store, [2; 32]).await, Some(at(60_000)));
    }
}
