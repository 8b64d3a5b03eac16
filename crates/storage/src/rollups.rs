//! Sums over runs, for the dashboard.
//!
//! **Invariant:** a sum changes in the transaction of what it counts, so at any moment it is what
//! counting all logs anew would give. Runs of an older version are counted when somebody asks for it
//! ([`Store::rollups_catch_up`]), each once.

use control_plane_domain::rollup::{Amount, Figure, Figures, Grain, Rollups};
use control_plane_domain::{Run, RunId, RunState, Seq, Timestamp};

use crate::error::Result;
use crate::store::Store;

/// Which runs are meant, by how they are filed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilingFilter {
    /// Exactly this one.
    pub environment: Option<String>,
    /// Exactly the source, or a part of the scenario's name, whatever its case.
    pub scenario: Option<String>,
}

impl FilingFilter {
    /// Whether all runs are meant.
    pub fn is_open(&self) -> bool {
        self.environment.is_none() && self.scenario.is_none()
    }
}

/// Buckets of one grain: the first one, and the end of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    pub grain: Grain,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A period, as few buckets as make it up. None is in two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period(Vec<Tile>);

impl Period {
    /// From the minute that `from` is in to the start of that which `to` is in.
    pub fn new(from: Timestamp, to: Timestamp) -> Self {
        let (from, to) = (Grain::Minute.floor(from), Grain::Minute.floor(to));
        let mut tiles = Vec::new();
        cover(Grain::Day, from, to, &mut tiles);
        Self(tiles)
    }

    /// All days there are.
    pub fn always() -> Self {
        let tile = Tile { grain: Grain::Day, from: Timestamp::UNIX_EPOCH, to: far() };
        Self(vec![tile])
    }

    /// The days that a period touches, whole.
    pub fn days(from: Timestamp, to: Timestamp) -> Self {
        Self(vec![Tile { grain: Grain::Day, from: Grain::Day.floor(from), to }])
    }

    /// What it is made of.
    pub fn tiles(&self) -> &[Tile] {
        &self.0
    }
}

/// Later than any run.
fn far() -> Timestamp {
    control_plane_domain::time::from_unix_ms(253_402_300_799_000).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Covers a period with whole buckets of `grain`, and its edges with those of the next finer one.
fn cover(grain: Grain, from: Timestamp, to: Timestamp, tiles: &mut Vec<Tile>) {
    if from >= to {
        return;
    }
    let finer = match grain {
        Grain::Day => Grain::Hour,
        Grain::Hour => Grain::Minute,
        Grain::Minute => return tiles.push(Tile { grain, from, to }),
    };
    let start = grain.floor(from);
    let first = if start < from { start + grain.length() } else { start };
    let last = grain.floor(to);
    if first >= last {
        // No whole bucket, or none in between: the finer ones do it alone.
        return cover(finer, from, to, tiles);
    }
    cover(finer, from, first, tiles);
    tiles.push(Tile { grain, from: first, to: last });
    cover(finer, last, to, tiles);
}

/// A sum of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub figure: Figure,
    pub bucket: Timestamp,
    pub subject: String,
    pub amount: Amount,
}

/// A sum over all of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    pub figure: Figure,
    pub subject: String,
    pub amount: Amount,
}

/// How many of something come from a source; '' is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSum {
    pub source_ref: String,
    pub count: i64,
}

/// A run that is in a certain state now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub state: RunState,
    pub created_at: Timestamp,
}

/// Runs that are not counted yet.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// They are over, and their logs are short.
    pub(crate) small: Vec<RunId>,
    pub(crate) others: Vec<RunId>,
}

impl Store {
    /// The sums of these figures over a period, one for each bucket of it and each subject.
    ///
    /// # Errors
    /// Those of the database, here and below.
    pub async fn rollup_sums(
        &self,
        figures: &[Figure],
        period: Period,
        filter: FilingFilter,
    ) -> Result<Vec<Sum>> {
        let names: Vec<&'static str> = figures.iter().map(|figure| figure.as_str()).collect();
        read!(self, rollups::sums(&names, &period, &filter))
    }

    /// The sums of these figures over all of a period, one for each subject.
    pub async fn rollup_totals(
        &self,
        figures: &[Figure],
        period: Period,
        filter: FilingFilter,
    ) -> Result<Vec<Total>> {
        let names: Vec<&'static str> = figures.iter().map(|figure| figure.as_str()).collect();
        read!(self, rollups::totals(&names, &period, &filter))
    }

    /// The sources with the most of a figure over a period, most first.
    pub async fn rollup_sources(
        &self,
        figure: Figure,
        period: Period,
        filter: FilingFilter,
        limit: i64,
    ) -> Result<Vec<SourceSum>> {
        let name = figure.as_str();
        read!(self, rollups::sources(name, &period, &filter, limit))
    }

    /// The runs of a period that are in one of these states now.
    pub async fn runs_waiting(
        &self,
        states: &[RunState],
        from: Timestamp,
        to: Timestamp,
        filter: FilingFilter,
    ) -> Result<Vec<Waiting>> {
        let names: Vec<&'static str> = states.iter().map(|state| state.as_str()).collect();
        read!(self, rollups::waiting(&names, from, to, &filter))
    }

    /// The newest runs that are neither archived nor for practice.
    pub async fn runs_recent(&self, filter: FilingFilter, limit: i64) -> Result<Vec<Run>> {
        read!(self, rollups::recent(&filter, limit))
    }

    /// What a run's events up to `until` add to the sums.
    pub async fn rollup_figures(&self, id: RunId, until: Seq) -> Result<Figures> {
        read!(self, rollups::figures(id, until))
    }

    /// Every sum that is kept, to hold it against the logs.
    pub async fn rollups_kept(&self) -> Result<Rollups> {
        read!(self, rollups::kept())
    }

    /// Counts some of the runs that an older version has recorded; `false` when there are no more.
    pub async fn rollups_catch_up(&self) -> Result<bool> {
        let Missing { small, others } = read!(self, rollups::missing())?;
        let more = !small.is_empty() || !others.is_empty();
        if !small.is_empty() {
            self.task(
                move |store: Self| async move { change!(store, rollups::catch_up_small(&small)) },
            )
            .await?;
        }
        for id in others {
            self.task(
                move |store: Self| async move { change!(store, rollups::catch_up(id)).map(drop) },
            )
            .await?;
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use control_plane_domain::time::from_unix_ms;

    use super::*;

    /// Minutes after a midnight.
    fn at(minutes: i64) -> Timestamp {
        from_unix_ms(1_795_046_400_000 + minutes * 60_000).unwrap()
    }

    #[test]
    fn a_period_is_covered_by_few_buckets_without_holes_or_overlaps() {
        for (from, to) in [
            (0, 0),
            (5, 7),
            (0, 60),
            (59, 61),
            (30, 1440),
            (0, 1440),
            (-17, 1501),
            (61, 44_700),
            (1439, 1441),
        ] {
            let period = Period::new(at(from), at(to));
            let mut next = at(from);
            for tile in period.tiles() {
                assert_eq!(tile.from, next, "{from} to {to}");
                assert_eq!(tile.from, tile.grain.floor(tile.from));
                assert!(tile.to > tile.from);
                next = tile.to;
            }
            assert_eq!(next, at(to), "{from} to {to}");
            assert!(period.tiles().len() <= 5, "{from} to {to}: {period:?}");
        }
    }

    #[test]
    fn thirty_days_are_some_200_buckets() {
        let period = Period::new(at(61), at(61 + 30 * 1440));
        let buckets =
            |tile: &Tile| (tile.to - tile.from).num_minutes() / tile.grain.length().num_minutes();
        let count: i64 = period.tiles().iter().map(buckets).sum();
        assert!(count < 200, "{count} buckets");
    }
}
