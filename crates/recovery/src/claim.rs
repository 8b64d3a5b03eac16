//! Which runs this process follows: its share of those that all processes follow together.
//!
//! **Invariant:** sharing is about balance alone. Whoever believes wrongly that a run is his is kept
//! from writing by its epoch, and a run that no share has room for is taken by anybody.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use control_plane_domain::RunId;
use control_plane_storage::{Census, Error, Knock};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::Context;
use crate::run::{Origin, pause};

/// How often this process shows that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// The shortest time between two looks, however often others knock.
const BREATH: Duration = Duration::from_millis(50);
/// Most runs that are handed over at a look.
const AT_ONCE: usize = 100;
/// For how many ticks the others get the first chance at free runs.
const PATIENCE: u32 = 2;
/// Every so many looks the tasks are held against the database, also when their numbers agree.
const THOROUGH: u32 = 16;
/// How many ticks the number of processes must have been the same before runs are handed over.
const STEADY: u32 = 3;

/// Starts what shares the runs. The task that is returned ends when this process has been told to
/// stop, and is not counted among those that take runs any more.
pub(crate) fn start(context: &Arc<Context>) -> JoinHandle<()> {
    context.tasks.spawn(beat(Arc::clone(context)));
    context.tasks.spawn(listen(Arc::clone(context)));
    context.tasks.spawn(claim(Arc::clone(context)))
}

/// Keeps this process alive in the database's eyes, until nobody here writes any more.
async fn beat(context: Arc<Context>) {
    loop {
        if let Err(fault) = context.store.instance_hold().await {
            tracing::debug!(error = %fault, "Could not show that this instance lives");
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = context.drained.cancelled() => return,
        }
    }
}

/// Takes in what other processes tell.
async fn listen(context: Arc<Context>) {
    loop {
        let Knock { asked, look } = tokio::select! {
            knock = context.store.knock() => knock,
            () = context.stop.cancelled() => return,
        };
        for id in asked {
            // Elsewhere it has an owner who heard the same; or it is over, and whoever asked sees
            // to it.
            if context.following().contains_key(&id) {
                context.listeners.nudge(id);
            }
        }
        if look {
            context.look.notify_one();
        }
    }
}

/// Takes the runs that nobody follows, and hands over those that are too many.
async fn claim(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.claim);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = context.look.notified() => {}
            () = context.stop.cancelled() => break,
        }
        if let Err(fault) = look(&context, &mut looks).await {
            tracing::warn!(error = %fault, "Could not look for runs without an owner");
            if matches!(fault, Error::Unavailable(_)) {
                looks.away = Some(Instant::now());
            }
        }
        if pause(&context, BREATH).await.is_err() {
            break;
        }
    }
    if let Err(fault) = context.store.instance_takes_runs(false).await {
        tracing::debug!(error = %fault, "Could not say that this instance leaves");
    }
}

async fn look(context: &Arc<Context>, looks: &mut Looks) -> Result<(), Error> {
    context.store.instance_takes_runs(context.config.recovery_enabled).await?;
    if context.config.recovery_enabled {
        let census = context.store.census().await?;
        let Plan { take, hand_over } = looks.plan(&census, context.config.claim, Instant::now());
        attach(context, &census, take).await?;
        if hand_over > 0 {
            let chosen = context.recall(|_| true, hand_over);
            tracing::info!(recovery.runs = chosen, "Handing {chosen} runs over");
        }
        looks.count += 1;
        if context.following().len() != census.mine || looks.count.is_multiple_of(THOROUGH) {
            reconcile(context, &mut looks.idle).await?;
        }
    }
    // Whoever asked may be another instance, or gone.
    for id in context.store.inbox_runs().await? {
        match context.serve_inbox(id).await {
            // It was deleted while we looked.
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(fault @ Error::Unavailable(_)) => return Err(fault),
            // What is wrong with one run is no other run's business.
            Err(fault) => {
                tracing::warn!(run.id = %id, error = %fault, "Could not serve an inbox");
            }
        }
    }
    Ok(())
}

async fn attach(context: &Arc<Context>, census: &Census, at_most: usize) -> Result<(), Error> {
    let leases = context.store.runs_take(census, at_most).await?;
    let when = if context.claimed.swap(true, Ordering::Relaxed) { "running" } else { "start" };
    let taken = u64::try_from(leases.len()).unwrap_or(u64::MAX);
    metrics::counter!("macp_takeovers_total", "when" => when).increment(taken);
    if !leases.is_empty() {
        tracing::info!(recovery.runs = leases.len(), "Attaching {} runs again", leases.len());
    }
    for lease in leases {
        metrics::counter!("macp_recovery_total", "status" => "claimed").increment(1);
        Arc::clone(context).follow(lease, Origin::Recovered);
    }
    Ok(())
}

/// Holds the tasks against the database. Runs that were taken from us while it believed us dead are
/// left: a quiet one would notice at its next envelope only. Runs that are ours and have no task get
/// one: the answer that gave us their lease was lost with a connection.
async fn reconcile(context: &Arc<Context>, idle: &mut HashSet<RunId>) -> Result<(), Error> {
    // Before the database is asked, so that a run that begins meanwhile is not among them.
    let here: HashSet<RunId> = context.following().keys().copied().collect();
    let owned: HashSet<RunId> = context.store.runs_owned().await?.into_iter().collect();
    context.recall(|id| here.contains(id) && !owned.contains(id), here.len());
    let without: HashSet<RunId> = owned.difference(&here).copied().collect();
    // Twice in a row: the task of one that begins just now is about to be there.
    for id in without.intersection(idle) {
        if !context.following().contains_key(id)
            && let Some(lease) = context.store.run_retake_own(*id).await?
        {
            tracing::warn!(run.id = %id, "Run {id} was ours, and nobody followed it");
            Arc::clone(context).follow(lease, Origin::Recovered);
        }
    }
    *idle = without;
    Ok(())
}

/// What earlier looks have shown.
#[derive(Default)]
struct Looks {
    /// Since when there are runs that nobody took.
    free: Option<Instant>,
    /// How many take runs, and since when it is so many.
    takers: Option<(usize, Instant)>,
    /// When the database was away last.
    away: Option<Instant>,
    /// How many looks there were.
    count: u32,
    /// Our runs that had no task when they were held against the database last.
    idle: HashSet<RunId>,
}

/// What to do at a look.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Most free runs to take.
    take: usize,
    /// How many of ours to leave to others.
    hand_over: usize,
}

impl Looks {
    fn plan(&mut self, census: &Census, tick: Duration, now: Instant) -> Plan {
        self.free = (census.free > 0).then(|| self.free.unwrap_or(now));
        let same = self.takers.filter(|(takers, _)| *takers == census.takers);
        let (_, since) = *self.takers.insert(same.unwrap_or((census.takers, now)));
        let free_for = self.free.map_or(Duration::ZERO, |since| now - since);
        // What was away from us was away from the others: they are about to be back.
        let back = self.away.is_none_or(|away| now - away >= tick * PATIENCE);
        let Plan { take, hand_over } = share(census, free_for >= tick * PATIENCE);
        let steady = now - since >= tick * STEADY;
        Plan { take: if back { take } else { 0 }, hand_over: if steady { hand_over } else { 0 } }
    }
}

/// What a share of the runs comes to. `left_over` tells that nobody wanted the free ones.
fn share(census: &Census, left_over: bool) -> Plan {
    let Census { mine, free, all, takers, .. } = census;
    let share = all.div_ceil((*takers).max(1));
    let room = if left_over { *free } else { share.saturating_sub(*mine) };
    // Runs come and go everywhere: a small difference is not worth a hand-over, which would soon be
    // followed by one back.
    let slack = (share / 10).max(2);
    let too_many = mine.saturating_sub(share);
    // One thing after the other: what was handed over last has to be taken first.
    let hand_over = if *free == 0 && too_many > slack { too_many.min(AT_ONCE) } else { 0 };
    Plan { take: room.min(*free), hand_over }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(mine: usize, free: usize, all: usize, takers: usize) -> Census {
        let mut census = Census::default();
        (census.mine, census.free, census.all, census.takers) = (mine, free, all, takers);
        census
    }

    #[test]
    fn a_process_takes_its_share_and_hands_over_what_is_clearly_more() {
        let cases = [
            // (mine, free, all, takers), what to take, what to hand over
            ((0, 100, 100, 1), 100, 0),
            ((0, 100, 100, 3), 34, 0),
            ((30, 30, 90, 2), 15, 0),
            ((45, 5, 90, 3), 0, 0),
            ((45, 0, 90, 3), 0, 15),
            ((34, 0, 100, 3), 0, 0),
            ((37, 0, 100, 3), 0, 0),
            ((38, 0, 100, 3), 0, 4),
            ((2000, 0, 2000, 2), 0, AT_ONCE),
            ((3, 0, 3, 3), 0, 0),
            ((5, 0, 5, 1), 0, 0),
            // Nobody says yet that it takes runs: we do.
            ((0, 4, 4, 0), 4, 0),
        ];
        for ((mine, free, all, takers), take, hand_over) in cases {
            let planned = share(&census(mine, free, all, takers), false);
            assert_eq!(planned, Plan { take, hand_over }, "{mine} {free} {all} {takers}");
        }
    }

    #[test]
    fn the_shares_have_room_for_every_free_run() {
        for takers in 1..6 {
            for all in 0..60 {
                for free in 0..=all {
                    // However the others are spread, whoever has most included.
                    for first in 0..=all - free {
                        let rest = all - free - first;
                        let others = takers - 1;
                        let mut room = share(&census(first, free, all, takers), false).take;
                        for other in 0..others {
                            let mine = rest / others + usize::from(other < rest % others);
                            room += share(&census(mine, free, all, takers), false).take;
                        }
                        assert!(others == 0 || room >= free, "{takers} {all} {free} {first}");
                    }
                }
            }
        }
    }

    const TICK: Duration = Duration::from_secs(1);

    #[test]
    fn free_runs_that_no_share_has_room_for_are_taken_in_the_end() {
        let start = Instant::now();
        let mut looks = Looks::default();
        let stuck = census(50, 10, 100, 2);
        assert_eq!(looks.plan(&stuck, TICK, start).take, 0);
        assert_eq!(looks.plan(&stuck, TICK, start + TICK).take, 0);

        let later = start + TICK * PATIENCE;

        assert_eq!(looks.plan(&stuck, TICK, later).take, 10);
        looks.plan(&census(60, 0, 100, 2), TICK, later);
        assert_eq!(looks.plan(&stuck, TICK, later).take, 0, "patience begins anew");
    }

    #[test]
    fn nothing_is_handed_over_while_processes_come_and_go() {
        let mut now = Instant::now();
        let mut looks = Looks::default();
        let mut hand_over = |takers| {
            now += TICK;
            looks.plan(&census(90, 0, 90, takers), TICK, now).hand_over
        };

        let planned = [2, 2, 3, 3, 2, 3, 3, 3, 3].map(&mut hand_over);

        assert_eq!(planned, [0, 0, 0, 0, 0, 0, 0, 0, 60]);
    }

    #[test]
    fn after_an_outage_of_the_database_the_others_may_come_back_first() {
        let start = Instant::now();
        let mut looks = Looks { away: Some(start), ..Looks::default() };
        let alone = census(10, 20, 30, 1);
        assert_eq!(looks.plan(&alone, TICK, start + TICK).take, 0);

        assert_eq!(looks.plan(&alone, TICK, start + TICK * PATIENCE).take, 20);
    }
}
