//! Who may write a run: the store that holds it, until it is dead or somebody takes the run.

use control_plane_domain::run::RunState;
use control_plane_storage::Store;
use control_plane_storage::model::{Appended, Lease};
use control_plane_testkit::database::TestDb;
use control_plane_testkit::{DEADLINE, wait_for, wait_until};

use crate::support::{Writer, client, new_run};

async fn holding(database: &TestDb) -> Store {
    let store = database.store();
    store.instance_hold().await.unwrap();
    store
}

/// The leases, in the order of their runs.
async fn claim(store: &Store) -> Vec<Lease> {
    let mut leases = store.runs_claim().await.unwrap();
    leases.sort_by_key(|lease| lease.run_id);
    leases
}

on_both_databases! {
    async fn a_new_process_takes_the_runs_that_are_not_over(database: TestDb) {
        let store = holding(&database).await;
        let mut expected = Vec::new();
        for state in RunState::ALL {
            let mut new = new_run();
            new.run.state = state;
            let run_id = Writer::create_from(&store, new).await.id();
            expected.extend((!state.is_terminal()).then_some(Lease { run_id, epoch: 2 }));
        }
        expected.sort_by_key(|lease| lease.run_id);
        assert_eq!(claim(&store).await, []);
        drop(store);

        let store = holding(&database).await;
        let claimed = wait_for(DEADLINE, || claim(&store), |leases| !leases.is_empty()).await;

        assert_eq!(claimed, expected);
        assert_eq!(claim(&store).await, [], "they are ours now");
    }

    async fn the_lease_of_a_store_that_is_gone_is_fenced(database: TestDb) {
        let store = holding(&database).await;
        let old = Writer::create(&store).await;
        drop(store);
        let store = holding(&database).await;
        let leases = wait_for(DEADLINE, || claim(&store), |leases| !leases.is_empty()).await;

        let outcomes = store.append(vec![old.batch(1)]).await;

        assert_eq!(outcomes, [Appended::Fenced]);
        let mut new = old;
        new.lease = leases[0];
        let batch = new.batch(1);
        new.commit(&store, batch).await;
    }

    async fn a_parked_run_says_why_until_it_is_claimed_again(database: TestDb) {
        let store = holding(&database).await;
        let run = Writer::create(&store).await;
        assert_eq!(store.run_get(run.id()).await.unwrap().parked_reason, None);

        assert!(store.run_park(run.lease, "its data is refused".to_owned()).await.unwrap());

        let stale = Lease { epoch: 0, ..run.lease };
        assert!(!store.run_park(stale, "not mine".to_owned()).await.unwrap());
        let reason = store.run_get(run.id()).await.unwrap().parked_reason;
        assert_eq!(reason.as_deref(), Some("its data is refused"));
        assert_eq!(claim(&store).await, []);
        drop(store);
        let store = holding(&database).await;
        wait_for(DEADLINE, || claim(&store), |leases| !leases.is_empty()).await;
        assert_eq!(store.run_get(run.id()).await.unwrap().parked_reason, None);
    }

    async fn a_run_can_be_taken_whatever_its_state(database: TestDb) {
        let store = holding(&database).await;
        let mut new = new_run();
        new.run.state = RunState::Completed;
        let mut run = Writer::create_from(&store, new).await;

        let lease = store.run_take(run.id()).await.unwrap();

        assert_eq!(lease, Lease { run_id: run.id(), epoch: 2 });
        assert_eq!(store.append(vec![run.batch(1)]).await, [Appended::Fenced]);
        run.lease = lease;
        let batch = run.batch(1);
        run.commit(&store, batch).await;
        assert!(store.run_take(new_run().run.id).await.is_err());
    }
}

on_both_databases! {
    async fn a_run_that_was_left_is_free_and_its_lease_is_over(database: TestDb) {
        let store = holding(&database).await;
        let (one, other) = (Writer::create(&store).await, Writer::create(&store).await);
        let mut new = new_run();
        new.run.state = RunState::Completed;
        Writer::create_from(&store, new).await;
        assert_eq!(store.runs_owned().await.unwrap().len(), 2);

        assert!(store.run_release(one.lease).await.unwrap());

        assert!(!store.run_release(one.lease).await.unwrap(), "that was over");
        assert_eq!(store.append(vec![one.batch(1)]).await, [Appended::Fenced]);
        let census = store.census().await.unwrap();
        assert_eq!((census.mine, census.free, census.all), (1, 1, 2));
        assert_eq!(claim(&store).await, [Lease { run_id: one.id(), epoch: 3 }]);
        assert_eq!(store.runs_release().await.unwrap(), 2, "what is over has no use for an owner");
        assert_eq!(store.append(vec![other.batch(1)]).await, [Appended::Fenced]);
        assert_eq!(store.census().await.unwrap().free, 2);
    }

    async fn no_more_runs_are_taken_than_are_wanted(database: TestDb) {
        let store = holding(&database).await;
        for _ in 0..5 {
            Writer::create(&store).await;
        }
        store.runs_release().await.unwrap();
        let census = store.census().await.unwrap();

        let leases = store.runs_take(&census, 3).await.unwrap();

        assert_eq!(leases.len(), 3);
        assert_eq!(store.runs_owned().await.unwrap().len(), 3);
        assert_eq!(store.runs_take(&census, 3).await.unwrap().len(), 2);
        assert_eq!(store.runs_take(&census, 3).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_take_runs_are_counted_while_they_live_and_want_to() {
    let database = TestDb::postgres();
    let (first, second, reader) =
        (holding(&database).await, holding(&database).await, holding(&database).await);
    Writer::create(&reader).await;
    let takers = async || reader.census().await.unwrap().takers;
    assert_eq!(takers().await, 0);

    first.instance_takes_runs(true).await.unwrap();
    first.instance_takes_runs(true).await.unwrap();
    second.instance_takes_runs(true).await.unwrap();
    assert_eq!(takers().await, 2);
    first.instance_takes_runs(false).await.unwrap();
    assert_eq!(takers().await, 1);
    drop(second);

    wait_until(DEADLINE, async || takers().await == 0).await;
    assert_eq!(reader.census().await.unwrap().mine, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_who_take_their_shares_at_once_take_different_runs() {
    let database = TestDb::postgres();
    let leaving = holding(&database).await;
    for _ in 0..30 {
        Writer::create(&leaving).await;
    }
    let heirs = [holding(&database).await, holding(&database).await, holding(&database).await];
    leaving.runs_release().await.unwrap();
    let share = async |store: &Store| {
        let census = store.census().await.unwrap();
        store.runs_take(&census, 10).await.unwrap()
    };

    let [first, second, third] = &heirs;
    let mut taken = 0;
    while taken < 30 {
        // Who meets the others in the middle of it gets the rest at the next look.
        let (a, b, c) = tokio::join!(share(first), share(second), share(third));
        assert!(a.len().max(b.len()).max(c.len()) <= 10);
        taken += a.len() + b.len() + c.len();
    }

    let owned = async |store: &Store| store.runs_owned().await.unwrap();
    let mut all = [owned(first).await, owned(second).await, owned(third).await].concat();
    all.sort();
    all.dedup();
    assert_eq!((taken, all.len()), (30, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_store_keeps_its_runs() {
    let database = TestDb::postgres();
    let (first, second) = (holding(&database).await, holding(&database).await);
    let mut run = Writer::create(&first).await;

    assert_eq!(claim(&second).await, []);

    let batch = run.batch(1);
    run.commit(&first, batch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_race_for_the_runs_of_a_dead_store_each_run_has_one() {
    let database = TestDb::postgres();
    let dead = holding(&database).await;
    for _ in 0..20 {
        Writer::create(&dead).await;
    }
    let heirs = [holding(&database).await, holding(&database).await, holding(&database).await];
    drop(dead);
    let claim_at_once = async || {
        let [first, second, third] = &heirs;
        let (first, second, third) = tokio::join!(claim(first), claim(second), claim(third));
        [first, second, third].concat()
    };

    let mut leases = wait_for(DEADLINE, claim_at_once, |leases| !leases.is_empty()).await;

    assert_eq!(leases.len(), 20);
    assert!(leases.iter().all(|lease| lease.epoch == 2));
    leases.sort_by_key(|lease| lease.run_id);
    leases.dedup_by_key(|lease| lease.run_id);
    assert_eq!(leases.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_connection_may_lose_its_runs_and_goes_on() {
    let database = TestDb::postgres();
    let (first, second) = (holding(&database).await, holding(&database).await);
    let run = Writer::create(&first).await;
    let end = "SELECT count(pg_terminate_backend(a.pid)) FROM pg_locks l \
        JOIN pg_stat_activity a USING (pid) \
        WHERE l.locktype = 'advisory' AND a.datname = current_database()";
    client(database.url()).await.execute(end, &[]).await.unwrap();
    wait_until(DEADLINE, async || second.instance_hold().await.is_ok()).await;
    let leases = wait_for(DEADLINE, || claim(&second), |leases| !leases.is_empty()).await;
    assert_eq!(leases, [Lease { run_id: run.id(), epoch: 2 }]);

    wait_until(DEADLINE, async || first.instance_hold().await.is_ok()).await;

    assert_eq!(first.append(vec![run.batch(1)]).await, [Appended::Fenced]);
    let mut new = Writer::create(&first).await;
    let batch = new.batch(1);
    new.commit(&first, batch).await;
    assert_eq!(claim(&second).await, []);
}
