//! What a clone is made of.

use control_plane_domain::run::RunMode;
use control_plane_domain::{RunId, RunState, time};
use serde_json::json;

use super::*;

fn run(request: Value) -> Run {
    let at = time::from_unix_ms(1_763_800_000_000).unwrap();
    let mut metadata = Map::new();
    metadata.insert("executionRequest".to_owned(), request);
    Run {
        id: RunId(uuid::Uuid::nil()),
        state: RunState::Completed,
        mode: RunMode::Live,
        runtime_kind: "rust".into(),
        runtime_version: None,
        session_id: None,
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 3,
        source_kind: None,
        source_ref: None,
        tags: vec![],
        metadata,
        error_code: None,
        error_message: None,
        created_at: at,
        started_at: None,
        ended_at: None,
        updated_at: at,
        archived_at: None,
        parked_reason: None,
    }
}

fn request(metadata: Value) -> Value {
    json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e",
            "modeName": "macp.mode.decision.v1",
            "modeVersion": "1.0.0",
            "configurationVersion": "1",
            "ttlMs": 60_000,
            "participants": [{ "id": "alice" }],
            "metadata": metadata,
        },
        "execution": { "idempotencyKey": "k", "tags": ["old"] },
    })
}

#[test]
fn a_clone_has_neither_the_session_nor_the_key_and_keeps_the_rest() {
    let callback = json!({ "url": "https://a.example/", "bearer": "hush" });
    let run = run(request(json!({ "cancelCallback": callback, "scenarioRef": "fraud" })));

    let clone = again(&run, None).unwrap();

    assert_eq!(clone.session.session_id, None);
    assert_eq!(clone.idempotency_key(), None);
    assert_eq!(clone.execution.as_ref().unwrap().tags, ["old"]);
    assert_eq!(clone.metadata_text("scenarioRef"), Some("fraud"));
    let metadata = clone.session.metadata.unwrap();
    assert_eq!(metadata["cancelCallback"]["bearer"], "hush");
}

#[test]
fn other_tags_stand_in_for_the_runs_own() {
    let run = run(request(json!({})));
    let tags = |tags: Value| again(&run, Some(&tags)).map(|clone| clone.execution.unwrap().tags);
    assert_eq!(tags(json!(["a", "b"])).unwrap(), ["a", "b"]);
    assert!(tags(json!([])).unwrap().is_empty());
    assert_eq!(tags(Value::Null).unwrap(), ["old"]);
    let refused = tags(json!("a")).unwrap_err();
    assert!(refused.to_string().starts_with("tags must be an array"), "{refused}");
}

#[test]
fn a_clone_of_a_session_that_was_found_was_not_found() {
    let found = json!({ "source": "session-discovery", "discoveredAt": "x", "initiator": "alice" });
    let clone = again(&run(request(found)), None).unwrap();
    assert_eq!(
        clone.session.metadata.unwrap(),
        *json!({ "initiator": "alice" }).as_object().unwrap()
    );
    let posted = again(&run(request(json!({ "source": "playground" }))), None).unwrap();
    assert_eq!(posted.metadata_text("source"), Some("playground"));
}

#[test]
fn what_cannot_be_posted_again_is_refused() {
    let mut nameless = request(json!({}));
    nameless["session"]["participants"] = json!([]);
    let masked =
        request(json!({ "cancelCallback": { "url": "https://a.example/", "bearer": MASK } }));
    for (stored, words) in [
        (Value::Null, "it has no executionRequest"),
        (nameless, "session.participants must contain at least 1"),
        (masked, "the secret of its cancelCallback is not known here"),
    ] {
        let refused = again(&run(stored), None).unwrap_err();
        assert!(
            matches!(&refused, ApiError::BadRequest(text) if text.contains(words)),
            "{refused}"
        );
    }
}

#[test]
fn only_an_empty_context_is_taken() {
    for good in [json!({}), json!({ "context": null }), json!({ "context": {} })] {
        check_context(good.as_object().unwrap()).unwrap();
    }
    for bad in [json!({ "context": { "a": 1 } }), json!({ "context": [] })] {
        assert!(check_context(bad.as_object().unwrap()).is_err(), "{bad}");
    }
}
