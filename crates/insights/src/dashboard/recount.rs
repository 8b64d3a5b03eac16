//! Holds the sums that are kept against the logs that they are of.

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{self, Filing, Rollups, Sign};
use control_plane_storage::model::{RunCursor, RunFilter};
use control_plane_storage::{Result, Store};

const PAGE: i64 = 200;

/// Counts every run anew that was recorded here, from its whole log, and says where that differs from what is kept. It
/// reads everything there is, so it is for tests and for doubts.
///
/// # Errors
/// Those of the database. What is written meanwhile may look like a difference.
pub async fn differences(store: &Store) -> Result<Vec<String>> {
    let mut wanted = Rollups::default();
    let mut filter = RunFilter {
        include_sandbox: true,
        include_archived: true,
        limit: PAGE,
        ..RunFilter::default()
    };
    loop {
        let page = store.run_list(&filter).await?;
        for run in page.items.iter().filter(|run| run.imported_at.is_none()) {
            let metrics = store.metrics_get(run.id).await?;
            let metrics = metrics.unwrap_or_else(|| RunMetrics::empty(run.id));
            let mut figures = store.rollup_figures(run.id, run.last_seq).await?;
            figures.merge(&rollup::standing(run, &metrics));
            wanted.file(&Filing::of(run), &figures, Sign::Plus);
        }
        match page.items.last() {
            Some(last) if page.more => {
                filter.cursor = Some(RunCursor { at: last.created_at, id: last.id });
            }
            Some(_) | None => break,
        }
    }
    let mut wrong = store.rollups_kept().await?;
    wrong.subtract(&wanted);
    Ok(wrong.iter().map(|(key, by)| format!("{key:?} differs from the logs by {by:?}")).collect())
}
