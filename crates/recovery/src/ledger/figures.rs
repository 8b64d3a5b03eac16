//! What a run's batches change in the sums over runs.
//!
//! **Invariant:** what was taken is what the sums have of the run, so a batch is the difference. A
//! batch that fails takes its ledger with it, and the next one starts from what is stored.

use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::rollup::{self, Fact, Figures, Filing, Rollups, Sign};
use control_plane_domain::{CanonicalEvent, Run, Seq};

/// See the module.
pub(super) struct Counted {
    /// Where the run was filed when the last batch was taken.
    filing: Filing,
    /// What its record and figures added then.
    standing: Figures,
    /// What events add that no batch has taken.
    fresh: Figures,
    /// What events added since the run was read, as long as it may be filed elsewhere.
    since: Option<Figures>,
    /// The log's end when the run was read.
    read_to: Seq,
}

impl Counted {
    /// A run as it is stored. With `may_move`, it may turn out to be filed elsewhere.
    pub(super) fn new(run: &Run, metrics: &RunMetrics, may_move: bool) -> Self {
        Self {
            filing: Filing::of(run),
            standing: rollup::standing(run, metrics),
            fresh: Figures::default(),
            since: may_move.then(Figures::default),
            read_to: run.last_seq,
        }
    }

    pub(super) fn event(&mut self, run: &Run, event: &CanonicalEvent) {
        rollup::event(&mut self.fresh, &Fact::from(event), run.created_at);
    }

    /// Up to where somebody has to count the log who wants to file the run elsewhere.
    pub(super) fn read_to(&self) -> Seq {
        self.read_to
    }

    /// The run is filed elsewhere from the next batch on. Its events up to [`Counted::read_to`] add
    /// `before`.
    pub(super) fn moves(&mut self, before: &Figures) {
        self.since.get_or_insert_default().merge(before);
    }

    /// What a batch changes that leaves the run like this.
    pub(super) fn take(&mut self, run: &Run, metrics: &RunMetrics) -> Rollups {
        let (filing, standing) = (Filing::of(run), rollup::standing(run, metrics));
        let mut changes = Rollups::default();
        // Most batches change neither.
        if (&filing, &standing) != (&self.filing, &self.standing) {
            changes.file(&self.filing, &self.standing, Sign::Minus);
            changes.file(&filing, &standing, Sign::Plus);
        }
        if filing != self.filing
            && let Some(since) = self.since.take()
        {
            changes.file(&self.filing, &since, Sign::Minus);
            changes.file(&filing, &since, Sign::Plus);
        }
        let fresh = std::mem::take(&mut self.fresh);
        changes.file(&filing, &fresh, Sign::Plus);
        if let Some(since) = &mut self.since {
            since.merge(&fresh);
        }
        (self.filing, self.standing) = (filing, standing);
        changes
    }
}
