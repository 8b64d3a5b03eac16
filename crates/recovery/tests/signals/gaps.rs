//! When nobody heard signals, that is a row of its own.

use control_plane_domain::{Clock, RunId, SystemClock, Timestamp};
use control_plane_insights::signals::{SignalGap, gaps_of_run};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::{DEADLINE, play, wait_for};

use super::support::Rig;
use super::{is_told, records, running, tell};

/// Waits until there is one gap, which has an end or not.
async fn has_gap(rig: &Rig, run: RunId, closed: bool) -> SignalGap {
    let ask = async || gaps_of_run(&rig.store, run).await.unwrap();
    let is = |gaps: &Vec<SignalGap>| gaps.len() == 1 && gaps[0].to.is_some() == closed;
    wait_for(DEADLINE, ask, is).await.remove(0)
}

fn now() -> Timestamp {
    SystemClock.now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_away_leaves_a_gap_that_ends_when_it_is_back() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        records(&rig).await;
        let (session, run, accepted) = running(&rig, &cast).await;
        assert_eq!(
            gaps_of_run(&rig.store, run).await.unwrap(),
            [],
            "the first start missed nothing"
        );

        let away = now();
        runtime.kill().await;
        let open = has_gap(&rig, run, false).await;
        let back = now();
        runtime.restart().await;
        let closed = has_gap(&rig, run, true).await;

        assert_eq!((closed.from, closed.reason.as_str()), (open.from, "broken"));
        assert!(open.from <= away + chrono::TimeDelta::seconds(1), "{open:?} {away}");
        assert!(closed.to.unwrap() >= back, "{closed:?} {back}");
        let cast = runtime.cast().await;
        let id = tell(&cast.bob, &session, "back").await;
        is_told(&rig, run, &[id]).await;
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_ours_leaves_a_gap_in_the_runs_that_were_active_then() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        records(&rig).await;
        let over = rig.post(&control_plane_domain::SessionId::random(), "macp.mode.task.v1").await;
        let session = rig.store.session_get(over).await.unwrap().unwrap().session_id;
        play::task(&cast, &session).await;
        rig.reaches(over, control_plane_domain::RunState::Completed).await;
        let (session, run, accepted) = running(&rig, &cast).await;

        let away = now();
        let (database, client, config) = rig.stop().await;
        let lost = tell(&cast.bob, &session, "nobody listens").await;
        let back = now();
        let rig = Rig::resume(database, client, config);
        let gap = has_gap(&rig, run, true).await;
        let heard = tell(&cast.bob, &session, "back").await;

        is_told(&rig, run, std::slice::from_ref(&heard)).await;
        assert!(!super::told(&rig, run).await.contains(&lost));
        assert_eq!(gap.reason, "away");
        assert!(gap.from <= back && gap.from >= away - chrono::TimeDelta::seconds(1), "{gap:?}");
        assert!(gap.to.unwrap() >= back, "{gap:?} {back}");
        assert_eq!(gaps_of_run(&rig.store, over).await.unwrap(), [], "it was over by then");
        let (_, after, _) = running(&rig, &cast).await;
        assert_eq!(gaps_of_run(&rig.store, after).await.unwrap(), [], "it was not there yet");
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}
