//! A signed receipt, altered in every place.

use control_plane_testkit::receipts::document;
use serde_json::{Value, json};

use super::super::receipt::{AttestationOutcome, Keys, Verdict, verify};
use super::super::{Check, Facts, Status};
use super::{payload, pinned, session, signer, with_receipt};

fn signed() -> Value {
    signer().sign(document(&session(), &payload()))
}

fn keys() -> Keys {
    Keys::from([("key-1".to_owned(), signer().public_key())])
}

/// What the verdict becomes when `path` is changed to `value`, and what is then said of the run.
fn altered(path: &str, value: Value) -> (Verdict, Status) {
    let mut receipt = signed();
    *receipt.pointer_mut(path).unwrap_or_else(|| panic!("there is no {path}")) = value;
    let verdict = verify(&receipt, &keys()).verdict;
    let facts = Facts { keys: vec![pinned(&signer())], ..with_receipt(&receipt) };
    (verdict, super::super::verify(&facts).status)
}

#[test]
fn unaltered_it_is_attested() {
    let found = verify(&signed(), &keys());
    assert_eq!(found.verdict, Verdict::Attested);
    assert_eq!(found.integrity, Some(Check::Match));
    assert_eq!(found.attestations, [(AttestationOutcome::Valid, Some("key-1".to_owned()))]);
}

#[test]
fn every_altered_field_of_the_commitment_is_found() {
    for (name, value) in signed()["commitment"].as_object().unwrap() {
        let other = if value.is_boolean() { json!(false) } else { json!("altered") };
        let path = format!("/commitment/{name}");
        assert_eq!(altered(&path, other), (Verdict::Unverified, Status::Mismatch), "{name}");
        // Of another type, it is no Commitment at all.
        assert_eq!(altered(&path, json!(7)), (Verdict::Unverified, Status::CannotVerify), "{name}");
    }
    let more = json!({ "commitment_id": "c1", "tenth": "" });
    assert_eq!(altered("/commitment", more).0, Verdict::Unverified);
}

#[test]
fn every_altered_field_of_the_receipt_is_found() {
    for (path, value, verdict, status) in [
        ("/session_id", json!("other"), Verdict::IntegrityOnly, Status::CannotVerify),
        ("/mode", json!("other"), Verdict::IntegrityOnly, Status::CannotVerify),
        ("/issuer", json!("runtime:other"), Verdict::IntegrityOnly, Status::CannotVerify),
        ("/issued_at", json!("2030-01-01T00:00:00Z"), Verdict::IntegrityOnly, Status::CannotVerify),
        ("/semantics_rev/rev", json!(2), Verdict::IntegrityOnly, Status::CannotVerify),
        // A fraction has no canonical form, so nobody can have signed it.
        ("/semantics_rev/rev", json!(1.5), Verdict::IntegrityOnly, Status::CannotVerify),
        ("/receipt_format", json!("macp-receipt/9"), Verdict::Refused, Status::CannotVerify),
        ("/commitment_hash", json!("sha256:00"), Verdict::Unverified, Status::Mismatch),
        ("/commitment_hash", Value::Null, Verdict::Unverified, Status::Mismatch),
        ("/commitment_wire_b64", json!("CgJjMg=="), Verdict::Unverified, Status::Mismatch),
        ("/commitment_wire_b64", json!("not base64"), Verdict::Unverified, Status::CannotVerify),
        ("/commitment_wire_b64", json!("UAE="), Verdict::Unverified, Status::CannotVerify),
    ] {
        assert_eq!(altered(path, value.clone()), (verdict, status), "{path} {value}");
    }
    let mut more = signed();
    more["note"] = json!("added");
    assert_eq!(verify(&more, &keys()).attestations[0].0, AttestationOutcome::Invalid);
}

#[test]
fn every_altered_part_of_a_signature_is_found() {
    let jws = signed()["attestations"][0]["jws"].as_str().unwrap().to_owned();
    let (header, signature) = jws.split_once("..").unwrap();
    let swapped: String = signature.chars().rev().collect();
    let other_kid = "eyJhbGciOiJFZERTQSIsImtpZCI6ImtleS0yIn0";
    let none = "eyJhbGciOiJub25lIiwia2lkIjoia2V5LTEifQ";
    let attached = jws.replace("..", ".e30.");
    for (jws, outcome) in [
        (format!("{header}..{swapped}"), AttestationOutcome::Invalid),
        (format!("{header}.."), AttestationOutcome::Invalid),
        (format!("{header}..{signature}AA"), AttestationOutcome::Invalid),
        (attached, AttestationOutcome::Invalid),
        (format!("{header}.{signature}"), AttestationOutcome::Invalid),
        ("%..%".to_owned(), AttestationOutcome::Invalid),
        (String::new(), AttestationOutcome::Invalid),
        (format!("{other_kid}..{signature}"), AttestationOutcome::UnknownKey),
        (format!("{none}..{signature}"), AttestationOutcome::Unsupported),
    ] {
        let mut receipt = signed();
        receipt["attestations"][0]["jws"] = json!(jws);
        let found = verify(&receipt, &keys());
        assert_eq!(found.attestations[0].0, outcome, "{jws}");
        assert_eq!(found.verdict, Verdict::IntegrityOnly, "{jws}");
    }
}

#[test]
fn a_key_of_the_wrong_length_verifies_nothing() {
    for key in ["", "AAAA", "not base64!"] {
        let keys = Keys::from([("key-1".to_owned(), key.to_owned())]);
        assert_eq!(verify(&signed(), &keys).attestations[0].0, AttestationOutcome::Invalid);
    }
}

#[test]
fn nothing_about_a_document_makes_it_fail() {
    let format = "macp-receipt/1";
    for document in [
        Value::Null,
        json!([]),
        json!({ "receipt_format": format }),
        json!({ "receipt_format": format, "commitment": [], "attestations": {} }),
        json!({ "receipt_format": format, "commitment": { "supersedes": 7 } }),
    ] {
        let verdict = verify(&document, &keys()).verdict;
        assert!(matches!(verdict, Verdict::Refused | Verdict::Unverified), "{document}");
    }
    let mut odd = signed();
    odd["attestations"] = json!([7, null, { "type": "jws" }, { "type": "vendor" }]);
    let outcomes: Vec<_> = verify(&odd, &keys()).attestations.into_iter().map(|it| it.0).collect();
    use AttestationOutcome::{Invalid, Unsupported};
    assert_eq!(outcomes, [Unsupported, Unsupported, Invalid, Unsupported]);
}
