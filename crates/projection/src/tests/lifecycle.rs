//! What is not of any mode: status, participants, signals, calls, gaps, and the figures.

use control_plane_domain::control;
use control_plane_domain::event::SubjectKind;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{EventType, RunState, SessionState};
use serde_json::{Value, json};

use super::support::{DECISION, Log, at, only, run_id, stored};
use crate::{PriceTable, Projection, apply_metrics};

fn statuses(state: &Value) -> Vec<String> {
    let all = state["participants"].as_array().unwrap();
    all.iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect()
}

fn figures(log: &Log) -> RunMetrics {
    let mut metrics = RunMetrics::empty(run_id());
    for event in &log.events {
        apply_metrics(&mut metrics, event, &PriceTable::default());
    }
    metrics
}

#[test]
fn the_empty_state_has_every_section() {
    assert_eq!(
        serde_json::to_value(Projection::empty(run_id())).unwrap(),
        json!({
            "run": { "runId": run_id(), "status": "queued" },
            "participants": [],
            "graph": { "nodes": [], "edges": [] },
            "decision": {},
            "signals": { "signals": [] },
            "progress": { "entries": [] },
            "timeline": { "latestSeq": 0, "totalEvents": 0, "recent": [] },
            "trace": { "spanCount": 0, "linkedArtifacts": [] },
            "outboundMessages": { "total": 0, "queued": 0, "accepted": 0, "rejected": 0 },
            "policy": { "policyVersion": "", "commitmentEvaluations": [] },
            "llm": {
                "calls": [],
                "totals": {
                    "callCount": 0, "promptTokens": 0, "completionTokens": 0, "totalTokens": 0,
                    "estimatedCostUsd": 0.0,
                },
            },
        })
    );
}

#[test]
fn the_status_follows_the_run() {
    let mut log = Log::empty(DECISION, &["alice"]);
    let mut seen = Vec::new();
    let mut note = |log: &Log| seen.push(log.state().run.status);

    note(log.created());
    note(log.started());
    note(log.bound());
    note(log.opened());
    note(log.enters(RunState::Suspended));
    note(log.enters(RunState::Running));
    note(log.session_state(SessionState::Resolved));
    note(log.enters(RunState::Completed));
    note(log.session_state(SessionState::Open));
    note(log.bound());

    use RunState::*;
    assert_eq!(
        seen,
        [
            Queued,
            Starting,
            BindingSession,
            Running,
            Suspended,
            Running,
            Running,
            Completed,
            Completed,
            Completed
        ]
    );
}

#[test]
fn the_run_section_has_the_facts_of_the_session() {
    let state = Log::begun(DECISION, &["alice"]).json();
    assert_eq!(
        only(
            &state["run"],
            &["runtimeSessionId", "contextId", "extensionKeys", "modeName", "traceId", "startedAt"]
        ),
        json!({
            "runtimeSessionId": "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e",
            "contextId": "ctx:1", "extensionKeys": ["ext.a"], "modeName": DECISION,
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
            "startedAt": "2025-11-22T08:26:41.000Z",
        })
    );
    assert_eq!(state["trace"]["traceId"], json!("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(state["policy"]["policyVersion"], json!("policy.default"));
}

#[test]
fn adopting_a_run_again_does_not_set_it_back() {
    let mut log = Log::begun(DECISION, &["alice"]);
    log.session.participants.push("bob".to_owned());
    log.bound();

    let state = log.json();

    assert_eq!(state["run"]["status"], json!("running"));
    assert_eq!(statuses(&state), ["idle", "idle"]);
}

#[test]
fn a_run_that_completes_leaves_nobody_at_work() {
    let mut log = Log::begun(DECISION, &["alice", "bob", "carol"]);
    log.say("alice", "Note", json!({})).enters(RunState::Completed);
    let completed = log.json();
    log.say("bob", "Note", json!({}));
    let late = log.json();

    assert_eq!(statuses(&completed), ["completed", "skipped", "skipped"]);
    assert_eq!(statuses(&late), ["completed", "skipped", "skipped"]);
    assert_eq!(late["participants"][1]["latestSummary"], json!("Note"));
    assert_eq!(completed["graph"]["nodes"][1]["status"], json!("skipped"));
}

#[test]
fn a_run_that_fails_points_at_the_last_one_active() {
    let mut log = Log::begun(DECISION, &["alice", "bob", "carol"]);
    log.say("alice", "Note", json!({})).say("bob", "Note", json!({}));
    log.run.error_code = Some("SESSION_EXPIRED".to_owned());
    log.run.error_message = Some("The session expired.".to_owned());
    log.enters(RunState::Failed);

    let state = log.json();

    assert_eq!(statuses(&state), ["completed", "failed", "skipped"]);
    assert_eq!(
        only(&state["run"], &["status", "errorCode", "error"]),
        json!({
            "status": "failed", "errorCode": "SESSION_EXPIRED", "error": "The session expired.",
        })
    );
    assert_eq!(state["policy"]["quorumStatus"], json!("failed"));
}

#[test]
fn gaps_add_up_and_a_divergence_is_said() {
    let mut log = Log::begun(DECISION, &["alice"]);
    let id = log.session.session_id.clone();
    log.add([
        control::stream_gap(&id, 3, 5, "compacted", at(9000)),
        control::stream_gap(&id, 9, 9, "compacted", at(9000)),
        control::stream_diverged(&id, 9, "another history", at(9500)),
    ]);

    let state = log.json();

    assert_eq!(
        state["run"]["historyGap"],
        json!({ "fromOrdinal": 3, "toOrdinal": 9, "missing": 4 })
    );
    assert_eq!(
        state["run"]["diverged"],
        json!({ "ordinal": 9, "detail": "another history", "ts": "2025-11-22T08:26:49.500Z" })
    );
}

#[test]
fn a_gap_without_an_end_is_shown_as_one() {
    let mut log = Log::begun(DECISION, &["alice"]);
    let id = log.session.session_id.clone();
    log.add([control::stream_gap_open(&id, 7, "SESSION_EVICTED", at(9000))]);
    let alone = json!({ "fromOrdinal": 7, "toOrdinal": null, "missing": 0 });
    assert_eq!(log.json()["run"]["historyGap"], alone);

    let mut log = Log::begun(DECISION, &["alice"]);
    log.add([
        control::stream_gap(&id, 3, 5, "HISTORY_UNAVAILABLE", at(9000)),
        control::stream_gap_open(&id, 7, "SESSION_EVICTED", at(9000)),
    ]);

    let both = json!({ "fromOrdinal": 3, "toOrdinal": null, "missing": 3 });
    assert_eq!(log.json()["run"]["historyGap"], both);
}

#[test]
fn a_signal_is_listed_and_acknowledged() {
    let mut log = Log::begun(DECISION, &["alice"]);
    log.signal("alice", "Signal", json!({ "signalType": "alarm", "confidence": 0.7 }), true);
    let id = log.state().signals.signals[0].id.clone();
    log.say("bob", "SignalAck", json!({ "signalId": id }));

    let signal = &log.json()["signals"]["signals"][0];

    assert_eq!(
        only(signal, &["name", "sourceParticipantId", "confidence", "acknowledgedBy"]),
        json!({
            "name": "alarm", "sourceParticipantId": "alice", "confidence": 0.7,
            "acknowledgedBy": "bob",
        })
    );
    assert_eq!(signal["payload"]["signalType"], json!("alarm"));
}

#[test]
fn what_nobody_vouches_for_is_listed_and_moves_nothing() {
    let mut log = Log::begun(DECISION, &["alice"]);
    let before = log.json();
    let usage = json!({ "signal_type": "x", "tokenUsage": { "promptTokens": 5 } });
    log.signal("mallory", "Signal", json!({ "signalType": "alarm" }), false)
        .signal("mallory", "Progress", json!({ "progress": 0.5 }), false)
        .signal("mallory", "Commitment", json!({ "action": "x" }), false)
        .signal("mallory", "Vote", usage, false);

    let after = log.json();

    for section in ["run", "participants", "graph", "decision", "progress", "policy", "llm"] {
        assert_eq!(after[section], before[section], "{section}");
    }
    let signals = after["signals"]["signals"].as_array().unwrap();
    assert_eq!(signals.len(), 1);
    assert_eq!(signals[0]["senderAuthenticated"], json!(false));
    assert_eq!(figures(&log).total_tokens, 0);
}

#[test]
fn model_calls_are_priced_and_counted_once() {
    let mut log = Log::begun("ext.other.v1", &["alice"]);
    for _ in 0..120 {
        log.say(
            "alice",
            "Vote",
            json!({
                "model": "gpt-4o",
                "tokenUsage": { "promptTokens": 1000, "completionTokens": 100 },
            }),
        );
    }

    let state = log.state();
    let metrics = figures(&log);

    assert_eq!(state.llm.calls.len(), 100);
    assert_eq!(state.llm.totals.call_count, 120);
    assert_eq!(state.llm.totals.prompt_tokens, 120_000);
    assert!((state.llm.totals.estimated_cost_usd - 0.42).abs() < 1e-9);
    assert_eq!(metrics.total_tokens, 132_000);
    assert!((metrics.estimated_cost_usd - 0.42).abs() < 1e-9);
}

#[test]
fn sent_messages_and_artifacts_are_kept() {
    let mut log = Log::begun(DECISION, &["alice"]);
    log.raw(
        EventType::MessageSent,
        (SubjectKind::Message, "x"),
        json!({ "sender": "control-plane", "to": ["alice"], "messageType": "Vote" }),
    )
    .raw(EventType::MessageSendFailed, (SubjectKind::Message, "y"), json!({}))
    .raw(EventType::ArtifactCreated, (SubjectKind::Artifact, "a1"), json!({}))
    .raw(EventType::ArtifactCreated, (SubjectKind::Artifact, "a1"), json!({}))
    .raw(
        EventType::PolicyCommitmentEvaluated,
        (SubjectKind::Policy, "c1"),
        json!({ "decodedPayload": { "decision": "allow", "reasons": ["fine", 3] } }),
    );

    let state = log.json();

    assert_eq!(
        state["outboundMessages"],
        json!({ "total": 2, "queued": 0, "accepted": 1, "rejected": 1 })
    );
    assert_eq!(state["trace"]["linkedArtifacts"], json!(["a1"]));
    assert_eq!(
        only(
            &state["policy"]["commitmentEvaluations"][0],
            &["commitmentId", "decision", "reasons"]
        ),
        json!({ "commitmentId": "c1", "decision": "allow", "reasons": ["fine"] })
    );
    assert_eq!(state["policy"]["quorumStatus"], json!("reached"));
}

#[test]
fn the_state_of_a_huge_session_stays_bounded() {
    let everybody: Vec<String> = (0..1200).map(|at| format!("agent-{at}")).collect();
    let mut log = Log::begun("ext.other.v1", &["agent-0"]);
    log.say("agent-0", "SessionStart", json!({ "participants": everybody }));
    let long = "x".repeat(100_000);
    for at in 0..250 {
        log.say("agent-0", "Vote", json!({ "proposalId": format!("p{at}"), "vote": "yes" }));
        log.signal("agent-1", "Signal", json!({ "signalType": long }), true);
        log.signal("agent-1", "Progress", json!({ "message": long }), true);
    }
    for at in 0..600 {
        let id = format!("artifact-{at}");
        log.raw(EventType::ArtifactCreated, (SubjectKind::Artifact, &id), json!({}));
    }

    let state = log.state();

    assert_eq!(state.participants.len(), 1000);
    assert!(state.graph.nodes.len() <= 1010);
    assert_eq!(state.graph.edges.len(), 300);
    assert_eq!(state.policy.vote_tally.len(), 100);
    assert_eq!(state.signals.signals.len(), 200);
    assert_eq!(state.progress.entries.len(), 100);
    assert_eq!(state.timeline.recent.len(), 50);
    assert_eq!(state.trace.linked_artifacts.len(), 500);
    assert!(serde_json::to_string(&state).unwrap().len() < 1_000_000);
    assert_eq!(stored(&state), state);
}

#[test]
fn a_row_of_another_version_is_not_read() {
    let state = Log::begun(DECISION, &["alice"]).state();
    let mut old = state.to_row();
    old.schema_version -= 1;
    let mut broken = state.to_row();
    broken.graph = json!("nonsense");

    assert_eq!(Projection::from_row(old), None);
    assert_eq!(Projection::from_row(broken), None);
    assert_eq!(Projection::from_row(state.to_row()), Some(state));
}

#[test]
fn the_figures_stand_still_once_the_run_has_ended() {
    let mut log = Log::begun(DECISION, &["alice"]);
    log.say("alice", "Proposal", json!({ "proposalId": "p1" }))
        .signal("alice", "Signal", json!({}), true)
        .say("alice", "Commitment", json!({ "commitmentId": "c1" }))
        .session_state(SessionState::Resolved)
        .enters(RunState::Completed);
    let ended = figures(&log);
    log.raw(EventType::ArtifactCreated, (SubjectKind::Artifact, "a1"), json!({}));
    let later = figures(&log);

    assert_eq!(ended.message_count, 3);
    assert_eq!(ended.signal_count, 1);
    assert_eq!(ended.proposal_count, 1);
    assert_eq!(ended.decision_count, 1);
    assert_eq!(ended.session_state.as_deref(), Some("SESSION_STATE_RESOLVED"));
    assert!(ended.ended);
    assert_eq!(later.event_count, ended.event_count + 1);
    assert_eq!(later.last_event_at, ended.last_event_at);
    assert_eq!(later.duration_ms, ended.duration_ms);
    assert!(ended.duration_ms > Some(0));
}

#[test]
fn a_receipt_closes_a_decision_whose_end_was_not_seen() {
    let mut log = Log::begun(DECISION, &["alice"]);
    log.say("alice", "Proposal", json!({ "proposalId": "p1" }));
    let receipt = json!({
        "receipt_format": "macp-receipt/1",
        "session_id": log.session.session_id.as_str(),
        "commitment": { "commitment_id": "c1", "action": "decision.approved",
            "outcome_positive": true },
        "issued_at": "2026-10-24T12:00:00Z",
    });
    let now = log.now();
    let draft = log.normalizer.receipt(&log.session, &receipt, now);
    log.add(draft);

    let current = &log.json()["decision"]["current"];

    assert_eq!(
        only(current, &["action", "finalized", "proposalId", "commitmentId", "source"]),
        json!({
            "action": "decision.approved", "finalized": true, "proposalId": "p1",
            "commitmentId": "c1", "source": "receipt",
        })
    );
}
