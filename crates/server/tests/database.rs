//! A database that goes away, hangs, is full or has no connection left, under a server that follows
//! live sessions: it waits and goes on, says so to callers, and loses nothing.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::fs;

use control_plane_domain::{RunId, SessionId};
use control_plane_insights::integrity;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::cluster::{Cluster, Stop};
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play, wait_for, wait_until};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use support::{Stage, Talk, descriptor};
use tokio_postgres::NoTls;

const TALKS: usize = 4;

/// The statuses of a read and of a launch, each with its `Retry-After`.
async fn ask(stage: &Stage, run: RunId) -> [(u16, Option<String>); 2] {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = descriptor(&SessionId::random(), message::DECISION);
    let requests = [
        client.get(stage.server.url(&format!("/runs/{run}"))),
        client.post(stage.server.url("/runs")).json(&body),
    ];
    join_all(requests.map(async |request| {
        let answer = request.timeout(DEADLINE).send().await.unwrap();
        let wait = answer.headers().get("retry-after");
        (answer.status().as_u16(), wait.map(|wait| wait.to_str().unwrap().to_owned()))
    }))
    .await
    .try_into()
    .unwrap()
}

fn unavailable() -> (u16, Option<String>) {
    (503, Some("1".to_owned()))
}

async fn open_talks(cast: &Cast, stage: &Stage) -> Vec<(RunId, Talk)> {
    let mut talks = Vec::new();
    for _ in 0..TALKS {
        let talk = Talk::open(cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, talk.accepted.len()).await;
        talks.push((run, talk));
    }
    talks
}

async fn talk_on(cast: &Cast, talks: &mut [(RunId, Talk)], times: usize) {
    for _ in 0..times {
        for (_, talk) in talks.iter_mut() {
            talk.evaluate(cast).await;
        }
    }
}

/// Everything said is recorded, by the process that was there all the time.
async fn ends_well(cast: &Cast, stage: &mut Stage, talks: &mut [(RunId, Talk)], pid: Option<u32>) {
    for (_, talk) in talks.iter_mut() {
        talk.end(cast).await;
    }
    for (run, talk) in talks.iter() {
        let ended = stage.reaches(*run, "completed").await;
        assert_eq!(ended["parkedReason"], json!(null), "{ended:#}");
        stage.is_whole(*run, &talk.accepted).await;
    }
    assert_eq!(stage.server.pid(), pid);
    assert_eq!(stage.server.terminate(support::EXIT).await, 0);
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_stops_and_starts_in_the_middle_of_ingest_costs_nothing() {
    let cluster = Cluster::start(&[], "");
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let url = cluster.url("127.0.0.1", "sslmode=disable");
    let mut stage = Stage::at(&url, &runtime, &[]).await;
    let mut talks = open_talks(&cast, &stage).await;
    let (first, pid) = (talks[0].0, stage.server.pid());

    for how in [Stop::Fast, Stop::Immediate] {
        let (_, ()) = tokio::join!(talk_on(&cast, &mut talks, 20), async {
            tokio::task::block_in_place(|| cluster.stop(how));
        });
        // Whoever asks while it is away is told to come back, and the agents talk on.
        let answers = ask(&stage, first).await;
        let (alive, _) = stage.server.get("/healthz").await;
        let (ready, _) = stage.server.get("/readyz").await;
        talk_on(&cast, &mut talks, 20).await;
        assert_eq!(answers, [unavailable(), unavailable()], "{how:?}");
        assert_eq!((alive, ready), (200, 503), "{how:?}");

        tokio::task::block_in_place(|| cluster.start_again());
        for (run, talk) in &talks {
            let recorded = async || {
                let raw = stage.store.list_raw_by_run(*run, 0, 100_000).await;
                raw.map_or(0, |raw| raw.len())
            };
            wait_for(DEADLINE, recorded, |count| *count == talk.accepted.len()).await;
        }
    }

    ends_well(&cast, &mut stage, &mut talks, pid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_again_and_again_cost_nothing() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(Kind::Postgres, &runtime).await;
    let mut talks = open_talks(&cast, &stage).await;
    let pid = stage.server.pid();
    let cutter = connect(&stage.url).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND application_name = 'macp-control-plane'";

    for _ in 0..15 {
        let ended = async || cutter.query(cut, &[]).await.unwrap().len();
        let cutting = wait_for(DEADLINE, ended, |ended| *ended > 0);
        tokio::join!(talk_on(&cast, &mut talks, 4), cutting);
    }

    wait_until(DEADLINE, async || stage.store.ping().await.is_ok()).await;
    ends_well(&cast, &mut stage, &mut talks, pid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_callers_hold_every_connection_others_are_told_to_wait_and_ingest_goes_on() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let small = [("DB_POOL_MAX", "3"), ("DB_POOL_CONNECTION_TIMEOUT", "300")];
    let mut stage = Stage::with(Kind::Postgres, &runtime, &small).await;
    let mut talks = open_talks(&cast, &stage).await;
    let (first, pid) = (talks[0].0, stage.server.pid());
    let mut locker = connect(&stage.url).await;
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE stream_tickets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // Within a transaction, what the others do is seen once.
    let observer = connect(&stage.url).await;
    let ask_for_ticket = async || {
        let body = json!({ "runId": first.to_string() });
        stage.server.post("/stream-tickets", &body).await.0
    };
    let hung = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";

    let ((), tickets) = tokio::join!(
        async {
            let hanging = async || observer.query_one(hung, &[]).await.unwrap().get::<_, i64>(0);
            wait_for(DEADLINE, hanging, |count| *count == 3).await;
            let answers = ask(&stage, first).await;
            let before = stage.events().await;
            talk_on(&cast, &mut talks, 10).await;
            for (run, talk) in &talks {
                stage.has_recorded(*run, talk.accepted.len()).await;
            }
            let still = hanging().await;
            assert_eq!(answers, [unavailable(), unavailable()]);
            assert!(stage.events().await > before);
            assert_eq!(still, 3, "all of it while they hung");
            lock.rollback().await.unwrap();
        },
        join_all((0..3).map(|_| ask_for_ticket())),
    );

    assert_eq!(tickets, [201, 201, 201]);
    ends_well(&cast, &mut stage, &mut talks, pid).await;
}

/// The memory of a process that is not anybody else's, in bytes.
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_stops_the_reading_and_not_the_agents() {
    const SAID: usize = 448;
    const BYTES: usize = 64 * 1024;
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Postgres, &runtime).await;
    let session = SessionId::random();
    let start = play::open_for_load(&cast, &session).await;
    let run = stage.post(&session, message::MULTI_ROUND).await;
    stage.has_recorded(run, 1).await;
    let pid = stage.server.pid().unwrap();
    let mut locker = connect(&stage.url).await;
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE run_events_raw IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let before = memory(pid);

    let text = "x".repeat(BYTES);
    let mut said: Vec<String> = stream::iter(0..SAID)
        .map(|_| {
            let contribution = message::multi_round::contribute(&text);
            cast.bob.say(&session, message::MULTI_ROUND, contribution)
        })
        .buffer_unordered(8)
        .collect()
        .await;
    let held = memory(pid).saturating_sub(before);
    lock.rollback().await.unwrap();

    // As events, what was said is three times as long: 84 MiB.
    assert!(held < SAID * BYTES, "{} MiB are held", held >> 20);
    // Not by counting what is recorded, which is much to read.
    let cursor = async || stage.store.session_get(run).await.unwrap().map_or(0, |at| at.cursor);
    wait_for(DEADLINE, cursor, |cursor| *cursor > SAID as i64).await;
    let raw = stage.store.list_raw_by_run(run, 0, i64::MAX).await.unwrap();
    let mut recorded: Vec<String> = raw.into_iter().map(|raw| raw.envelope.message_id).collect();
    assert_eq!(recorded.remove(0), start);
    // They were said at once, so in no given order.
    recorded.sort();
    said.sort();
    assert_eq!(recorded, said);
    let found = integrity::check(&stage.store, run).await.unwrap();
    assert!(found.is_sound() && found.gaps.is_empty(), "{found:#?}");
    // The runtime gave this reader up, and it subscribed again.
    let (_, events) =
        stage.server.get(&format!("/runs/{run}/events?type=session.stream.opened")).await;
    let lagged = events.to_string().matches(r#""status":"reconnecting""#).count();
    assert_eq!(lagged, 1, "the runtime's buffer is shorter than what was said");
    cast.alice.cancel(&session, "said enough").await;
    stage.reaches(run, "cancelled").await;
}

/// Lets no file of a process become larger, or any.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let limit = Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_sqlite_is_waited_for() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(Kind::Sqlite, &runtime).await;
    let mut talks = open_talks(&cast, &stage).await;
    let (first, pid) = (talks[0].0, stage.server.pid());
    let path = stage.url.trim_start_matches("sqlite://");
    let size = fs::metadata(path).unwrap().len();
    limit_files(pid.unwrap(), Some(size + 256 * 1024));

    let mut answers = ask(&stage, first).await;
    while answers[1].0 == 201 {
        talk_on(&cast, &mut talks, 10).await;
        answers = ask(&stage, first).await;
    }
    talk_on(&cast, &mut talks, 10).await;
    let state = stage.server.get(&format!("/runs/{first}/state")).await.0;
    let events = stage.server.get(&format!("/runs/{first}/events")).await.0;
    limit_files(pid.unwrap(), None);

    assert_eq!(answers, [(200, None), unavailable()], "it reads, and does not write");
    assert_eq!((state, events), (200, 200));
    ends_well(&cast, &mut stage, &mut talks, pid).await;
}
