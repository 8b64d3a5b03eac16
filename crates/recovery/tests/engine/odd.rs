//! Agents that send what nobody expects: it is recorded as it is, and costs nobody else anything.

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Message};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::{DEADLINE, play, wait_until};
use tokio::io::AsyncWriteExt;

use super::Talk;
use super::support::Rig;

/// The runtime's limit.
const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_payloads_are_recorded_to_the_byte() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let mut accepted = vec![play::open_for_load(&cast, &session).await];
        let mut other = Talk::open(&cast).await;
        let run = rig.post(&session, message::MULTI_ROUND).await;
        let beside = rig.post(&other.session, message::DECISION).await;
        let zeros = message::multi_round::contribute("a\0b\u{1}\u{7f}\u{202e}\0");
        let big = message::multi_round::contribute(&"\0x".repeat(MEBIBYTE / 2 - 8));
        let odd = [
            zeros,
            message::multi_round::contribute_json("\0\0"),
            Message::raw("Contribute", br#"{"value":"\u0000","k\u0000":{"\u0000":[null]}}"#),
            message::multi_round::contribute("\u{FFFD}\u{10FFFF}"),
            big,
        ];

        let mut payloads = Vec::new();
        for what in odd {
            let payload = what.payload.clone();
            let ack = cast.bob.try_say(&session, message::MULTI_ROUND, what).await.unwrap();
            accepted.push(ack.message_id);
            payloads.push(payload);
        }
        other.end(&cast).await;

        rig.has_recorded(run, accepted.len()).await;
        rig.is_whole(run, &accepted).await;
        let raw = rig.store.list_raw_by_run(run, 1, 100).await.unwrap();
        let stored: Vec<_> = raw.into_iter().map(|raw| raw.envelope.payload).collect();
        assert!(stored == payloads, "the bytes are the sender's");
        rig.reaches(beside, RunState::Completed).await;
        rig.is_whole(beside, &other.accepted).await;
        rig.stop().await;
    }
}

/// What the runtime refuses today may be accepted by another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_that_are_no_protobuf_and_odd_envelopes_are_recorded_too() {
    for kind in Kind::ALL {
        let runtime = ScriptedRuntime::start().await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob"]).with_id(&session);
        let mut accepted = vec![runtime.open_session(&spec, "alice")];
        let run = rig.post(&session, message::DECISION).await;
        let payloads: Vec<Vec<u8>> = vec![
            vec![0xff; 1000],
            vec![0; 1000],
            Vec::new(),
            b"\x0a\xff\xff\xff\xff\x0f".to_vec(),
            (0..MEBIBYTE).map(|at| u8::try_from(at % 251).unwrap()).collect(),
        ];

        for payload in &payloads {
            let envelope = control_plane_testkit::agent::envelope(
                "bob\0",
                session.as_str(),
                "macp.mode.\0",
                Message::raw("Vote", payload.clone()),
            );
            accepted.push(runtime.accept_envelope(&session, envelope));
        }

        rig.has_recorded(run, accepted.len()).await;
        rig.is_whole(run, &accepted).await;
        let raw = rig.store.list_raw_by_run(run, 1, 100).await.unwrap();
        assert!(raw.iter().all(|raw| raw.envelope.sanitized));
        let stored: Vec<_> = raw.into_iter().map(|raw| raw.envelope.payload).collect();
        assert!(stored == payloads, "the bytes are the sender's");
        rig.stop().await;
    }
}

/// PostgreSQL indexes no text of this length; SQLite has no such limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_data_is_refused_is_parked_alone_and_says_why() {
    let runtime = ScriptedRuntime::start().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let mut runs = Vec::new();
    for _ in 0..20 {
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
        let start = runtime.open_session(&spec, "alice");
        let run = rig.post(&spec.session_id, message::DECISION).await;
        rig.has_recorded(run, 1).await;
        runs.push((run, spec.session_id, vec![start]));
    }
    let (poisoned, session, before) = runs.swap_remove(7);

    let mut poison = control_plane_testkit::agent::envelope(
        "bob",
        session.as_str(),
        message::DECISION,
        message::decision::vote("p1", "APPROVE"),
    );
    // Random, because PostgreSQL compresses what it can.
    poison.message_id = (0..2000).map(|_| uuid::Uuid::new_v4().to_string()).collect();
    runtime.accept_envelope(&session, poison);
    for (_, session, accepted) in &mut runs {
        for _ in 0..5 {
            let vote = message::decision::vote("p1", "APPROVE");
            accepted.push(runtime.accept(session, "bob", vote));
        }
    }

    let parked = async || rig.store.run_get(poisoned).await.unwrap().parked_reason.is_some();
    wait_until(DEADLINE, parked).await;
    let reason = rig.store.run_get(poisoned).await.unwrap().parked_reason.unwrap_or_default();
    assert!(reason.contains("index row"), "{reason}");
    for (run, _, accepted) in &runs {
        rig.has_recorded(*run, accepted.len()).await;
        rig.is_whole(*run, accepted).await;
    }
    rig.is_whole(poisoned, &before).await;
    wait_until(DEADLINE, async || rig.engine.following() == runs.len()).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_away_in_the_middle_of_a_write_disturbs_nobody() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;

    // Half a frame of HTTP/2, again and again, and then the connection is gone.
    for length in 0..20 {
        let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x01\0\x01".to_vec();
        wire.truncate(24 + length);
        let mut half = tokio::net::TcpStream::connect(runtime.address()).await.unwrap();
        half.write_all(&wire).await.unwrap();
    }
    // A call that is dropped while it is under way: accepted or not, we record what was.
    for number in 0..20 {
        let agent = cast.bob.clone();
        let session = talk.session.clone();
        let evaluation =
            message::decision::evaluation("p1", "APPROVE", 0.1 + f64::from(number) / 40.0);
        let call =
            tokio::spawn(
                async move { agent.try_say(&session, message::DECISION, evaluation).await },
            );
        tokio::task::yield_now().await;
        call.abort();
        drop(call.await);
    }
    talk.end(&cast).await;

    rig.reaches(run, RunState::Completed).await;
    let raw = rig.store.list_raw_by_run(run, 0, 1000).await.unwrap();
    let all: Vec<String> = raw.into_iter().map(|raw| raw.envelope.message_id).collect();
    rig.is_whole(run, &all).await;
    assert!(talk.accepted.iter().all(|id| all.contains(id)));
    rig.stop().await;
}
