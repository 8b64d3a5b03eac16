//! Very many sessions at once.

use std::time::Duration;

use control_plane_domain::{RunState, SessionId};
use control_plane_storage::model::RunFilter;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::wait_for;
use futures_util::StreamExt;

use super::support::Rig;
use super::{discovering, spec};

const BURST: i64 = 2000;
/// Two thousand runs take a while on a machine that does much else.
const LONG: Duration = Duration::from_secs(600);

async fn reach(rig: &Rig, state: RunState, count: i64) {
    let of = RunFilter { status: Some(state), limit: 1, ..RunFilter::default() };
    let ask = async || rig.store.run_list(&of).await.unwrap().total;
    wait_for(LONG, ask, |total| *total == count).await;
}

async fn a_burst(kind: Kind) {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::with_config(kind, runtime.client(), discovering());

    futures_util::stream::iter(0..BURST)
        .for_each_concurrent(32, |_| async {
            cast.alice.start_session(&spec(&SessionId::random())).await;
        })
        .await;

    reach(&rig, RunState::Running, BURST).await;
    assert_eq!(rig.count_runs().await, BURST);
    assert_eq!(i64::try_from(rig.engine.following()).unwrap(), BURST);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sessions_that_start_at_once_are_all_found_on_sqlite() {
    a_burst(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_sessions_that_start_at_once_are_all_found_on_postgres() {
    a_burst(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_sessions_that_are_over_does_not_stop_those_that_go_on() {
    let scripted = ScriptedRuntime::start().await;
    for _ in 0..400 {
        let session = SessionId::random();
        scripted.open_session(&spec(&session), "alice");
        let commitment = message::commitment("c", "decision.selected", Outcome::Positive);
        scripted.resolve(&session, "alice", commitment);
    }
    for _ in 0..5 {
        scripted.open_session(&spec(&SessionId::random()), "alice");
    }

    let rig = Rig::with_config(Kind::Sqlite, scripted.client(), discovering());

    reach(&rig, RunState::Running, 5).await;
    reach(&rig, RunState::Completed, 400).await;
    assert_eq!(rig.count_runs().await, 405);
    rig.stop().await;
}
