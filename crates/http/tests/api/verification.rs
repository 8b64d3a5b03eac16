//! What a run decided, as the API tells it, for every kind of evidence.

use std::sync::Arc;

use control_plane_domain::{Clock, RunId, SessionId, SystemClock};
use control_plane_storage::{KeySeen, ReceiptAnswer, ReceiptState};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::receipts::{ISSUER, Signer, document};
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup};

/// A server, and a run that completed with a Commitment.
struct Decision {
    api: Api,
    id: RunId,
    session: SessionId,
    payload: Vec<u8>,
}

impl Decision {
    async fn made(kind: Kind) -> Self {
        let database = Arc::new(TestDb::new(kind));
        let api = Api::set(Setup { database, ..Setup::default() }).await;
        let payload = message::commitment("c1", "deploy", Outcome::Positive).payload;
        let (id, session) = decide(&api, kind, &payload).await;
        Self { api, id, session, payload }
    }

    async fn get(&self) -> Value {
        let (status, answer) = self.api.get(&format!("/runs/{}/verification", self.id)).await;
        assert_eq!(status, 200, "{answer:#}");
        answer
    }

    async fn answered(&self, state: ReceiptState, document: Option<String>, keys: Vec<KeySeen>) {
        let detail = document.is_none().then(|| "the runtime said so".to_owned());
        let answer = ReceiptAnswer { state, document, detail, keys, now: SystemClock.now() };
        self.api.store.receipt_answer(self.id, answer).await.unwrap();
    }

    fn receipt(&self) -> Value {
        document(&self.session, &self.payload)
    }
}

/// A run that completed, whose last envelope is a Commitment of this payload.
async fn decide(api: &Api, kind: Kind, payload: &[u8]) -> (RunId, SessionId) {
    let mut journal = Journal::create(&api.store).await;
    journal.complete().await;
    let (id, session) = (journal.id(), journal.session_id());
    let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = match kind {
        Kind::Postgres => format!("'\\x{digits}'"),
        Kind::Sqlite => format!("X'{digits}'"),
    };
    let insert = format!(
        "INSERT INTO run_events_raw (run_id, source, ordinal, message_id, message_type, mode, \
         session_id, sender, macp_version, ts_unix_ms, received_at, payload, sender_authenticated, \
         sanitized) VALUES ('{id}', 'session', 1, 'm1', 'Commitment', 'macp.mode.decision.v1', \
         '{session}', 'alice', '1.0', 0, '2026-11-28 12:00:00+00:00', {bytes}, true, false)"
    );
    let read = format!("UPDATE runtime_sessions SET last_stream_cursor = 1 WHERE run_id = '{id}'");
    api.database.tamper(&insert).await;
    api.database.tamper(&read).await;
    (id, SessionId::trusted(session))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_or_waits_for_its_receipt_is_pending() {
    for kind in Kind::ALL {
        let decision = Decision::made(kind).await;
        let open = Journal::create(&decision.api.store).await;

        let (status, early) =
            decision.api.get(&format!("/runs/{}/verification", open.session_id())).await;
        let waiting = decision.get().await;

        assert_eq!((status, &early["status"]), (200, &json!("pending")));
        assert_eq!(early["commitment"], Value::Null);
        assert_eq!(waiting["status"], "pending");
        assert!(waiting["reason"].as_str().unwrap().contains("still to be fetched"));
        assert_eq!(waiting["commitment"]["commitment_id"], "c1");
        decision.api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_receipt_of_the_same_hash_verifies() {
    for kind in Kind::ALL {
        let decision = Decision::made(kind).await;
        let signer = Signer::new("key-1", 7);
        let key = KeySeen {
            issuer: ISSUER.to_owned(),
            kid: "key-1".to_owned(),
            public_key: signer.public_key(),
        };
        let receipt = signer.sign(decision.receipt());
        decision.answered(ReceiptState::Fetched, Some(receipt.to_string()), vec![key]).await;

        let answer = decision.get().await;

        assert_eq!(answer["status"], "verified", "{answer:#}");
        assert_eq!(answer["receipt"]["status"], "attested");
        assert_eq!(answer["receipt"]["keyId"], "key-1");
        assert_eq!(answer["receipt"]["document"], receipt);
        assert_eq!(answer["claimedHash"], receipt["commitment_hash"]);
        assert_eq!(answer["commitmentHash"], receipt["commitment_hash"]);
        assert_eq!(answer["commitmentSource"], "envelope");
        decision.api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_receipt_is_said_to_be_one() {
    let decision = Decision::made(Kind::Sqlite).await;
    let receipt = decision.receipt().to_string();
    decision.answered(ReceiptState::Fetched, Some(receipt), vec![]).await;

    let answer = decision.get().await;

    assert_eq!(answer["status"], "verified");
    assert_eq!(answer["receipt"]["status"], "integrity_only");
    decision.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_otherwise_than_attested_is_a_mismatch() {
    for kind in Kind::ALL {
        let decision = Decision::made(kind).await;
        let receipt = decision.receipt().to_string();
        decision.answered(ReceiptState::Fetched, Some(receipt), vec![]).await;
        // Somebody changes what is recorded, and nothing else.
        let forged = message::commitment("c1", "wait", Outcome::Positive).payload;
        let digits: String = forged.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = match kind {
            Kind::Postgres => format!("'\\x{digits}'"),
            Kind::Sqlite => format!("X'{digits}'"),
        };
        let forge = format!("UPDATE run_events_raw SET payload = {bytes}");
        decision.api.database.tamper(&forge).await;

        let answer = decision.get().await;

        assert_eq!(answer["status"], "mismatch", "{answer:#}");
        assert_eq!(answer["commitment"]["action"], "wait");
        assert_ne!(answer["commitmentHash"], answer["claimedHash"]);
        decision.api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_to_compare_it_cannot_be_verified() {
    let decision = Decision::made(Kind::Sqlite).await;
    decision.answered(ReceiptState::Gone, None, vec![]).await;

    let answer = decision.get().await;

    assert_eq!(answer["status"], "cannot_verify");
    assert!(answer["commitmentHash"].is_string());
    assert!(answer["reason"].as_str().unwrap().contains("nothing to compare"), "{answer:#}");
    assert_eq!(answer.get("claimedHash"), None);
    decision.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_that_is_known_from_its_receipt_alone_is_said_to_be() {
    let decision = Decision::made(Kind::Sqlite).await;
    decision.api.database.tamper("DELETE FROM run_events_raw").await;
    let receipt = decision.receipt().to_string();
    decision.answered(ReceiptState::Fetched, Some(receipt), vec![]).await;

    let answer = decision.get().await;

    assert_eq!(answer["status"], "cannot_verify");
    assert_eq!(answer["commitmentSource"], "receipt");
    assert_eq!(answer["commitment"]["action"], "deploy");
    decision.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_in_a_circle_end() {
    for kind in Kind::ALL {
        let decision = Decision::made(kind).await;
        let zeros = format!("sha256:{}", "0".repeat(64));
        let replaces = message::commitment_instead_of(&decision.session, &zeros, "redo").payload;
        let (later, later_session) = decide(&decision.api, kind, &replaces).await;
        let back = message::commitment_instead_of(&later_session, &zeros, "undo").payload;
        let (last, last_session) = decide(&decision.api, kind, &back).await;
        let store = &decision.api.store;
        for (run, replaced) in [(later, &decision.session), (last, &later_session)] {
            store.receipt_index(run, Some(replaced.to_string())).await.unwrap();
        }
        // The first one of them now claims to replace the last one.
        let first = message::commitment_instead_of(&last_session, &zeros, "again").payload;
        let digits: String = first.iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = match kind {
            Kind::Postgres => format!("'\\x{digits}'"),
            Kind::Sqlite => format!("X'{digits}'"),
        };
        let id = decision.id;
        let update = format!("UPDATE run_events_raw SET payload = {bytes} WHERE run_id = '{id}'");
        decision.api.database.tamper(&update).await;
        store.receipt_index(id, Some(last_session.to_string())).await.unwrap();

        let (status, lineage) = decision.api.get(&format!("/runs/{id}/lineage")).await;

        let runs = |way: &str| -> Vec<Value> {
            lineage[way].as_array().unwrap().iter().map(|link| link["runId"].clone()).collect()
        };
        assert_eq!(status, 200);
        assert_eq!(runs("supersedes"), [json!(last), json!(later), json!(id)]);
        assert_eq!(runs("supersededBy"), [json!(later), json!(last), json!(id)]);
        assert_eq!(lineage["supersedes"][2]["cycle"], true);
        assert_eq!(lineage["supersedes"][0]["check"], "mismatch");
        assert_eq!(lineage["truncated"], false);
        decision.api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_a_session_that_is_not_here_is_unknown() {
    let decision = Decision::made(Kind::Sqlite).await;
    let zeros = format!("sha256:{}", "0".repeat(64));
    let elsewhere = SessionId::random();
    let payload = message::commitment_instead_of(&elsewhere, &zeros, "redo").payload;
    let (id, _) = decide(&decision.api, Kind::Sqlite, &payload).await;

    let (_, lineage) = decision.api.get(&format!("/runs/{id}/lineage")).await;

    let link = &lineage["supersedes"][0];
    assert_eq!(link["sessionId"], elsewhere.as_str());
    assert_eq!((&link["runId"], &link["check"]), (&Value::Null, &json!("unknown")));
    assert_eq!(link["claimedHash"], json!(zeros));
    decision.api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_run_is_not_found() {
    let api = Api::start().await;
    for path in ["verification", "lineage"] {
        let (status, body) = api.get(&format!("/runs/{}/{path}", RunId::random())).await;
        assert_eq!((status, &body["errorCode"]), (404, &json!("RUN_NOT_FOUND")));
    }
    api.stop().await;
}
