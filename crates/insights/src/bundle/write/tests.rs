//! Both shapes, read back by somebody who knows nothing of the writer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::event::{EventDraft, Source};
use control_plane_domain::run::RunMode;
use control_plane_domain::{Envelope, EventType, RunState};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::bundle::format::EventsCut;

/// A bundle as its text says it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Read<'a> {
    #[serde(borrow)]
    run: &'a RawValue,
    #[serde(borrow)]
    session: &'a RawValue,
    #[serde(borrow)]
    projection: &'a RawValue,
    #[serde(borrow)]
    metrics: &'a RawValue,
    #[serde(borrow)]
    artifacts: Vec<&'a RawValue>,
    #[serde(borrow)]
    canonical_events: Vec<&'a RawValue>,
    #[serde(borrow)]
    raw_events: Vec<&'a RawValue>,
    #[serde(borrow)]
    exported_at: &'a RawValue,
    #[serde(borrow)]
    truncated: Option<&'a RawValue>,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

fn value_sum(value: &RawValue) -> Value {
    let text = value.get();
    json!({ "sha256": hex::encode(Sha256::digest(text)), "bytes": text.len() })
}

fn list_sum(items: &[&RawValue]) -> Value {
    let text: String = items.iter().map(|item| format!("{}\n", item.get())).collect();
    let sha256 = hex::encode(Sha256::digest(&text));
    let marks: Vec<u8> =
        items.iter().flat_map(|item| Sha256::digest(item.get()).into_iter().take(3)).collect();
    let marks = STANDARD.encode(marks);
    json!({ "sha256": sha256, "bytes": text.len(), "items": items.len(), "marks": marks })
}

impl Read<'_> {
    /// The sums that its parts give.
    fn sums(&self) -> Value {
        let mut sums = json!({
            "run": value_sum(self.run),
            "session": value_sum(self.session),
            "projection": value_sum(self.projection),
            "metrics": value_sum(self.metrics),
            "artifacts": list_sum(&self.artifacts),
            "canonicalEvents": list_sum(&self.canonical_events),
            "rawEvents": list_sum(&self.raw_events),
            "exportedAt": value_sum(self.exported_at),
        });
        if let Some(truncated) = self.truncated {
            sums["truncated"] = value_sum(truncated);
        }
        sums
    }

    fn manifest(&self) -> Value {
        serde_json::from_str(self.manifest.get()).unwrap()
    }
}

fn now() -> Timestamp {
    time::from_unix_ms(1_795_000_000_000).unwrap()
}

fn run() -> RunRecord {
    RunRecord {
        id: RunId(uuid::Uuid::nil()),
        status: RunState::Completed,
        mode: RunMode::Live,
        runtime_kind: "rust".to_owned(),
        runtime_version: None,
        runtime_session_id: Some("s".to_owned()),
        trace_id: None,
        last_event_seq: 4,
        source: None,
        tags: vec![],
        metadata: Map::new(),
        error_code: None,
        error_message: None,
        created_at: now(),
        started_at: None,
        ended_at: None,
        updated_at: now(),
        archived_at: None,
        parked_reason: None,
    }
}

/// A log with texts that JSON escapes.
fn log(events: Seq) -> Vec<LogEntry> {
    let mut head = ChainHash::EMPTY;
    let entry = |seq: Seq| {
        let data = json!({ "text": format!("\"{seq}\" \u{1F600} \\ \n"), "n": 1.0e-7 });
        let Value::Object(data) = data else { panic!("not an object") };
        let draft = EventDraft {
            event_type: EventType::MessageReceived,
            ts: now(),
            subject: None,
            source: Source::control_plane("test"),
            trace: None,
            data,
        };
        let body = draft.into_event(run().id, seq, now()).encode();
        head = head.then(&body);
        LogEntry {
            run_id: run().id,
            seq,
            position: seq,
            ts: now(),
            received_at: now(),
            event_type: EventType::MessageReceived,
            subject: None,
            hash: head,
            body: Bytes::from(body),
        }
    };
    (1..=events).map(entry).collect()
}

fn raws() -> Vec<RawEnvelope> {
    let raw = |source, ordinal, payload: &[u8]| RawEnvelope {
        run_id: run().id,
        source,
        ordinal,
        received_at: now(),
        sender_authenticated: true,
        envelope: Envelope {
            macp_version: "1.0".to_owned(),
            mode: "m".to_owned(),
            message_type: "Vote".to_owned(),
            message_id: "a\"b".to_owned(),
            session_id: "s".to_owned(),
            sender: "alice".to_owned(),
            timestamp_unix_ms: 5,
            payload: payload.to_vec(),
            sanitized: false,
        },
    };
    vec![raw(EnvelopeSource::Session, Some(1), b"\0\xFF"), raw(EnvelopeSource::Signal, None, b"")]
}

fn artifacts() -> Vec<ArtifactRecord> {
    let artifact = |label: &str| ArtifactRecord {
        id: uuid::Uuid::nil(),
        run_id: run().id,
        kind: "note".to_owned(),
        label: label.to_owned(),
        uri: None,
        inline: Some(json!([1, "two"])),
        created_at: now(),
    };
    vec![artifact("one"), artifact("two")]
}

fn closing(log: &[LogEntry], truncated: Option<Truncated>) -> Closing {
    let end = log.last().unwrap();
    Closing {
        log_id: "log".to_owned(),
        scope: Scope {
            canonical_events: true,
            raw_events: true,
            after_seq: 0,
            after_ordinal: 0,
            after_signal: None,
        },
        log: Link::new(end.seq, end.hash),
        ordinals: Ordinals { first: Some(1), last: Some(1), recorded: 1, cursor: 1 },
        gaps: vec![],
        signal_gaps: vec![],
        truncated,
    }
}

/// A whole bundle, and what was taken of it before it was finished.
fn written(
    shape: Shape,
    log: &[LogEntry],
    until: usize,
    raws: &[RawEnvelope],
) -> (String, Vec<String>) {
    let mut writer = Writer::new(shape, &run(), None, (0, ChainHash::EMPTY));
    let mut beginnings = Vec::new();
    let mut text = String::new();
    let mut note = |writer: &mut Writer, text: &mut String| {
        text.push_str(std::str::from_utf8(&writer.take()).unwrap());
        beginnings.push(text.clone());
    };
    note(&mut writer, &mut text);
    let metrics = RunMetrics::empty(run().id);
    writer.state(Some(&Projection::empty(run().id)), Some(&metrics), &artifacts(), now());
    note(&mut writer, &mut text);
    for entry in &log[..until] {
        writer.event(entry);
        note(&mut writer, &mut text);
    }
    for raw in raws {
        writer.raw(raw);
        note(&mut writer, &mut text);
    }
    let remaining = i64::try_from(log.len() - until).unwrap();
    let next_after_seq = i64::try_from(until).unwrap();
    let truncated = (remaining > 0).then_some(Truncated {
        canonical_events: Some(EventsCut { next_after_seq, remaining }),
        raw_events: None,
    });
    writer.finish(closing(log, truncated));
    text.push_str(std::str::from_utf8(&writer.take()).unwrap());
    (text, beginnings)
}

#[test]
fn a_bundle_holds_the_stored_texts_and_sums_that_its_bytes_give() {
    let log = log(4);
    let (text, _) = written(Shape::Json, &log, 4, &raws());
    let read: Read<'_> = serde_json::from_str(&text).unwrap();

    let events: Vec<&str> = read.canonical_events.iter().map(|event| event.get()).collect();
    let stored: Vec<&str> =
        log.iter().map(|entry| std::str::from_utf8(&entry.body).unwrap()).collect();
    assert_eq!(events, stored);
    let manifest = read.manifest();
    assert_eq!(manifest["parts"], read.sums());
    let end = log[3].hash.to_string();
    let empty = ChainHash::EMPTY.to_string();
    assert_eq!(manifest["chain"]["from"], json!({ "seq": 0, "hash": empty }));
    assert_eq!(manifest["chain"]["to"], json!({ "seq": 4, "hash": end }));
    assert_eq!(manifest["log"], manifest["chain"]["to"]);
    assert_eq!(read.session.get(), "null");
    assert_eq!(Manifest::decode(read.manifest.get()).unwrap().encode(), read.manifest.get());
}

#[test]
fn nothing_stands_in_a_bundle_without_need() {
    for (until, raws) in [(4, raws()), (0, vec![])] {
        let (text, _) = written(Shape::Json, &log(4), until, &raws);
        let read: Read<'_> = serde_json::from_str(&text).unwrap();
        let list =
            |items: &[&RawValue]| items.iter().map(|item| item.get()).collect::<Vec<_>>().join(",");
        let truncated = read.truncated.map(|cut| format!(",\"truncated\":{}", cut.get()));
        let again = format!(
            r#"{{"run":{},"session":{},"projection":{},"metrics":{},"artifacts":[{}],"canonicalEvents":[{}],"rawEvents":[{}],"exportedAt":{}{},"manifest":{}}}"#,
            read.run,
            read.session,
            read.projection,
            read.metrics,
            list(&read.artifacts),
            list(&read.canonical_events),
            list(&read.raw_events),
            read.exported_at,
            truncated.unwrap_or_default(),
            read.manifest,
        );
        assert_eq!(text, again);
    }
}

#[test]
fn lines_tell_what_they_are_and_keep_what_the_events_are() {
    let log = log(3);
    let (text, _) = written(Shape::Lines, &log, 3, &raws());
    let lines: Vec<&str> = text.lines().collect();
    let values: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();

    let kinds: Vec<&str> = values.iter().map(|value| value["kind"].as_str().unwrap()).collect();
    let expected = [
        "header",
        "canonical_event",
        "canonical_event",
        "canonical_event",
        "raw_event",
        "raw_event",
        "manifest",
        "end",
    ];
    assert_eq!(kinds, expected);
    assert!(text.ends_with("}\n"));
    let keys: Vec<&String> = values[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 7, "{keys:?}");
    for (line, entry) in lines[1..4].iter().zip(&log) {
        let event = format!("{{{}", line.strip_prefix(EVENT_LINE).unwrap());
        assert_eq!(event.as_bytes(), entry.body);
    }
    assert_eq!(values[1]["type"], "message.received");
    assert_eq!(values[4]["raw"]["kind"], "stream-envelope");
    assert_eq!(
        values[7],
        json!({
            "kind": "end",
            "canonicalEvents": 3,
            "rawEvents": 2,
            "hash": log[2].hash.to_string(),
            "complete": true,
        })
    );
}

#[test]
fn a_part_has_the_same_sum_in_both_shapes() {
    let log = log(3);
    for until in [2, 3] {
        let (json, _) = written(Shape::Json, &log, until, &raws());
        let (lines, _) = written(Shape::Lines, &log, until, &raws());
        let read: Read<'_> = serde_json::from_str(&json).unwrap();
        let line = lines.lines().rev().nth(1).unwrap();
        let manifest = format!("{{{}", line.strip_prefix(MANIFEST_LINE).unwrap());
        assert_eq!(manifest, read.manifest.get());
        assert_eq!(read.manifest()["parts"], read.sums());
    }
}

#[test]
fn a_bundle_that_was_cut_by_a_limit_says_so_and_how_to_go_on() {
    let log = log(5);
    let cut = json!({ "canonicalEvents": { "nextAfterSeq": 2, "remaining": 3 } });
    let (text, _) = written(Shape::Json, &log, 2, &[]);
    let (lines, _) = written(Shape::Lines, &log, 2, &[]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let end: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();

    assert_eq!(value["truncated"], cut);
    assert_eq!((&end["complete"], &end["truncated"]), (&json!(false), &cut));
    assert_eq!(value["manifest"]["chain"]["to"]["seq"], 2);
    assert_eq!(value["manifest"]["log"]["seq"], 5);
}

#[test]
fn no_beginning_of_a_bundle_looks_whole() {
    let log = log(3);
    for raws in [raws(), vec![]] {
        let (whole, json) = written(Shape::Json, &log, 3, &raws);
        for beginning in json {
            assert!(whole.starts_with(&beginning));
            assert!(serde_json::from_str::<Value>(&beginning).is_err(), "{beginning}");
        }
        let (_, lines) = written(Shape::Lines, &log, 3, &raws);
        for beginning in lines {
            assert!(!beginning.contains(END_LINE));
        }
    }
}
