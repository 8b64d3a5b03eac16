//! Whether the record is whole: with the real runtime, and between it and us a proxy that drops,
//! doubles and swaps frames. Every loss that the evidence can show is told, and no whole record is
//! said to lack anything.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod clean;
mod edited;

use control_plane_domain::{Clock, RunId, SystemClock};
use control_plane_insights::completeness::{
    Asked, Completeness, Evidence, Kind as About, Says, Status, judge, read,
};
use control_plane_testkit::{DEADLINE, wait_for};
use support::Rig;

/// What is said of a run.
async fn judged(rig: &Rig, run: RunId) -> Completeness {
    judge(&read(&rig.store, run, Asked::No, SystemClock.now()).await.unwrap())
}

/// The same, once it is known that all signals are recorded up to the run's end, or are not.
async fn settled(rig: &Rig, run: RunId) -> Completeness {
    let ask = async || judged(rig, run).await;
    wait_for(DEADLINE, ask, |judged| judged.signals != Status::Unknown).await
}

fn evidence(judged: &Completeness, about: About) -> &Evidence {
    judged.evidence.iter().find(|one| one.kind == about).unwrap()
}

fn says(judged: &Completeness, about: About) -> Says {
    evidence(judged, about).result
}
