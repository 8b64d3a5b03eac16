//! `kill -9`, one process after another at random, while a hundred runs go on.

use control_plane_testkit::runtime::RuntimeProcess;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, Say, say};
use crate::support::Talk;
use crate::watcher::Watcher;

const SERVERS: usize = 3;
const RUNS: usize = 100;
const KILLS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_runs_and_their_watchers_survive_kills_of_any_process() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut fleet = Fleet::of(SERVERS, &runtime).await;
    let urls = fleet.urls();
    let (mut told, mut watchers) = (Vec::new(), JoinSet::new());
    let (ended, end) = watch::channel(None);
    let mut feeds = JoinSet::new();
    for at in 0..SERVERS {
        let path = "/events/stream?afterSeq=0".to_owned();
        feeds.spawn(Watcher::new(&urls, path, at, random.random()).up_to(end.clone()));
    }
    for index in 0..RUNS {
        let talk = Talk::open(&cast).await;
        let run = fleet.post(index % SERVERS, &talk.session).await;
        let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
        for at in 0..SERVERS {
            let watcher = Watcher::new(&urls, path.clone(), at, random.random());
            watchers.spawn(async move { (run, watcher.until_the_end().await) });
        }
        told.push((run, talk));
    }

    for _ in 0..KILLS {
        // The agents go on all the while; the kill comes after some of it is recorded, and the
        // process comes back while they talk.
        let victim = random.random_range(0..SERVERS);
        let kill_at = fleet.events().await + random.random_range(1..RUNS as i64);
        let talking = say(&cast, told, Say::More(2));
        let killing = async {
            fleet.has_events(kill_at).await;
            fleet.servers[victim].kill();
            fleet.servers[victim].restart().await;
        };
        (told, ()) = tokio::join!(talking, killing);
    }
    let told = say(&cast, told, Say::End).await;

    let recovered = fleet.is_whole(&told).await;
    assert!(recovered > RUNS / 2, "only {recovered} times a run was attached again");
    let last = fleet.events().await;
    ended.send_replace(Some(last));
    let mut connections = 0;
    for (run, seen) in watchers.join_all().await {
        let last = fleet.store.run_head(run).await.unwrap().last_seq;
        assert_eq!(seen.ids, (1..=last).collect::<Vec<_>>(), "run {run}");
        connections += seen.connections;
    }
    assert!(connections > RUNS * SERVERS, "nobody had to come back");
    for seen in feeds.join_all().await {
        assert_eq!(seen.ids, (1..=last).collect::<Vec<_>>());
    }
}
