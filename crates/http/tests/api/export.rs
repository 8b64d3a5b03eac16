//! Exports: what a bundle holds, which part of it, and that a part is never taken for the whole.

mod batch;
mod breaking;
mod bundle;
mod packed;

use std::sync::Arc;

use control_plane_domain::envelope::EnvelopeSource;
use control_plane_domain::{Clock, Envelope, EventType, RunId, SystemClock};
use control_plane_storage::model::RawEnvelope;
use control_plane_testkit::database::{Kind, TestDb};
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup};
use bundle::Bundle;

/// Session envelopes of a run with everything.
const ENVELOPES: i64 = 5;

async fn api(kind: Kind) -> Api {
    Api::set(Setup { database: Arc::new(TestDb::new(kind)), ..Setup::default() }).await
}

fn envelope(run_id: RunId, ordinal: Option<i64>, id: &str) -> RawEnvelope {
    let source = if ordinal.is_some() { EnvelopeSource::Session } else { EnvelopeSource::Signal };
    RawEnvelope {
        run_id,
        source,
        ordinal,
        received_at: SystemClock.now(),
        sender_authenticated: true,
        envelope: Envelope {
            macp_version: "1.0".to_owned(),
            mode: "macp.mode.decision.v1".to_owned(),
            message_type: "Evaluation".to_owned(),
            message_id: id.to_owned(),
            session_id: "s".to_owned(),
            sender: "alice".to_owned(),
            timestamp_unix_ms: 5,
            payload: vec![0, 255, 1],
            sanitized: false,
        },
    }
}

/// The event of an envelope.
fn told(raw: &RawEnvelope) -> (EventType, Value) {
    let mut data = json!({ "messageId": raw.envelope.message_id, "sender": raw.envelope.sender });
    if raw.ordinal.is_none() {
        data["senderAuthenticated"] = json!(true);
    }
    (EventType::MessageReceived, data)
}

async fn record(journal: &mut Journal, raw: Vec<RawEnvelope>) {
    journal.session.cursor = ENVELOPES;
    let mut batch = journal.batch(raw.iter().map(told).collect());
    batch.raw = raw;
    journal.commit(batch).await;
}

/// A run with envelopes, signals and a gap that is over.
async fn recorded(api: &Api) -> Journal {
    let mut journal = Journal::create(&api.store).await;
    let id = journal.id();
    let session = (1..=ENVELOPES).map(|it| envelope(id, Some(it), &format!("m{it}"))).collect();
    record(&mut journal, session).await;
    record(&mut journal, (1..=3).map(|it| envelope(id, None, &format!("s{it}"))).collect()).await;
    journal.append(&[EventType::SessionStreamGap]).await;
    journal.complete().await;
    journal
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_holds_the_run_and_all_its_events_and_proves_itself() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let journal = recorded(&api).await;
        let path = format!("/runs/{}", journal.session_id());

        let response = api.client.get(api.at(&format!("{path}/export"))).send().await.unwrap();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let bundle = Bundle::of(&text);

        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-macp-latest-seq"], journal.last_seq().to_string().as_str());
        let keys = [
            "\"run\"",
            "\"session\"",
            "\"projection\"",
            "\"metrics\"",
            "\"artifacts\"",
            "\"canonicalEvents\"",
            "\"rawEvents\"",
            "\"exportedAt\"",
            "\"manifest\"",
        ];
        let places: Vec<usize> = keys.iter().map(|key| text.find(key).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(bundle.sums(), bundle.manifest["parts"]);
        assert!(bundle.is_sealed());
        let stored = api.store.events(journal.id(), 0, 1000).await.unwrap();
        let stored: Vec<&[u8]> = stored.iter().map(|entry| entry.body.as_ref()).collect();
        assert_eq!(bundle.event_texts(), stored);
        assert!(bundle.value["rawEvents"].as_array().unwrap().is_empty());
        let head = api.store.run_head(journal.id()).await.unwrap();
        let end = json!({ "seq": head.last_seq, "hash": head.hash.to_string() });
        assert_eq!(bundle.manifest["chain"]["to"], end);
        assert_eq!(bundle.manifest["log"], end);
        assert_eq!(bundle.chain(), head.hash);
        assert_eq!(
            bundle.manifest["ordinals"],
            json!({ "first": 1, "last": 5, "recorded": 5, "cursor": 5 })
        );
        assert_eq!(bundle.manifest["gaps"], json!([{ "fromOrdinal": 2, "toOrdinal": 4 }]));
        let run = &bundle.value["run"];
        assert_eq!((&run["status"], &run["lastEventSeq"]), (&json!("completed"), &json!(11)));
        assert_eq!(bundle.value["session"]["runtimeSessionId"], journal.session_id());
        assert_eq!(bundle.value["projection"], api.get(&format!("{path}/state")).await.1);
        assert_eq!(bundle.value["metrics"], api.get(&format!("{path}/metrics")).await.1);
        assert_eq!(bundle.value.get("truncated"), None);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_say_what_a_bundle_holds() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let journal = recorded(&api).await;
        let path = format!("/runs/{}/export?includeCanonical=false&includeRaw=true", journal.id());

        let bundle = Bundle::get(&api, &path).await;

        assert!(bundle.value["canonicalEvents"].as_array().unwrap().is_empty());
        let raw = bundle.value["rawEvents"].as_array().unwrap();
        let ordinals: Vec<&Value> = raw.iter().map(|raw| &raw["seq"]).collect();
        assert_eq!(json!(ordinals), json!([1, 2, 3, 4, 5, null, null, null]));
        assert_eq!(raw[0]["payload"]["envelope"]["payloadBase64"], "AP8B");
        assert_eq!(raw[7]["sourceName"], "signal");
        assert_eq!(bundle.sums(), bundle.manifest["parts"]);
        assert_eq!(bundle.manifest["chain"]["to"]["seq"], 0);
        assert_eq!(bundle.manifest["log"]["seq"], journal.last_seq());
        assert_eq!(bundle.manifest["gaps"].as_array().unwrap().len(), 1, "told all the same");
        assert_eq!(bundle.value.get("truncated"), None, "what was asked for is there");
        let scope = json!({
            "canonicalEvents": false, "rawEvents": true, "afterSeq": 0, "afterOrdinal": 0,
        });
        assert_eq!(bundle.manifest["scope"], scope);
        api.stop().await;
    }
}

/// The query that goes on where a bundle was cut; `None` when it was not.
fn onwards(truncated: Option<&Value>) -> Option<String> {
    let events = truncated?.get("canonicalEvents");
    let raw = truncated?.get("rawEvents");
    let after = |cut: Option<&Value>, key: &str| Some(cut?.get(key)?.to_string());
    let mut query = vec![
        format!("includeCanonical={}", events.is_some()),
        format!("includeRaw={}", raw.is_some()),
    ];
    query.extend(after(events, "nextAfterSeq").map(|it| format!("afterSeq={it}")));
    query.extend(after(raw, "nextAfterOrdinal").map(|it| format!("afterOrdinal={it}")));
    let signal = after(raw, "nextAfterSignal").map(|it| it.trim_matches('"').to_owned());
    query.extend(signal.map(|it| format!("afterSignal={it}")));
    Some(query.join("&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_that_a_limit_has_cut_give_the_whole_when_put_together() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let journal = recorded(&api).await;
        let path = format!("/runs/{}/export", journal.id());
        let whole = Bundle::get(&api, &format!("{path}?includeRaw=true")).await;

        for limit in [1, 2, 3, 5, 8, 10, 11, 12] {
            let mut query = "includeRaw=true".to_owned();
            let (mut events, mut raw, mut ends) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                let url = format!("{path}?eventLimit={limit}&{query}");
                let bundle = Bundle::get(&api, &url).await;
                assert_eq!(bundle.sums(), bundle.manifest["parts"], "{url}");
                events.extend(bundle.value["canonicalEvents"].as_array().unwrap().clone());
                raw.extend(bundle.value["rawEvents"].as_array().unwrap().clone());
                ends.extend(bundle.links());
                let Some(next) = onwards(bundle.value.get("truncated")) else { break };
                query = next;
            }

            assert_eq!(json!(events), whole.value["canonicalEvents"], "{limit}");
            assert_eq!(json!(raw), whole.value["rawEvents"], "{limit}");
            assert!(ends.windows(2).skip(1).step_by(2).all(|it| it[0] == it[1]), "{ends:?}");
        }
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_says_how_much_is_left() {
    let api = api(Kind::Sqlite).await;
    let journal = recorded(&api).await;
    let path = format!("/runs/{}/export", journal.id());

    let bundle = Bundle::get(&api, &format!("{path}?eventLimit=4&includeRaw=true")).await;
    let beyond = Bundle::get(&api, &format!("{path}?afterSeq=99")).await;

    assert_eq!(
        bundle.value["truncated"],
        json!({
            "canonicalEvents": { "nextAfterSeq": 4, "remaining": 7 },
            "rawEvents": { "nextAfterOrdinal": 4, "remaining": 4 },
        })
    );
    assert_eq!(beyond.value["canonicalEvents"], json!([]));
    assert_eq!(beyond.manifest["chain"]["from"], beyond.manifest["log"]);
    assert_eq!(beyond.value.get("truncated"), None);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_what_jsonl_and_the_stream_give() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let journal = recorded(&api).await;
        let path = format!("/runs/{}/export", journal.id());
        let fetch = async |url: String, accept: &str| {
            let request = api.client.get(api.at(&url)).header("accept", accept);
            let response = request.send().await.unwrap();
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            (kind, response.text().await.unwrap())
        };

        let (jsonl_kind, jsonl) =
            fetch(format!("{path}?format=jsonl&includeRaw=true"), "*/*").await;
        let (stream_kind, stream) =
            fetch(format!("{path}/stream?includeRaw=true"), "application/json").await;
        let (console_kind, console) =
            fetch(format!("{path}?format=jsonl"), "application/json").await;

        assert_eq!((&*jsonl_kind, &*stream_kind), ("application/x-ndjson", "application/x-ndjson"));
        let lines: Vec<Value> =
            jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        let mut expected = vec!["header"];
        expected.extend(["canonical_event"; 11]);
        expected.extend(["raw_event"; 8]);
        expected.extend(["manifest", "end"]);
        assert_eq!(kinds, expected);
        assert_eq!((&lines[1]["type"], &lines[1]["seq"]), (&json!("run.created"), &json!(1)));
        let end = lines.last().unwrap();
        let head = api.store.run_head(journal.id()).await.unwrap();
        let hash = head.hash.to_string();
        assert_eq!(
            *end,
            json!({ "kind": "end", "canonicalEvents": 11, "rawEvents": 8, "hash": hash, "complete": true })
        );
        assert!(jsonl.ends_with('\n'));
        assert_eq!(stream.lines().count(), jsonl.lines().count());
        assert_eq!(stream.lines().nth(3), jsonl.lines().nth(3));
        assert_eq!(console_kind, "application/json");
        assert_eq!(Bundle::of(&console).value["canonicalEvents"].as_array().unwrap().len(), 11);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exported_is_said_before_the_first_byte() {
    let api = api(Kind::Sqlite).await;
    let journal = Journal::create(&api.store).await;
    let unknown = RunId::random();

    for path in ["export", "export/stream"] {
        let (status, body) = api.get(&format!("/runs/{unknown}/{path}")).await;
        assert_eq!((status, &body["errorCode"]), (404, &json!("RUN_NOT_FOUND")), "{path}");
        let query = "eventLimit=0&includeRaw=maybe&afterSeq=x";
        let (status, body) = api.get(&format!("/runs/{}/{path}?{query}", journal.id())).await;
        assert_eq!((status, &body["errorCode"]), (400, &json!("VALIDATION_ERROR")));
        assert_eq!(body["message"].as_array().unwrap().len(), 3, "{body:#}");
    }
    let (status, body) = api.get(&format!("/runs/{}/export?format=xml", journal.id())).await;
    assert_eq!((status, &body["message"]), (400, &json!(["format must be one of: json, jsonl"])));
    api.stop().await;
}

/// A commit with an event that changes the state, a signal and an envelope.
async fn go_on(journal: &mut Journal, number: i64) {
    let id = journal.id();
    let signal = envelope(id, None, &format!("s{number}"));
    let session = envelope(id, Some(number), &format!("m{number}"));
    let seen = json!({ "participantId": format!("p{number}") });
    let events = vec![(EventType::ParticipantSeen, seen), told(&signal), told(&session)];
    let mut batch = journal.batch(events);
    batch.session.cursor = number;
    batch.metrics.event_count = batch.run.last_seq;
    batch.raw = vec![signal, session];
    journal.commit(batch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_one_moment_of_a_run_that_goes_on() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let mut journal = Journal::create(&api.store).await;
        let id = journal.id();
        go_on(&mut journal, 1).await;
        let stop = api.streams.clone();
        let writing = tokio::spawn(async move {
            for number in 2.. {
                go_on(&mut journal, number).await;
                if stop.is_cancelled() {
                    break;
                }
            }
        });

        let mut latest = Vec::new();
        for _ in 0..12 {
            let bundle = Bundle::get(&api, &format!("/runs/{id}/export?includeRaw=true")).await;
            let last = bundle.value["run"]["lastEventSeq"].as_i64().unwrap();
            let events = bundle.value["canonicalEvents"].as_array().unwrap().len();
            assert_eq!(i64::try_from(events).unwrap(), last);
            assert_eq!(bundle.value["projection"]["timeline"]["latestSeq"], last);
            assert_eq!(bundle.manifest["log"]["seq"], last);
            assert_eq!(bundle.manifest["log"]["hash"], bundle.chain().to_string());
            let rounds = (last - 1) / 3;
            let counted = bundle.value["metrics"]["eventCount"].as_i64().unwrap();
            assert_eq!(counted, last);
            assert_eq!(bundle.value["session"]["lastStreamCursor"], rounds);
            let raw = bundle.value["rawEvents"].as_array().unwrap();
            let signals = raw.iter().filter(|raw| raw["seq"].is_null()).count();
            assert_eq!(i64::try_from(signals).unwrap(), rounds);
            assert_eq!(i64::try_from(raw.len() - signals).unwrap(), rounds);
            latest.push(last);
        }

        assert!(latest.first() < latest.last(), "{latest:?}: nobody wrote meanwhile");
        api.streams.cancel();
        writing.await.unwrap();
        api.stop().await;
    }
}
