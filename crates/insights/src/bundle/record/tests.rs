//! Records are read back as what they were made of.

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::evidence::{Ending, Evidence, SettledBy};
use control_plane_domain::{Envelope, time};
use control_plane_storage::model::RawEnvelope;
use serde_json::json;

use super::*;

fn at(micros: i64) -> Timestamp {
    chrono::DateTime::from_timestamp_micros(1_795_000_000_000_000 + micros).unwrap()
}

/// Through its text and back.
fn again<T: Serialize + serde::de::DeserializeOwned>(record: &T) -> T {
    serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap()
}

fn raw(source: EnvelopeSource, ordinal: Option<Ordinal>) -> RawEnvelope {
    RawEnvelope {
        run_id: RunId(Uuid::nil()),
        source,
        ordinal,
        received_at: at(7),
        sender_authenticated: false,
        envelope: Envelope {
            macp_version: "1.0".to_owned(),
            mode: "m".to_owned(),
            message_type: "Vote".to_owned(),
            message_id: "id-1".to_owned(),
            session_id: "s".to_owned(),
            sender: "älice".to_owned(),
            timestamp_unix_ms: -5,
            payload: vec![0, 255, 1, 2],
            sanitized: true,
        },
    }
}

#[test]
fn an_envelope_is_read_back_to_the_microsecond_and_the_byte() {
    for (source, ordinal) in [(EnvelopeSource::Session, Some(3)), (EnvelopeSource::Signal, None)] {
        let raw = raw(source, ordinal);
        let record = again(&RawRecord::from(&raw));
        assert_eq!(RawEnvelope::try_from(record), Ok(raw));
    }
}

#[test]
fn an_envelope_has_the_keys_that_clients_know() {
    let record = serde_json::to_value(RawRecord::from(&raw(EnvelopeSource::Session, Some(3))));
    let mut record = record.unwrap();
    let id = record["id"].take();

    assert_eq!(id.as_str().unwrap().len(), 36);
    assert_eq!(
        record,
        json!({
            "id": null,
            "runId": "00000000-0000-0000-0000-000000000000",
            "seq": 3,
            "ts": "2026-11-18T11:06:40.000007Z",
            "kind": "stream-envelope",
            "sourceName": "session",
            "payload": {
                "kind": "stream-envelope",
                "receivedAt": "2026-11-18T11:06:40.000007Z",
                "senderAuthenticated": false,
                "envelope": {
                    "macpVersion": "1.0",
                    "mode": "m",
                    "messageType": "Vote",
                    "messageId": "id-1",
                    "sessionId": "s",
                    "sender": "älice",
                    "timestampUnixMs": -5,
                    "sanitized": true,
                    "payloadBase64": "AP8BAg==",
                },
            },
            "traceId": null,
            "spanId": null,
            "createdAt": "2026-11-18T11:06:40.000007Z",
        })
    );
}

#[test]
fn ids_of_envelopes_differ_and_stay() {
    let id = |source, ordinal| RawRecord::from(&raw(source, ordinal)).id;
    let session = id(EnvelopeSource::Session, Some(3));
    assert_eq!(session, id(EnvelopeSource::Session, Some(3)));
    assert_ne!(session, id(EnvelopeSource::Session, Some(4)));
    assert_ne!(session, id(EnvelopeSource::Signal, None));
}

#[test]
fn a_record_that_is_not_ours_is_refused() {
    let record = RawRecord::from(&raw(EnvelopeSource::Session, Some(3)));
    let source = RawRecord { source_name: "elsewhere".to_owned(), ..record.clone() };
    let mut payload = record;
    payload.payload.envelope.payload_base64 = "?".to_owned();

    assert_eq!(RawEnvelope::try_from(source), Err(RecordFault::Source("elsewhere".to_owned())));
    assert_eq!(RawEnvelope::try_from(payload), Err(RecordFault::Payload));
}

#[test]
fn a_run_is_read_back_without_its_secrets_and_keys() {
    let Value::Object(metadata) = json!({
        "scenarioRef": "s",
        "cancelCallback": { "url": "https://a.example/", "bearer": "hush" },
    }) else {
        panic!("not an object");
    };
    let run = Run {
        id: RunId(Uuid::nil()),
        state: RunState::Failed,
        mode: RunMode::Sandbox,
        runtime_kind: "rust".to_owned(),
        runtime_version: Some("0.13.0".to_owned()),
        session_id: Some(SessionId::trusted("s1")),
        trace_id: None,
        idempotency_key: Some("key".to_owned()),
        request_hash: Some("hash".to_owned()),
        last_seq: 4,
        source_kind: Some("scenario".to_owned()),
        source_ref: None,
        tags: vec!["a".to_owned()],
        metadata,
        error_code: Some("SESSION_EXPIRED".to_owned()),
        error_message: Some("it expired".to_owned()),
        created_at: at(0),
        started_at: Some(at(1000)),
        ended_at: None,
        updated_at: at(2),
        archived_at: Some(at(3000)),
        parked_reason: Some("why".to_owned()),
        imported_at: Some(at(5)),
    };

    let text = serde_json::to_string(&RunRecord::from(&run)).unwrap();
    let back = Run::from(again(&RunRecord::from(&run)));

    assert!(!text.contains("hush") && text.contains(r#""bearer":"***""#), "{text}");
    assert!(text.contains(r#""source":{"kind":"scenario","ref":null}"#), "{text}");
    let expected = Run {
        idempotency_key: None,
        request_hash: None,
        imported_at: None,
        metadata: back.metadata.clone(),
        ..run.clone()
    };
    assert_eq!(back, expected);
    let sourceless = Run { source_kind: None, ..run };
    assert_eq!(RunRecord::from(&sourceless).source, None);
}

#[test]
fn a_session_and_an_artifact_are_read_back() {
    let session = Session {
        run_id: RunId(Uuid::nil()),
        runtime_kind: "rust".to_owned(),
        session_id: SessionId::trusted("s1"),
        mode_name: "m".to_owned(),
        mode_version: "1".to_owned(),
        configuration_version: "2".to_owned(),
        policy_version: "3".to_owned(),
        initiator: Some("alice".to_owned()),
        state: SessionState::Suspended,
        participants: vec!["alice".to_owned()],
        context_id: Some("c".to_owned()),
        extension_keys: vec!["x".to_owned()],
        started_at_unix_ms: Some(5),
        expires_at: Some(at(1000)),
        last_seen_at: Some(at(1)),
        cursor: 9,
        last_message_id: Some("id".to_owned()),
        last_event_ts: Some(at(2000)),
        connected_at: Some(at(3000)),
        disconnected_at: Some(at(4000)),
        created_at: at(5000),
        updated_at: at(6000),
        evidence: Evidence {
            reattaches: 2,
            overlaps_shown: 2,
            counted_to: 7,
            ending: Some(Box::new(Ending {
                settled_by: Some(SettledBy::Silence),
                ..Ending::default()
            })),
        },
    };
    let artifact = Artifact {
        id: Uuid::max(),
        run_id: RunId(Uuid::nil()),
        kind: "report".to_owned(),
        label: "Report".to_owned(),
        uri: None,
        inline: Some(json!({ "a": [1, null] })),
        created_at: time::from_unix_ms(0).unwrap(),
    };

    assert_eq!(Session::from(again(&SessionRecord::from(&session))), session);
    assert_eq!(Artifact::from(again(&ArtifactRecord::from(artifact.clone()))), artifact);
}
