//! Processes that stop, come back, freeze or lose their connection: their runs go to the others and
//! come back, and nothing is lost.

use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, wait_for};
use tokio::task::JoinSet;

use crate::fleet::{Fleet, Say, say};
use crate::support::EXIT;
use crate::watcher::Watcher;

const RUNS: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_ends_balanced_and_whole() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut fleet = Fleet::of(3, &runtime).await;
    let mut told = fleet.open(&cast, RUNS).await;

    for index in 0..3 {
        assert_eq!(fleet.servers[index].terminate(EXIT).await, 0);
        assert!(fleet.servers[index].log().contains("to others"), "it left its runs");
        fleet.servers[index].restart().await;
        told = say(&cast, told, Say::More(1)).await;
    }

    // A share is ten; what two more would save is not worth a hand-over.
    let balanced = |following: &Vec<usize>| {
        following.iter().sum::<usize>() == RUNS && following.iter().all(|runs| *runs <= 12)
    };
    wait_for(DEADLINE, async || fleet.following().await, balanced).await;
    let told = say(&cast, told, Say::End).await;
    let recovered = fleet.is_whole(&told).await;
    assert!(recovered >= RUNS, "every process left its runs once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_process_is_replaced_and_takes_its_share_when_it_thaws() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let fleet = Fleet::of(2, &runtime).await;
    let told = fleet.open(&cast, RUNS).await;
    let urls = fleet.urls();

    fleet.servers[0].signal("STOP");
    let told = say(&cast, told, Say::More(2)).await;
    for (run, talk) in &told {
        // Half of them was the frozen one's: its connection to the database is still open.
        fleet.has_recorded(*run, talk.accepted.len()).await;
    }
    fleet.servers[0].signal("CONT");
    let mut watchers = JoinSet::new();
    for (run, _) in &told {
        let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
        let (run, watcher) = (*run, Watcher::new(&urls[..1], path, 0, 0));
        watchers.spawn(async move { (run, watcher.until_the_end().await) });
    }

    let share = RUNS / 2;
    let shared = |following: &Vec<usize>| {
        following.iter().sum::<usize>() == RUNS && following.iter().all(|runs| *runs <= share + 2)
    };
    wait_for(DEADLINE, async || fleet.following().await, shared).await;
    let told = say(&cast, told, Say::More(2)).await;
    let told = say(&cast, told, Say::End).await;
    fleet.is_whole(&told).await;
    for (run, seen) in watchers.join_all().await {
        let last = fleet.store.run_head(run).await.unwrap().last_seq;
        assert_eq!(seen.ids, (1..=last).collect::<Vec<_>>(), "run {run}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_the_connections_that_processes_live_and_listen_on_loses_nothing() {
    const STRIKE: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks
        WHERE locktype = 'advisory'
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let fleet = Fleet::of(2, &runtime).await;
    let mut told = fleet.open(&cast, RUNS).await;
    let urls = fleet.urls();
    let mut watchers = JoinSet::new();
    for (run, _) in &told {
        let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
        for at in 0..2 {
            let (run, watcher) = (*run, Watcher::new(&urls[at..=at], path.clone(), 0, 0));
            watchers.spawn(async move { (run, watcher.until_the_end().await) });
        }
    }

    for _ in 0..5 {
        (told, ()) = tokio::join!(say(&cast, told, Say::More(2)), fleet.database.tamper(STRIKE));
    }

    let told = say(&cast, told, Say::End).await;
    fleet.is_whole(&told).await;
    for (run, seen) in watchers.join_all().await {
        let last = fleet.store.run_head(run).await.unwrap().last_seq;
        assert_eq!(seen.ids, (1..=last).collect::<Vec<_>>(), "run {run}");
        assert_eq!(seen.connections, 1, "no stream broke");
    }
}
