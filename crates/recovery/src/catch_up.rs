//! Counts runs that an older version has recorded into the sums over runs.
//!
//! **Invariant:** each is counted once, whoever does it: that it is counted is told in the
//! transaction that does it. What is interrupted goes on at the next start.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Context;
use crate::run::pause;

/// How long a fault of the database is waited out.
const WAIT: Duration = Duration::from_secs(5);

/// Counts until nothing is missing.
pub(crate) async fn catch_up(context: Arc<Context>) {
    let mut told = false;
    loop {
        if context.stop.is_cancelled() {
            return;
        }
        match context.store.rollups_catch_up().await {
            Ok(true) if !told => {
                told = true;
                tracing::info!("Counting the runs of an older version for the dashboard");
            }
            Ok(true) => {}
            Ok(false) => {
                if told {
                    tracing::info!("The runs of an older version are counted");
                }
                return;
            }
            Err(fault) => {
                tracing::warn!(error = %fault, "Could not count runs for the dashboard");
                if pause(&context, WAIT).await.is_err() {
                    return;
                }
            }
        }
    }
}
