//! The circuit breaker around calls that are really made, or are not.

use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_domain::breaker::BreakerState;
use control_plane_domain::runtime::{Runtime, RuntimeErrorKind};
use control_plane_runtime::Client;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::message;
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use futures_util::future::join_all;

/// A client that gives up after three failures, for so long.
fn client(runtime: &ScriptedRuntime, cool_down: Duration) -> Client {
    let mut config = runtime.client_config();
    config.breaker_threshold = 3;
    config.breaker_cool_down = cool_down;
    config.request_timeout = Duration::from_secs(5);
    Client::new(&config).unwrap()
}

fn state(client: &Client) -> BreakerState {
    client.breaker().unwrap().state()
}

async fn fail(runtime: &ScriptedRuntime, client: &Client, failure: Failure, times: usize) {
    for _ in 0..times {
        runtime.fail_next("GetManifest", UnaryFault::Fail(failure.clone()));
        client.manifest().await.unwrap_err();
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn faults_open_it_and_then_nothing_is_called() {
    for failure in [Failure::Internal, Failure::Plain(tonic::Code::Unavailable)] {
        let runtime = ScriptedRuntime::start().await;
        let client = client(&runtime, LONG);
        fail(&runtime, &client, failure, 3).await;
        assert_eq!(state(&client), BreakerState::Open);

        let refusal = client.get_session(&SessionId::random()).await.unwrap_err();

        assert!(matches!(refusal.kind, RuntimeErrorKind::CircuitOpen { .. }), "{refusal:?}");
        assert_eq!(runtime.calls("GetSession"), 0);
    }
}

#[tokio::test]
async fn refusals_are_answers_and_open_nothing() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, LONG);
    for failure in [Failure::NotFound, Failure::Forbidden, Failure::RateLimited] {
        fail(&runtime, &client, failure, 5).await;
    }
    for _ in 0..5 {
        client.get_session(&SessionId::random()).await.unwrap_err();
    }
    assert_eq!(state(&client), BreakerState::Closed);
}

#[tokio::test]
async fn an_answer_in_between_begins_the_count_anew() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, LONG);
    for _ in 0..5 {
        fail(&runtime, &client, Failure::Internal, 2).await;
        client.manifest().await.unwrap();
    }
    assert_eq!(state(&client), BreakerState::Closed);
}

#[tokio::test]
async fn of_many_calls_after_the_cool_down_one_is_made() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, Duration::from_millis(1));
    fail(&runtime, &client, Failure::Internal, 3).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let before = runtime.calls("GetManifest");
    runtime.fail_next("GetManifest", UnaryFault::Delay(Duration::from_millis(500)));

    let answers = join_all((0..20).map(|_| client.manifest())).await;

    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(runtime.calls("GetManifest"), before + 1);
    assert_eq!(state(&client), BreakerState::Closed);
    client.manifest().await.unwrap();
}

#[tokio::test]
async fn streams_pass_it_by_and_one_that_opens_ends_the_cool_down() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, LONG);
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    runtime.open_session(&spec, "alice");
    fail(&runtime, &client, Failure::Internal, 3).await;

    let _stream = client.subscribe(&spec.session_id, 0).await.unwrap();

    assert_eq!(state(&client), BreakerState::HalfOpen);
    client.manifest().await.unwrap();
    let history = client.breaker().unwrap().history();
    let told: Vec<_> = history.iter().map(|change| change.state).collect();
    let all =
        [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed];
    assert_eq!(told, all);
    assert_eq!(history[1].reason, "3 consecutive failures");
}

#[tokio::test]
async fn streams_that_fail_open_nothing() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, LONG);
    for _ in 0..5 {
        runtime.fail_next("StreamSession", UnaryFault::Fail(Failure::Internal));
        assert!(client.subscribe(&SessionId::random(), 0).await.is_err());
    }
    assert_eq!(state(&client), BreakerState::Closed);
}

#[tokio::test]
async fn clones_share_it() {
    let runtime = ScriptedRuntime::start().await;
    let client = client(&runtime, LONG);
    fail(&runtime, &client.clone(), Failure::Internal, 3).await;
    assert_eq!(state(&client), BreakerState::Open);
    client.breaker().unwrap().reset();
    client.clone().manifest().await.unwrap();
}
