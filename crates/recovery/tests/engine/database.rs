//! A database that breaks our connections in the middle of ingest.

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::play;
use control_plane_testkit::runtime::RuntimeProcess;
use tokio_postgres::NoTls;

use super::support::{Rig, config};
use control_plane_recovery::Config;

const ROUNDS: usize = 12;
const PER_ROUND: usize = 40;

/// Ends every connection to this database but our own.
struct Terminator(tokio_postgres::Client);

impl Terminator {
    async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    async fn strike(&self) -> usize {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.0.query(end, &[]).await.unwrap().len()
    }
}

/// Says things one after the other, so that their order is known.
async fn contribute(cast: &Cast, session: &SessionId, accepted: &mut Vec<String>) {
    for _ in 0..PER_ROUND {
        let what = message::multi_round::contribute(&format!("value {}", accepted.len()));
        accepted.push(cast.bob.say(session, message::MULTI_ROUND, what).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_in_the_middle_of_ingest_lose_and_double_nothing() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    // Small batches, so that there is always a commit under way.
    let small = Config { batch_envelopes: 3, ..config() };
    let rig = Rig::with_config(Kind::Postgres, runtime.client(), small);
    let terminator = Terminator::connect(rig.database.url()).await;
    let mut talks = Vec::new();
    for _ in 0..3 {
        let session = SessionId::random();
        let start = play::open_for_load(&cast, &session).await;
        let run = rig.post(&session, message::MULTI_ROUND).await;
        rig.has_recorded(run, 1).await;
        talks.push((run, session, vec![start]));
    }

    let mut struck = 0;
    for _ in 0..ROUNDS {
        let speaking =
            talks.iter_mut().map(|(_, session, accepted)| contribute(&cast, session, accepted));
        let (_, count) =
            tokio::join!(futures_util::future::join_all(speaking), terminator.strike());
        struck += count;
        struck += terminator.strike().await;
    }
    assert!(struck > ROUNDS, "connections were there to be ended");
    for (_, session, accepted) in &mut talks {
        let commitment = message::commitment("c1", "multi_round.converged", Outcome::Positive);
        let ended = cast.alice.try_say(session, message::MULTI_ROUND, commitment).await;
        accepted.extend(ended.ok().map(|ack| ack.message_id));
    }

    for (run, _, accepted) in &talks {
        recorded(&rig, *run, accepted.len()).await;
        rig.is_whole(*run, accepted).await;
        assert_eq!(rig.store.run_get(*run).await.unwrap().parked_reason, None);
    }
    rig.stop().await;
}

/// As [`Rig::has_recorded`], but a query may meet a connection that was ended.
async fn recorded(rig: &Rig, run: control_plane_domain::RunId, envelopes: usize) {
    let count = async || match rig.store.list_raw_by_run(run, 0, 100_000).await {
        Ok(raw) => raw.len(),
        Err(_broken) => 0,
    };
    control_plane_testkit::wait_for(control_plane_testkit::DEADLINE, count, |count| {
        *count >= envelopes
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_while_connections_break_ends_once() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let terminator = Terminator::connect(rig.database.url()).await;

    for _ in 0..10 {
        let mut talk = super::Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        tokio::join!(talk.end(&cast), async {
            for _ in 0..5 {
                terminator.strike().await;
            }
        });

        let state = async || rig.store.run_get(run).await.map(|run| run.state);
        control_plane_testkit::wait_for(control_plane_testkit::DEADLINE, state, |state| {
            matches!(state, Ok(RunState::Completed))
        })
        .await
        .unwrap();
        recorded(&rig, run, talk.accepted.len()).await;
        rig.is_whole(run, &talk.accepted).await;
        assert_eq!(rig.last_event(run).await, "run.completed");
    }
    rig.stop().await;
}
