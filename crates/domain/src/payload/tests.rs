//! What each kind of payload becomes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DECISION: &str = "macp.mode.decision.v1";
const MULTI_ROUND: &str = "ext.multi_round.v1";

fn fields(decoded: Decoded) -> Value {
    decoded.fields.map_or(Value::Null, Value::Object)
}

/// A message with one text in field 1, as protobuf writes it.
fn canonical(value: &str) -> Vec<u8> {
    encode(MULTI_ROUND, "Contribute", &json!({ "value": value })).unwrap()
}

#[test]
fn a_message_shows_the_fields_that_were_on_the_wire_and_no_others() {
    let vote = encode(DECISION, "Vote", &json!({ "proposalId": "p1", "vote": "APPROVE" })).unwrap();

    let decoded = decode(DECISION, "Vote", &vote);

    assert_eq!(decoded.type_name, Some("macp.modes.decision.v1.VotePayload"));
    assert_eq!(decoded.encoding, Encoding::Protobuf);
    assert_eq!(fields(decoded), json!({ "proposalId": "p1", "vote": "APPROVE" }));
}

#[test]
fn bytes_are_base64_and_64_bit_integers_are_numbers() {
    let start = json!({
        "intent": "x", "participants": ["a", "b"], "ttlMs": 60_000,
        "roots": [{ "uri": "file:///r", "name": "r" }], "extensions": { "k": "AQI=" },
    });
    let bytes = encode(DECISION, "SessionStart", &start).unwrap();

    assert_eq!(fields(decode(DECISION, "SessionStart", &bytes)), start);
}

#[test]
fn a_commitment_without_an_outcome_is_a_negative_one() {
    let sent = json!({ "commitmentId": "c1", "action": "decision.rejected" });
    let negative = encode(DECISION, "Commitment", &sent).unwrap();
    let sent = json!({ "commitmentId": "c1", "outcomePositive": true });
    let positive = encode(DECISION, "Commitment", &sent).unwrap();

    let negative = fields(decode(DECISION, "Commitment", &negative));
    let positive = fields(decode(DECISION, "Commitment", &positive));

    assert_eq!(negative["outcomePositive"], json!(false));
    assert_eq!(positive["outcomePositive"], json!(true));
}

#[test]
fn json_where_protobuf_is_due_is_taken_for_what_it_means() {
    let decoded = decode(DECISION, "Proposal", br#"{"proposalId":"p1","option":"x"}"#);

    assert_eq!(decoded.type_name, Some(JSON_TYPE));
    assert_eq!(decoded.error, None);
    assert_eq!(fields(decoded), json!({ "proposalId": "p1", "option": "x" }));
}

#[test]
fn an_empty_payload_of_a_known_type_is_an_empty_message() {
    assert_eq!(fields(decode("", "Signal", b"")), json!({}));
    assert_eq!(decode("ext.unknown.v1", "Anything", b"").encoding, Encoding::Empty);
}

#[test]
fn bytes_that_cannot_be_read_are_kept_with_the_reason() {
    for (mode, message_type) in [(DECISION, "Vote"), ("ext.unknown.v1", "Anything")] {
        let decoded = decode(mode, message_type, b"\x0a\xff\xff");

        assert_eq!(decoded.encoding, Encoding::Base64);
        assert!(decoded.error.is_some());
        assert_eq!(fields(decoded), json!({ "payloadBase64": "Cv//", "encoding": "base64" }));
    }
}

#[test]
fn an_unknown_type_is_read_as_json_or_text() {
    let unknown = |payload: &[u8]| fields(decode("ext.unknown.v1", "Anything", payload));

    assert_eq!(unknown(br#" {"a":{"b":1}}"#), json!({ "a": { "b": 1 } }));
    assert_eq!(unknown(b"[1]"), json!({ "json": [1], "encoding": "json" }));
    assert_eq!(
        unknown(b"hello"),
        json!({ "text": "hello", "encoding": "text", "payloadBase64": "aGVsbG8=" })
    );
}

#[test]
fn a_contribution_is_json_only_when_it_is_not_what_protobuf_would_write() {
    let old = decode(MULTI_ROUND, "Contribute", br#"{"value":"x"}"#);
    assert_eq!(old.encoding, Encoding::Json);
    assert_eq!(fields(old), json!({ "value": "x" }));

    // Tag 0x0a and a length of 13 are white space, of 123 a line feed and `{`.
    let thirteen = r#"{"value":"a"}"#;
    let hundred_and_twenty_three = format!(r#""value":"{}"}}"#, "b".repeat(113));
    for value in ["plain", thirteen, hundred_and_twenty_three.as_str()] {
        let decoded = decode(MULTI_ROUND, "Contribute", &canonical(value));
        assert_eq!(decoded.encoding, Encoding::Protobuf, "{value}");
        assert_eq!(fields(decoded), json!({ "value": value }));
    }
}

#[test]
fn a_contribution_that_is_neither_is_read_as_text() {
    let decoded = decode(MULTI_ROUND, "Contribute", b"just words");
    assert_eq!(decoded.encoding, Encoding::Text);
}

#[test]
fn a_zero_character_is_replaced_and_flagged_in_values_and_keys() {
    let vote = encode(DECISION, "Vote", &json!({ "reason": "a\0b" })).unwrap();
    let json = br#"{"k\u0000":["\u0000"]}"#;

    let protobuf = decode(DECISION, "Vote", &vote);
    let json = decode("ext.unknown.v1", "Anything", json);
    let text = decode("ext.unknown.v1", "Anything", b"a\0b");

    assert!(protobuf.sanitized && json.sanitized && text.sanitized);
    assert_eq!(fields(protobuf), json!({ "reason": "a\u{FFFD}b" }));
    assert_eq!(fields(json), json!({ "k\u{FFFD}": ["\u{FFFD}"] }));
    assert_eq!(fields(text)["text"], json!("a\u{FFFD}b"));
}

#[test]
fn json_that_nests_too_deep_is_text() {
    for depth in [MAX_DEPTH, 1000] {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let decoded = decode("ext.unknown.v1", "Anything", deep.as_bytes());
        assert_eq!(decoded.encoding, Encoding::Text, "{depth}");
    }
    let fits = format!(r#"{{"a":{}{}}}"#, "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1));
    assert_eq!(decode("", "Anything", fits.as_bytes()).encoding, Encoding::Json);
}

#[test]
fn a_number_that_json_does_not_have_is_a_text() {
    for (value, shown) in [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")] {
        let sent = json!({ "confidence": value });
        let bytes = encode(DECISION, "Evaluation", &sent).unwrap();
        assert_eq!(fields(decode(DECISION, "Evaluation", &bytes)), json!({ "confidence": shown }));
    }
}

proptest! {
    #[test]
    fn any_text_survives_a_canonical_contribution(value in "[^\0]{1,200}") {
        let decoded = decode(MULTI_ROUND, "Contribute", &canonical(&value));
        prop_assert_eq!(fields(decoded), json!({ "value": value }));
    }
}
