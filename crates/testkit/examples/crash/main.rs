//! The crash harness: servers and runtimes that are killed at random while agents talk, and after
//! each round a check that nothing is lost. `cargo xtask crash` builds and runs it.
//!
//! **Invariant:** everything random in a round follows from the round's seed, and a round that fails
//! prints it.
#![expect(clippy::print_stdout, reason = "the report is there to be read")]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use control_plane_testkit::database::Kind;
use tokio::task::JoinSet;

use report::{Report, Round};

mod check;
mod kills;
mod load;
mod plan;
mod report;
mod round;
mod world;

/// What may be chosen.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask crash")]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// The seed of the first round; the next ones count on. Any if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// The databases: a round's seed decides which it takes.
    #[arg(long, value_enum, default_value_t = Databases::Both)]
    database: Databases,
    /// Rounds at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Databases {
    Sqlite,
    Postgres,
    Both,
}

impl Databases {
    fn of(self, seed: u64) -> Kind {
        match self {
            Self::Sqlite => Kind::Sqlite,
            Self::Postgres => Kind::Postgres,
            Self::Both if seed.is_multiple_of(2) => Kind::Sqlite,
            Self::Both => Kind::Postgres,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { rounds, seed, database, jobs } = Arguments::parse();
    let first = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let folder = kept();
    println!("crash: {rounds} rounds from seed {first}, {jobs} at a time");
    let began = Instant::now();
    let mut report = Report::default();
    let mut running: JoinSet<Round> = JoinSet::new();
    let mut seeds = (first..).take(usize::try_from(rounds).unwrap_or(usize::MAX));
    loop {
        while running.len() < jobs.max(1)
            && let Some(seed) = seeds.next()
        {
            running.spawn(round::run(seed, database.of(seed), folder.join(seed.to_string())));
        }
        match running.join_next().await {
            Some(Ok(round)) => {
                println!("{round}");
                report.add(round);
            }
            Some(Err(fault)) => {
                println!("a round ended early: {fault}");
                report.broken += 1;
            }
            None => break,
        }
    }
    println!("\n{report}  time                {:.0?}", began.elapsed());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where rounds that fail leave what explains them: beside what cargo builds.
fn kept() -> PathBuf {
    let built = env::current_exe().ok();
    let target = built.as_deref().and_then(|path| path.ancestors().nth(3));
    target.map_or_else(env::temp_dir, PathBuf::from).join("crash")
}
