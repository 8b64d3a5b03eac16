//! A round: a world, a load, kills, and the check.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::DEADLINE;
use control_plane_testkit::database::Kind;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::check;
use crate::kills::{self, Killed};
use crate::load::{self, Doors, Told};
use crate::plan::{Plan, Talk};
use crate::report::{Round, Tally};
use crate::world::World;

/// How long the server may take to go.
const EXIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);
/// A round that takes longer has waited for something: what explains it is kept, too.
const LONG: Duration = Duration::from_secs(20);

/// What happened when.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

impl Story {
    fn new() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }

    pub(crate) fn note(&self, line: String) {
        let time = self.began.elapsed().as_millis();
        let now = control_plane_domain::Clock::now(&control_plane_domain::SystemClock);
        let line = format!("{time:>6} ms  {now}  {line}");
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

/// Plays a round; what explains a failure goes to `folder`.
pub(crate) async fn run(seed: u64, kind: Kind, folder: PathBuf) -> Round {
    let began = Instant::now();
    let plan = Plan::new(seed);
    let story = Story::new();
    story.note(format!("seed {seed}: {plan:#?}"));
    let mut round = Round::new(seed, kind, plan.durability);
    let mut world = World::build(kind, plan.durability).await;
    let played = AssertUnwindSafe(play(&mut world, &plan, &story)).catch_unwind().await;
    match played {
        Ok(Ok(tally)) => round.tally = tally,
        Ok(Err(fault)) => round.tally.faults.push(format!("{fault:#}")),
        Err(panic) => round.tally.faults.push(said(&*panic)),
    }
    if !round.tally.faults.is_empty() || began.elapsed() > LONG {
        story.note(format!("faults: {:#?}", round.tally.faults));
        let sessions: Vec<SessionId> = plan.talks.iter().map(|talk| talk.session.clone()).collect();
        world.server.kill();
        match world.keep(&folder, &story.text(), &sessions).await {
            Ok(()) => round.kept = Some(folder),
            Err(fault) => round.tally.faults.push(format!("not all was kept: {fault:#}")),
        }
    }
    round.time = began.elapsed();
    round
}

/// What a round shows before the database is looked at.
struct Played {
    told: Vec<Told>,
    killed: Killed,
    discovered: usize,
}

async fn play(world: &mut World, plan: &Plan, story: &Story) -> Result<Tally> {
    let Played { told, killed, discovered } = perform(world, plan, story).await?;
    let mut tally = check::check(&world.store()?, plan.durability, &told).await?;
    tally.killed = killed;
    tally.discovered = discovered;
    Ok(tally)
}

/// Plays until every run is over and the server has ended.
async fn perform(world: &mut World, plan: &Plan, story: &Story) -> Result<Played> {
    let mut asking = world.runtime.client_config();
    // It asks while the runtime is away, on purpose: an open breaker would only make it wait.
    asking.breaker_threshold = u32::MAX;
    let doors = Doors {
        cast: world.runtime.cast().await,
        observer: control_plane_runtime::Client::new(&asking)?,
        http: reqwest::Client::builder().no_proxy().build()?,
        server: world.server.base_url(),
    };
    let talks = try_join_all(plan.talks.iter().map(|talk| load::play(&doors, talk)));
    let kills = kills::kill(&plan.kills, &mut world.server, &mut world.runtime, story);
    let (told, killed): (Result<Vec<Told>>, Killed) = tokio::join!(talks, kills);
    let told = told?;
    story.note("everything is said".to_owned());
    let discovered = settle(&doors, &plan.talks).await?;
    story.note("every run is over".to_owned());
    // What came in as a run ended is carried out a little later.
    let store = world.store()?;
    let deadline = Instant::now() + DEADLINE;
    while !store.inbox_runs().await?.is_empty() {
        ensure!(Instant::now() < deadline, "an inbox is never emptied");
        tokio::time::sleep(POLL).await;
    }
    let code = world.server.terminate(EXIT).await;
    ensure!(code == 0, "the server ended with exit code {code}");
    Ok(Played { told, killed, discovered })
}

/// Waits until each session has a run that is over; how many were found without being asked for.
async fn settle(doors: &Doors, talks: &[Talk]) -> Result<usize> {
    let finds = finds_sessions(doors).await?;
    let mut discovered = 0;
    for talk in talks {
        if talk.posted.is_none() && finds {
            discovered += 1;
        } else if talk.posted.is_none() {
            load::post(doors, &talk.session, &talk.script).await?;
        }
    }
    let deadline = Instant::now() + DEADLINE;
    for Talk { session, .. } in talks {
        loop {
            let run = get(doors, &format!("/runs/{session}")).await?;
            let status = run.get("status").and_then(Value::as_str).unwrap_or("not there");
            if ["completed", "failed", "cancelled"].contains(&status) {
                break;
            }
            ensure!(Instant::now() < deadline, "the run of {session} is {status}: {run:#}");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(discovered)
}

/// Whether this server looks for sessions by itself.
async fn finds_sessions(doors: &Doors) -> Result<bool> {
    let document = get(doors, "/openapi.json").await?;
    Ok(document.pointer("/paths/~1admin~1runtime~1sessions").is_some())
}

async fn get(doors: &Doors, path: &str) -> Result<Value> {
    let answer = doors.http.get(format!("{}{path}", doors.server)).timeout(DEADLINE).send().await?;
    Ok(answer.json().await?)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a round whose database was changed before the check.
    async fn faults_after(statement: &str) -> Vec<String> {
        let plan = Plan { kills: Vec::new(), ..Plan::new(1) };
        let mut world = World::build(Kind::Sqlite, plan.durability).await;
        let played = perform(&mut world, &plan, &Story::new()).await.unwrap();
        let before = check::check(&world.store().unwrap(), plan.durability, &played.told).await;
        assert_eq!(before.unwrap().faults, [""; 0]);

        world.database.tamper(statement).await;

        let after = check::check(&world.store().unwrap(), plan.durability, &played.told).await;
        after.unwrap().faults
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_envelope_that_is_gone_is_a_loss() {
        let faults = faults_after(
            "DELETE FROM run_events_raw WHERE rowid = \
             (SELECT rowid FROM run_events_raw WHERE source = 'session' AND ordinal = 1 LIMIT 1)",
        )
        .await;

        assert!(faults.iter().any(|fault| fault.contains("lost in silence")), "{faults:#?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_event_that_is_gone_is_missed_in_its_log_and_in_the_feed() {
        let faults = faults_after("DELETE FROM run_events_canonical WHERE position = 7").await;

        let says = |what: &str| faults.iter().any(|fault| fault.contains(what));
        assert!(says("is missing") && says("8 follows in the feed"), "{faults:#?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn envelopes_in_another_order_are_told() {
        let faults = faults_after(
            "UPDATE run_events_raw SET message_id = 'another' WHERE rowid = \
             (SELECT rowid FROM run_events_raw WHERE source = 'session' AND ordinal = 1 LIMIT 1)",
        )
        .await;

        assert!(faults.iter().any(|fault| fault.contains("ordinal 1 is another")), "{faults:#?}");
    }
}
