//! The trace of a run: it begins with the run, and its root span is told when the run is over.
//!
//! **Invariant:** the root span is told once, with the run's real beginning and end, by whichever
//! instance takes it; so neither a crash nor a change of owner doubles or loses it, save for one
//! between taking and telling. What happened in between follows from the log.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::runtime::Runtime;
use control_plane_domain::trace::{
    Attribute, AttributeValue, Span, SpanEvent, SpanKind, SpanStatus, Tracer, UnixNanos,
};
use control_plane_domain::{
    CanonicalEvent, EventType, Run, RunDescriptor, RunId, RunState, RunTrace, Seq, Timestamp,
    TraceContext,
};
use control_plane_storage::Error;
use control_plane_storage::model::LogEntry;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use crate::engine::{Context, Engine};
use crate::launch::{LaunchError, Launched};

/// How often runs are looked for that ended where nobody told of them.
const EVERY: Duration = Duration::from_secs(30);
/// Most runs that are taken at once.
const AT_ONCE: i64 = 32;
/// Most moments of a run's span: what collectors take by default.
const MAX_MOMENTS: i64 = 128;
/// What in a run's log is a moment of its span.
const MOMENTS: &[EventType] = &[
    EventType::SignalEmitted,
    EventType::SignalAcknowledged,
    EventType::PolicyDenied,
    EventType::DecisionFinalized,
];

impl Engine {
    /// Where spans go, if anywhere.
    pub fn tracer(&self) -> Option<&Arc<dyn Tracer>> {
        self.0.config.tracer.as_ref()
    }

    /// The runtime, whose calls are part of `trace`.
    pub fn runtime_within(&self, trace: Option<&TraceContext>) -> Arc<dyn Runtime> {
        self.0.runtime_within(trace)
    }

    /// As [`Engine::launch`], within the trace of whoever asks.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing was recorded then.
    pub async fn launch_within(
        &self,
        descriptor: RunDescriptor,
        caller: Option<&TraceContext>,
    ) -> Result<Launched, LaunchError> {
        self.launch_as(descriptor, self.0.new_trace(caller)).await
    }
}

impl Context {
    /// The trace of a run that begins; `None` when nothing is traced.
    pub(crate) fn new_trace(&self, parent: Option<&TraceContext>) -> Option<RunTrace> {
        self.config.tracer.as_deref().map(|tracer| RunTrace::begin(tracer, parent))
    }

    pub(crate) fn runtime_within(&self, trace: Option<&TraceContext>) -> Arc<dyn Runtime> {
        trace
            .and_then(|trace| self.runtime.within(trace))
            .unwrap_or_else(|| Arc::clone(&self.runtime))
    }

    /// The runtime, whose calls are part of a run's trace.
    pub(crate) async fn runtime_of(&self, id: RunId) -> Result<Arc<dyn Runtime>, Error> {
        let trace = match &self.config.tracer {
            Some(_) => self.store.run_trace(id).await?,
            None => None,
        };
        Ok(self.runtime_within(trace.as_ref().map(|trace| &trace.context)))
    }
}

/// Tells of runs that are over, until nobody here ends any more.
pub(crate) async fn tell(context: Arc<Context>, tracer: Arc<dyn Tracer>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            biased;
            () = context.ended.notified() => false,
            _ = ticks.tick() => false,
            () = context.drained.cancelled() => true,
        };
        loop {
            match tell_some(&context, &*tracer).await {
                Ok(AT_ONCE) => {}
                Ok(_all) => break,
                Err(fault) => {
                    tracing::debug!(error = %fault, "Could not tell of runs that are over yet");
                    break;
                }
            }
        }
        if last {
            return;
        }
    }
}

/// Takes some runs and tells of them; how many there were.
async fn tell_some(context: &Context, tracer: &dyn Tracer) -> Result<i64, Error> {
    let taken = context.store.traces_claim(context.clock.now(), AT_ONCE).await?;
    let count = i64::try_from(taken.len()).unwrap_or(AT_ONCE);
    for (run, trace) in taken {
        if !trace.context.sampled {
            continue;
        }
        // A span without its moments is better than none.
        let moments = context.store.moments(run.id, MOMENTS, MAX_MOMENTS).await;
        let moments = moments.unwrap_or_else(|fault| {
            tracing::debug!(run.id = %run.id, error = %fault, "Could not read a run's moments");
            Vec::new()
        });
        tracer.end(lifecycle(&run, trace, &moments));
    }
    Ok(count)
}

/// The root span of a run that is over.
fn lifecycle(run: &Run, trace: RunTrace, moments: &[LogEntry]) -> Span {
    let RunTrace { context, parent } = trace;
    let mode_name = run.metadata.get("modeName").and_then(Value::as_str).unwrap_or_default();
    let mut attributes: Vec<Attribute> = vec![
        ("run_id", run.id.to_string().into()),
        ("runtime_kind", run.runtime_kind.as_str().into()),
        ("mode_name", mode_name.into()),
        ("execution_mode", run.mode.as_str().into()),
        ("macp.event_count", run.last_seq.into()),
        ("run.terminal_status", run.state.as_str().into()),
    ];
    if let Some(session) = &run.session_id {
        attributes.push(("macp.session_id", session.as_str().into()));
    }
    if let Some(code) = &run.error_code {
        attributes.push(("error.type", code.as_str().into()));
    }
    let start = nanos(run.created_at);
    Span {
        context,
        parent,
        name: Cow::Borrowed("run.lifecycle"),
        kind: SpanKind::Internal,
        start,
        end: nanos(run.ended_at.unwrap_or(run.updated_at)).max(start),
        attributes,
        events: moments.iter().filter_map(moment).collect(),
        status: match run.state {
            RunState::Failed => SpanStatus::Error(run.error_message.clone().unwrap_or_default()),
            RunState::Completed | RunState::Cancelled => SpanStatus::Ok,
            RunState::Queued
            | RunState::Starting
            | RunState::BindingSession
            | RunState::Running
            | RunState::Suspended => SpanStatus::Unset,
        },
    }
}

/// An event of the log as a moment of the span.
fn moment(entry: &LogEntry) -> Option<SpanEvent> {
    let event: CanonicalEvent = serde_json::from_slice(&entry.body).ok()?;
    let payload = event.data.get("decodedPayload");
    let text = |name: &'static str, value: Option<&Value>| -> Option<Attribute> {
        Some((name, value.and_then(Value::as_str)?.into()))
    };
    let subject = event.subject.as_ref().map(|subject| subject.id.as_str());
    let sender = text("sender", event.data.get("sender"));
    let seq: Seq = event.seq;
    let mut attributes: Vec<Attribute> = vec![("seq", seq.into())];
    if event.event_type == EventType::SignalEmitted {
        attributes.extend(text("name", payload.and_then(|it| it.get("signalType"))));
        attributes.extend(sender);
    } else if event.event_type == EventType::SignalAcknowledged {
        attributes.extend(subject.map(|id| ("signalId", id.into())));
        attributes.extend(sender);
    } else if event.event_type == EventType::PolicyDenied {
        attributes.extend(text("errorCode", event.data.get("errorCode")));
    } else if event.event_type == EventType::DecisionFinalized {
        attributes.extend(text("action", payload.and_then(|it| it.get("action"))));
        let outcome = payload.and_then(|it| it.get("outcomePositive")).and_then(Value::as_bool);
        attributes.extend(outcome.map(|flag| ("outcome", AttributeValue::Flag(flag))));
    }
    Some(SpanEvent {
        name: Cow::Borrowed(event.event_type.as_str()),
        at: nanos(event.ts),
        attributes,
    })
}

fn nanos(at: Timestamp) -> UnixNanos {
    at.timestamp_nanos_opt().and_then(|at| u64::try_from(at).ok()).unwrap_or_default()
}
