//! Every fault of a descriptor, and that no body does anything else than be taken or refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn good() -> Value {
    json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            "modeName": "macp.mode.decision.v1",
            "modeVersion": "1.0.0",
            "configurationVersion": "config.default",
            "ttlMs": 60000,
            "participants": [{ "id": "alice" }, { "id": "bob" }],
            "metadata": { "environment": "production", "anything": { "goes": [1, null] } },
        },
        "execution": { "idempotencyKey": "k", "tags": ["a"], "requester": { "actorType": "service" } },
    })
}

/// The faults of `good()` with `value` at the JSON pointer `at`.
fn faults_with(at: &str, value: Value) -> Vec<String> {
    let mut body = good();
    let (parent, key) = at.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap();
    if let Value::Array(items) = parent {
        items[key.parse::<usize>().unwrap()] = value;
    } else {
        parent[key] = value;
    }
    RunDescriptor::parse(&body).map(|_| vec![]).unwrap_or_else(|faults| faults.0)
}

#[test]
fn a_good_descriptor_is_taken_and_written_back_as_it_was() {
    let parsed = RunDescriptor::parse(&good()).unwrap();
    assert_eq!(parsed.participants(), ["alice", "bob"]);
    assert_eq!(serde_json::to_value(&parsed).unwrap(), good());
}

#[test]
fn every_fault_names_its_field() {
    let cases = [
        ("/mode", json!("replay"), "mode must be one of: live, sandbox"),
        ("/mode", Value::Null, "mode is required"),
        ("/runtime", Value::Null, "runtime is required"),
        ("/runtime", json!("rust"), "runtime must be an object"),
        ("/runtime/kind", json!(""), "runtime.kind should not be empty"),
        ("/kickoff", json!([]), "kickoff is not a known field"),
        ("/session", Value::Null, "session is required"),
        ("/session/policyHints", json!({}), "session.policyHints is not a known field"),
        (
            "/session/sessionId",
            json!("too-short"),
            "session.sessionId must be a UUID v4/v7 or base64url 22+ chars",
        ),
        ("/session/ttlMs", json!(0), "session.ttlMs must be between 1 and 86400000"),
        ("/session/ttlMs", json!(1.5), "session.ttlMs must be an integer"),
        (
            "/session/participants",
            json!([]),
            "session.participants must contain at least 1 element",
        ),
        (
            "/session/participants/0",
            json!({ "id": "" }),
            "session.participants.0.id should not be empty",
        ),
        (
            "/session/participants/1",
            json!({ "id": "alice" }),
            "session.participants.1.id must be unique: 'alice' is listed twice",
        ),
        (
            "/session/participants/0",
            json!({ "id": "alice", "role": "x" }),
            "session.participants.0.role is not a known field",
        ),
        (
            "/session/modeVersion",
            json!("v".repeat(65)),
            "session.modeVersion must be at most 64 characters long",
        ),
        ("/session/modeName", json!("a\u{0}b"), "session.modeName must not contain U+0000"),
        ("/session/metadata/x", json!(["\u{0}"]), "session.metadata must not contain U+0000"),
        (
            "/session/metadata/cancelCallback",
            json!({}),
            "session.metadata.cancelCallback.url is required",
        ),
        (
            "/execution/requester/actorType",
            json!("robot"),
            "execution.requester.actorType must be one of: user, service, system",
        ),
        ("/execution/tags", json!([1]), "execution.tags.0 must be a string"),
    ];
    for (at, value, sentence) in cases {
        assert_eq!(faults_with(at, value), [sentence], "{at}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let faults =
        RunDescriptor::parse(&json!({ "mode": 1, "session": { "ttlMs": "x" } })).unwrap_err();
    assert!(faults.0.len() > 5, "{faults}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![
            proptest::sample::select(vec![
                "mode",
                "runtime",
                "session",
                "execution",
                "participants",
                "kind",
                "id"
            ])
            .prop_map(str::to_owned),
            ".{0,6}".prop_map(|key| key),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_makes_it_fail_in_any_other_way(body in any_json()) {
        if let Err(Faults(faults)) = RunDescriptor::parse(&body) {
            prop_assert!(!faults.is_empty());
        }
    }
}
