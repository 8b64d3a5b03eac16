//! What events each message becomes, as tables.

use serde_json::{Value, json};

use super::*;
use crate::id::{RunId, SessionId};
use crate::session::SessionState;

const DECISION: &str = "macp.mode.decision.v1";
const TASK: &str = "macp.mode.task.v1";
const HANDOFF: &str = "macp.mode.handoff.v1";
const SENT: i64 = 1_763_800_000_000;

fn at(ms: i64) -> Timestamp {
    time::from_unix_ms(ms).unwrap()
}

fn envelope(mode: &str, message_type: &str, payload: Value) -> Envelope {
    Envelope {
        macp_version: "1.0".to_owned(),
        mode: mode.to_owned(),
        message_type: message_type.to_owned(),
        message_id: "m1".to_owned(),
        session_id: "s1".to_owned(),
        sender: "alice".to_owned(),
        timestamp_unix_ms: SENT,
        payload: payload::encode(mode, message_type, &payload)
            .unwrap_or_else(|| payload.to_string().into_bytes()),
        sanitized: false,
    }
}

fn normalizer() -> Normalizer {
    Normalizer::new(["alice".to_owned()], None)
}

fn events(envelope: &Envelope) -> Vec<EventDraft> {
    normalizer().envelope(envelope, at(SENT + 1000))
}

fn types(drafts: &[EventDraft]) -> Vec<&'static str> {
    drafts.iter().map(|draft| draft.event_type.as_str()).collect()
}

fn subject(draft: &EventDraft) -> (&'static str, &str) {
    let subject = draft.subject.as_ref().unwrap();
    (subject.kind.as_str(), subject.id.as_str())
}

#[test]
fn a_message_is_received_and_becomes_the_event_of_its_type() {
    let proposal = json!({ "proposalId": "p1" });
    let cases = [
        (DECISION, "Proposal", proposal.clone(), "proposal.created", ("proposal", "p1")),
        (DECISION, "Vote", proposal.clone(), "proposal.updated", ("proposal", "p1")),
        (DECISION, "Evaluation", proposal.clone(), "proposal.updated", ("proposal", "p1")),
        (DECISION, "Objection", proposal, "proposal.updated", ("proposal", "p1")),
        (
            DECISION,
            "Commitment",
            json!({ "commitmentId": "c1" }),
            "decision.finalized",
            ("decision", "c1"),
        ),
        (
            "macp.mode.quorum.v1",
            "ApprovalRequest",
            json!({ "requestId": "r1" }),
            "proposal.created",
            ("proposal", "r1"),
        ),
        (TASK, "TaskRequest", json!({ "taskId": "t1" }), "proposal.created", ("proposal", "t1")),
        (TASK, "TaskAccept", json!({ "taskId": "t1" }), "proposal.updated", ("proposal", "t1")),
        (
            HANDOFF,
            "HandoffOffer",
            json!({ "handoffId": "h1" }),
            "proposal.created",
            ("proposal", "h1"),
        ),
        (
            HANDOFF,
            "HandoffAccept",
            json!({ "handoffId": "h1", "implicit": true }),
            "proposal.updated",
            ("proposal", "h1"),
        ),
        (
            "ext.multi_round.v1",
            "Contribute",
            json!({ "value": "v" }),
            "proposal.updated",
            ("proposal", "m1"),
        ),
        ("ext.tools.v1", "toolcall", json!({ "toolCallId": "x" }), "tool.called", ("tool", "x")),
        ("ext.tools.v1", "ToolOutput", json!({}), "tool.completed", ("tool", "m1")),
        (
            "ext.gov.v1",
            "PolicyResolved",
            json!({ "policyId": "pol" }),
            "policy.resolved",
            ("policy", "pol"),
        ),
        (
            "ext.gov.v1",
            "PolicyCommitmentEvaluated",
            json!({ "commitmentId": "c1" }),
            "policy.commitment.evaluated",
            ("policy", "c1"),
        ),
        (
            "ext.gov.v1",
            "PolicyDenied",
            json!({ "policyDenied": true }),
            "policy.denied",
            ("policy", "m1"),
        ),
    ];
    for (mode, message_type, payload, event, about) in cases {
        let drafts = events(&envelope(mode, message_type, payload));
        assert_eq!(types(&drafts), ["message.received", event], "{message_type}");
        assert_eq!(subject(&drafts[0]), ("message", "m1"), "{message_type}");
        assert_eq!(subject(&drafts[1]), about, "{message_type}");
        assert_eq!(drafts[1].source, Source::runtime(message_type));
    }
}

#[test]
fn a_session_start_and_an_unknown_type_are_only_received() {
    let start = events(&envelope(DECISION, "SessionStart", json!({ "participants": ["bob"] })));
    let unknown = events(&envelope("ext.other.v1", "Whatever", json!({ "note": "n" })));

    assert_eq!(types(&start), ["message.received"]);
    assert_eq!(start[0].data["payload"], json!({ "participants": ["bob"] }));
    assert_eq!(types(&unknown), ["message.received"]);
    assert_eq!(unknown[0].data["note"], json!("n"));
}

#[test]
fn data_has_the_payload_whole_and_its_own_scalars_on_top() {
    let long = "x".repeat(2000);
    let payload = json!({
        "vote": "APPROVE", "sender": "mallory", "senderAuthenticated": false, "n": 1, "long": long,
        "nested": { "a": 1 },
    });

    let drafts = events(&envelope("ext.other.v1", "Vote", payload.clone()));

    let data = &drafts[1].data;
    assert_eq!(data["decodedPayload"], payload);
    assert_eq!(data["vote"], json!("APPROVE"));
    assert_eq!(data["n"], json!(1));
    assert_eq!(data["sender"], json!("alice"));
    assert_eq!(data["payloadTypeName"], json!("__json__"));
    for absent in ["senderAuthenticated", "long", "nested"] {
        assert!(!data.contains_key(absent), "{absent}");
    }
}

#[test]
fn a_participant_is_seen_once() {
    let mut normalizer = Normalizer::new([], None);
    let message = envelope(DECISION, "Vote", json!({}));

    let first = normalizer.envelope(&message, at(SENT));
    let second = normalizer.envelope(&message, at(SENT));

    assert_eq!(types(&first), ["participant.seen", "message.received", "proposal.updated"]);
    assert_eq!(subject(&first[0]), ("participant", "alice"));
    assert_eq!(types(&second), ["message.received", "proposal.updated"]);
}

#[test]
fn a_time_is_the_senders_own_within_the_order_and_the_arrival() {
    let mut normalizer = normalizer();
    let mut ts = |sent: i64, received: i64| {
        let mut message = envelope(DECISION, "SessionStart", json!({}));
        message.timestamp_unix_ms = sent;
        normalizer.envelope(&message, at(received))[0].ts
    };

    assert_eq!(ts(SENT, SENT + 9000), at(SENT));
    assert_eq!(ts(SENT - 500, SENT + 9000), at(SENT), "never before the last");
    assert_eq!(ts(SENT + 20_000, SENT + 9000), at(SENT + 9000), "never after the arrival");
    for nonsense in [0, -1, i64::MIN, i64::MAX, 1_763_800_000] {
        assert_eq!(ts(nonsense, SENT + 9500), at(SENT + 9500), "{nonsense}");
    }
}

#[test]
fn a_task_tells_of_its_progress_once() {
    let cases = [
        (
            "TaskUpdate",
            json!({ "taskId": "t1", "progress": 0.5, "status": "working" }),
            json!({ "percentage": 50.0, "message": "working" }),
        ),
        (
            "TaskUpdate",
            json!({ "taskId": "t1", "progress": 75.0, "message": "nearly", "status": "working" }),
            json!({ "percentage": 75.0, "message": "nearly" }),
        ),
        (
            "TaskComplete",
            json!({ "taskId": "t1" }),
            json!({ "percentage": 100.0, "message": "completed" }),
        ),
        ("TaskFail", json!({ "taskId": "t1", "reason": "no" }), json!({ "message": "no" })),
    ];
    for (message_type, payload, progress) in cases {
        let drafts = events(&envelope(TASK, message_type, payload));
        assert_eq!(
            types(&drafts),
            ["message.received", "proposal.updated", "progress.reported"],
            "{message_type}"
        );
        assert_eq!(drafts[2].data["decodedPayload"], progress);
        assert_eq!(drafts[2].data["message"], progress["message"]);
        assert_eq!(drafts[2].data["taskId"], json!("t1"));
    }
    let silent = events(&envelope(TASK, "TaskUpdate", json!({ "taskId": "t1" })));
    assert_eq!(types(&silent), ["message.received", "proposal.updated"]);
}

#[test]
fn a_progress_message_is_reported_once_in_percent() {
    for (payload, percentage) in [
        (json!({ "progress": 0.5 }), 50.0),
        (json!({ "progress": 3.0, "total": 4.0 }), 75.0),
        (json!({ "progress": 60.0, "total": 100.0 }), 60.0),
        (json!({ "progress": 9.0, "total": 4.0 }), 100.0),
    ] {
        let drafts = events(&envelope("", "Progress", payload));
        assert_eq!(types(&drafts), ["message.received", "progress.reported"]);
        assert_eq!(drafts[1].data["percentage"], json!(percentage));
        assert_eq!(drafts[1].data["decodedPayload"]["percentage"], json!(percentage));
        assert_eq!(drafts[1].data["decodedPayload"]["message"], json!(""));
    }
}

#[test]
fn a_denial_inside_another_message_is_an_event_of_its_own() {
    let payload = json!({ "policyDenied": true, "commitmentId": "c9" });

    let drafts = events(&envelope("ext.gov.v1", "Vote", payload));

    assert_eq!(types(&drafts), ["message.received", "proposal.updated", "policy.denied"]);
    assert_eq!(subject(&drafts[2]), ("policy", "c9"));
}

#[test]
fn a_signal_says_whether_its_sender_is_vouched_for() {
    let mut signal = envelope(
        "",
        "Signal",
        json!({ "signalType": "note", "correlationSessionId": "s9", "confidence": 0.5 }),
    );
    signal.session_id.clear();
    let mut normalizer = Normalizer::new([], None);

    let doubtful = normalizer.signal(&signal, false, at(SENT));
    let vouched = normalizer.signal(&signal, true, at(SENT));

    assert_eq!(types(&doubtful), ["message.received", "signal.emitted"]);
    assert_eq!(types(&vouched), ["participant.seen", "message.received", "signal.emitted"]);
    assert_eq!(doubtful[1].data["senderAuthenticated"], json!(false));
    assert_eq!(vouched[2].data["senderAuthenticated"], json!(true));
    assert_eq!(vouched[2].data["sessionId"], json!("s9"));
    assert_eq!(vouched[2].data["signalType"], json!("note"));
    assert_eq!(subject(&vouched[2]), ("signal", "m1"));
    assert_eq!(correlate(&signal).session_id.as_deref(), Some("s9"));
}

#[test]
fn a_progress_names_the_message_it_reports_on() {
    let mut progress = envelope("", "Progress", json!({ "targetMessageId": "m0" }));
    progress.session_id.clear();
    let correlation = correlate(&progress);
    assert_eq!(correlation.session_id, None);
    assert_eq!(correlation.target_message_id.as_deref(), Some("m0"));
}

#[test]
fn a_model_call_is_found_wherever_it_is_reported_and_counted_once() {
    use base64::Engine as _;
    let usage = json!({ "promptTokens": 10, "completionTokens": 5 });
    let whole = json!({ "model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 5.0 });
    let split = json!({ "model": "gpt-4o", "tokenUsage": usage });
    let encoded = base64::engine::general_purpose::STANDARD.encode(split.to_string());
    let cases = [
        ("Note", json!({ "llmCall": whole })),
        ("Note", json!({ "llmCall": split })),
        ("Note", json!({ "metadata": { "llmCall": whole } })),
        ("Note", json!({ "model": "gpt-4o", "tokenUsage": usage })),
        ("Note", json!({ "metadata": split })),
        ("Signal", json!({ "signalType": "llm.call.completed", "data": encoded })),
        ("Note", json!({ "signal_type": "llm.call.completed", "data": whole })),
    ];
    for (message_type, payload) in cases {
        let drafts = events(&envelope("", message_type, payload.clone()));
        let calls: Vec<_> =
            drafts.iter().filter(|draft| draft.event_type == EventType::LlmCallCompleted).collect();
        assert_eq!(calls.len(), 1, "{payload}");
        assert_eq!(
            calls[0].data["decodedPayload"],
            json!({
                "model": "gpt-4o", "promptTokens": 10, "completionTokens": 5, "totalTokens": 15,
            }),
            "{payload}"
        );
        assert_eq!(calls[0].data["totalTokens"], json!(15));
    }
}

#[test]
fn what_only_looks_like_a_model_call_is_none() {
    for payload in [
        json!({ "tokenUsage": {} }),
        json!({ "tokenUsage": "many" }),
        json!({ "llmCall": { "promptTokens": "ten", "model": "m" } }),
        json!({ "signalType": "llm.call.completed", "data": "bm90IGpzb24=" }),
        json!({ "data": { "promptTokens": 1 } }),
    ] {
        let drafts = events(&envelope("", "Note", payload.clone()));
        assert_eq!(types(&drafts), ["message.received"], "{payload}");
    }
}

#[test]
fn what_cannot_be_read_is_recorded_with_the_reason() {
    let mut broken = envelope(DECISION, "Vote", json!({}));
    broken.payload = b"\x0a\xff\xff".to_vec();
    let mut zero = envelope(DECISION, "Vote", json!({ "reason": "a\0" }));
    zero.sender = "ali\0ce".to_owned();

    let broken = events(&broken);
    let zero = events(&zero.sanitize());

    assert_eq!(types(&broken), ["message.received", "proposal.updated"]);
    assert_eq!(broken[0].data["payload"]["payloadBase64"], json!("Cv//"));
    assert!(broken[0].data.contains_key("decodeError"));
    assert_eq!(zero[1].data["sanitized"], json!(true));
    assert_eq!(zero[1].data["reason"], json!("a\u{FFFD}"));
}

fn session() -> Session {
    Session {
        run_id: RunId(uuid::Uuid::nil()),
        runtime_kind: "rust".to_owned(),
        session_id: SessionId::trusted("0192f1a4-7c3e-7b2a-9f10-5d2c8e4b6a01"),
        mode_name: DECISION.to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "1".to_owned(),
        policy_version: String::new(),
        initiator: None,
        state: SessionState::Resolved,
        participants: vec![],
        context_id: None,
        extension_keys: vec![],
        started_at_unix_ms: None,
        expires_at: None,
        last_seen_at: None,
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: at(SENT),
        updated_at: at(SENT),
        evidence: crate::evidence::Evidence::default(),
    }
}

fn receipt() -> Value {
    json!({
        "receipt_format": "macp-receipt/1",
        "session_id": "0192f1a4-7c3e-7b2a-9f10-5d2c8e4b6a01",
        "mode": DECISION,
        "commitment": {
            "commitment_id": "c2", "action": "decision.approved", "authority_scope": "",
            "reason": "sealed", "mode_version": "1.0.0", "policy_version": "p",
            "configuration_version": "1", "outcome_positive": true,
            "supersedes": { "session_id": "prior", "commitment_hash": "sha256:00" },
        },
        "commitment_hash": "sha256:7c",
        "issuer": "runtime:example",
        "issued_at": "2025-11-22T08:26:41Z",
        "attestations": [],
    })
}

#[test]
fn a_receipt_tells_the_decision_of_its_session() {
    let issued = at(1_763_800_001_000);

    let draft = normalizer().receipt(&session(), &receipt(), at(SENT + 60_000)).unwrap();

    assert_eq!(draft.event_type, EventType::DecisionFinalized);
    assert_eq!(draft.ts, issued);
    assert_eq!(subject(&draft), ("decision", "c2"));
    assert_eq!(draft.data["source"], json!("receipt"));
    assert_eq!(draft.data["commitmentHash"], json!("sha256:7c"));
    assert_eq!(draft.data["action"], json!("decision.approved"));
    assert_eq!(
        draft.data["decodedPayload"],
        json!({
            "commitmentId": "c2", "action": "decision.approved", "reason": "sealed",
            "modeVersion": "1.0.0", "policyVersion": "p", "configurationVersion": "1",
            "outcomePositive": true,
            "supersedes": { "sessionId": "prior", "commitmentHash": "sha256:00" },
        })
    );
}

#[test]
fn a_receipt_of_another_session_or_format_says_nothing() {
    let mut other = receipt();
    other["session_id"] = json!("somebody-elses-session-id");
    let mut unknown = receipt();
    unknown["receipt_format"] = json!("macp-receipt/2");
    for receipt in [other, unknown, json!(null), json!({}), json!([1])] {
        assert_eq!(normalizer().receipt(&session(), &receipt, at(SENT)), None, "{receipt}");
    }
}
