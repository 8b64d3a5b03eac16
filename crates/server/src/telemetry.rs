//! Spans, exported by OTLP to whoever the environment names.
//!
//! **Invariant:** nothing waits for a collector. What does not fit into the queue, or cannot be
//! delivered, is dropped and counted; and without a configuration nothing of this exists.

mod export;
mod otlp;
mod sampler;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use control_plane_domain::TraceContext;
use control_plane_domain::trace::{Span, SpanId, TraceId, Tracer, UnixNanos};
use control_plane_outbound::Client;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use sampler::Sampler;

/// Most spans that wait to be exported.
const QUEUE: usize = 2048;
/// How long the last spans may take when the server stops.
const FLUSH: Duration = Duration::from_millis(1500);

/// Where spans go, and which.
#[derive(Clone)]
pub(crate) struct TelemetryConfig {
    /// The whole URL.
    pub(crate) endpoint: String,
    /// They may hold secrets.
    pub(crate) headers: Vec<(String, String)>,
    /// How long a request may take.
    pub(crate) timeout: Duration,
    /// Who we are: `service.name` first.
    pub(crate) resource: Vec<(String, String)>,
    pub(crate) sampler: Sampler,
    /// How long a span waits for others at most.
    pub(crate) delay: Duration,
}

/// The export under way.
pub(crate) struct Telemetry {
    tracer: Arc<dyn Tracer>,
    stop: CancellationToken,
    exporting: JoinHandle<()>,
}

impl Telemetry {
    /// Starts exporting.
    pub(crate) fn start(config: TelemetryConfig) -> anyhow::Result<Self> {
        // Only the operator names the collector, so it may be anywhere.
        let client = Client::trusted().context("the exporter of spans")?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        tracing::info!(otlp.endpoint = config.endpoint, "Exporting spans to {}", config.endpoint);
        let tracer = Arc::new(Exporting { sampler: config.sampler, queue });
        let exporter = export::Exporter::new(config, Arc::new(client));
        let exporting = tokio::spawn(exporter.run(spans, stop.clone()));
        Ok(Self { tracer, stop, exporting })
    }

    /// For those who make spans.
    pub(crate) fn tracer(&self) -> Arc<dyn Tracer> {
        Arc::clone(&self.tracer)
    }

    /// Exports what there is, but does not take long.
    pub(crate) async fn flush(self) {
        self.stop.cancel();
        if tokio::time::timeout(FLUSH, self.exporting).await.is_err() {
            tracing::debug!("The last spans could not be exported in time");
        }
    }
}

/// Makes spans, and queues them for export.
#[derive(Debug)]
struct Exporting {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
}

impl Tracer for Exporting {
    fn begin(&self, parent: Option<&TraceContext>) -> TraceContext {
        let trace_id = parent.map_or_else(|| random(TraceId::new), |parent| parent.trace_id);
        TraceContext {
            trace_id,
            span_id: random(SpanId::new),
            sampled: self.sampler.decide(trace_id, parent.map(|parent| parent.sampled)),
            state: parent.and_then(|parent| parent.state.clone()),
        }
    }

    fn now(&self) -> UnixNanos {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn end(&self, span: Span) {
        if span.context.sampled && self.queue.try_send(span).is_err() {
            metrics::counter!("macp_spans_dropped_total", "reason" => "queue").increment(1);
        }
    }
}

/// A random id; all zeros are none.
fn random<const N: usize, T>(make: impl Fn([u8; N]) -> Option<T>) -> T
where
    [u8; N]: rand::Fill + Default,
{
    loop {
        let mut bytes = <[u8; N]>::default();
        rand::fill(&mut bytes);
        if let Some(id) = make(bytes) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exporting(sampler: Sampler) -> (Exporting, mpsc::Receiver<Span>) {
        let (queue, spans) = mpsc::channel(1);
        (Exporting { sampler, queue }, spans)
    }

    #[test]
    fn a_child_stays_in_its_parents_trace_and_takes_over_its_state() {
        let (tracer, _spans) = exporting(Sampler::default());
        let root = TraceContext { state: Some("a=1".to_owned()), ..tracer.begin(None) };
        let child = tracer.begin(Some(&root));
        assert!(root.sampled && child.sampled);
        assert_eq!((child.trace_id, &child.state), (root.trace_id, &root.state));
        assert_ne!(child.span_id, root.span_id);
        assert_ne!(tracer.begin(None).trace_id, root.trace_id);
    }

    #[test]
    fn a_span_that_does_not_fit_is_dropped_and_nobody_waits() {
        let (tracer, mut spans) = exporting(Sampler::default());
        let context = tracer.begin(None);
        let span = |name: &'static str| Span {
            context: context.clone(),
            parent: None,
            name: name.into(),
            kind: control_plane_domain::trace::SpanKind::Internal,
            start: 1,
            end: 2,
            attributes: Vec::new(),
            events: Vec::new(),
            status: control_plane_domain::trace::SpanStatus::Ok,
        };
        tracer.end(span("first"));
        tracer.end(span("second"));
        assert_eq!(spans.try_recv().unwrap().name, "first");
        assert!(spans.try_recv().is_err());
    }
}
