//! Comparing two runs.

use control_plane_domain::EventType;
use control_plane_storage::Store;
use control_plane_testkit::database::TestDb;
use serde_json::{Value, json};

use crate::filing::on;
use crate::support::{Api, Journal, read};

/// A run that is over: somebody proposed, somebody voted, somebody decided.
async fn decided(store: &Store, name: &str, vote: &str, positive: bool) -> Journal {
    let mut journal = Journal::create(store).await;
    let session = journal.session_id();
    let proposal = format!("{name}-p1");
    let mut log = Vec::new();
    for (sender, kind, event, mut payload) in [
        ("alice", "Proposal", EventType::ProposalCreated, json!({ "option": "step_up" })),
        ("bob", "Vote", EventType::ProposalUpdated, json!({ "vote": vote })),
        (
            "alice",
            "Commitment",
            EventType::DecisionFinalized,
            json!({ "commitmentId": proposal, "action": "decide", "outcomePositive": positive }),
        ),
    ] {
        if kind != "Commitment" {
            payload["proposalId"] = json!(proposal);
        }
        let data = json!({
            "modeName": "macp.mode.decision.v1", "messageType": kind, "sender": sender,
            "messageId": format!("{name}-{kind}"), "sessionId": session, "decodedPayload": payload,
        });
        let seen = json!({ "participantId": sender });
        log.push((EventType::ParticipantSeen, seen));
        log.push((EventType::MessageReceived, data.clone()));
        log.push((event, data));
    }
    journal.append_events(log).await;
    journal.complete().await;
    journal
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_are_compared_by_their_own_ids_or_their_sessions() {
    for database in [TestDb::sqlite(), TestDb::postgres()] {
        let api = on(database).await;
        let left = decided(&api.store, "left", "APPROVE", true).await;
        let right = decided(&api.store, "right", "REJECT", false).await;

        let body = json!({ "leftRunId": left.id(), "rightRunId": right.session_id() });
        let (status, found) = api.post("/runs/compare", &body).await;

        assert_eq!(status, 201, "{found}");
        assert_eq!(
            found["summary"],
            "bob voted REJECT instead of APPROVE on 'step_up'; the outcome turned negative"
        );
        assert_eq!(found["left"]["runId"], json!(left.id()));
        assert_eq!(found["right"]["status"], "completed");
        assert_eq!((&found["statusMatch"], &found["identical"]), (&json!(true), &json!(false)));
        assert_eq!(found["confidenceDelta"], -1.0);
        let nobody = json!({ "added": [], "removed": [], "common": ["alice", "bob"] });
        assert_eq!(found["participantsDiff"], nobody);
        assert_eq!(found["signalsDiff"], json!({ "added": [], "removed": [] }));
        assert_eq!(found["decisionDiff"]["changed"], json!(["outcome", "confidence"]));
        assert_eq!(found["firstDivergence"]["left"]["value"]["vote"], "APPROVE");
        assert_eq!(found["alignment"]["changed"], 2);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_may_be_compared_with_itself_and_a_key_that_may_only_read_may_ask() {
    let api = Api::with_keys("ui:read:reader").await;
    let run = decided(&api.store, "one", "APPROVE", true).await;
    let empty = Journal::create(&api.store).await;

    let ask = async |left: &Journal, right: &Journal| {
        let body = json!({ "leftRunId": left.id(), "rightRunId": right.id() });
        let request = api.client.post(api.at("/runs/compare")).bearer_auth("reader").json(&body);
        read(request.send().await.unwrap()).await
    };

    let (status, same) = ask(&run, &run).await;
    assert_eq!((status, &same["identical"]), (201, &json!(true)));
    assert_eq!(same["firstDivergence"], Value::Null);
    let (status, nothing) = ask(&empty, &empty).await;
    assert_eq!(status, 201);
    assert_eq!(nothing["summary"], "neither run has any steps, and both are running");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_runs_are_404_the_left_one_first_and_faults_are_named() {
    let api = Api::start().await;
    let known = Journal::create(&api.store).await.id().to_string();
    let (one, other) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());

    for (left, right, missing) in
        [(&one, &other, &one), (&known, &other, &other), (&one, &known, &one)]
    {
        let body = json!({ "leftRunId": left, "rightRunId": right });
        let (status, fault) = api.post("/runs/compare", &body).await;
        assert_eq!((status, &fault["errorCode"]), (404, &json!("RUN_NOT_FOUND")));
        assert!(fault["message"].as_str().unwrap().contains(missing.as_str()), "{fault}");
    }
    for (body, words) in [
        (json!({ "leftRunId": known }), "rightRunId is required"),
        (json!({ "leftRunId": known, "rightRunId": 1 }), "rightRunId must be"),
        (json!({ "leftRunId": known, "rightRunId": known, "x": 1 }), "x is not a known field"),
        (json!([]), "must be a JSON object"),
    ] {
        let (status, fault) = api.post("/runs/compare", &body).await;
        assert_eq!((status, &fault["errorCode"]), (400, &json!("VALIDATION_ERROR")));
        assert!(fault["message"][0].as_str().unwrap().contains(words), "{fault}");
    }
    let (status, _) =
        api.post("/runs/compare", &json!({ "leftRunId": "no id", "rightRunId": known })).await;
    assert_eq!(status, 400);
    api.stop().await;
}
