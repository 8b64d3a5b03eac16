//! From the queue to the collector, in batches.
//!
//! **Invariant:** a collector that is away is tried a few times per batch and mentioned once per
//! outage; meanwhile the queue fills up, and what comes then is dropped where it is made.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::outbound::{Call, Outbound};
use control_plane_domain::trace::Span;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::TelemetryConfig;
use super::otlp::{self, Resource, Response};

/// Most spans in a request.
const BATCH: usize = 512;
/// How often a batch is tried.
const ATTEMPTS: u32 = 4;
/// The first wait between two tries; then twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How much of an answer is read.
const ANSWER: usize = 4096;

/// See the module.
pub(super) struct Exporter {
    client: Arc<dyn Outbound>,
    endpoint: String,
    headers: Vec<(&'static str, String)>,
    timeout: Duration,
    delay: Duration,
    resource: Resource,
    /// Whether the last batch was lost, which was said then.
    failing: bool,
}

/// How a try ended.
enum Outcome {
    Taken,
    /// Trying again may help.
    Later(String),
    Refused(String),
}

impl Exporter {
    pub(super) fn new(config: TelemetryConfig, client: Arc<dyn Outbound>) -> Self {
        let TelemetryConfig { endpoint, headers, timeout, resource, sampler: _, delay } = config;
        let protobuf = ("content-type", "application/x-protobuf".to_owned());
        // They are read once and live as long as the process.
        let given = headers.into_iter().map(|(name, value)| (&*name.leak(), value));
        let headers = std::iter::once(protobuf).chain(given).collect();
        let resource = Resource::new(&resource);
        Self { client, endpoint, headers, timeout, delay, resource, failing: false }
    }

    /// Exports until `stop`, and then what is left.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            if stop.is_cancelled() {
                spans.close();
                while spans.recv_many(&mut batch, BATCH).await > 0 {
                    self.export(std::mem::take(&mut batch), &stop).await;
                }
                return;
            }
            self.gather(&mut spans, &mut batch, &stop).await;
            if !batch.is_empty() {
                self.export(batch, &stop).await;
            }
        }
    }

    /// Waits for spans, and then for more, but not for long.
    async fn gather(
        &self,
        spans: &mut mpsc::Receiver<Span>,
        batch: &mut Vec<Span>,
        stop: &CancellationToken,
    ) {
        let mut due = None;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                count = spans.recv_many(batch, room) => {
                    if count == 0 {
                        // Nobody is left to make spans.
                        return stop.cancelled().await;
                    }
                    due.get_or_insert_with(|| Instant::now() + self.delay);
                }
                () = wait(due) => return,
            }
        }
    }

    async fn export(&mut self, batch: Vec<Span>, stop: &CancellationToken) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let body = otlp::request(&self.resource, batch);
        let mut pause = PAUSE;
        let mut reason = String::new();
        for attempt in 1..=ATTEMPTS {
            match self.post(body.clone()).await {
                Outcome::Taken => {
                    metrics::counter!("macp_spans_exported_total").increment(count);
                    if std::mem::replace(&mut self.failing, false) {
                        tracing::info!("Spans are exported again");
                    }
                    return;
                }
                Outcome::Refused(why) => {
                    reason = why;
                    break;
                }
                Outcome::Later(why) => reason = why,
            }
            // With the server stopping there is no later.
            if stop.is_cancelled() || attempt == ATTEMPTS {
                break;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause *= 2;
        }
        metrics::counter!("macp_spans_dropped_total", "reason" => "export").increment(count);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                otlp.endpoint = self.endpoint,
                reason,
                "Spans cannot be exported, and are dropped until they can; nothing else is affected"
            );
        }
    }

    async fn post(&self, body: Vec<u8>) -> Outcome {
        let call = Call {
            url: self.endpoint.clone(),
            headers: self.headers.clone(),
            body,
            timeout: self.timeout,
            wanted: ANSWER,
        };
        match self.client.post(call).await {
            Ok(answer) if answer.is_success() => {
                let rejected = Response::decode(answer.body.as_slice())
                    .ok()
                    .and_then(|response| response.partial_success)
                    .filter(|partial| partial.rejected_spans > 0);
                if let Some(partial) = rejected {
                    let count = partial.rejected_spans.unsigned_abs();
                    let reason = partial.error_message;
                    tracing::debug!(count, reason, "The collector refused some spans");
                    metrics::counter!("macp_spans_dropped_total", "reason" => "refused")
                        .increment(count);
                }
                Outcome::Taken
            }
            Ok(answer) if matches!(answer.status, 429 | 502..=504) => {
                Outcome::Later(format!("the collector answered {}", answer.status))
            }
            Ok(answer) => Outcome::Refused(format!("the collector answered {}", answer.status)),
            Err(fault) => Outcome::Later(fault.to_string()),
        }
    }
}

/// Waits until then; without a time for ever.
async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
