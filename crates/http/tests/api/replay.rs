//! Replaying a run over a real connection.

use chrono::TimeDelta;
use control_plane_domain::EventType;
use control_plane_projection::{Projection, state};
use control_plane_testkit::sse::{Frame, SseClient};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Api, DEADLINE, Journal, read};

const MESSAGE: EventType = EventType::MessageReceived;
const NOBODY: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

fn names(frames: &[Frame]) -> Vec<String> {
    frames
        .iter()
        .map(|frame| match (frame.name(), frame.cursor()) {
            ("canonical_event", Some(seq)) => seq.to_string(),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// A run that is over, with seven events.
async fn recorded(api: &Api) -> Journal {
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE, EventType::SessionStreamGap, EventType::ProposalCreated]).await;
    journal.append(&[MESSAGE, MESSAGE]).await;
    journal.complete().await;
    journal
}

fn path(api: &Api, journal: &Journal, query: &str) -> String {
    api.at(&format!("/runs/{}/replay/stream{query}", journal.id()))
}

/// Everything until the stream closes by itself.
async fn whole(mut stream: SseClient) -> Vec<Frame> {
    assert_eq!(stream.status(), 200);
    let mut frames = Vec::new();
    let reading = async {
        while let Some(frame) = stream.next(DEADLINE).await {
            frames.push(frame);
        }
    };
    // A replay that never ends would go on with heartbeats.
    timeout(DEADLINE, reading).await.unwrap();
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_the_log_as_it_was_sent_and_closes() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let live = api.at(&format!("/runs/{}/stream?afterSeq=0&includeSnapshot=false", journal.id()));
    let mut live = SseClient::open(live).await;
    let live = live.collect_until("end", DEADLINE).await;
    let head = api.store.run_head(journal.id()).await.unwrap();

    for mode in ["instant", "step", "timed"] {
        let stream = SseClient::open(path(&api, &journal, &format!("?mode={mode}"))).await;
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        assert_eq!(stream.header("x-macp-replay-from"), Some("0"));
        assert_eq!(stream.header("x-macp-latest-seq"), Some("7"));
        let frames = whole(stream).await;

        assert_eq!(names(&frames), ["1", "2", "3", "gap", "4", "5", "6", "7", "end"], "{mode}");
        let without_caught_up: Vec<&Frame> =
            live.iter().filter(|frame| frame.name() != "caught_up").collect();
        for (replayed, live) in frames.iter().zip(without_caught_up) {
            assert_eq!((&replayed.id, &replayed.data), (&live.id, &live.data), "{mode}");
        }
        let end = frames.last().unwrap();
        let expected = json!({
            "status": "completed", "latestSeq": 7, "totalEvents": 7, "hash": head.hash.to_string()
        });
        assert_eq!((end.cursor(), end.json()), (Some(7), expected));
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_ends_with_the_hash_of_its_last_event() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let fifth = api.store.events(journal.id(), 4, 1).await.unwrap().remove(0);

    let part = SseClient::open(path(&api, &journal, "?mode=instant&fromSeq=2&toSeq=5")).await;
    let part = whole(part).await;
    let filtered = "?mode=instant&toSeq=5&types=message.received";
    let filtered = whole(SseClient::open(path(&api, &journal, filtered)).await).await;
    let nothing = whole(SseClient::open(path(&api, &journal, "?fromSeq=100")).await).await;

    assert_eq!(names(&part), ["2", "3", "gap", "4", "5", "end"]);
    assert_eq!(names(&filtered), ["2", "gap", "5", "end"]);
    for frames in [&part, &filtered] {
        let end = frames.last().unwrap().json();
        assert_eq!((&end["latestSeq"], &end["hash"]), (&json!(5), &json!(fifth.hash.to_string())));
    }
    assert_eq!(names(&nothing), ["end"]);
    assert_eq!(nothing[0].cursor(), Some(7));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_breaks_after_any_event_goes_on_where_it_was() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let bounds = "?mode=instant&fromSeq=2&toSeq=6";
    for last in 1..6 {
        let expected: Vec<String> =
            (last.max(1) + 1..=6).map(|seq| seq.to_string()).chain(["end".to_owned()]).collect();
        let header = SseClient::resume(path(&api, &journal, bounds), last).await;
        let query = |name: &str| path(&api, &journal, &format!("{bounds}&{name}={last}"));
        let polyfill = SseClient::open(query("lastEventId")).await;
        let after_seq = SseClient::open(query("afterSeq")).await;
        for stream in [header, polyfill, after_seq] {
            assert_eq!(stream.header("x-macp-replay-from"), Some(last.to_string().as_str()));
            let mut names = names(&whole(stream).await);
            names.retain(|name| name != "gap");
            assert_eq!(names, expected);
        }
    }
    // The header is newer than the URL.
    let both = SseClient::resume(path(&api, &journal, "?mode=instant&afterSeq=1"), 6).await;
    assert_eq!(names(&whole(both).await), ["7", "end"]);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_at_the_end_is_told_to_stop_and_beyond_it_starts_again() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let replay = |query: &str| path(&api, &journal, query);

    let mut stream = SseClient::open(replay("?mode=instant&toSeq=5")).await;
    stream.collect_until("end", DEADLINE).await;
    let again = stream.reconnect().await;
    let at_the_end = SseClient::resume(replay("?mode=instant"), 7).await;
    let beyond = whole(SseClient::resume(replay("?mode=instant&fromSeq=6"), 8).await).await;
    let other_log = whole(SseClient::resume(replay("?mode=instant&logId=other"), 7).await).await;

    assert_eq!((again.status(), at_the_end.status()), (204, 204));
    assert_eq!(names(&beyond), ["reset", "6", "7", "end"]);
    assert_eq!(beyond[0].json(), json!({ "reason": "beyond_end", "requested": 8, "from": 0 }));
    assert_eq!(names(&other_log)[..2], ["reset", "1"]);
    assert_eq!(other_log[0].json()["reason"], "log_changed");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replay_of_a_run_that_goes_on_ends_where_it_is() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.append(&[MESSAGE]).await;

    let frames = whole(SseClient::open(path(&api, &journal, "?mode=instant")).await).await;

    assert_eq!(names(&frames), ["1", "2", "end"]);
    assert_eq!(frames[2].json()["status"], "running");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timed_replay_lets_time_pass_and_says_that_it_is_alive() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    journal.let_pass(TimeDelta::hours(1));
    journal.append(&[MESSAGE]).await;

    // An hour is cut to the two seconds that a pause may last.
    let frames = whole(SseClient::open(path(&api, &journal, "?heartbeatMs=1000")).await).await;
    let fast = path(&api, &journal, "?heartbeatMs=1000&speed=1000000");
    let fast = whole(SseClient::open(fast).await).await;

    let names_of_slow = names(&frames);
    assert_eq!(names_of_slow[..2], ["1", "heartbeat"]);
    assert_eq!(names_of_slow[names_of_slow.len() - 2..], ["2", "end"]);
    assert_eq!((frames[1].cursor(), &frames[1].json()["latestSeq"]), (Some(1), &json!(2)));
    assert_eq!(names(&fast), ["1", "2", "end"]);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_replayed_whole() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    for _ in 0..12 {
        journal.append(&[MESSAGE; 250]).await;
    }
    let frames = whole(SseClient::open(path(&api, &journal, "?mode=instant")).await).await;
    let mut seqs: Vec<i64> = frames.iter().filter_map(Frame::cursor).collect();
    assert_eq!(seqs.pop(), Some(3001), "the end");
    assert_eq!(seqs, (1..=3001).collect::<Vec<_>>());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_that_are_given_out_work() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let route = format!("/runs/{}/replay", journal.session_id());
    let id = journal.id();

    let plain = api.client.post(api.at(&route)).header("content-type", "application/json").send();
    let (status, plain) = read(plain.await.unwrap()).await;
    let body = json!({ "mode": "step", "speed": 2.5, "fromSeq": 3, "toSeq": 5 });
    let (_, part) = api.post(&route, &body).await;

    assert_eq!(status, 201);
    assert_eq!(
        plain,
        json!({
            "runId": id.to_string(), "mode": "timed", "speed": 1,
            "streamUrl": format!("/runs/{id}/replay/stream?mode=timed&speed=1"),
            "stateUrl": format!("/runs/{id}/replay/state"),
        })
    );
    let url = format!("/runs/{id}/replay/stream?mode=step&speed=2.5&fromSeq=3&toSeq=5");
    assert_eq!(part["streamUrl"], url);
    assert_eq!(
        (&part["speed"], &part["fromSeq"], &part["toSeq"]),
        (&json!(2.5), &json!(3), &json!(5))
    );
    let frames = whole(SseClient::open(api.at(part["streamUrl"].as_str().unwrap())).await).await;
    assert_eq!(names(&frames), ["3", "gap", "4", "5", "end"]);
    let state = format!("{}?seq=4", part["stateUrl"].as_str().unwrap());
    assert_eq!(api.get(&state).await.1["timeline"]["latestSeq"], 4);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_as_json() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let route = format!("/runs/{}/replay", journal.id());
    for (path, status, code) in [
        (format!("{route}/stream?mode=fast"), 400, "VALIDATION_ERROR"),
        (format!("{route}/stream?speed=0"), 400, "VALIDATION_ERROR"),
        (format!("{route}/stream?fromSeq=0"), 400, "VALIDATION_ERROR"),
        (format!("{route}/stream?fromSeq=3&toSeq=2"), 400, "VALIDATION_ERROR"),
        (format!("{route}/stream?afterSeq=x"), 400, "VALIDATION_ERROR"),
        (format!("{route}/state?seq=x"), 400, "VALIDATION_ERROR"),
        (format!("{route}/state?seq=-1"), 400, "VALIDATION_ERROR"),
        (format!("/runs/{NOBODY}/replay/stream"), 404, "RUN_NOT_FOUND"),
        (format!("/runs/{NOBODY}/replay/state"), 404, "RUN_NOT_FOUND"),
    ] {
        let (got, body) = api.get(&path).await;
        assert_eq!((got, &body["errorCode"]), (status, &json!(code)), "{path}: {body}");
    }
    let (status, body) = api.post(&route, &json!({ "mode": "timed", "form": 1 })).await;
    assert_eq!((status, &body["message"]), (400, &json!(["form is not a known field"])));
    assert_eq!(api.post(&format!("/runs/{NOBODY}/replay"), &json!({})).await.0, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_on_the_way_is_that_of_the_events_up_to_there() {
    let api = Api::start().await;
    let journal = recorded(&api).await;
    let route = format!("/runs/{}/replay/state", journal.id());
    let mut expected = Projection::empty(journal.id());
    let json = |projection: &Projection| -> Value { serde_json::to_value(projection).unwrap() };

    assert_eq!(api.get(&format!("{route}?seq=0")).await, (200, json(&expected)));
    for entry in api.store.events(journal.id(), 0, 100).await.unwrap() {
        expected.apply(&state::event(&entry).unwrap());
        assert_eq!(api.get(&format!("{route}?seq={}", entry.seq)).await, (200, json(&expected)));
    }

    let (_, now) = api.get(&format!("/runs/{}/state", journal.id())).await;
    assert_eq!(json(&expected), now);
    for query in ["", "?seq=8", "?seq=9223372036854775807"] {
        assert_eq!(api.get(&format!("{route}{query}")).await, (200, now.clone()), "{query}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_may_replay() {
    let api = Api::with_keys("ui:read:reader").await;
    let journal = recorded(&api).await;
    let route = api.at(&format!("/runs/{}/replay", journal.id()));

    let (status, replay) =
        read(api.client.post(&route).bearer_auth("reader").send().await.unwrap()).await;
    let (refused, _) = read(api.client.post(&route).send().await.unwrap()).await;

    assert_eq!((status, refused), (201, 401));
    let stream = api.at(replay["streamUrl"].as_str().unwrap());
    assert_eq!(SseClient::open_with_key(stream, "reader").await.status(), 200);
    api.stop().await;
}
