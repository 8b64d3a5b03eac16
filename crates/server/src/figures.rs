//! Where counted things go: a Prometheus recorder that `GET /metrics` renders.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const RUN_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// From a live session to one that is read after an outage.
const LAG_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0];
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];
/// Events of a stream: none is the good case, and a backlog may be a long log.
const EVENTS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0];
/// Recorded values wait in memory until somebody scrapes, or until this.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder of this process.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets(REQUEST_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("macp_run_duration_seconds".to_owned()), RUN_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("macp_ingest_lag_seconds".to_owned()), LAG_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_envelopes".to_owned()), COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_runs".to_owned()), COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), EVENTS)?
        .install_recorder()
        .context("the metrics recorder cannot be installed")?;
    describe();
    Ok(handle)
}

/// Keeps the recorder small while nobody scrapes.
pub(crate) async fn upkeep(handle: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => handle.run_upkeep(),
        }
    }
}

fn describe() {
    describe_following();
    metrics::describe_counter!("http_requests_total", "Requests answered, by route pattern");
    metrics::describe_histogram!("http_request_duration_seconds", "Time to an answer's head");
    metrics::describe_gauge!("active_sse_connections", "Open event streams");
    metrics::describe_counter!("sse_frames_total", "Frames sent on event streams");
    metrics::describe_counter!("sse_bytes_total", "Bytes sent on event streams");
    metrics::describe_histogram!("sse_first_frame_seconds", "Time from a stream's head to a frame");
    metrics::describe_histogram!("sse_backlog_events", "Events to send when a stream opens");
    metrics::describe_histogram!("sse_lag_events", "Events that are there and not sent, at a send");
    metrics::describe_counter!(
        "sse_store_fallbacks_total",
        "Streams that were too slow for the events in memory"
    );
    metrics::describe_counter!("sse_closes_total", "Streams that ended, by reason");
    metrics::describe_counter!("sse_no_content_total", "Clients told by a 204 to stop asking");
    metrics::describe_counter!("sse_refusals_total", "Event streams that were one too many");
    metrics::describe_gauge!(
        "circuit_breaker_state",
        "Whether the runtime is called: 0 yes, 1 one call at a time, 2 no"
    );
    metrics::describe_counter!("circuit_breaker_transitions_total", "Changes of it, by what to");
    metrics::describe_counter!(
        "circuit_breaker_refusals_total",
        "Calls that it did not let through"
    );
    metrics::describe_counter!(
        "macp_circuit_breaker_failures_total",
        "Calls to the runtime that failed by its fault or the network's"
    );
    metrics::describe_counter!("macp_circuit_breaker_success_total", "Calls that it answered");
    metrics::describe_counter!("macp_history_gaps_total", "Parts of histories that are lost");
    metrics::describe_counter!("macp_spans_exported_total", "Spans that the collector took");
    metrics::describe_counter!("macp_spans_dropped_total", "Spans that were not, by reason");
    metrics::describe_gauge!("process_resident_memory_bytes", "Memory in use");
    metrics::describe_gauge!("process_cpu_seconds_total", "Processor time used");
    // Streams come and go; a scrape before the first must show zero, not nothing.
    for kind in ["run", "feed", "replay"] {
        metrics::gauge!("active_sse_connections", "stream" => kind).set(0.0);
    }
}

/// The figures of following runs. Counters that tell of trouble stand at zero from the start, so
/// that the first trouble is an increase.
fn describe_following() {
    metrics::describe_gauge!("macp_attached_runs", "Runs that are followed here");
    metrics::describe_counter!("macp_attaches_total", "Attempts to attach a run, by outcome");
    metrics::describe_counter!("macp_takeovers_total", "Runs taken that nobody living had");
    metrics::describe_counter!("macp_redeliveries_total", "Envelopes that came again, dropped");
    metrics::describe_counter!("macp_history_gaps_total", "Parts of histories that are gone");
    metrics::describe_counter!("macp_history_gap_envelopes_total", "Envelopes in those parts");
    metrics::describe_counter!("macp_stream_reconnects_total", "Streams that went down");
    metrics::describe_counter!("macp_parked_runs_total", "Runs that were given up until a restart");
    metrics::describe_counter!("macp_run_reloads_total", "Runs read anew after a failed write");
    metrics::describe_histogram!("macp_ingest_lag_seconds", "From an envelope to its commit");
    metrics::describe_gauge!("macp_lag_seconds", "Age of the oldest envelope read, not committed");
    metrics::describe_gauge!("macp_lag_ordinals", "Envelopes the run furthest behind is behind");
    for when in ["start", "running"] {
        metrics::counter!("macp_takeovers_total", "when" => when).increment(0);
    }
    metrics::counter!("macp_redeliveries_total").increment(0);
    metrics::counter!("macp_history_gaps_total").increment(0);
    metrics::counter!("macp_history_gap_envelopes_total").increment(0);
    metrics::counter!("macp_stream_reconnects_total").increment(0);
    metrics::counter!("macp_parked_runs_total").increment(0);
    metrics::counter!("macp_run_reloads_total").increment(0);
}
