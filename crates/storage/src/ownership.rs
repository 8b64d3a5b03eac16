//! Who follows which run, and what others ask of it.
//!
//! **Invariant:** taking a run raises its epoch first, so that what its former owner still writes
//! is fenced off; and whoever asks something of a run writes a row, never the run.

use control_plane_domain::{RunId, Timestamp};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{InboxItem, InboxPage, Lease};
use crate::news::News;
use crate::postgres;
use crate::store::{Backend, Store};

/// Who follows how many of the runs that are not over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// How many this process follows.
    pub mine: usize,
    /// How many have no living owner.
    pub free: usize,
    /// How many there are to follow, by whoever it is.
    pub all: usize,
    /// How many processes take runs.
    pub takers: usize,
    /// The owners that are dead.
    dead: Vec<i64>,
}

impl Census {
    /// `owners` with the numbers of their runs and of those that are parked, and the locks that
    /// are held, once for each that holds it.
    fn count(me: i64, owners: &[(Option<i64>, i64, i64)], held: &[i64]) -> Self {
        let takers = held.iter().filter(|key| **key == postgres::TAKERS).count();
        let mut census = Self { takers, ..Self::default() };
        // Who is not seen to live itself would lose at once what it takes.
        let may_take = held.contains(&me);
        for (owner, runs, parked) in owners {
            let count = |number: i64| usize::try_from(number).unwrap_or_default();
            match owner {
                // What is parked is followed by nobody until another one tries.
                Some(owner) if held.contains(owner) => {
                    census.all += count(runs - parked);
                    if *owner == me {
                        census.mine += count(runs - parked);
                    }
                }
                Some(_) | None if !may_take => census.all += count(*runs),
                Some(_) | None => {
                    census.all += count(*runs);
                    census.free += count(*runs);
                    census.dead.extend(owner);
                }
            }
        }
        census
    }
}

impl Store {
    /// Makes this process alive for others to see, or checks that it still is. One that does not
    /// do this every second or so is dead before long.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the database is away.
    pub async fn instance_hold(&self) -> Result<()> {
        // In a task, because the connection is driven by the runtime that opened it.
        self.task(|store: Self| async move {
            match &store.0.backend {
                Backend::Postgres(db) => db.hold(store.0.instance).await,
                Backend::Sqlite(_) => Ok(()),
            }
        })
        .await
    }

    /// The same, and says whether this process takes runs: what there is is shared among those
    /// that do.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; it is meant all the same, and holds as soon as this process lives.
    pub async fn instance_takes_runs(&self, takes_runs: bool) -> Result<()> {
        self.task(move |store: Self| async move {
            match &store.0.backend {
                Backend::Postgres(db) => db.take_runs(store.0.instance, takes_runs).await,
                Backend::Sqlite(_) => Ok(()),
            }
        })
        .await
    }

    /// Who follows how many of the runs that are not over.
    pub async fn census(&self) -> Result<Census> {
        let me = self.0.instance;
        // First the runs: whoever owned one by then holds its lock, or is dead.
        let owners = read!(self, ownership::owners())?;
        let held = match &self.0.backend {
            Backend::Postgres(db) => {
                let mut conn = db.connection().await?;
                let held = postgres::instances::held(&mut conn).await;
                postgres::settle(conn, &held);
                held?
            }
            Backend::Sqlite(_) => vec![me, postgres::TAKERS],
        };
        Ok(Census::count(me, &owners, &held))
    }

    /// Takes at most `at_most` of the runs that have no living owner. Several may do this at once:
    /// each run goes to one.
    pub async fn runs_take(&self, census: &Census, at_most: usize) -> Result<Vec<Lease>> {
        let limit = i64::try_from(at_most.min(census.free)).unwrap_or(i64::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (dead, to) = (census.dead.clone(), self.0.instance);
        self.task(move |store: Self| async move {
            change!(store, instances::take_free(&dead, limit, to))
        })
        .await
    }

    /// Takes every run that is not over and has no living owner.
    pub async fn runs_claim(&self) -> Result<Vec<Lease>> {
        let census = self.census().await?;
        self.runs_take(&census, usize::MAX).await
    }

    /// The runs that this process owns and that are not over.
    pub async fn runs_owned(&self) -> Result<Vec<RunId>> {
        let owner = self.0.instance;
        read!(self, ownership::owned(owner))
    }

    /// Renews the lease of a run of ours whose lease nobody here has; `None` when it is over, parked
    /// or not ours.
    pub async fn run_retake_own(&self, id: RunId) -> Result<Option<Lease>> {
        let owner = self.0.instance;
        self.0.hub.forget(id);
        self.task(
            move |store: Self| async move { change!(store, ownership::retake_own(id, owner)) },
        )
        .await
    }

    /// Leaves a run to whoever wants it; `false` when the lease was over already.
    pub async fn run_release(&self, lease: Lease) -> Result<bool> {
        self.0.hub.forget(lease.run_id);
        let done = self
            .task(move |store: Self| async move {
                let released = change!(store, ownership::release(lease))?;
                store.tell(|news| news.free |= released);
                Ok(released)
            })
            .await;
        self.0.hub.forget(lease.run_id);
        done
    }

    /// Leaves every run of this process that is not over to whoever wants it, and tells the others
    /// before it returns; how many there were.
    pub async fn runs_release(&self) -> Result<usize> {
        let owner = self.0.instance;
        self.task(move |store: Self| async move {
            let released = change!(store, ownership::release_all(owner))?;
            if released > 0 {
                store.tell_now(&News { free: true, ..News::default() }).await?;
            }
            Ok(released)
        })
        .await
    }

    /// Takes one run, whoever has it: for a run that is over, or for one of our own whose
    /// in-memory state was given up.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::ReadOnly`] for a run that was imported.
    pub async fn run_take(&self, id: RunId) -> Result<Lease> {
        let owner = self.0.instance;
        let taken = self
            .task(move |store: Self| async move { change!(store, ownership::take_run(id, owner)) });
        self.0.hub.forget(id);
        match taken.await? {
            Some(lease) => Ok(lease),
            None => {
                self.run_head(id).await?;
                Err(Error::ReadOnly { run_id: id })
            }
        }
    }

    /// Renews a lease of our own: what was written under the old one, and is still on its way, is
    /// either in the log by then or fenced off. `None` when the run has another owner by now.
    pub async fn run_retake(&self, lease: Lease) -> Result<Option<Lease>> {
        let owner = self.0.instance;
        self.0.hub.forget(lease.run_id);
        self.task(move |store: Self| async move { change!(store, ownership::retake(lease, owner)) })
            .await
    }

    /// Parks a run, with its reason, which [`Store::run_get`] shows until it is claimed again; `false` when the lease is over.
    pub async fn run_park(&self, lease: Lease, reason: String) -> Result<bool> {
        self.task(move |store: Self| async move { change!(store, ownership::park(lease, &reason)) })
            .await
    }

    /// Asks something of a run; `false` when the same was asked already.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] for a run that was imported, and those of the database.
    pub async fn inbox_push(
        &self,
        id: RunId,
        kind: &'static str,
        dedup_key: String,
        payload: Value,
        now: Timestamp,
    ) -> Result<bool> {
        self.task(move |store: Self| async move {
            let pushed =
                change!(store, ownership::inbox_push(id, kind, &dedup_key, &payload, now))?;
            store.tell(|news| news.asked.extend([id]));
            Ok(pushed)
        })
        .await
    }

    /// What is asked of a run, oldest first.
    pub async fn inbox_list(&self, id: RunId) -> Result<Vec<InboxItem>> {
        read!(self, ownership::inbox_list(id))
    }

    /// At most `limit` of what is asked of a run, oldest first, besides what is `done` and may still
    /// be there.
    pub async fn inbox_page(&self, id: RunId, done: &[i64], limit: usize) -> Result<InboxPage> {
        let done = done.to_vec();
        read!(self, ownership::inbox_page(id, &done, limit))
    }

    /// Whether this is asked of a run and not carried out yet.
    pub async fn inbox_has(&self, id: RunId, kind: &str, dedup_key: &str) -> Result<bool> {
        let (kind, dedup_key) = (kind.to_owned(), dedup_key.to_owned());
        read!(self, ownership::inbox_has(id, &kind, &dedup_key))
    }

    /// Which runs something is asked of.
    pub async fn inbox_runs(&self) -> Result<Vec<RunId>> {
        read!(self, ownership::inbox_runs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: i64 = 1;
    const OTHER: i64 = 2;
    const DEAD: i64 = 3;

    #[test]
    fn a_census_tells_the_living_from_the_dead() {
        let owners = [(Some(ME), 5, 1), (Some(OTHER), 4, 0), (Some(DEAD), 3, 1), (None, 2, 0)];

        let census = Census::count(ME, &owners, &[ME, postgres::TAKERS, OTHER, postgres::TAKERS]);

        let expected = Census { mine: 4, free: 5, all: 13, takers: 2, dead: vec![DEAD] };
        assert_eq!(census, expected);
    }

    #[test]
    fn who_is_not_seen_to_live_sees_nothing_to_take() {
        let owners = [(Some(ME), 5, 0), (Some(DEAD), 3, 0), (None, 2, 0)];

        let census = Census::count(ME, &owners, &[OTHER, postgres::TAKERS]);

        assert_eq!((census.mine, census.free, census.all), (0, 0, 10));
    }
}
