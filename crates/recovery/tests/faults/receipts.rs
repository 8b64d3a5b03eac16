//! Receipts are fetched once, whatever the runtime or a crash does in between.

use std::time::Duration;

use control_plane_domain::{RunId, RunState};
use control_plane_recovery::Config;
use control_plane_storage::{ReceiptState, RunReceipt};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::receipts::{ISSUER, Signer, document};
use control_plane_testkit::scripted::{Failure, UnaryFault};
use control_plane_testkit::{DEADLINE, message, wait_for, wait_until};

use super::support::{self, Rig};
use super::{Stage, commitment};

const CALL: &str = "GetDecisionReceipt";
const KEYS: &str = "GetReceiptKeys";

fn config() -> Config {
    let sweep = Duration::from_millis(200);
    Config { receipts_enabled: true, sweep, ..support::config() }
}

/// The run's receipt, once the runtime has answered.
async fn answered(rig: &Rig, run: RunId) -> RunReceipt {
    let ask = async || rig.store.receipt_get(run).await.unwrap();
    let is = |receipt: &Option<RunReceipt>| {
        receipt.as_ref().is_some_and(|receipt| receipt.state != ReceiptState::Pending)
    };
    wait_for(DEADLINE, ask, is).await.unwrap()
}

/// Resolves the stage's session, with a receipt that `signer` signed.
fn resolve_signed(stage: &mut Stage, signer: &Signer) -> String {
    stage.resolve();
    let receipt = signer.sign(document(&stage.session, &commitment().payload));
    stage.runtime.set_receipt(&stage.session, receipt.clone());
    receipt.to_string()
}

/// Another session of the same runtime, from its beginning to its end.
async fn another(stage: &Stage, receipt_by: Option<&Signer>) -> RunId {
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
    stage.runtime.open_session(&spec, "alice");
    let run = stage.rig.post(&spec.session_id, message::DECISION).await;
    stage.rig.has_recorded(run, 1).await;
    if let Some(signer) = receipt_by {
        // Before the end, so that nobody gets another one.
        let receipt = document(&spec.session_id, &commitment().payload);
        stage.runtime.accept(&spec.session_id, "alice", commitment());
        stage.runtime.set_receipt(&spec.session_id, signer.sign(receipt));
        let resolved = control_plane_domain::SessionState::Resolved;
        stage.runtime.set_state(&spec.session_id, resolved);
    } else {
        stage.runtime.resolve(&spec.session_id, "alice", commitment());
    }
    stage.rig.reaches(run, RunState::Completed).await;
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receipt_of_a_run_that_completes_is_fetched_once_and_kept_as_it_came() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed_with(kind, config()).await;
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;

        let receipt = answered(&stage.rig, run).await;

        let issued = document(&stage.session, &commitment().payload).to_string();
        assert_eq!((receipt.state, receipt.document), (ReceiptState::Fetched, Some(issued)));
        assert_eq!(receipt.attempts, 0);
        // Whoever comes next asks for others only.
        let stage = stage.away(|_| {}).await;
        let next = another(&stage, None).await;
        answered(&stage.rig, next).await;
        assert_eq!(stage.runtime.calls(CALL), 2);
        assert_eq!(stage.runtime.calls(KEYS), 0, "nobody signed");
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_fetches() {
    let (mut stage, run) = Stage::followed_with(Kind::Postgres, config()).await;
    let second = stage.rig.second();
    stage.resolve();
    let next = another(&stage, None).await;

    answered(&stage.rig, run).await;
    answered(&stage.rig, next).await;

    assert_eq!(stage.runtime.calls(CALL), 2);
    second.stop().await;
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ration_is_waited_for_and_is_no_verdict() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed_with(kind, config()).await;
        for _ in 0..3 {
            stage.runtime.fail_next(CALL, UnaryFault::Fail(Failure::RateLimited));
        }
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;

        let receipt = answered(&stage.rig, run).await;

        assert_eq!((receipt.state, receipt.attempts), (ReceiptState::Fetched, 0));
        assert_eq!(stage.runtime.calls(CALL), 4);
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_away_is_waited_for() {
    let (mut stage, run) = Stage::followed_with(Kind::Sqlite, config()).await;
    stage.runtime.fail_next(CALL, UnaryFault::Fail(Failure::Plain(super::UNAVAILABLE.into())));
    stage.runtime.fail_next(CALL, UnaryFault::Fail(Failure::Plain(super::UNAUTHENTICATED.into())));
    stage.resolve();

    stage.rig.reaches(run, RunState::Completed).await;
    assert_eq!(answered(&stage.rig, run).await.state, ReceiptState::Fetched);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_between_leaves_it_to_the_next_one() {
    for kind in Kind::ALL {
        let signer = Signer::new("key-1", 7);
        let (mut stage, run) = Stage::followed_with(kind, config()).await;
        stage.runtime.set_receipt_keys(vec![signer.public_jwk()]);
        stage.runtime.fail_next(KEYS, UnaryFault::Hang);
        stage.runtime.hold(&stage.session);
        let issued = resolve_signed(&mut stage, &signer);
        stage.runtime.release(&stage.session);
        stage.rig.reaches(run, RunState::Completed).await;
        wait_until(DEADLINE, async || stage.runtime.calls(KEYS) == 1).await;

        let stage = stage.away(|_| {}).await;

        let receipt = answered(&stage.rig, run).await;
        assert_eq!((receipt.state, receipt.document), (ReceiptState::Fetched, Some(issued)));
        let keys = stage.rig.store.receipt_keys(ISSUER).await.unwrap();
        assert_eq!(keys[0].public_key, signer.public_key());
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_runtime_has_none_of_is_an_answer() {
    for (failure, state) in [
        (Failure::ReceiptUnavailable, ReceiptState::Unavailable),
        (Failure::NotFound, ReceiptState::Gone),
        (Failure::Forbidden, ReceiptState::Withheld),
    ] {
        let (mut stage, run) = Stage::followed_with(Kind::Sqlite, config()).await;
        stage.runtime.fail_next(CALL, UnaryFault::Fail(failure));
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;

        let receipt = answered(&stage.rig, run).await;

        assert_eq!((receipt.state, receipt.document), (state, None));
        assert!(receipt.detail.unwrap().contains("scripted"));
        assert_eq!(stage.runtime.calls(CALL), 1);
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_receipt_that_fails_does_not_hold_up_the_next_one() {
    let (mut stage, run) = Stage::followed_with(Kind::Sqlite, config()).await;
    for _ in 0..2 {
        stage.runtime.fail_next(CALL, UnaryFault::Fail(Failure::Internal));
    }
    stage.resolve();
    stage.rig.reaches(run, RunState::Completed).await;
    let next = another(&stage, None).await;

    assert_eq!(answered(&stage.rig, next).await.state, ReceiptState::Fetched);
    let receipt = answered(&stage.rig, run).await;
    assert_eq!(receipt.state, ReceiptState::Fetched);
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_ended_by_is_not_asked_for_again() {
    for kind in Kind::ALL {
        let signer = Signer::new("key-1", 7);
        let (mut stage, run) = Stage::followed_with(kind, config()).await;
        stage.runtime.set_receipt_keys(vec![signer.public_jwk()]);
        stage.runtime.hold(&stage.session);
        let issued = resolve_signed(&mut stage, &signer);
        stage.runtime.compact(&stage.session);
        stage.rig.reaches(run, RunState::Completed).await;

        let receipt = answered(&stage.rig, run).await;

        assert_eq!((receipt.state, receipt.document), (ReceiptState::Fetched, Some(issued)));
        assert_eq!(stage.runtime.calls(CALL), 1);
        let keys = stage.rig.store.receipt_keys(ISSUER).await.unwrap();
        assert_eq!(keys.len(), 1);
        stage.rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changes_under_its_name_is_not_taken() {
    let (old, new) = (Signer::new("key-1", 7), Signer::new("key-1", 8));
    let stage = Stage::set(Kind::Sqlite, config()).await;
    stage.runtime.set_receipt_keys(vec![old.public_jwk()]);
    let first = another(&stage, Some(&old)).await;
    answered(&stage.rig, first).await;

    stage.runtime.set_receipt_keys(vec![new.public_jwk()]);
    let second = another(&stage, Some(&new)).await;
    answered(&stage.rig, second).await;

    let keys = stage.rig.store.receipt_keys(ISSUER).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].public_key, old.public_key());
    let (refused, _) = keys[0].refused.clone().unwrap();
    assert_eq!(refused, new.public_key());
    stage.rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_an_older_version_ended_get_theirs_later() {
    for kind in Kind::ALL {
        let (mut stage, run) = Stage::followed_with(kind, support::config()).await;
        stage.resolve();
        stage.rig.reaches(run, RunState::Completed).await;
        stage.rig.database.tamper("DELETE FROM run_receipts").await;

        let Stage { runtime, rig, .. } = stage;
        let (database, client, _) = rig.stop().await;
        let rig = Rig::resume(database, client, config());

        assert_eq!(answered(&rig, run).await.state, ReceiptState::Fetched);
        assert_eq!(runtime.calls(CALL), 1);
        rig.stop().await;
    }
}
