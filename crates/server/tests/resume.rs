//! The promise on the real runtime: whoever sends back the last id gets the rest, once and in order.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::sse::{Frame, SseClient};
use control_plane_testkit::{DEADLINE, play, wait_for};
use support::{Stage, Talk};

/// How a client says where it was.
#[derive(Debug, Clone, Copy)]
enum Way {
    Header,
    LastEventId,
    AfterSeq,
}

impl Way {
    const ALL: [Self; 3] = [Self::Header, Self::LastEventId, Self::AfterSeq];

    async fn open(self, stage: &Stage, run: RunId, cursor: i64) -> SseClient {
        // With a first URL that says something older, as a browser's does.
        let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"));
        match self {
            Self::Header if cursor > 0 => SseClient::resume(url, cursor).await,
            Self::Header => SseClient::open(url).await,
            Self::LastEventId => SseClient::open(format!("{url}&lastEventId={cursor}")).await,
            Self::AfterSeq => {
                let url = stage.server.url(&format!("/runs/{run}/stream?afterSeq={cursor}"));
                SseClient::open(url).await
            }
        }
    }
}

/// Follows a run to its end on a connection per event.
async fn one_event_each(stage: &Stage, run: RunId, way: Way) -> Vec<i64> {
    let mut ids: Vec<i64> = Vec::new();
    loop {
        let cursor = ids.last().copied().unwrap_or(0);
        let mut stream = way.open(stage, run, cursor).await;
        if stream.status() == 204 {
            return ids;
        }
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.header("x-macp-replay-from"), Some(cursor.to_string().as_str()));
        loop {
            let frame = stream.next(DEADLINE).await.unwrap();
            if frame.name() == "canonical_event" {
                ids.push(frame.cursor().unwrap());
                break;
            }
            if frame.name() == "end" {
                assert_eq!(frame.cursor(), Some(cursor));
                return ids;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_decision_is_resumed_after_every_event_in_every_way() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(kind, &runtime).await;
        let session = SessionId::random();
        let run = stage.post(&session, message::DECISION).await;
        play::decision(&cast, &session).await;
        stage.reaches(run, "completed").await;
        let last = stage.store.run_head(run).await.unwrap().last_seq;

        for way in Way::ALL {
            let ids = one_event_each(&stage, run, way).await;
            assert_eq!(ids, (1..=last).collect::<Vec<_>>(), "{way:?}");
        }
        // And all that follows, from everywhere.
        for cursor in 0..=last {
            let mut stream = Way::AfterSeq.open(&stage, run, cursor).await;
            let frames = stream.collect_until("end", DEADLINE).await;
            let events = frames.iter().filter(|frame| frame.name() == "canonical_event");
            let ids: Vec<i64> = events.filter_map(Frame::cursor).collect();
            assert_eq!(ids, (cursor + 1..=last).collect::<Vec<_>>());
            let caught_up = frames.iter().filter(|frame| frame.name() == "caught_up");
            assert_eq!(caught_up.count(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_resumed_after_every_event_while_it_goes_on() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let mut talk = Talk::open(&cast).await;
    let run = stage.post(&talk.session, message::DECISION).await;

    let talking = async {
        for _ in 0..25 {
            talk.evaluate(&cast).await;
        }
        talk.end(&cast).await;
    };
    let (header, by_id, after_seq, ()) = tokio::join!(
        one_event_each(&stage, run, Way::Header),
        one_event_each(&stage, run, Way::LastEventId),
        one_event_each(&stage, run, Way::AfterSeq),
        talking,
    );

    let last = stage.store.run_head(run).await.unwrap().last_seq;
    let all: Vec<i64> = (1..=last).collect();
    assert!(last > 28, "one envelope makes an event at least");
    assert_eq!((&header, &by_id, &after_seq), (&all, &all, &all));
    stage.is_whole(run, &talk.accepted).await;
}

/// The sum of a figure's lines that have these labels.
fn figure(text: &str, name: &str, labels: &[&str]) -> f64 {
    let line = format!("{name}{{");
    text.lines()
        .filter(|it| it.starts_with(&line) && labels.iter().all(|label| it.contains(label)))
        .filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_streams_do_is_in_the_figures_and_who_leaves_is_counted_at_once() {
    const RUN: &str = "stream=\"run\"";
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let mut talk = Talk::open(&cast).await;
    let run = stage.post(&talk.session, message::DECISION).await;
    let scrape = async || {
        let answer = reqwest::get(stage.server.url("/metrics")).await.unwrap();
        answer.text().await.unwrap()
    };
    let open = |text: &String| figure(text, "active_sse_connections", &[RUN]);
    let left = |text: &String| figure(text, "sse_closes_total", &[RUN, "reason=\"left\""]);
    let url = stage.server.url(&format!("/runs/{run}/stream"));

    // Nothing happens on these two, and the heartbeat is far away: only the close tells.
    let mut leaving = Vec::new();
    for _ in 0..2 {
        let mut watcher = SseClient::open(format!("{url}?heartbeatMs=45000")).await;
        watcher.collect_until("snapshot", DEADLINE).await;
        leaving.push(watcher);
    }
    wait_for(DEADLINE, scrape, |text| open(text) == 2.0).await;
    drop(leaving);
    wait_for(DEADLINE, scrape, |text| open(text) == 0.0 && left(text) == 2.0).await;

    talk.end(&cast).await;
    stage.reaches(run, "completed").await;
    let last = stage.store.run_head(run).await.unwrap().last_seq;
    let mut whole = SseClient::open(format!("{url}?afterSeq=0&closeOnEnd=true")).await;
    let frames = whole.collect_until("end", DEADLINE).await.len();
    assert!(whole.next(DEADLINE).await.is_none());
    assert_eq!(SseClient::resume(url, last).await.status(), 204);

    let done = |text: &String| figure(text, "sse_no_content_total", &[RUN]) == 1.0;
    let text = wait_for(DEADLINE, scrape, done).await;
    assert_eq!(figure(&text, "sse_closes_total", &[RUN, "reason=\"ended\""]), 1.0);
    assert!(figure(&text, "sse_frames_total", &[RUN]) >= frames as f64 + 4.0, "{text}");
    assert!(figure(&text, "sse_bytes_total", &[RUN]) > 1000.0);
    assert_eq!(figure(&text, "sse_first_frame_seconds_count", &[RUN]), 3.0);
    assert_eq!(figure(&text, "sse_backlog_events_count", &[RUN]), 3.0);
    assert_eq!(figure(&text, "sse_backlog_events_sum", &[RUN]), last as f64);
    assert!(figure(&text, "sse_lag_events_count", &[RUN]) >= 1.0);
}
