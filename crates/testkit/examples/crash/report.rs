//! What came of the rounds, for people.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::Durability;

use crate::kills::Killed;

/// What a round had in it, and what is wrong.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) killed: Killed,
    pub(crate) sessions: usize,
    pub(crate) resolved: usize,
    pub(crate) cancelled: usize,
    pub(crate) expired: usize,
    /// Sessions that nobody asked a run for and that have one.
    pub(crate) discovered: usize,
    /// Envelopes that the runtime accepted.
    pub(crate) accepted: usize,
    /// Those that are recorded.
    pub(crate) recorded: usize,
    /// Those that a recorded gap tells of.
    pub(crate) missing: usize,
    /// Those that nothing tells of.
    pub(crate) lost: usize,
    pub(crate) gaps: usize,
    pub(crate) receipts: usize,
    pub(crate) events: usize,
    pub(crate) recovered: usize,
    /// Signals and reports of progress that were said, and that are recorded.
    pub(crate) asides: usize,
    pub(crate) heard: usize,
    pub(crate) faults: Vec<String>,
}

/// A round that is over.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    pub(crate) durability: Durability,
    pub(crate) tally: Tally,
    pub(crate) time: Duration,
    /// Where what explains its faults is.
    pub(crate) kept: Option<PathBuf>,
}

impl Round {
    pub(crate) fn new(seed: u64, kind: Kind, durability: Durability) -> Self {
        let (tally, time) = (Tally::default(), Duration::ZERO);
        Self { seed, kind, durability, tally, time, kept: None }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, kind, durability, tally, time, kept } = self;
        let forgets = match durability {
            Durability::CompactsEndedSessions => ", compacting",
            Durability::KeepsHistory | Durability::MemoryOnly => "",
        };
        write!(
            f,
            "seed {seed} ({kind:?}{forgets}): killed {} servers, {} runtimes; {} sessions, {} of {} \
             envelopes, {} gaps; {:.1} s",
            tally.killed.servers,
            tally.killed.runtimes,
            tally.sessions,
            tally.recorded,
            tally.accepted,
            tally.gaps,
            time.as_secs_f64()
        )?;
        for fault in &tally.faults {
            write!(f, "\n  FAULT {fault}")?;
        }
        if let Some(folder) = kept {
            write!(f, "\n  kept in {}", folder.display())?;
        }
        if !tally.faults.is_empty() {
            let database = match kind {
                Kind::Postgres => "postgres",
                Kind::Sqlite => "sqlite",
            };
            write!(
                f,
                "\n  again: cargo xtask crash --rounds 1 --seed {seed} --database {database}"
            )?;
        }
        Ok(())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rounds: usize,
    postgres: usize,
    compacting: usize,
    failed: Vec<u64>,
    /// Rounds of which nothing is known.
    pub(crate) broken: usize,
    sum: Tally,
}

impl Report {
    pub(crate) fn add(&mut self, round: Round) {
        let Round { seed, kind, durability, tally, time: _, kept: _ } = round;
        let Tally {
            killed: Killed { servers, runtimes, starting },
            sessions,
            resolved,
            cancelled,
            expired,
            discovered,
            accepted,
            recorded,
            missing,
            lost,
            gaps,
            receipts,
            events,
            recovered,
            asides,
            heard,
            faults,
        } = tally;
        self.rounds += 1;
        self.postgres += usize::from(kind == Kind::Postgres);
        self.compacting += usize::from(durability == Durability::CompactsEndedSessions);
        if !faults.is_empty() {
            self.failed.push(seed);
        }
        let sum = &mut self.sum;
        sum.killed.servers += servers;
        sum.killed.runtimes += runtimes;
        sum.killed.starting += starting;
        sum.sessions += sessions;
        sum.resolved += resolved;
        sum.cancelled += cancelled;
        sum.expired += expired;
        sum.discovered += discovered;
        sum.accepted += accepted;
        sum.recorded += recorded;
        sum.missing += missing;
        sum.lost += lost;
        sum.gaps += gaps;
        sum.receipts += receipts;
        sum.events += events;
        sum.recovered += recovered;
        sum.asides += asides;
        sum.heard += heard;
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failed.is_empty() && self.broken == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, postgres, compacting, failed, broken, sum } = self;
        let sqlite = rounds - postgres;
        let keeping = rounds - compacting;
        writeln!(f, "{rounds} rounds: {sqlite} on SQLite, {postgres} on PostgreSQL")?;
        writeln!(f, "  histories           kept in {keeping}, compacted in {compacting}")?;
        writeln!(
            f,
            "  kill -9             {} of servers ({} while starting), {} of runtimes",
            sum.killed.servers, sum.killed.starting, sum.killed.runtimes
        )?;
        writeln!(
            f,
            "  sessions            {}: {} resolved, {} cancelled, {} expired; {} discovered",
            sum.sessions, sum.resolved, sum.cancelled, sum.expired, sum.discovered
        )?;
        writeln!(f, "  attached again      {} times after a start", sum.recovered)?;
        writeln!(
            f,
            "  envelopes           {} accepted, {} recorded, {} in recorded gaps, {} lost",
            sum.accepted, sum.recorded, sum.missing, sum.lost
        )?;
        writeln!(f, "  gaps                {}; {} decisions by receipt", sum.gaps, sum.receipts)?;
        writeln!(f, "  events              {}", sum.events)?;
        writeln!(f, "  signals, progress   {} said, {} heard", sum.asides, sum.heard)?;
        writeln!(f, "  failed              {} {failed:?}", failed.len() + broken)
    }
}
