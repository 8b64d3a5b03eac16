//! Signals and progress: heard from the runtime, and put into the inbox of the run they are about.
//!
//! **Invariant:** a signal moves nothing but the log of its run, and is in it once, however many
//! instances heard it. The runtime replays no signals: what is sent while nobody listens is lost
//! to every observer.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::envelope::SignalSeen;
use control_plane_domain::normalize::correlate;
use control_plane_domain::runtime::RuntimeError;
use control_plane_domain::{Envelope, RunId};
use control_plane_storage::Error;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::engine::Context;
use crate::run::pause;

/// The kind of an inbox item that is a signal.
pub(crate) const SIGNAL: &str = "signal";

/// A signal as it lies in an inbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    macp_version: String,
    mode: String,
    message_type: String,
    pub(crate) message_id: String,
    session_id: String,
    pub(crate) sender: String,
    timestamp_unix_ms: i64,
    /// Base64.
    payload: String,
    sanitized: bool,
    pub(crate) sender_authenticated: bool,
}

impl From<SignalSeen> for Heard {
    fn from(seen: SignalSeen) -> Self {
        let SignalSeen { envelope, sender_authenticated } = seen;
        Self {
            payload: STANDARD.encode(&envelope.payload),
            macp_version: envelope.macp_version,
            mode: envelope.mode,
            message_type: envelope.message_type,
            message_id: envelope.message_id,
            session_id: envelope.session_id,
            sender: envelope.sender,
            timestamp_unix_ms: envelope.timestamp_unix_ms,
            sanitized: envelope.sanitized,
            sender_authenticated,
        }
    }
}

impl Heard {
    /// The envelope; `None` for a payload that is no base64, which only another program writes.
    pub(crate) fn into_envelope(self) -> Option<Envelope> {
        Some(Envelope {
            payload: STANDARD.decode(&self.payload).ok()?,
            macp_version: self.macp_version,
            mode: self.mode,
            message_type: self.message_type,
            message_id: self.message_id,
            session_id: self.session_id,
            sender: self.sender,
            timestamp_unix_ms: self.timestamp_unix_ms,
            sanitized: self.sanitized,
        })
    }
}

/// Listens until the engine stops.
pub(crate) async fn watch(context: Arc<Context>) {
    // Its own: a runtime without signals must not slow down the runs.
    let backoff = Backoff::new(context.config.backoff_base, context.config.backoff_max);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = watch_once(&context, &backoff) => ended,
            () = context.stop.cancelled() => return,
        };
        if let Err(fault) = ended {
            tracing::warn!(error = %fault, "The watch over signals broke; starting it again");
        }
        metrics::counter!("macp_signal_watch_gaps_total").increment(1);
        if pause(&context, backoff.failed(began, Instant::now())).await.is_err() {
            return;
        }
    }
}

async fn watch_once(context: &Arc<Context>, backoff: &Backoff) -> Result<(), RuntimeError> {
    let mut signals = context.runtime.watch_signals().await?;
    while let Some(seen) = signals.next().await {
        let seen = seen?;
        backoff.succeeded();
        hear(context, seen).await;
    }
    Ok(())
}

/// Records a signal where it belongs. A database that is away is waited for: the runtime's buffer
/// is the only other place where the signal is.
async fn hear(context: &Arc<Context>, seen: SignalSeen) {
    loop {
        match record(context, &seen).await {
            Ok(known) => {
                let counted = if known { "recorded" } else { "unknown_run" };
                metrics::counter!("macp_signals_total", "outcome" => counted).increment(1);
                return;
            }
            Err(fault) if fault.is_transient() => {
                tracing::warn!(error = %fault, "Could not record a signal yet");
                if pause(context, context.config.backoff_base).await.is_err() {
                    return;
                }
            }
            Err(fault) => {
                tracing::error!(error = %fault, message.id = seen.envelope.message_id, "A signal is lost");
                return;
            }
        }
    }
}

/// `false` when no run is known that the signal is about.
async fn record(context: &Arc<Context>, seen: &SignalSeen) -> Result<bool, Error> {
    let Some(run_id) = about(context, &seen.envelope).await? else { return Ok(false) };
    let key = format!("{}\n{}", seen.envelope.sender, seen.envelope.message_id);
    let payload = serde_json::to_value(Heard::from(seen.clone())).unwrap_or_default();
    let now = context.clock.now();
    let asked = async {
        context.store.inbox_push(run_id, SIGNAL, key, payload, now).await?;
        context.serve_inbox(run_id).await
    };
    match asked.await {
        Ok(()) => Ok(true),
        Err(fault) if fault.is_transient() => Err(fault),
        // The run may have been deleted since.
        Err(fault) => match context.store.run_head(run_id).await {
            Err(Error::NotFound { .. }) => Ok(false),
            Ok(_) | Err(_) => Err(fault),
        },
    }
}

/// The run whose session the signal names.
async fn about(context: &Context, envelope: &Envelope) -> Result<Option<RunId>, Error> {
    let Some(session) = correlate(envelope).session_id else { return Ok(None) };
    match context.store.run_find(&session).await {
        Ok(run) => Ok(Some(run.id)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}
