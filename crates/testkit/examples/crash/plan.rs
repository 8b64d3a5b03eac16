//! What happens in a round, before it happens.
//!
//! **Invariant:** a plan follows from its seed alone.

use std::time::Duration;

use control_plane_domain::SessionId;
use control_plane_testkit::runtime::Durability;
use control_plane_testkit::script::{self, Script};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Rounds whose seed leaves this remainder have a runtime with the published defaults.
const COMPACTING_EVERY: u64 = 5;

/// A round.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) durability: Durability,
    pub(crate) talks: Vec<Talk>,
    pub(crate) kills: Vec<Kill>,
}

/// A session, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) session: SessionId,
    pub(crate) script: Script,
    /// When it starts.
    pub(crate) starts: Duration,
    /// When `POST /runs` is sent; `None` leaves it to be discovered.
    pub(crate) posted: Option<Duration>,
    pub(crate) fate: Fate,
    /// Before each line.
    pub(crate) pauses: Vec<Duration>,
    /// What is said beside the session before a line.
    pub(crate) asides: Vec<(usize, Aside)>,
    /// It is suspended before this line, and resumed after a while.
    pub(crate) suspended: Option<(usize, Duration)>,
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By its Commitment.
    Resolves,
    /// Its initiator cancels it before this line.
    Cancelled(usize),
    /// It has this long, and may be over before everything is said.
    Expires(Duration),
}

/// An ambient message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    Signal,
    Progress,
}

/// A process that is killed, and comes back.
#[derive(Debug)]
pub(crate) struct Kill {
    /// After everything is up again.
    pub(crate) after: Duration,
    pub(crate) victim: Victim,
    /// How long it is gone.
    pub(crate) gone: Duration,
    /// The server is killed again when it has been coming up for this long.
    pub(crate) again: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Server,
    Runtime,
    Both,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let durability = if seed % COMPACTING_EVERY == COMPACTING_EVERY - 1 {
            Durability::CompactsEndedSessions
        } else {
            Durability::KeepsHistory
        };
        let talks = (0..random.random_range(6..=12)).map(|_| talk(&mut random)).collect();
        let kills = (0..random.random_range(2..=5)).map(|_| kill(&mut random)).collect();
        Self { durability, talks, kills }
    }
}

fn talk(random: &mut StdRng) -> Talk {
    let make = script::ALL.choose(random).copied().unwrap_or(script::decision);
    let script = make().with_more(random.random_range(0..=30));
    let starts = millis(random, 0..=600);
    let count = script.lines.len();
    let fate = match random.random_range(0..10) {
        0..=6 => Fate::Resolves,
        7 | 8 => Fate::Cancelled(random.random_range(0..count)),
        _ => Fate::Expires(millis(random, 300..=900)),
    };
    let posted = match random.random_range(0..10) {
        // Well before it exists, around its start, and long after its end.
        0..=3 => Some(starts.saturating_sub(millis(random, 0..=600))),
        4..=6 => Some(starts + millis(random, 0..=300)),
        7 => Some(starts + millis(random, 600..=1500)),
        _ => None,
    };
    // Some talk without a break, most take their time.
    let longest = if random.random_bool(0.3) { 2 } else { 40 };
    let pauses = (0..count).map(|_| millis(random, 0..=longest)).collect();
    let asides = (0..random.random_range(0..=4)).map(|_| {
        let aside = if random.random_bool(0.5) { Aside::Signal } else { Aside::Progress };
        (random.random_range(0..count), aside)
    });
    let asides = asides.collect();
    let suspended =
        random.random_bool(0.25).then(|| (random.random_range(0..count), millis(random, 10..=400)));
    let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
    let session = SessionId::trusted(id.to_string());
    Talk { session, script, starts, posted, fate, pauses, asides, suspended }
}

fn kill(random: &mut StdRng) -> Kill {
    let victim = match random.random_range(0..10) {
        0..=5 => Victim::Server,
        6..=8 => Victim::Runtime,
        _ => Victim::Both,
    };
    Kill {
        after: millis(random, 20..=400),
        victim,
        gone: millis(random, 0..=250),
        again: random.random_bool(0.25).then(|| millis(random, 5..=300)),
    }
}

fn millis(random: &mut StdRng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another() {
        let shown = |seed| format!("{:?}", Plan::new(seed));

        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }

    #[test]
    fn one_round_in_five_has_a_runtime_that_forgets() {
        let forgets = |seed: &u64| Plan::new(*seed).durability == Durability::CompactsEndedSessions;

        assert_eq!((0..100).filter(forgets).count(), 20);
    }
}
