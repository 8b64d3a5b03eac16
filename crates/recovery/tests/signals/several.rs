//! Several instances hear the same; one records it, and the next one takes over where it ended.

use std::sync::Arc;

use control_plane_domain::{Clock, SessionId, SystemClock};
use control_plane_recovery::Engine;
use control_plane_storage::{DatabaseUrl, Store};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, wait_for, wait_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::{Rig, config};
use super::{is_told, open, records_in, running, tell};

/// An engine in a process of its own, as far as the database can tell.
struct Other {
    host: tokio::runtime::Runtime,
    _engine: Engine,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Other {
    async fn start(database: &TestDb, runtime: control_plane_runtime::Client) -> Self {
        let host = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let url = DatabaseUrl::parse(database.url()).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stopping, tracked) = (stop.clone(), tasks.clone());
        let started = host.spawn(async move {
            let store = Store::connect(&control_plane_storage::Config::new(url)).unwrap();
            let clock = Arc::new(SystemClock);
            Engine::start(store, Arc::new(runtime), clock, config(), stopping, tracked)
        });
        let engine = started.await.unwrap();
        Self { host, _engine: engine, stop, tasks }
    }

    /// Everything ends where it stands, and its connections break.
    fn crash(self) {
        self.host.shutdown_background();
    }

    async fn leave(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.host.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_instances_hear_is_recorded_once_and_a_hand_over_loses_nothing() {
    for orderly in [false, true] {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let database = TestDb::new(Kind::Postgres);
        let first = Other::start(&database, runtime.client()).await;
        let store = database.store();
        wait_until(DEADLINE, async || store.signal_watch().await.unwrap().last_heard_at.is_some())
            .await;
        // The one that follows the run is not the one that records signals.
        let rig = Rig::resume(database, Arc::new(runtime.client()), config());
        let (session, run, accepted) = running(&rig, &cast).await;
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(tell(&cast.bob, &session, "before").await);
        }
        is_told(&rig, run, &ids).await;

        match orderly {
            true => first.leave().await,
            false => first.crash(),
        }
        for _ in 0..20 {
            ids.push(tell(&cast.bob, &session, "after").await);
        }

        is_told(&rig, run, &ids).await;
        wait_until(DEADLINE, async || rig.store.signal_watch().await.unwrap().open.is_none()).await;
        let start = rig.store.run_get(run).await.unwrap().created_at;
        assert_eq!(rig.store.signal_gaps(start, None).await.unwrap(), []);
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_keeps_what_was_held_and_says_since_when_nobody_listened() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let database = TestDb::new(Kind::Postgres);
    let store = database.store();
    let first = Other::start(&database, runtime.client()).await;
    let session = SessionId::random();
    let accepted = vec![open(&cast, &session).await];
    records_in(&store).await;
    let early = tell(&cast.bob, &session, "early").await;
    wait_until(DEADLINE, async || store.signals_held().await.unwrap() == 1).await;

    first.crash();
    let crashed = SystemClock.now();
    tell(&cast.bob, &session, "nobody listens").await;
    let back = SystemClock.now();
    let rig = Rig::resume(database, Arc::new(runtime.client()), config());
    let ask = async || rig.store.signal_gaps(crashed, None).await.unwrap();
    let gaps = wait_for(DEADLINE, ask, |gaps| gaps.len() == 1).await;
    let run = rig.post(&session, message::DECISION).await;

    is_told(&rig, run, &[early]).await;
    rig.has_recorded(run, 1).await;
    assert_eq!(gaps[0].reason, "away");
    assert!(gaps[0].from <= crashed && gaps[0].to >= Some(back), "{gaps:?} {crashed} {back}");
    rig.is_whole(run, &accepted).await;
    rig.stop().await;
}
