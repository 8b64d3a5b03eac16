//! The client against faults that the real runtime does not show on demand.

use std::time::Duration;

use crate::common::{DEADLINE, ended, ids, next, refusal};
use control_plane_domain::envelope::SessionChangeKind;
use control_plane_domain::runtime::{Runtime, RuntimeErrorKind};
use control_plane_domain::{SessionId, SessionState};
use control_plane_runtime::Client;
use control_plane_testkit::agent::{SessionSpec, envelope};
use control_plane_testkit::message::{self, Outcome, decision};
use control_plane_testkit::scripted::{Failure, Fault, ScriptedRuntime, Then, UnaryFault};
use futures_util::StreamExt;
use futures_util::future::join_all;

/// An open decision session with `count` proposals; the ids from the `SessionStart` on.
fn open(runtime: &ScriptedRuntime, count: usize) -> (SessionId, Vec<String>) {
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]);
    let session = spec.session_id.clone();
    let mut said = vec![runtime.open_session(&spec, "alice")];
    for number in 0..count {
        let proposal = decision::proposal(&format!("p{number}"), "an option");
        said.push(runtime.accept(&session, "bob", proposal));
    }
    (session, said)
}

#[tokio::test]
async fn a_scripted_session_is_replayed_followed_and_watched() {
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, said) = open(&runtime, 2);
    let mut watch = client.watch_sessions().await.unwrap();
    let mut stream = client.subscribe(&session, 1).await.unwrap();

    let replayed = ids(&mut stream, 2).await;
    let commitment = message::commitment("p0", "decision.selected", Outcome::Positive);
    let last = runtime.resolve(&session, "alice", commitment);

    assert_eq!(replayed, said[1..]);
    assert_eq!(ids(&mut stream, 1).await, [last]);
    assert_eq!(next(&mut watch).await.unwrap().kind, SessionChangeKind::Created);
    assert_eq!(next(&mut watch).await.unwrap().kind, SessionChangeKind::Resolved);
    assert_eq!(client.get_session(&session).await.unwrap().state, SessionState::Resolved);
    assert_eq!(runtime.subscriptions(&session), [1]);
}

#[tokio::test]
async fn each_fault_of_a_subscription_is_told_apart() {
    use RuntimeErrorKind as Kind;
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, _) = open(&runtime, 1);
    let gone = Failure::HistoryUnavailable(9);
    for (then, expected) in [
        (Then::Fail(Failure::Lagged), Kind::StreamLagged),
        (Then::Fail(gone.clone()), Kind::HistoryUnavailable { lowest_available: 9 }),
        (Then::Tell(gone), Kind::HistoryUnavailable { lowest_available: 9 }),
        (Then::Fail(Failure::NotFound), Kind::NotFound),
        (Then::Fail(Failure::Forbidden), Kind::Forbidden),
        (Then::Tell(Failure::Forbidden), Kind::Forbidden),
        (Then::Tell(Failure::Internal), Kind::Internal),
        (Then::Fail(Failure::Plain(tonic::Code::Unavailable)), Kind::Unavailable),
    ] {
        runtime.fail_next_subscription(&session, Fault::after(1, then));
        let mut stream = client.subscribe(&session, 0).await.unwrap();

        ids(&mut stream, 1).await;
        assert_eq!(refusal(&mut stream).await, expected);
        assert!(ended(&mut stream).await, "an error is the last item");
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_ends_without_an_error() {
    let runtime = ScriptedRuntime::start().await;
    let (session, said) = open(&runtime, 3);
    runtime.fail_next_subscription(&session, Fault::after(2, Then::End));
    let client = runtime.client();

    let mut cut = client.subscribe(&session, 0).await.unwrap();
    assert_eq!(ids(&mut cut, 2).await, said[..2]);
    assert!(ended(&mut cut).await);

    let mut whole = client.subscribe(&session, 2).await.unwrap();
    assert_eq!(ids(&mut whole, 2).await, said[2..]);
    runtime.end_streams(&session);
    assert!(ended(&mut whole).await);
}

#[tokio::test]
async fn redelivered_envelopes_come_as_they_are() {
    let runtime = ScriptedRuntime::start().await;
    let (session, said) = open(&runtime, 2);
    runtime.fail_next_subscription(&session, Fault::after(2, Then::Repeat(1)));

    let mut stream = runtime.client().subscribe(&session, 0).await.unwrap();

    let expected = [&said[0], &said[1], &said[1], &said[2]].map(String::clone);
    assert_eq!(ids(&mut stream, 4).await, expected);
}

#[tokio::test]
async fn a_watch_can_overtake_what_is_held_back() {
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, _) = open(&runtime, 0);
    let mut watch = client.watch_sessions().await.unwrap();
    next(&mut watch).await.unwrap();
    let mut stream = client.subscribe(&session, 1).await.unwrap();

    runtime.hold(&session);
    let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
    let last = runtime.resolve(&session, "alice", commitment);
    assert_eq!(next(&mut watch).await.unwrap().kind, SessionChangeKind::Resolved);
    assert!(futures_util::FutureExt::now_or_never(stream.next()).is_none());
    runtime.release(&session);

    assert_eq!(ids(&mut stream, 1).await, [last]);
}

#[tokio::test]
async fn envelopes_of_other_sessions_are_ignored_and_nul_is_replaced() {
    let runtime = ScriptedRuntime::start().await;
    let (session, _) = open(&runtime, 0);
    let stranger = envelope("eve", "another", message::DECISION, decision::vote("p", "REJECT"));
    runtime.accept_envelope(&session, stranger);
    let mut odd =
        envelope("a\0b", session.as_str(), message::DECISION, decision::vote("p", "REJECT"));
    odd.payload = vec![0, 1, 2];
    runtime.accept_envelope(&session, odd);

    let mut stream = runtime.client().subscribe(&session, 1).await.unwrap();
    let read = next(&mut stream).await.unwrap();

    assert_eq!(read.sender, "a\u{FFFD}b");
    assert!(read.sanitized);
    assert_eq!(read.payload, [0, 1, 2]);
}

#[tokio::test]
async fn unary_failures_are_told_apart() {
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, _) = open(&runtime, 0);
    for (failure, expected) in [
        (Failure::RateLimited, RuntimeErrorKind::RateLimited),
        (Failure::ReceiptUnavailable, RuntimeErrorKind::ReceiptUnavailable),
        (Failure::Internal, RuntimeErrorKind::Internal),
    ] {
        runtime.fail_next("GetDecisionReceipt", UnaryFault::Fail(failure));
        let error = client.decision_receipt(&session).await.unwrap_err();
        assert_eq!(error.kind, expected, "{error}");
    }
    let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
    runtime.resolve(&session, "alice", commitment);

    let receipt = client.decision_receipt(&session).await.unwrap();

    assert_eq!(receipt.document["commitment"]["action"], "decision.selected");
    assert_eq!(runtime.calls("GetDecisionReceipt"), 4);
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_is_given_up() {
    let runtime = ScriptedRuntime::start().await;
    let mut config = runtime.client_config();
    config.request_timeout = Duration::from_millis(100);
    let client = Client::new(&config).unwrap();
    for fault in [UnaryFault::Hang, UnaryFault::Delay(DEADLINE)] {
        runtime.fail_next("Initialize", fault);
        let error = client.initialize().await.unwrap_err();
        assert_eq!(error.kind, RuntimeErrorKind::Timeout, "{error}");
    }
}

#[tokio::test]
async fn opening_a_stream_has_a_deadline_and_the_next_one_works() {
    let runtime = ScriptedRuntime::start().await;
    let mut config = runtime.client_config();
    config.request_timeout = Duration::from_secs(2);
    let client = Client::new(&config).unwrap();
    let (session, said) = open(&runtime, 0);
    runtime.fail_next("StreamSession", UnaryFault::Hang);
    runtime.fail_next("WatchSessions", UnaryFault::Hang);

    let subscription = client.subscribe(&session, 0).await.err().unwrap();
    let watch = client.watch_sessions().await.err().unwrap();

    assert_eq!(subscription.kind, RuntimeErrorKind::Timeout);
    assert_eq!(watch.kind, RuntimeErrorKind::Timeout);
    let mut stream = client.subscribe(&session, 0).await.unwrap();
    assert_eq!(ids(&mut stream, 1).await, said);
}

#[tokio::test]
async fn a_cut_connection_is_unavailable_and_comes_back() {
    let mut runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, said) = open(&runtime, 1);
    let mut stream = client.subscribe(&session, 0).await.unwrap();
    ids(&mut stream, 2).await;

    runtime.stop();
    assert_eq!(refusal(&mut stream).await, RuntimeErrorKind::Unavailable);
    let down = client.subscribe(&session, 0).await.err().unwrap();
    assert_eq!(down.kind, RuntimeErrorKind::Unavailable, "{down}");
    runtime.restart().await;

    let mut again = client.subscribe(&session, 1).await.unwrap();
    assert_eq!(ids(&mut again, 1).await, said[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_do_not_stop_the_others() {
    const BIG: usize = 1024 * 1024;
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, _) = open(&runtime, 0);
    let big = decision::proposal_with_data("p", "big", &vec![7; BIG]);
    let big = runtime.accept(&session, "bob", big);

    let opened = join_all((0..60).map(|_| client.subscribe(&session, 1))).await;
    let _stalled: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let mut reading = client.subscribe(&session, 1).await.unwrap();

    assert_eq!(ids(&mut reading, 1).await, [big]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_streams_open_at_once() {
    const STREAMS: usize = 1000;
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();
    let (session, said) = open(&runtime, 0);

    let opened = join_all((0..STREAMS).map(|_| client.subscribe(&session, 0))).await;
    let mut streams: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let read = join_all(streams.iter_mut().map(|stream| ids(stream, 1))).await;

    assert_eq!(read.concat(), vec![said[0].clone(); STREAMS]);
}
