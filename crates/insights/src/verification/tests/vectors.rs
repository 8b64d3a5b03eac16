//! The vectors that the runtime publishes with its crate.

use control_plane_domain::commitment::{self, Commitment};
use control_plane_testkit::vectors;
use serde_json::{Value, json};

use super::super::receipt::{Keys, verify};

#[test]
fn every_published_hash_is_ours() {
    let vectors = vectors::of_runtime("tests/conformance/cmt-hash");
    assert!(vectors.len() >= 10, "{} vectors", vectors.len());
    let (mut computed, mut verified) = (0, 0);
    for (name, vector) in &vectors {
        let text = |member: &str| vector[member].as_str().unwrap_or_default();
        if vector.get("payload").is_some() {
            let commitment = Commitment::from_projection(&vector["payload"]).expect(name);
            assert_eq!(hex(commitment.canonical().as_bytes()), text("jcs_utf8_hex"), "{name}");
            assert_eq!(commitment.hash(), text("hash"), "{name}");
            computed += 1;
        } else {
            let found = commitment::verify(&unhex(text("wire_hex")), text("claimed_hash"));
            assert_eq!(found.as_str(), text("expected_outcome"), "{name}");
            verified += 1;
        }
    }
    assert!(computed >= 5 && verified >= 5, "{computed} and {verified}");
}

#[test]
fn every_published_receipt_is_judged_as_published() {
    let vectors = vectors::of_runtime("tests/vectors/receipt");
    assert!(vectors.len() >= 12, "{} vectors", vectors.len());
    for (name, vector) in &vectors {
        let keys: Keys = serde_json::from_value(vector["trusted_keys"].clone()).expect(name);

        let found = verify(&vector["receipt"], &keys);

        let outcomes: Vec<Value> =
            found.attestations.iter().map(|(outcome, _)| json!(outcome)).collect();
        let found = json!({
            "integrity": found.integrity,
            "attestations": outcomes,
            "verdict": found.verdict,
        });
        assert_eq!(found, vector["expected"], "{name}: {}", vector["description"]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
