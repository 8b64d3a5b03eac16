//! The client against the real runtime.

use crate::common::{Items, ended, ids, next, refusal};
use control_plane_domain::envelope::SessionChangeKind;
use control_plane_domain::runtime::{Modes, Runtime, RuntimeErrorKind};
use control_plane_domain::{Envelope, SessionId, SessionState};
use control_plane_runtime::{Client, Config, Secret};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess, agent_token};
use control_plane_testkit::{message, play};
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test]
async fn it_says_who_it_is_and_what_it_offers() {
    let runtime = RuntimeProcess::in_memory().await;
    let client = runtime.client();

    let info = client.initialize().await.unwrap();
    let manifest = client.manifest().await.unwrap();
    let standard = client.modes(Modes::Standard).await.unwrap();
    let extension = client.modes(Modes::Extension).await.unwrap();

    assert_eq!((info.name.as_str(), info.version.as_str()), ("macp-runtime", "0.13.0"));
    assert_eq!(info.supported_modes.len(), 6);
    assert_eq!(info.capabilities["sessions"]["watchSessions"], true);
    assert_eq!(info.capabilities["modeRegistry"]["listModes"], true);
    assert_eq!(manifest.agent_id, "macp-runtime");
    assert_eq!(standard.len(), 5);
    assert_eq!(extension[0].mode, message::MULTI_ROUND);
    assert_eq!(client.roots().await.unwrap(), []);
}

#[tokio::test]
async fn a_session_is_described_by_its_metadata() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    spec.context_id = "ticket-7".to_owned();
    spec.extensions.insert("origin".to_owned(), b"test".to_vec());
    cast.alice.start_session(&spec).await;

    let info = runtime.client().get_session(&spec.session_id).await.unwrap();

    assert_eq!(info.session_id, spec.session_id);
    assert_eq!(info.state, SessionState::Open);
    assert_eq!(info.mode, message::DECISION);
    assert_eq!(info.initiator, "alice");
    assert_eq!(info.participants, ["alice", "bob"]);
    assert_eq!(info.policy_version, message::POLICY_VERSION);
    assert_eq!(info.context_id.as_deref(), Some("ticket-7"));
    assert_eq!(info.extension_keys, ["origin"]);
    assert!(info.started_at_unix_ms > 0 && info.expires_at_unix_ms > info.started_at_unix_ms);
}

#[tokio::test]
async fn an_unknown_session_is_not_found_by_call_and_by_stream() {
    let runtime = RuntimeProcess::in_memory().await;
    let client = runtime.client();
    let nobody = SessionId::random();

    let session = client.get_session(&nobody).await.unwrap_err();
    let receipt = client.decision_receipt(&nobody).await.unwrap_err();
    let mut stream = client.subscribe(&nobody, 0).await.unwrap();

    assert_eq!(session.kind, RuntimeErrorKind::NotFound);
    assert_eq!(session.grpc_code, 5);
    assert_eq!(receipt.kind, RuntimeErrorKind::NotFound);
    assert_eq!(refusal(&mut stream).await, RuntimeErrorKind::NotFound);
    assert!(ended(&mut stream).await);
}

#[tokio::test]
async fn a_subscription_replays_and_then_follows() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    let start = cast.alice.start_session(&spec).await;
    let proposal = message::decision::proposal("p1", "tea");
    let proposal = cast.bob.say(&spec.session_id, &spec.mode, proposal).await;

    let mut stream = runtime.client().subscribe(&spec.session_id, 0).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    let replayed = ids(&mut stream, 1).await;
    let vote = message::decision::vote("p1", "APPROVE");
    let vote = cast.alice.say(&spec.session_id, &spec.mode, vote).await;

    assert_eq!(first.message_id, start);
    assert_eq!(first.message_type, "SessionStart");
    assert_eq!(first.sender, "alice");
    assert_eq!(first.session_id, spec.session_id.as_str());
    assert_eq!(first.payload, spec.message().payload);
    assert_eq!(replayed, [proposal]);
    assert_eq!(ids(&mut stream, 1).await, [vote]);
}

#[tokio::test]
async fn a_subscription_starts_after_its_cursor() {
    let runtime = RuntimeProcess::in_memory().await;
    let (cast, session) = (runtime.cast().await, SessionId::random());
    let said = play::decision(&cast, &session).await;

    let mut stream = runtime.client().subscribe(&session, 4).await.unwrap();

    assert_eq!(ids(&mut stream, said.len() - 4).await, said[4..]);
}

#[tokio::test]
async fn pages_list_every_session_once() {
    let settings = [("MACP_LIST_SESSIONS_DEFAULT_PAGE_SIZE", "2")];
    let options = settings.iter().fold(Options::default(), |options, (name, value)| {
        options.with(name, value).with("MACP_LIST_SESSIONS_MAX_PAGE_SIZE", value)
    });
    let runtime = RuntimeProcess::start(options).await;
    let (cast, client) = (runtime.cast().await, runtime.client());
    let mut expected = Vec::new();
    for _ in 0..5 {
        let spec = SessionSpec::new(message::DECISION, &["alice"]);
        cast.alice.start_session(&spec).await;
        expected.push(spec.session_id);
    }

    let (mut found, mut token) = (Vec::new(), None);
    for _ in 0..3 {
        let page = client.list_sessions(token.as_deref()).await.unwrap();
        found.extend(page.sessions.into_iter().map(|session| session.session_id));
        token = page.next_page_token;
    }

    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(token, None);
}

#[tokio::test]
async fn a_watch_tells_of_what_is_and_of_what_changes() {
    use SessionChangeKind::{Cancelled, Created, Resumed, Suspended};
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    cast.alice.start_session(&spec).await;

    let mut watch = runtime.client().watch_sessions().await.unwrap();
    let known = next(&mut watch).await.unwrap();
    cast.alice.suspend(&spec.session_id, "a break").await;
    cast.alice.resume(&spec.session_id, "back").await;
    cast.alice.cancel(&spec.session_id, "never mind").await;
    let mut kinds = vec![known.kind];
    for _ in 0..3 {
        kinds.push(next(&mut watch).await.unwrap().kind);
    }

    assert_eq!(known.session_id, spec.session_id);
    assert_eq!(known.session.unwrap().initiator, "alice");
    assert!(known.observed_at.is_some());
    assert_eq!(kinds, [Created, Suspended, Resumed, Cancelled]);
}

#[tokio::test]
async fn compacted_history_is_refused_with_the_place_where_it_starts_again() {
    let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
    let (cast, session) = (runtime.cast().await, SessionId::random());
    let said = play::task(&cast, &session).await;

    let mut stream = runtime.client().subscribe(&session, 2).await.unwrap();

    let lowest_available = i64::try_from(said.len()).unwrap();
    let expected = RuntimeErrorKind::HistoryUnavailable { lowest_available };
    assert_eq!(refusal(&mut stream).await, expected);
}

#[tokio::test]
async fn history_that_is_kept_survives_a_crash() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let (cast, session) = (runtime.cast().await, SessionId::random());
    let said = play::quorum(&cast, &session).await;

    runtime.restart().await;
    let mut stream = runtime.client().subscribe(&session, 0).await.unwrap();

    assert_eq!(ids(&mut stream, said.len()).await, said);
}

#[tokio::test]
async fn a_resolved_session_has_a_receipt_and_an_open_one_has_none() {
    let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let (cast, client, session) = (runtime.cast().await, runtime.client(), SessionId::random());
    play::decision(&cast, &session).await;
    let open = SessionSpec::new(message::DECISION, &["alice"]);
    cast.alice.start_session(&open).await;

    let receipt = client.decision_receipt(&session).await.unwrap();
    let refused = client.decision_receipt(&open.session_id).await.unwrap_err();

    assert_eq!(receipt.document["receipt_format"], "macp-receipt/1", "{receipt:?}");
    assert_eq!(client.receipt_keys().await.unwrap(), json!({ "keys": [] }));
    assert_eq!(refused.kind, RuntimeErrorKind::ReceiptUnavailable);
}

#[tokio::test]
async fn who_is_no_observer_is_refused_what_others_say() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    cast.alice.start_session(&spec).await;
    let mut config = Config::new(runtime.address());
    config.bearer_token = Some(Secret::new(agent_token("dave")));
    let dave = Client::new(&config).unwrap();

    let mut stream = dave.subscribe(&spec.session_id, 0).await.unwrap();
    let session = dave.get_session(&spec.session_id).await.unwrap_err();

    assert_eq!(refusal(&mut stream).await, RuntimeErrorKind::Forbidden);
    assert!(ended(&mut stream).await);
    assert_eq!(session.kind, RuntimeErrorKind::Forbidden);
}

#[tokio::test]
async fn a_wrong_token_is_unauthenticated() {
    let runtime = RuntimeProcess::in_memory().await;
    let mut config = Config::new(runtime.address());
    config.bearer_token = Some(Secret::new("stolen"));

    let error = Client::new(&config).unwrap().list_sessions(None).await.unwrap_err();

    assert_eq!(error.kind, RuntimeErrorKind::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_subscriptions_than_a_connection_carries_all_receive() {
    const SESSIONS: usize = 180;
    let runtime = RuntimeProcess::in_memory().await;
    let (cast, client) = (runtime.cast().await, runtime.client());
    let specs: Vec<_> =
        (0..SESSIONS).map(|_| SessionSpec::new(message::DECISION, &["alice"])).collect();
    let starts = join_all(specs.iter().map(|spec| cast.alice.start_session(spec))).await;

    let opened = join_all(specs.iter().map(|spec| client.subscribe(&spec.session_id, 0))).await;
    let mut streams: Vec<Items<Envelope>> = opened.into_iter().map(Result::unwrap).collect();
    // A unary call is answered, whatever number of streams is open.
    client.initialize().await.unwrap();
    let replayed = join_all(streams.iter_mut().map(|stream| ids(stream, 1))).await;
    let said = join_all(specs.iter().map(|spec| {
        let proposal = message::decision::proposal("p1", "all of it");
        cast.alice.say(&spec.session_id, &spec.mode, proposal)
    }))
    .await;
    let live = join_all(streams.iter_mut().map(|stream| ids(stream, 1))).await;

    assert_eq!(replayed.concat(), starts);
    assert_eq!(live.concat(), said);
}

#[tokio::test]
async fn slots_of_dropped_subscriptions_are_used_again() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut config = runtime.client_config();
    config.max_streams_per_connection = 4;
    let client = Client::new(&config).unwrap();
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    let start = cast.alice.start_session(&spec).await;

    for _ in 0..50 {
        let opened = join_all((0..6).map(|_| client.subscribe(&spec.session_id, 0))).await;
        let mut streams: Vec<Items<Envelope>> = opened.into_iter().map(Result::unwrap).collect();
        let replayed = join_all(streams.iter_mut().map(|stream| ids(stream, 1))).await;
        assert_eq!(replayed.concat(), vec![start.clone(); 6]);
    }
}

#[tokio::test]
async fn a_killed_runtime_breaks_the_stream_and_a_new_one_works() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let (cast, client) = (runtime.cast().await, runtime.client());
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    let start = cast.alice.start_session(&spec).await;
    let mut stream = client.subscribe(&spec.session_id, 0).await.unwrap();
    ids(&mut stream, 1).await;

    runtime.kill().await;
    let broken = next(&mut stream).await.unwrap_err();
    let down = client.get_session(&spec.session_id).await.unwrap_err();
    runtime.restart().await;
    let mut again = client.subscribe(&spec.session_id, 0).await.unwrap();

    assert_eq!(broken.kind, RuntimeErrorKind::Unavailable, "{broken}");
    assert_eq!(down.kind, RuntimeErrorKind::Unavailable, "{down}");
    assert_eq!(ids(&mut again, 1).await, [start]);
}

#[tokio::test]
async fn a_drained_runtime_ends_the_stream_and_a_new_one_works() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let (cast, client) = (runtime.cast().await, runtime.client());
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    let start = cast.alice.start_session(&spec).await;
    let mut stream = client.subscribe(&spec.session_id, 0).await.unwrap();
    ids(&mut stream, 1).await;

    runtime.terminate().await;
    let end =
        tokio::time::timeout(crate::common::DEADLINE, futures_util::StreamExt::next(&mut stream));
    let end = end.await.expect("the stream ends");
    runtime.restart().await;
    let mut again = client.subscribe(&spec.session_id, 0).await.unwrap();

    // Ended or cut by the drain's deadline: either way a reason to look, nothing else.
    assert!(end.is_none_or(|item| item.is_err_and(|error| error.kind.is_transient())));
    assert_eq!(ids(&mut again, 1).await, [start]);
}

#[tokio::test]
async fn a_runtime_that_lost_its_data_knows_the_session_no_more() {
    let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let (cast, client) = (runtime.cast().await, runtime.client());
    let spec = SessionSpec::new(message::DECISION, &["alice"]);
    cast.alice.start_session(&spec).await;

    runtime.restart_empty().await;

    let error = client.get_session(&spec.session_id).await.unwrap_err();
    assert_eq!(error.kind, RuntimeErrorKind::NotFound);
}

#[tokio::test]
async fn who_may_moves_a_session_and_what_is_not_possible_is_refused() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    cast.alice.start_session(&spec).await;
    let session = &spec.session_id;
    let mut hers = Config::new(runtime.address());
    hers.bearer_token = Some(Secret::new(agent_token("alice")));
    let alice = Client::new(&hers).unwrap();
    let observer = runtime.client();

    let forbidden = [
        observer.cancel_session(session, "x").await,
        observer.suspend_session(session, "x").await,
        observer.resume_session(session, "x").await,
    ];
    let early = alice.resume_session(session, "x").await;
    let suspended = alice.suspend_session(session, "x").await;
    let twice = alice.suspend_session(session, "x").await;
    let resumed = alice.resume_session(session, "x").await;
    let cancelled = alice.cancel_session(session, "x").await;
    let again = alice.cancel_session(session, "x").await;
    let nobody = alice.cancel_session(&SessionId::random(), "x").await;

    for refusal in forbidden {
        assert_eq!(refusal.unwrap_err().kind, RuntimeErrorKind::Forbidden);
    }
    assert_eq!(early.unwrap_err().kind, RuntimeErrorKind::Conflict);
    assert_eq!(suspended, Ok(SessionState::Suspended));
    assert_eq!(twice.unwrap_err().kind, RuntimeErrorKind::Conflict);
    assert_eq!(resumed, Ok(SessionState::Open));
    assert_eq!(cancelled, Ok(SessionState::Cancelled));
    assert_eq!(again, Ok(SessionState::Cancelled));
    assert_eq!(nobody.unwrap_err().kind, RuntimeErrorKind::NotFound);
}
