//! How long the state at a moment of a long run takes to get.

use std::time::Instant;

use anyhow::{Result, ensure};
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::runtime::RuntimeProcess;

use crate::streams::long_run;
use crate::{Size, serve};

/// How many moments are asked for, spread evenly.
const MOMENTS: i64 = 400;

/// How often each moment is asked for: its middle time counts, so that what the machine does beside
/// is not taken for a slow place in the log.
const TIMES: usize = 3;

/// Milliseconds: the median of all moments, and the slowest moment.
pub(crate) async fn measure(kind: Kind, size: Size) -> Result<(f64, f64)> {
    let events: i64 = match size {
        Size::Full => 100_000,
        Size::Quick => 2_000,
    };
    let runtime = RuntimeProcess::in_memory().await;
    let database = TestDb::new(kind);
    let server = serve(&runtime, &database).await;
    // Each envelope is two events.
    let id = long_run(&runtime, &server, usize::try_from(events / 2)?).await?;

    if kind == Kind::Postgres {
        // What the database does by itself soon after so many rows were written: where it shares
        // two cores with the server, that would be measured.
        for table in ["run_events_canonical", "run_events_raw"] {
            database.tamper(&format!("VACUUM ANALYZE {table}")).await;
        }
    }

    let mut taken = Vec::new();
    for moment in 1..=MOMENTS {
        let seq = (events * moment / MOMENTS).max(1) - 1;
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let start = Instant::now();
            let (status, state) = server.get(&format!("/runs/{id}/replay/state?seq={seq}")).await;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            ensure!(status == 200, "replay/state answered {status}: {state}");
            ensure!(state["timeline"]["latestSeq"] == seq, "the state at {seq} is another one");
        }
        taken.push(middle(&mut times));
    }
    let median = middle(&mut taken);
    let slowest = taken.last().copied().unwrap_or_default();
    Ok((median, slowest))
}

fn middle(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
