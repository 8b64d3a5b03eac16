//! Many runs in one process. How fast, and with how much memory, `cargo xtask bench` tells.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::{DEADLINE, message, play, wait_for};
use futures_util::StreamExt;
use futures_util::stream;
use support::Stage;

const RUNS: usize = 400;
/// Requests and agents under way at once.
const AT_ONCE: usize = 16;

/// Opens so many sessions, and a run for each.
async fn follow(stage: &Stage, cast: &Cast) -> Vec<(RunId, SessionId)> {
    let opening = (0..RUNS).map(|_| async {
        let session = SessionId::random();
        play::open_for_load(cast, &session).await;
        (stage.post(&session, message::MULTI_ROUND).await, session)
    });
    stream::iter(opening).buffer_unordered(AT_ONCE).collect().await
}

/// Waits until every run has this many envelopes.
async fn all_have(stage: &Stage, runs: &[(RunId, SessionId)], envelopes: usize) {
    for (run, _) in runs {
        stage.has_recorded(*run, envelopes).await;
    }
}

async fn attached_again(stage: &Stage) -> f64 {
    let name = r#"macp_attaches_total{outcome="recovered"} "#;
    let text = reqwest::get(stage.server.url("/metrics")).await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_runs_are_all_followed_and_all_attached_again_after_a_kill() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::with(kind, &runtime, &[("LOG_LEVEL", "warn")]).await;
        let runs = follow(&stage, &cast).await;
        all_have(&stage, &runs, 1).await;

        stage.server.kill();
        for (_, session) in &runs {
            play::contribute_many(&cast.alice, session, 1, 1).await;
        }
        stage.server.restart().await;

        let all = RUNS as f64;
        wait_for(DEADLINE, async || attached_again(&stage).await, |found| *found == all).await;
        all_have(&stage, &runs, 2).await;
        for (run, _) in &runs {
            let found = control_plane_insights::integrity::check(&stage.store, *run).await.unwrap();
            assert!(found.is_sound(), "run {run}: {found:#?}");
        }
    }
}
