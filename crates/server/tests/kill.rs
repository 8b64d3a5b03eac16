//! `kill -9` at random points: nothing is lost, nothing is there twice, every run goes on.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::RunId;
use control_plane_insights::integrity;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use support::{Stage, Talk};

const ROUNDS: usize = 20;
const TALKS: usize = 6;

#[expect(clippy::print_stdout, reason = "the seed, for whoever repeats a failure")]
async fn survives_kills_in_the_middle_of_ingest(kind: Kind) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(kind, &runtime).await;
    let mut talks: Vec<(RunId, Talk)> = Vec::new();
    for _ in 0..TALKS {
        let talk = Talk::open(&cast).await;
        talks.push((stage.post(&talk.session, message::DECISION).await, talk));
    }

    for _ in 0..ROUNDS {
        // The agents go on all the while; the kill comes after some of it is recorded.
        let recorded = stage.events().await;
        let kill_at = recorded + random.random_range(1..TALKS as i64 * 6);
        let talking = talk_on(&cast, &mut talks);
        let killing = async {
            stage.has_events(kill_at).await;
            stage.server.kill();
        };
        tokio::join!(talking, killing);
        stage.server.restart().await;
    }
    for (_, talk) in &mut talks {
        talk.end(&cast).await;
    }

    for (run, talk) in &talks {
        stage.reaches(*run, "completed").await;
        stage.is_whole(*run, &talk.accepted).await;
        let events = stage.store.events(*run, 0, 100_000).await.unwrap();
        let recovered = events.iter().filter(|event| {
            String::from_utf8_lossy(&event.body).contains(r#""status":"recovered""#)
        });
        assert!(recovered.count() > 0, "run {run} was never attached again");
        // Signals are another matter: nobody listened while the server was dead.
        let (_, judged) = stage.server.get(&format!("/runs/{run}/completeness")).await;
        assert_eq!(judged.pointer("/history").unwrap(), "complete", "{judged:#}");
        let evidence = judged.pointer("/evidence").and_then(Value::as_array).unwrap();
        let is_overlaps = |one: &&Value| one.get("kind").unwrap() == "overlaps";
        let overlaps = evidence.iter().find(is_overlaps).unwrap();
        assert_eq!(overlaps.get("result").unwrap(), "supports", "{judged:#}");
    }
    assert_eq!(stage.server.terminate(support::EXIT).await, 0);
}

async fn talk_on(cast: &Cast, talks: &mut [(RunId, Talk)]) {
    for _ in 0..8 {
        for (_, talk) in talks.iter_mut() {
            talk.evaluate(cast).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_survives_twenty_kills_in_the_middle_of_ingest() {
    survives_kills_in_the_middle_of_ingest(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_survives_twenty_kills_in_the_middle_of_ingest() {
    survives_kills_in_the_middle_of_ingest(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_across_resolutions_loses_nothing_when_histories_are_kept() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talks = Vec::new();
        for _ in 0..12 {
            let talk = Talk::open(&cast).await;
            talks.push((stage.post(&talk.session, message::DECISION).await, talk));
        }
        for (run, _) in &talks {
            stage.reaches(*run, "running").await;
        }

        for (index, (_, talk)) in talks.iter_mut().enumerate() {
            if index == 4 {
                stage.server.kill();
            }
            talk.end(&cast).await;
            if index == 8 {
                stage.server.restart().await;
            }
        }

        for (run, talk) in &talks {
            stage.reaches(*run, "completed").await;
            stage.is_whole(*run, &talk.accepted).await;
            let (_, judged) = stage.server.get(&format!("/runs/{run}/completeness")).await;
            assert_eq!(judged["history"], "complete", "{judged:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_while_we_were_dead_is_an_exact_gap_and_a_receipt() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::CompactsEndedSessions)).await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.reaches(run, "running").await;
        stage.has_recorded(run, talk.accepted.len()).await;
        let recorded = talk.accepted.len();

        stage.server.kill();
        talk.evaluate(&cast).await;
        talk.end(&cast).await;
        stage.server.restart().await;

        stage.reaches(run, "completed").await;
        let found = integrity::check(&stage.store, run).await.unwrap();
        assert!(found.is_sound(), "{found:#?}");
        let missing = (recorded as i64 + 1, talk.accepted.len() as i64);
        assert_eq!(found.gaps, [missing]);
        let (_, judged) = stage.server.get(&format!("/runs/{run}/completeness")).await;
        let told = (&judged["ranges"][0]["fromOrdinal"], &judged["ranges"][0]["toOrdinal"]);
        assert_eq!(told, (&missing.0.into(), &missing.1.into()), "{judged:#}");
        assert_eq!(judged["status"], "gap", "{judged:#}");
        let (_, state) = stage.server.get(&format!("/runs/{run}/state")).await;
        assert_eq!(state["decision"]["current"]["finalized"], true, "{state:#}");
        assert_eq!(state["decision"]["current"]["action"], "decision.selected");
        let (_, events) =
            stage.server.get(&format!("/runs/{run}/events?type=decision.finalized")).await;
        assert_eq!(events["data"][0]["data"]["source"], "receipt", "{events:#}");
    }
}
