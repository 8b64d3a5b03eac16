//! How long an envelope takes from the agent's call to a subscriber's frame.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::sse::SseClient;
use control_plane_testkit::{DEADLINE, message, play};
use tokio::time::{MissedTickBehavior, interval};

use crate::ingest::descriptor;
use crate::{Size, serve};

const EVERY: Duration = Duration::from_millis(20);

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) median: f64,
    /// 99 of 100 are not slower.
    pub(crate) high: f64,
}

/// One run, 50 envelopes a second, one subscriber. The clock starts before the agent sends, so the
/// runtime's own time is part of it.
pub(crate) async fn measure(kind: Kind, size: Size) -> Result<Figures> {
    let envelopes: usize = match size {
        Size::Full => 500,
        Size::Quick => 50,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    let session = SessionId::random();
    let (status, run) = server.post("/runs", &descriptor(&session)).await;
    ensure!(status == 201, "POST /runs answered {status}: {run}");
    let id = run["runId"].as_str().unwrap_or_default();
    let url = server.url(&format!("/runs/{id}/stream?afterSeq=0&includeSnapshot=false"));
    let mut stream = SseClient::open(url).await;
    play::open_for_load(&cast, &session).await;
    while stream_type(&mut stream).await.0 != "message.received" {}

    let watch = async {
        let mut seen = HashMap::new();
        while seen.len() < envelopes {
            let (kind, message_id) = stream_type(&mut stream).await;
            if kind == "message.received" {
                seen.insert(message_id, Instant::now());
            }
        }
        seen
    };
    let send = async {
        let mut sent = HashMap::new();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..envelopes {
            ticks.tick().await;
            let contribution = message::multi_round::contribute(&format!("value {number}"));
            let before = Instant::now();
            let id = cast.alice.say(&session, message::MULTI_ROUND, contribution).await;
            sent.insert(id, before);
        }
        sent
    };
    let (seen, sent) = tokio::join!(watch, send);
    let times: Vec<f64> = sent
        .iter()
        .filter_map(|(id, before)| Some(seen.get(id)?.duration_since(*before)))
        .map(|time| time.as_secs_f64() * 1000.0)
        .collect();
    ensure!(times.len() == envelopes, "{} of {envelopes} envelopes were seen", times.len());
    Ok(Figures::of(times))
}

impl Figures {
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        Self { median: at(50), high: at(99) }
    }
}

/// The next event's type and its message id.
async fn stream_type(stream: &mut SseClient) -> (String, String) {
    loop {
        let Some(frame) = stream.next(DEADLINE).await else { return Default::default() };
        if frame.name() == "canonical_event" {
            let event = frame.json();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            return (text(&event["type"]), text(&event["data"]["messageId"]));
        }
    }
}
