//! Signals that come before their run.

use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_recovery::Config;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;

use super::support::{Rig, config};
use super::{holds, is_told, open, records, tell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_its_run_is_held_and_then_delivered() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        records(&rig).await;
        let session = SessionId::random();
        let accepted = vec![open(&cast, &session).await];

        let named = tell(&cast.bob, &session, "early").await;
        let reported = cast.bob.signal(message::progress_on(&accepted[0])).await;
        let other = tell(&cast.bob, &SessionId::random(), "somebody else's").await;
        holds(&rig, 3).await;
        let run = rig.post(&session, message::DECISION).await;

        is_told(&rig, run, &[named, reported]).await;
        holds(&rig, 1).await;
        assert!(!super::told(&rig, run).await.contains(&other));
        rig.has_recorded(run, 1).await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_survives_a_restart() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        records(&rig).await;
        let session = SessionId::random();
        open(&cast, &session).await;
        let id = tell(&cast.bob, &session, "early").await;
        holds(&rig, 1).await;

        let (database, client, config) = rig.stop().await;
        let rig = Rig::resume(database, client, config);
        let run = rig.post(&session, message::DECISION).await;

        is_told(&rig, run, &[id]).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_claims_is_dropped_after_a_while() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let short = Config { signal_hold: Duration::from_secs(1), ..config() };
        let rig = Rig::with_config(kind, runtime.client(), short);
        records(&rig).await;
        let session = SessionId::random();
        tell(&cast.bob, &session, "too early").await;
        holds(&rig, 1).await;

        holds(&rig, 0).await;

        let run = rig.post(&session, message::DECISION).await;
        let id = tell(&cast.bob, &session, "fence").await;
        is_told(&rig, run, &[id]).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_make_room_when_too_many_are_held() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let few = Config { signal_hold_max: 2, ..config() };
    let rig = Rig::with_config(Kind::Sqlite, runtime.client(), few);
    records(&rig).await;
    let session = SessionId::random();
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(tell(&cast.bob, &session, "early").await);
        // One by one, so that it is known when all were there.
        holds(&rig, (n + 1).min(2)).await;
    }
    // About another session, so that the last of ours was seen to.
    let other = SessionId::random();
    let fence = rig.post(&other, message::DECISION).await;
    let id = tell(&cast.bob, &other, "fence").await;
    is_told(&rig, fence, &[id]).await;

    let run = rig.post(&session, message::DECISION).await;

    is_told(&rig, run, &ids[3..]).await;
    rig.stop().await;
}
