//! How engines share the runs: who comes gets some, who leaves hands over at once, and nothing is
//! lost on the way.

use std::time::Duration;

use control_plane_domain::{RunId, RunState};
use control_plane_recovery::Config;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, wait_until};

use super::Talk;
use super::ownership::Doomed;
use super::support::{Rig, config};

async fn evaluate(talks: &mut [(RunId, Talk)], cast: &Cast) {
    for (_, talk) in talks {
        let what = control_plane_testkit::message::decision::evaluation("p1", "REVIEW", 0.5);
        talk.say(cast, what).await;
    }
}

async fn all_end_whole(rig: &Rig, talks: &mut [(RunId, Talk)], cast: &Cast) {
    for (run, talk) in talks {
        talk.end(cast).await;
        rig.reaches(*run, RunState::Completed).await;
        rig.is_whole(*run, &talk.accepted).await;
        let story = rig.story(*run).await;
        assert!(!story.iter().any(|name| name.contains("diverged")), "{story:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_comes_is_given_its_share_in_the_middle_of_ingest() {
    const RUNS: usize = 20;
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    // Small batches, so that there is always a commit under way.
    let small = Config { batch_envelopes: 2, ..config() };
    let rig = Rig::with_config(Kind::Postgres, runtime.client(), small);
    let mut talks = Vec::new();
    for _ in 0..RUNS {
        let talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, control_plane_testkit::message::DECISION).await;
        rig.has_recorded(run, 2).await;
        talks.push((run, talk));
    }
    assert_eq!(rig.engine.following(), RUNS);

    let other = Doomed::start(&rig.database, runtime.client()).await;
    while rig.engine.following() != RUNS / 2 || other.engine.following() != RUNS / 2 {
        evaluate(&mut talks, &cast).await;
    }

    let runs: Vec<RunId> = talks.iter().map(|(run, _)| *run).collect();
    let handed_over = async || {
        let mut count = 0;
        for run in &runs {
            count += rig.count_status(*run, "recovered").await;
        }
        count
    };
    wait_until(DEADLINE, async || handed_over().await == RUNS / 2).await;

    // It stays like this.
    for _ in 0..10 {
        evaluate(&mut talks, &cast).await;
        assert_eq!((rig.engine.following(), other.engine.following()), (RUNS / 2, RUNS / 2));
    }
    assert_eq!(handed_over().await, RUNS / 2, "each run changed hands once at most");
    // As they end, one after another, they may be shared anew.
    all_end_whole(&rig, &mut talks, &cast).await;
    other.leave().await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_leaves_tells_the_others_at_once() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    // This one never looks by itself.
    let deaf = Config { claim: Duration::from_secs(100_000), ..config() };
    let rig = Rig::with_config(Kind::Postgres, runtime.client(), deaf);
    let other = Doomed::start(&rig.database, runtime.client()).await;
    let mut talks = Vec::new();
    for _ in 0..5 {
        let talk = Talk::open(&cast).await;
        let run = other.post(&talk.session).await;
        rig.has_recorded(run, 2).await;
        talks.push((run, talk));
    }

    other.leave().await;

    wait_until(DEADLINE, async || rig.engine.following() == 5).await;
    all_end_whole(&rig, &mut talks, &cast).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_were_taken_from_us_are_left_although_nothing_happens_in_them() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let mut talks = Vec::new();
    for _ in 0..3 {
        let talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, control_plane_testkit::message::DECISION).await;
        rig.has_recorded(run, 2).await;
        talks.push((run, talk));
    }

    // As if we had been dead for a moment: another instance has them now, and it leaves them.
    let thief = rig.database.store();
    thief.instance_hold().await.unwrap();
    let mut stolen = Vec::new();
    for (run, _) in &talks {
        stolen.push(thief.run_take(*run).await.unwrap());
    }
    let beat = async || thief.instance_hold().await.is_ok() && rig.engine.following() == 0;
    wait_until(DEADLINE, beat).await;
    for lease in stolen {
        assert!(thief.run_release(lease).await.unwrap());
    }
    wait_until(DEADLINE, async || rig.engine.following() == 3).await;

    all_end_whole(&rig, &mut talks, &cast).await;
    rig.stop().await;
}
