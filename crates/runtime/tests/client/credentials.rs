//! Tokens of an auth service, with the real runtime as the one who takes or refuses them.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_domain::runtime::{Runtime, RuntimeErrorKind};
use control_plane_outbound::Client as HttpClient;
use control_plane_runtime::{Client, Config, Minter, MinterConfig, Secret};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::auth::AuthService;
use control_plane_testkit::message;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, Options, RuntimeProcess};
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use control_plane_testkit::{DEADLINE, wait_until};
use futures_util::future::join_all;
use serde_json::json;
use tonic::Code;

use crate::common::next;

fn minted(url: String, config: Config, fall_back: bool) -> Client {
    let minter = MinterConfig {
        url,
        timeout: Duration::from_secs(5),
        ttl: Duration::from_secs(3600),
        sender: "control-plane".to_owned(),
        can_manage_registry: false,
        fall_back,
    };
    let http = Arc::new(HttpClient::trusted().unwrap());
    let config = Config { minter: Some(Minter::new(minter, http)), ..config };
    Client::new(&config).unwrap()
}

fn with_token(runtime: &RuntimeProcess, token: &str) -> Config {
    Config { bearer_token: Some(Secret::new(token)), ..runtime.client_config() }
}

#[tokio::test]
async fn a_minted_token_observes_sessions_of_others() {
    let auth = AuthService::start(600).await;
    let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    let accepted = cast.alice.start_session(&spec).await;
    let client = minted(auth.url(), Config::new(runtime.address()), false);

    let asked = (0..40).map(|_| client.get_session(&spec.session_id));
    let all = join_all(asked).await;
    let mut stream = client.subscribe(&spec.session_id, 0).await.unwrap();

    assert!(all.iter().all(Result::is_ok), "{:?}", all.first());
    assert_eq!(next(&mut stream).await.unwrap().message_id, accepted);
    let asked = auth.received();
    assert_eq!(asked.len(), 1, "one mint serves them all");
    assert_eq!(asked[0].line, "POST /tokens HTTP/1.1");
    let scopes = json!({ "can_start_sessions": false, "is_observer": true });
    let wanted = json!({ "sender": "control-plane", "ttl_seconds": 3600, "scopes": scopes });
    assert_eq!(asked[0].body, wanted);
}

#[tokio::test]
async fn a_stream_outlives_the_token_that_it_was_opened_with() {
    let auth = AuthService::start(2).await;
    let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    let start = cast.alice.start_session(&spec).await;
    let client = minted(auth.url(), Config::new(runtime.address()), false);
    let mut stream = client.subscribe(&spec.session_id, 0).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().message_id, start);

    // Renewed without anybody calling.
    wait_until(DEADLINE, async || auth.received().len() >= 4).await;

    let proposal = message::decision::proposal("p1", "deploy");
    let said = cast.alice.say(&spec.session_id, message::DECISION, proposal).await;
    assert_eq!(next(&mut stream).await.unwrap().message_id, said);
    assert!(client.get_session(&spec.session_id).await.is_ok());
}

#[tokio::test]
async fn an_auth_service_that_fails_is_a_fault_that_passes_and_nothing_stands_in() {
    let auth = AuthService::start(600).await;
    auth.set_down(true);
    let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;
    let strict = minted(auth.url(), with_token(&runtime, OBSERVER_TOKEN), false);

    let fault = strict.list_sessions(None).await.unwrap_err();
    let stream = strict.watch_sessions().await.err().unwrap();

    for fault in [fault, stream] {
        assert_eq!(fault.kind, RuntimeErrorKind::NoCredentials);
        assert!(fault.kind.is_transient());
        assert!(!fault.kind.is_fault(), "the circuit breaker would count it against the runtime");
        let text = fault.message;
        assert!(text.contains("the auth service") && text.contains("503"), "{text}");
        assert!(!text.contains("down for a while"), "{text}");
    }
    auth.set_down(false);
    wait_until(DEADLINE, async || strict.list_sessions(None).await.is_ok()).await;
}

#[tokio::test]
async fn the_static_token_stands_in_where_that_was_asked_for() {
    let auth = AuthService::start(600).await;
    auth.set_down(true);
    let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;

    let lenient = minted(auth.url(), with_token(&runtime, OBSERVER_TOKEN), true);
    let empty_handed = minted(auth.url(), Config::new(runtime.address()), true);

    assert!(lenient.list_sessions(None).await.is_ok());
    let fault = empty_handed.list_sessions(None).await.unwrap_err();
    assert_eq!(fault.kind, RuntimeErrorKind::NoCredentials);
}

#[tokio::test]
async fn a_token_that_the_runtime_refuses_is_minted_anew_once() {
    let auth = AuthService::start(600).await;
    auth.set_wrong_key(true);
    let runtime = RuntimeProcess::start(AuthService::trusted_by(Options::default())).await;
    let client = minted(auth.url(), Config::new(runtime.address()), false);

    // The second one is no better, and a third is not asked for at every call.
    for _ in 0..5 {
        let fault = client.list_sessions(None).await.unwrap_err();
        assert_eq!(fault.kind, RuntimeErrorKind::Unauthenticated);
    }
    assert_eq!(auth.received().len(), 2);
    auth.set_wrong_key(false);

    wait_until(DEADLINE, async || client.list_sessions(None).await.is_ok()).await;
    assert_eq!(auth.received().len(), 3);
}

#[tokio::test]
async fn a_call_that_is_refused_for_its_token_succeeds_with_the_next_one() {
    let auth = AuthService::start(600).await;
    let runtime = ScriptedRuntime::start().await;
    let client = minted(auth.url(), runtime.client_config(), false);
    let refusal = UnaryFault::Fail(Failure::Plain(Code::Unauthenticated));
    runtime.fail_next("ListSessions", refusal.clone());
    runtime.fail_next("StreamSession", refusal);

    assert!(client.list_sessions(None).await.is_ok());
    assert_eq!(runtime.calls("ListSessions"), 2);
    assert_eq!(auth.received().len(), 2);
    // A stream is opened anew by whoever wants it.
    let refused = client.subscribe(&SessionId::random(), 0).await.err().unwrap();
    assert_eq!(refused.kind, RuntimeErrorKind::Unauthenticated);
    assert_eq!(runtime.calls("StreamSession"), 1);
}
