//! What was decided, verified with a real runtime's receipts; and held against the Python SDK, whose
//! verifier knows nothing of ours.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "support/mod.rs"]
mod support;

use std::process::Command;

use control_plane_domain::runtime::Runtime;
use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message::{self, Message};
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::program::sdk_python;
use control_plane_testkit::receipts::Signer;
use control_plane_testkit::runtime::{Options, RuntimeProcess};
use control_plane_testkit::scripted::{ScriptedRuntime, UnaryFault};
use control_plane_testkit::{DEADLINE, play, wait_for, wait_until};
use serde_json::{Value, json};

use support::Stage;

/// Verifies what our server answered, with the SDK alone.
const VERIFIER: &str = r#"
import json, sys
from macp_sdk.commitment_hash import commitment_hash, verify_commitment_hash
from macp_sdk.receipt import commitment_from_projection, trusted_keys_from_jwks, verify_receipt

told = json.load(open(sys.argv[1]))
keys = trusted_keys_from_jwks(told["jwks"])
for case in told["cases"]:
    answer = case["verification"]
    ours = answer["commitmentHash"]
    assert commitment_hash(commitment_from_projection(answer["commitment"])) == ours, case
    assert verify_commitment_hash(bytes(case["payload"]), ours) == "match", case
    if "receipt" in answer:
        receipt = answer["receipt"]
        found = verify_receipt(receipt["document"], keys)
        assert found["verdict"] == receipt["status"], (found, receipt)
        assert found["integrity"] == receipt["integrity"], (found, receipt)
        outcomes = [it["outcome"] for it in receipt["attestations"]]
        assert found["attestations"] == outcomes, (found, receipt)
        altered = dict(receipt["document"], issued_at="2001-01-01T00:00:00Z")
        assert verify_receipt(altered, keys)["verdict"] != "attested"
print(len(told["cases"]))
"#;

/// What the server says of a run, once it is not pending.
async fn verification(stage: &Stage, run: RunId) -> Value {
    let path = format!("/runs/{run}/verification");
    let ask = async || stage.server.get(&path).await.1;
    wait_for(DEADLINE, ask, |answer| answer["status"] != "pending").await
}

async fn case(stage: &Stage, run: RunId) -> Value {
    stage.reaches(run, "completed").await;
    let last = stage.store.envelope_last(run).await.unwrap().unwrap();
    let verification = verification(stage, run).await;
    json!({ "verification": verification, "payload": last.envelope.payload })
}

/// One run of every mode.
async fn all_modes(stage: &Stage, cast: &Cast) -> Vec<Value> {
    let mut cases = Vec::new();
    macro_rules! play {
        ($($mode:ident: $play:ident,)*) => {$(
            let session = SessionId::random();
            let run = stage.post(&session, message::$mode).await;
            play::$play(cast, &session).await;
            cases.push(case(stage, run).await);
        )*};
    }
    play! {
        DECISION: decision,
        PROPOSAL: proposal,
        TASK: task,
        HANDOFF: handoff,
        QUORUM: quorum,
        QUORUM: quorum_refused,
        MULTI_ROUND: multi_round,
    }
    cases
}

/// The SDK agrees with every answer.
async fn sdk_agrees(runtime: &RuntimeProcess, cases: &[Value]) {
    let jwks = runtime.client().receipt_keys().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("told.json");
    std::fs::write(&file, json!({ "jwks": jwks, "cases": cases }).to_string()).unwrap();
    let mut python = Command::new(sdk_python());
    let done = python.args(["-I", "-c", VERIFIER]).arg(&file).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), cases.len().to_string());
}

fn signing(signer: &Signer) -> Options {
    Options::default()
        .with("MACP_RECEIPT_SIGNING_KEY", &signer.private_jwk())
        .with("MACP_RUNTIME_ID", "test-1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_runtime_that_signs_every_mode_is_attested_and_the_sdk_agrees() {
    let signer = Signer::new("key-1", 7);
    let runtime = RuntimeProcess::start(signing(&signer)).await;
    let cast = runtime.cast().await;
    for kind in Kind::ALL {
        let stage = Stage::set(kind, &runtime).await;

        let cases = all_modes(&stage, &cast).await;

        let (multi_round, standard) = cases.split_last().unwrap();
        for case in standard {
            let answer = &case["verification"];
            assert_eq!(answer["status"], "verified", "{answer:#}");
            assert_eq!(answer["receipt"]["status"], "attested", "{answer:#}");
            assert_eq!(answer["receipt"]["keyId"], "key-1");
            assert_eq!(answer["receipt"]["issuer"], "runtime:test-1");
            assert_eq!(answer["receipt"]["attestations"][0]["publicKey"], signer.public_key());
            assert_eq!(answer["claimedHash"], answer["commitmentHash"]);
        }
        // The runtime issues receipts in the standard modes only.
        let answer = &multi_round["verification"];
        assert_eq!(answer["status"], "cannot_verify", "{answer:#}");
        assert!(answer["commitmentHash"].is_string());
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.contains("issues no decision receipt"), "{reason}");
        sdk_agrees(&runtime, &cases).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_does_not_sign_gives_integrity_only_and_it_is_said() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let session = SessionId::random();
    let run = stage.post(&session, message::DECISION).await;
    play::decision(&cast, &session).await;

    let case = case(&stage, run).await;

    let answer = &case["verification"];
    assert_eq!(answer["status"], "verified", "{answer:#}");
    assert_eq!(answer["receipt"]["status"], "integrity_only");
    assert_eq!(answer["receipt"]["keyId"], Value::Null);
    assert!(answer["reason"].as_str().unwrap().contains("not signed"), "{answer:#}");
    sdk_agrees(&runtime, &[case]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_it_fetches_has_the_receipt_after_its_restart() {
    const CALL: &str = "GetDecisionReceipt";
    for kind in Kind::ALL {
        let runtime = ScriptedRuntime::start().await;
        let database = TestDb::new(kind);
        let server = ServerProcess::serve()
            .env("DATABASE_URL", database.url())
            .env("RUNTIME_ADDRESS", runtime.address())
            .env("RUNTIME_ALLOW_INSECURE", "true");
        let mut server = server.start().await;
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
        runtime.open_session(&spec, "alice");
        runtime.fail_next(CALL, UnaryFault::Hang);
        let commitment = message::commitment("c1", "decision.selected", message::Outcome::Positive);
        runtime.resolve(&spec.session_id, "alice", commitment);
        // Discovery makes the run.
        wait_until(DEADLINE, async || runtime.calls(CALL) == 1).await;

        server.kill();
        server.restart().await;

        let path = format!("/runs/{}/verification", spec.session_id);
        let ask = async || server.get(&path).await.1;
        let answer = wait_for(DEADLINE, ask, |answer| answer["status"] == "verified").await;
        assert_eq!(answer["receipt"]["status"], "integrity_only", "{answer:#}");
        assert_eq!(runtime.calls(CALL), 2);
    }
}

/// Decides in a new session.
async fn decide(stage: &Stage, cast: &Cast, commitment: Message) -> (RunId, SessionId) {
    let session = SessionId::random();
    let run = stage.post(&session, message::DECISION).await;
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
    cast.alice.start_session(&spec).await;
    let vote = message::decision::vote("p1", "APPROVE");
    for said in [message::decision::proposal("p1", "deploy"), vote, commitment] {
        cast.alice.say(&session, message::DECISION, said).await;
    }
    stage.reaches(run, "completed").await;
    (run, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_replace_each_other_are_followed_both_ways() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    for kind in Kind::ALL {
        let stage = Stage::set(kind, &runtime).await;
        let action = "decision.selected";
        let positive = message::Outcome::Positive;
        let (first, first_session) =
            decide(&stage, &cast, message::commitment("c1", action, positive)).await;
        let hash = verification(&stage, first).await["commitmentHash"].as_str().unwrap().to_owned();
        let right = message::commitment_instead_of(&first_session, &hash, action);
        let (second, second_session) = decide(&stage, &cast, right).await;
        // The third one names the first one's hash where the second one's is due.
        let wrong = message::commitment_instead_of(&second_session, &hash, action);
        let (third, third_session) = decide(&stage, &cast, wrong).await;
        for run in [first, second, third] {
            verification(&stage, run).await;
        }

        let lineage = async |id: &str| stage.server.get(&format!("/runs/{id}/lineage")).await.1;
        let of_first = lineage(&first.to_string()).await;
        let of_second = lineage(second_session.as_str()).await;
        let of_third = lineage(&third.to_string()).await;

        let links = |lineage: &Value, way: &str| -> Vec<Value> {
            let links = lineage[way].as_array().unwrap().iter();
            links.map(|it| json!([it["depth"], it["runId"], it["check"]])).collect()
        };
        assert_eq!(links(&of_first, "supersedes"), Vec::<Value>::new());
        let after_first = [json!([1, second, "match"]), json!([2, third, "mismatch"])];
        assert_eq!(links(&of_first, "supersededBy"), after_first, "{of_first:#}");
        assert_eq!(links(&of_second, "supersedes"), [json!([1, first, "match"])]);
        assert_eq!(links(&of_second, "supersededBy"), [json!([1, third, "mismatch"])]);
        let before_third = [json!([1, second, "mismatch"]), json!([2, first, "match"])];
        assert_eq!(links(&of_third, "supersedes"), before_third, "{of_third:#}");
        assert_eq!(of_third["commitment"]["supersedes"]["session_id"], second_session.as_str());
        assert_eq!(of_second["supersedes"][0]["sessionId"], first_session.as_str());
        assert_eq!(of_second["supersededBy"][0]["sessionId"], third_session.as_str());

        let of = async |run| verification(&stage, run).await;
        let (of_first, of_second) = (of(first).await, of(second).await);

        assert_eq!(of_first["status"], "verified", "{of_first:#}");
        assert_eq!(of_first["sources"][1]["kind"], "supersedes");
        assert_eq!(of_second["status"], "mismatch", "{of_second:#}");
        assert!(of_second["reason"].as_str().unwrap().contains(third_session.as_str()));
        assert_eq!(of(third).await["status"], "verified");
    }
}
