//! Every condition, by its sentence.

use control_plane_domain::event::{EventDraft, Source};
use control_plane_domain::run::{Failure, FailureCode, RunMode};
use control_plane_domain::{EventType, SessionId, SessionState, control};
use control_plane_storage::Owner as Holder;
use serde_json::{Map, Value, json};

use super::*;

mod turns;

const DECISION: &str = "macp.mode.decision.v1";

/// 2025-11-22T08:26:40.000Z and so many seconds.
fn at(seconds: i64) -> Timestamp {
    time::from_unix_ms(1_763_800_000_000 + seconds * 1000).unwrap()
}

/// A run that was posted at 0 and begun at 1; it is followed here, and it is 5 seconds past.
fn facts(mode: &str) -> Facts {
    let id = RunId(uuid());
    let session_id = SessionId::trusted("0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e");
    let run = Run {
        id,
        state: RunState::Starting,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        session_id: Some(session_id.clone()),
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 2,
        source_kind: None,
        source_ref: None,
        tags: Vec::new(),
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: at(0),
        started_at: Some(at(1)),
        ended_at: None,
        updated_at: at(1),
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    };
    let session = Session {
        run_id: id,
        runtime_kind: "rust".to_owned(),
        session_id,
        mode_name: mode.to_owned(),
        mode_version: "1.0.0".to_owned(),
        configuration_version: "c".to_owned(),
        policy_version: String::new(),
        initiator: None,
        state: SessionState::Unspecified,
        participants: Vec::new(),
        context_id: None,
        extension_keys: Vec::new(),
        started_at_unix_ms: None,
        expires_at: None,
        last_seen_at: None,
        cursor: 0,
        last_message_id: None,
        last_event_ts: None,
        connected_at: None,
        disconnected_at: None,
        created_at: at(0),
        updated_at: at(1),
        evidence: control_plane_domain::evidence::Evidence::default(),
    };
    let here = Holder { instance: 0x2a, alive: true, here: true };
    Facts {
        state: Projection::empty(id),
        run,
        session: Some(session),
        ownership: Ownership { owner: Some(here), epoch: 1, asked: 0 },
        suspended_at: None,
        outage_detail: None,
        signal_gaps: Vec::new(),
        now: at(5),
    }
}

fn uuid() -> uuid::Uuid {
    "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".parse().unwrap()
}

impl Facts {
    fn session_mut(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    fn apply(&mut self, draft: EventDraft) {
        let event = draft.into_event(self.run.id, self.state.version() + 1, at(4));
        self.state.apply(&event);
    }

    /// Alice has started the session.
    fn running(mut self, participants: &[&str]) -> Self {
        self.run.state = RunState::Running;
        let session = self.session_mut();
        session.state = SessionState::Open;
        session.initiator = Some("alice".to_owned());
        session.participants = participants.iter().map(|&one| one.to_owned()).collect();
        session.started_at_unix_ms = Some(1);
        session.expires_at = Some(at(3600));
        session.connected_at = Some(at(2));
        session.last_seen_at = Some(at(3));
        session.cursor = 1;
        let session = session.clone();
        for draft in control::session_bound(&session, at(2)) {
            self.apply(draft);
        }
        self
    }

    /// Somebody says something about a proposal, request, task or handoff.
    fn said(mut self, sender: &str, message_type: &str, payload: Value) -> Self {
        let mode = self.session.as_ref().unwrap().mode_name.clone();
        let Value::Object(data) = json!({
            "sender": sender,
            "messageType": message_type,
            "messageId": format!("m{}", self.state.version()),
            "modeName": mode,
            "decodedPayload": payload,
        }) else {
            panic!("not an object")
        };
        self.apply(EventDraft {
            event_type: match message_type {
                "Commitment" => EventType::DecisionFinalized,
                _ => EventType::ProposalUpdated,
            },
            ts: at(3),
            subject: None,
            source: Source::runtime(message_type),
            trace: None,
            data,
        });
        self
    }

    fn ended(mut self, state: RunState) -> Self {
        self.run.state = state;
        self.run.ended_at = Some(at(9));
        self
    }
}

fn summary(facts: &Facts) -> String {
    diagnose(facts).summary
}

#[test]
fn a_run_that_was_only_recorded_is_not_begun() {
    let mut facts = facts(DECISION);
    facts.run.state = RunState::Queued;
    facts.run.started_at = None;

    let diagnosis = diagnose(&facts);

    assert_eq!(diagnosis.condition, Condition::Queued);
    assert_eq!(
        diagnosis.summary,
        "Recorded, and not begun yet since 2025-11-22T08:26:40.000Z (5 s)."
    );
}

#[test]
fn a_run_without_its_session_waits_for_it() {
    let diagnosis = diagnose(&facts(DECISION));

    assert_eq!(diagnosis.condition, Condition::WaitingForSession);
    assert_eq!(diagnosis.since, Some(at(1)));
    assert_eq!(diagnosis.silent_for_ms, None);
    assert_eq!(
        diagnosis.summary,
        "Waiting for the session to be started since 2025-11-22T08:26:41.000Z (4 s)."
    );
}

#[test]
fn a_run_that_is_bound_opens_its_stream() {
    let mut facts = facts(DECISION).running(&["alice"]);
    facts.run.state = RunState::BindingSession;
    assert_eq!(
        summary(&facts),
        "The session is found, and its stream is being opened since 2025-11-22T08:26:41.000Z (4 s)."
    );
}

#[test]
fn a_runtime_that_does_not_answer_is_named_with_what_it_said_last() {
    let mut facts = facts(DECISION).running(&["alice", "bob"]);
    facts.session_mut().disconnected_at = Some(at(4));
    facts.outage_detail = Some("connection refused.".to_owned());
    facts.now = at(64);

    let diagnosis = diagnose(&facts);

    assert_eq!(diagnosis.condition, Condition::RuntimeUnreachable);
    assert_eq!(diagnosis.outage.unwrap().since, at(4));
    assert_eq!(
        diagnosis.summary,
        "The runtime cannot be reached since 2025-11-22T08:26:44.000Z (1 min): connection refused."
    );
}

#[test]
fn an_outage_that_is_over_is_not_mentioned() {
    let mut facts = facts(DECISION).running(&["alice", "bob"]);
    facts.session_mut().disconnected_at = Some(at(3));
    facts.session_mut().connected_at = Some(at(4));
    facts.outage_detail = Some("connection refused".to_owned());
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.condition, Condition::WaitingForParticipants);
    assert_eq!(diagnosis.outage, None);
}

#[test]
fn a_suspended_run_tells_what_its_session_has_left() {
    let mut facts = facts(DECISION).running(&["alice", "bob"]);
    facts.run.state = RunState::Suspended;
    facts.suspended_at = Some(at(60));
    facts.now = at(7200);

    let diagnosis = diagnose(&facts);

    assert_eq!(diagnosis.condition, Condition::Suspended);
    assert_eq!(
        diagnosis.suspension,
        Some(Suspension { since: Some(at(60)), banked_ttl_ms: Some(3_540_000) })
    );
    assert_eq!(
        diagnosis.summary,
        "Suspended since 2025-11-22T08:27:40.000Z (1 h 59 min), with 59 min of its time banked."
    );
}

#[test]
fn a_parked_run_gives_its_reason() {
    let mut facts = facts(DECISION).running(&["alice"]);
    facts.run.parked_reason = Some("the database refused the data: too long".to_owned());
    facts.ownership.owner = Some(Holder { instance: 7, alive: true, here: false });

    let diagnosis = diagnose(&facts);

    assert_eq!(diagnosis.condition, Condition::Parked);
    assert_eq!(
        diagnosis.summary,
        "Parked until a server starts anew: the database refused the data: too long."
    );
}

#[test]
fn a_run_that_was_imported_before_its_end_is_followed_by_nobody() {
    let mut facts = facts(DECISION).running(&["alice"]);
    facts.run.imported_at = Some(at(100));

    let diagnosis = diagnose(&facts);

    assert_eq!((diagnosis.condition, diagnosis.since), (Condition::Imported, Some(at(100))));
    assert_eq!(diagnosis.silent_for_ms, None);
    assert_eq!(
        diagnosis.summary,
        "Imported: another server recorded it, and it was running when it was exported."
    );
}

#[test]
fn a_run_whose_instance_is_gone_says_so_before_all_else() {
    let mut facts = facts(DECISION).running(&["alice"]);
    facts.session_mut().disconnected_at = Some(at(4));
    facts.ownership.owner = Some(Holder { instance: 0x2a, alive: false, here: false });
    assert_eq!(
        summary(&facts),
        "Not followed: instance 000000000000002a is gone, and no other has taken it yet."
    );

    facts.ownership.owner = None;
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.condition, Condition::NotFollowed);
    assert_eq!(diagnosis.summary, "Not followed: no instance has taken it yet.");
}

#[test]
fn an_instance_elsewhere_is_named() {
    let mut facts = facts(DECISION);
    facts.ownership.owner = Some(Holder { instance: 0x2a, alive: true, here: false });
    facts.ownership.asked = 2;
    assert_eq!(
        summary(&facts),
        "Waiting for the session to be started since 2025-11-22T08:26:41.000Z (4 s); \
         2 requests wait for its instance; followed by another instance, 000000000000002a."
    );
    let owner = diagnose(&facts).owner.unwrap();
    assert_eq!((owner.alive, owner.here), (true, false));
}

#[test]
fn silence_is_told_when_it_is_longer_than_people_pause() {
    let mut facts = facts("ext.unknown.v1").running(&["alice"]);
    facts.now = at(12);
    assert_eq!(summary(&facts), "Followed.");

    facts.now = at(13);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.condition, Condition::Running);
    assert_eq!(diagnosis.silent_for_ms, Some(10_000));
    assert_eq!(diagnosis.summary, "Followed, silent for 10 s.");
}

#[test]
fn a_commitment_that_is_recorded_is_settled() {
    let facts = facts(DECISION).running(&["alice"]).said(
        "alice",
        "Commitment",
        json!({ "commitmentId": "c1", "action": "decision.selected" }),
    );
    assert_eq!(diagnose(&facts).condition, Condition::Settling);
    assert_eq!(
        summary(&facts),
        "The Commitment is recorded, and the end of the session is being confirmed \
         since 2025-11-22T08:26:43.000Z (2 s)."
    );
}

#[test]
fn a_completed_run_tells_what_was_decided_and_how_that_is_known() {
    let commitment =
        json!({ "commitmentId": "c1", "action": "decision.selected", "outcomePositive": true });
    let mut facts = facts(DECISION)
        .running(&["alice"])
        .said("alice", "Commitment", commitment)
        .ended(RunState::Completed);
    facts.ownership.owner = None;
    assert_eq!(
        summary(&facts),
        "Completed at 2025-11-22T08:26:49.000Z: decision.selected (positive)."
    );

    facts.state.decision.current.as_mut().unwrap().source = Some("receipt".to_owned());
    facts.state.decision.current.as_mut().unwrap().outcome_positive = Some(Some(false));
    facts.state.run.history_gap =
        Some(HistoryGap { from_ordinal: 3, to_ordinal: Some(6), missing: 4 });
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.silent_for_ms, None);
    assert!(diagnosis.end.unwrap().from_receipt);
    assert_eq!(
        diagnosis.summary,
        "Completed at 2025-11-22T08:26:49.000Z: decision.selected (negative), as the decision \
         receipt says; envelopes 3 to 6 of its history cannot be read any more."
    );
}

#[test]
fn a_completed_run_without_a_decision_says_that_none_could_be_read() {
    let facts = facts(DECISION).running(&["alice"]).ended(RunState::Completed);
    assert_eq!(
        summary(&facts),
        "Completed at 2025-11-22T08:26:49.000Z without a decision that could be read."
    );
}

#[test]
fn a_failed_run_tells_why() {
    let mut facts = facts(DECISION).running(&["alice"]);
    let failure =
        Failure { code: FailureCode::SessionExpired, message: "the session expired".to_owned() };
    facts.run.fail(&failure, at(9)).unwrap();
    facts.session_mut().disconnected_at = Some(at(4));
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.condition, Condition::Finished);
    assert_eq!(diagnosis.outage, None);
    assert_eq!(
        diagnosis.summary,
        "Failed at 2025-11-22T08:26:49.000Z with SESSION_EXPIRED: the session expired."
    );
}

#[test]
fn a_cancelled_run_says_when() {
    let facts = facts(DECISION).ended(RunState::Cancelled);
    assert_eq!(summary(&facts), "Cancelled at 2025-11-22T08:26:49.000Z.");
}

#[test]
fn what_is_missing_is_told_whatever_else_is_the_case() {
    let mut facts = facts(DECISION);
    let gap =
        |from, to, missing| Some(HistoryGap { from_ordinal: from, to_ordinal: Some(to), missing });
    facts.signal_gaps = vec![
        SignalGap { from: at(2), to: Some(at(3)), reason: "lagged".to_owned() },
        SignalGap { from: at(4), to: None, reason: "broken".to_owned() },
    ];
    facts.state.run.history_gap = gap(4, 4, 1);
    let waiting = "Waiting for the session to be started since 2025-11-22T08:26:41.000Z (4 s)";
    let signals = "signals may be missing between 2025-11-22T08:26:42.000Z and \
                   2025-11-22T08:26:43.000Z (lagged), and 1 more times";
    assert_eq!(
        summary(&facts),
        format!("{waiting}; envelope 4 of its history cannot be read any more; {signals}.")
    );

    facts.signal_gaps.remove(0);
    facts.state.run.history_gap = gap(4, 20, 5);
    assert_eq!(
        summary(&facts),
        format!(
            "{waiting}; 5 envelopes between 4 and 20 of its history cannot be read any more; \
             signals may be missing since 2025-11-22T08:26:44.000Z (broken)."
        )
    );

    facts.signal_gaps.clear();
    facts.state.run.history_gap =
        Some(HistoryGap { from_ordinal: 4, to_ordinal: None, missing: 0 });
    assert_eq!(
        summary(&facts),
        format!(
            "{waiting}; what was accepted from envelope 4 on, if anything, cannot be read any more."
        )
    );
}

#[test]
fn a_session_that_became_another_one_is_told() {
    let mut facts = facts(DECISION).running(&["alice"]);
    let session = facts.session.clone().unwrap();
    let draft = control::stream_diverged(&session.session_id, 2, "another one", at(4));
    facts.apply(draft);
    facts.run.error_code = Some("SESSION_DIVERGED".to_owned());
    let facts = facts.ended(RunState::Failed);
    assert_eq!(
        summary(&facts),
        "Failed at 2025-11-22T08:26:49.000Z with SESSION_DIVERGED; \
         another history stands under the session's id after envelope 2."
    );
}

#[test]
fn the_fields_are_those_of_the_api() {
    let mut facts = facts(DECISION).running(&["alice", "bob"]);
    facts.now = at(33);
    let value = serde_json::to_value(diagnose(&facts)).unwrap();
    assert_eq!(
        value,
        json!({
            "runId": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            "sessionId": "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e",
            "status": "running",
            "condition": "waiting_for_participants",
            "summary": "Waiting for a proposal of alice or bob, silent for 30 s.",
            "since": "2025-11-22T08:26:43.000Z",
            "waitingFor": { "what": "proposal", "subjectId": null, "participants": ["alice", "bob"] },
            "suspension": null,
            "outage": null,
            "lastHeardAt": "2025-11-22T08:26:43.000Z",
            "silentForMs": 30_000,
            "expiresAt": "2025-11-22T09:26:40.000Z",
            "lastOrdinal": 1,
            "lastSeq": 2,
            "owner": { "instance": "000000000000002a", "alive": true, "here": true },
            "requestsWaiting": 0,
            "historyGap": null,
            "diverged": null,
            "signalGaps": [],
            "parkedReason": null,
            "end": null,
        })
    );
}
