//! What is said of a decision, for every kind of evidence; and that a receipt that somebody altered
//! is found out, whatever was altered.

mod receipts;
mod vectors;

use control_plane_domain::time::from_unix_ms;
use control_plane_testkit::receipts::{ISSUER, Signer, document};
use serde_json::{Value, json};

use super::*;

/// A Commitment's payload, as it was sent.
pub(super) fn payload() -> Vec<u8> {
    let fields = json!({
        "commitmentId": "c1",
        "action": "deploy",
        "authorityScope": "team",
        "reason": "all agree",
        "modeVersion": "1.0.0",
        "policyVersion": "policy.default",
        "configurationVersion": "config.default",
        "outcomePositive": true,
    });
    control_plane_domain::payload::encode("macp.mode.decision.v1", "Commitment", &fields).unwrap()
}

pub(super) fn session() -> SessionId {
    SessionId::trusted("0192f1a4-7c3e-7b2a-9f10-5d2c8e4b6a01")
}

pub(super) fn at(ms: i64) -> Timestamp {
    from_unix_ms(1_795_000_000_000 + ms).unwrap()
}

fn commitment() -> Commitment {
    Commitment::from_wire(&payload()).unwrap()
}

fn other_hash() -> String {
    format!("sha256:{}", "0".repeat(64))
}

/// A run that completed, with its Commitment, and a receipt that is due.
pub(super) fn facts() -> Facts {
    Facts {
        run_id: RunId::random(),
        session_id: Some(session()),
        mode: "macp.mode.decision.v1".to_owned(),
        state: RunState::Completed,
        imported: false,
        decided: Decided::Recorded(commitment()),
        receipt: Some(RunReceipt {
            state: ReceiptState::Pending,
            document: None,
            detail: None,
            attempts: 0,
            answered_at: None,
        }),
        keys: vec![],
        superseded_by: vec![],
        now: at(0),
    }
}

fn answered(state: ReceiptState, detail: &str) -> Option<RunReceipt> {
    Some(RunReceipt {
        state,
        document: None,
        detail: Some(detail.to_owned()),
        attempts: 0,
        answered_at: Some(at(-5)),
    })
}

/// The same with this receipt.
pub(super) fn with_receipt(receipt: &Value) -> Facts {
    let receipt = RunReceipt {
        state: ReceiptState::Fetched,
        document: Some(receipt.to_string()),
        detail: None,
        attempts: 0,
        answered_at: Some(at(-5)),
    };
    Facts { receipt: Some(receipt), ..facts() }
}

pub(super) fn signer() -> Signer {
    Signer::new("key-1", 7)
}

pub(super) fn pinned(signer: &Signer) -> PinnedKey {
    PinnedKey {
        kid: "key-1".to_owned(),
        public_key: signer.public_key(),
        pinned_at: at(-1000),
        refused: None,
    }
}

fn successor(claimed_hash: String) -> Successor {
    let session_id = Some(SessionId::trusted("0192f1a4-7c3e-7b2a-9f10-5d2c8e4b6a02"));
    Successor { run_id: RunId::random(), session_id, claimed_hash }
}

#[test]
fn nothing_is_said_before_the_run_is_over_and_the_runtime_has_answered() {
    let running = Facts { state: RunState::Running, decided: Decided::Nothing, ..facts() };
    let found = verify(&running);
    assert_eq!((found.status, found.commitment_hash), (Status::Pending, None));
    assert!(found.reason.contains("running"), "{}", found.reason);

    let found = verify(&facts());
    assert_eq!((found.status, found.commitment_hash), (Status::Pending, Some(commitment().hash())));

    let mut busy = facts();
    busy.receipt.as_mut().unwrap().attempts = 3;
    busy.receipt.as_mut().unwrap().detail = Some("it is busy".to_owned());
    let found = verify(&busy);
    assert_eq!(found.status, Status::Pending);
    assert!(found.reason.contains("3 attempts") && found.reason.contains("busy"), "{found:?}");

    let unknown = Facts { receipt: None, ..facts() };
    assert_eq!(verify(&unknown).status, Status::Pending);
}

#[test]
fn nothing_is_waited_for_of_a_run_that_was_imported() {
    let imported = Facts { receipt: None, imported: true, ..facts() };
    let found = verify(&imported);
    assert_eq!(
        (found.status, found.commitment_hash),
        (Status::CannotVerify, Some(commitment().hash()))
    );
    assert!(found.reason.contains("the run was imported"), "{}", found.reason);

    let running = Facts { state: RunState::Running, decided: Decided::Nothing, ..imported };
    assert_eq!(verify(&running).status, Status::CannotVerify);
}

#[test]
fn with_nothing_to_compare_it_says_so() {
    for (state, word) in [
        (ReceiptState::Unavailable, "issues no decision receipt"),
        (ReceiptState::Gone, "knows nothing"),
        (ReceiptState::Withheld, "does not give"),
    ] {
        let alone = Facts { receipt: answered(state, "because"), ..facts() };
        let found = verify(&alone);
        assert_eq!(found.status, Status::CannotVerify, "{state:?}");
        assert_eq!(found.commitment_hash, Some(commitment().hash()));
        assert_eq!((found.claimed_hash, found.sources), (None, vec![]));
        assert!(
            found.reason.contains(word) && found.reason.contains("because"),
            "{}",
            found.reason
        );
    }
}

#[test]
fn what_did_not_decide_cannot_be_verified() {
    for state in [RunState::Failed, RunState::Cancelled] {
        let over = Facts { state, decided: Decided::Nothing, receipt: None, ..facts() };
        let found = verify(&over);
        assert_eq!((found.status, found.commitment), (Status::CannotVerify, None));
        assert!(found.reason.contains(state.as_str()), "{}", found.reason);
    }
}

#[test]
fn a_payload_without_a_hash_cannot_be_verified_whatever_a_receipt_says() {
    let receipt = document(&session(), &payload());
    let odd = Decided::NotHashable(NotHashable::UnknownField(10));
    let found = verify(&Facts { decided: odd, ..with_receipt(&receipt) });

    assert_eq!((found.status, found.commitment_hash), (Status::CannotVerify, None));
    assert!(found.reason.contains("field 10"), "{}", found.reason);
}

#[test]
fn a_receipt_that_names_the_hash_verifies_and_says_who_vouches() {
    let receipt = document(&session(), &payload());

    let found = verify(&with_receipt(&receipt));
    assert_eq!(found.status, Status::Verified, "{}", found.reason);
    assert_eq!(found.claimed_hash, found.commitment_hash);
    assert!(found.reason.contains("not signed"), "{}", found.reason);
    assert_eq!(found.receipt.unwrap().status, Verdict::IntegrityOnly);

    let signed = with_receipt(&signer().sign(receipt));
    let found = verify(&Facts { keys: vec![pinned(&signer())], ..signed.clone() });
    assert_eq!(found.status, Status::Verified, "{}", found.reason);
    assert!(found.reason.contains("key-1") && found.reason.contains(ISSUER), "{}", found.reason);
    let view = found.receipt.unwrap();
    assert_eq!((view.status, view.key_id.as_deref()), (Verdict::Attested, Some("key-1")));
    assert_eq!(view.attestations[0].pinned_at, Some(at(-1000)));

    let found = verify(&signed);
    assert_eq!(found.status, Status::Verified, "{}", found.reason);
    assert!(found.reason.contains("not known"), "{}", found.reason);
    let view = found.receipt.unwrap();
    assert_eq!(view.status, Verdict::IntegrityOnly);
    assert_eq!(view.attestations[0].outcome, AttestationOutcome::UnknownKey);
}

#[test]
fn a_receipt_of_another_commitment_is_a_mismatch() {
    let mut changed = commitment();
    changed.action = "wait".to_owned();
    let mut receipt = document(&session(), &payload());
    receipt["commitment"] = serde_json::to_value(&changed).unwrap();
    receipt["commitment_hash"] = json!(changed.hash());
    receipt.as_object_mut().unwrap().remove("commitment_wire_b64");

    let signed = with_receipt(&signer().sign(receipt));
    let found = verify(&Facts { keys: vec![pinned(&signer())], ..signed });

    assert_eq!(found.status, Status::Mismatch);
    assert_eq!(found.claimed_hash, Some(changed.hash()));
    assert_eq!(found.commitment_hash, Some(commitment().hash()));
    assert_eq!(found.receipt.unwrap().status, Verdict::Attested, "the runtime really says so");
}

#[test]
fn a_key_that_changed_under_its_name_is_refused_and_told() {
    let new = Signer::new("key-1", 8);
    let signed = with_receipt(&new.sign(document(&session(), &payload())));
    let old = PinnedKey { refused: Some((new.public_key(), at(-1))), ..pinned(&signer()) };

    let found = verify(&Facts { keys: vec![old], ..signed });

    assert_eq!(found.status, Status::CannotVerify);
    assert!(found.reason.contains("refused") && found.reason.contains("key-1"), "{}", found.reason);
    let view = found.receipt.unwrap();
    assert_eq!(view.status, Verdict::IntegrityOnly);
    assert_eq!(view.attestations[0].outcome, AttestationOutcome::Invalid);
}

#[test]
fn a_receipt_of_another_session_or_format_says_nothing() {
    let other = SessionId::trusted("0192f1a4-7c3e-7b2a-9f10-5d2c8e4b6a09");
    let found = verify(&with_receipt(&document(&other, &payload())));
    assert_eq!(found.status, Status::CannotVerify);
    assert!(found.reason.contains("another session"), "{}", found.reason);

    let mut receipt = document(&session(), &payload());
    receipt["receipt_format"] = json!("macp-receipt/2");
    let found = verify(&with_receipt(&receipt));
    assert_eq!(found.status, Status::CannotVerify);
    assert_eq!(found.receipt.unwrap().status, Verdict::Refused);
}

#[test]
fn a_commitment_that_only_a_receipt_tells_of_is_not_compared_with_itself() {
    let receipt = signer().sign(document(&session(), &payload()));
    let told = Facts {
        decided: Decided::Attested(commitment()),
        keys: vec![pinned(&signer())],
        ..with_receipt(&receipt)
    };

    let found = verify(&told);
    assert_eq!(found.status, Status::CannotVerify);
    assert_eq!(found.commitment_source, Some("receipt"));
    assert!(found.reason.contains("receipt alone"), "{}", found.reason);

    let later = vec![successor(commitment().hash())];
    assert_eq!(verify(&Facts { superseded_by: later, ..told }).status, Status::Verified);
}

#[test]
fn a_later_decision_vouches_or_disagrees() {
    let receipt = answered(ReceiptState::Gone, "not found");
    let later = vec![successor(commitment().hash())];
    let alone = Facts { receipt, superseded_by: later, ..facts() };
    let found = verify(&alone);
    assert_eq!(found.status, Status::Verified, "{}", found.reason);
    assert_eq!(found.claimed_hash, Some(commitment().hash()));
    assert_eq!(found.sources[0].kind, "supersedes");

    let both = vec![successor(commitment().hash()), successor(other_hash())];
    let found = verify(&Facts { superseded_by: both, ..alone });
    assert_eq!(found.status, Status::Mismatch);
    assert!(found.reason.contains(&other_hash()), "{}", found.reason);

    // Whoever disagrees is told, also before the receipt is here, and beside one that agrees.
    let wrong = vec![successor(other_hash())];
    let waiting = Facts { superseded_by: wrong.clone(), ..facts() };
    assert_eq!(verify(&waiting).status, Status::Mismatch);
    let receipt = document(&session(), &payload());
    let attested = Facts { superseded_by: wrong, ..with_receipt(&receipt) };
    assert_eq!(verify(&attested).status, Status::Mismatch);
}

#[test]
fn the_answer_has_the_names_that_clients_read() {
    let receipt = document(&session(), &payload());
    let found = serde_json::to_value(verify(&with_receipt(&receipt))).unwrap();

    assert_eq!(found["status"], "verified");
    assert_eq!(found["commitment"]["commitment_id"], "c1");
    assert_eq!(found["commitment"]["outcome_positive"], true);
    assert_eq!(found["commitment"].get("supersedes"), None);
    assert_eq!(found["commitmentHash"], found["claimedHash"]);
    assert_eq!(found["receipt"]["status"], "integrity_only");
    assert_eq!(found["receipt"]["document"], receipt);
    assert_eq!(found["receipt"]["issuedAt"], "2026-11-28T12:00:00Z");
    assert_eq!(found["sources"][0]["outcome"], "match");
    assert_eq!(found["checkedAt"], control_plane_domain::time::format(at(0)));
}
