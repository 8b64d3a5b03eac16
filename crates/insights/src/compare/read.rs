//! Reading one side of a comparison.

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{Run, Seq};
use control_plane_projection::{Projection, state};
use control_plane_storage::{Result, Store};

use super::story::{Story, Teller};

/// Events at a time: some are large.
const PAGE: i64 = 200;

/// A run, with everything that is compared of it.
#[derive(Debug, Clone)]
pub struct Side {
    pub run: Run,
    pub state: Projection,
    pub metrics: RunMetrics,
    pub story: Story,
}

/// Reads a run's state and figures, then its log up to that state.
///
/// # Errors
/// Those of the database.
pub async fn read(store: &Store, run: Run) -> Result<Side> {
    let state = state::load(store, run.id).await?;
    let metrics = crate::metrics(store, run.id).await?;
    let mut teller = Teller::new();
    let mut after: Seq = 0;
    'log: while after < state.version() {
        let page = store.events(run.id, after, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in &page {
            if entry.seq > state.version() || !teller.hear(&state::event(entry)?) {
                break 'log;
            }
            after = entry.seq;
        }
    }
    Ok(Side { run, state, metrics, story: teller.finish() })
}
