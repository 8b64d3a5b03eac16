//! The reader of the watch over signals.
//!
//! **Invariant:** it never waits for anything but the runtime, whose buffer is 256 signals: what it
//! hears it leaves in the [`super::Ear`], in memory.

use std::sync::Arc;
use std::time::Instant;

use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use futures_util::StreamExt;

use super::ear::Closed;
use crate::backoff::Backoff;
use crate::engine::Context;
use crate::run::pause;

/// Listens until the engine stops.
pub(super) async fn listen(context: &Arc<Context>) {
    // Its own: a runtime without signals must not slow down the runs.
    let backoff = Backoff::new(context.config.backoff_base, context.config.backoff_max);
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            ended = listen_once(context, &backoff) => ended,
            () = context.stop.cancelled() => return,
        };
        let how = match ended {
            Ok(()) => Closed::Ended,
            Err(fault) => {
                tracing::warn!(error = %fault, "The watch over signals broke; starting it again");
                match fault.kind == RuntimeErrorKind::StreamLagged {
                    true => Closed::Lagged,
                    false => Closed::Broken,
                }
            }
        };
        context.ear.closed(context.clock.now(), how);
        if pause(context, backoff.failed(began, Instant::now())).await.is_err() {
            return;
        }
    }
}

async fn listen_once(context: &Arc<Context>, backoff: &Backoff) -> Result<(), RuntimeError> {
    // The runtime subscribes us before it answers.
    let mut signals = context.runtime.watch_signals().await?;
    context.ear.opened(context.clock.now());
    while let Some(seen) = signals.next().await {
        let seen = seen?;
        backoff.succeeded();
        context.ear.heard(context.clock.now(), seen);
    }
    Ok(())
}
