//! What tells whether a record is whole: kept with the session, and counted.

use control_plane_domain::evidence::{Activity, Count, Ending, Evidence, SettledBy};
use control_plane_storage::{Counted, Tally};
use control_plane_testkit::database::TestDb;

use crate::support::{Writer, at};

fn evidence() -> Evidence {
    let ending = Ending {
        settled_by: Some(SettledBy::Silence),
        activity: Some(Activity::new(vec![("agent://ä \"x\"".to_owned(), 3)], at(7))),
        count: Some(Count {
            total: 4,
            compared_from: Some(2),
            missing: vec![(2, 3)],
            unplaced: 1,
            misplaced: 0,
        }),
    };
    Evidence { reattaches: 3, overlaps_shown: 2, counted_to: 5, ending: Some(Box::new(ending)) }
}

on_both_databases! {
    async fn evidence_is_written_with_a_batch_and_read_with_the_session(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let fresh = store.session_get(writer.id()).await.unwrap().unwrap();
        let mut batch = writer.batch(2);
        batch.session.evidence = evidence();

        writer.commit(&store, batch).await;
        let stored = store.session_get(writer.id()).await.unwrap().unwrap();
        let again = writer.batch(1);
        writer.commit(&store, again).await;
        let kept = store.session_get(writer.id()).await.unwrap().unwrap();

        assert_eq!(fresh.evidence, Evidence::default());
        assert_eq!(stored.evidence, evidence());
        assert_eq!(kept.evidence, evidence(), "the next batch keeps it");
    }

    async fn a_tally_counts_up_to_where_it_is_asked_and_leaves_out_what_nobody_said(database: TestDb) {
        let store = database.store();
        let mut writer = Writer::create(&store).await;
        let mut batch = writer.batch(6);
        let said = [
            ("alice", "SessionStart", "m1"),
            ("alice", "HandoffOffer", "m2"),
            ("bob", "HandoffAccept", "implicit-accept:h1"),
            ("bob", "HandoffAccept", "m4"),
            ("alice", "Commitment", "m5"),
            ("alice", "Commitment", "m6"),
        ];
        for (raw, (sender, message_type, message_id)) in batch.raw.iter_mut().zip(said) {
            raw.envelope.sender = sender.to_owned();
            raw.envelope.message_type = message_type.to_owned();
            raw.envelope.message_id = message_id.to_owned();
        }
        writer.commit(&store, batch).await;

        let tally = store.run_tally(writer.id(), 5, 4).await.unwrap();

        let counted = |count| Counted { count, first: Some(1), last: Some(count) };
        let expected = Tally {
            envelopes: counted(5),
            events: counted(4),
            last_type: Some("Commitment".to_owned()),
            senders: vec![("alice".to_owned(), 2), ("bob".to_owned(), 1)],
        };
        assert_eq!(tally, expected);
        let none = store.run_tally(control_plane_domain::RunId::random(), 9, 9).await.unwrap();
        assert_eq!(none, Tally::default());
    }
}
