//! The runtime, or we, go away and come back.

mod support;

use control_plane_domain::{RunState, SessionId};
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use support::Rig;

struct Talk {
    session: SessionId,
    accepted: Vec<String>,
}

impl Talk {
    async fn open(cast: &Cast) -> Self {
        let session = SessionId::random();
        Self::open_as(cast, session).await
    }

    async fn open_as(cast: &Cast, session: SessionId) -> Self {
        let spec =
            SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
        let mut talk = Self { accepted: vec![cast.alice.start_session(&spec).await], session };
        talk.say(cast, message::decision::proposal("p1", "deploy")).await;
        talk
    }

    async fn say(&mut self, cast: &Cast, what: message::Message) {
        let id = cast.alice.say(&self.session, message::DECISION, what).await;
        self.accepted.push(id);
    }

    async fn end(&mut self, cast: &Cast) {
        let vote = message::decision::vote("p1", "APPROVE");
        self.say(cast, vote).await;
        let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
        self.say(cast, commitment).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_runtime_in_the_middle_of_a_run_loses_nothing() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;

        runtime.kill().await;
        runtime.restart().await;
        let cast = runtime.cast().await;
        talk.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        let reconnecting = rig.events(run).await.into_iter().filter(|event| {
            event.data.get("status").and_then(|status| status.as_str()) == Some("reconnecting")
        });
        assert_eq!(reconnecting.count(), 1, "an outage writes one event");
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_drains_is_a_reconnect_and_no_failure() {
    let mut runtime = RuntimeProcess::start(
        Options::new(Durability::KeepsHistory).with("MACP_SHUTDOWN_DRAIN_SECS", "1"),
    )
    .await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;

    runtime.terminate().await;
    runtime.restart().await;
    let cast = runtime.cast().await;
    talk.end(&cast).await;

    rig.reaches(run, RunState::Completed).await;
    rig.is_whole(run, &talk.accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_under_the_same_session_id_is_never_mixed_in() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;

        runtime.kill().await;
        // The session must stand again before we look, or we would say that it is gone.
        let (database, client, config) = rig.stop().await;
        runtime.restart_empty().await;
        let cast = runtime.cast().await;
        Talk::open_as(&cast, talk.session.clone()).await;
        let rig = Rig::resume(database, client, config);

        rig.reaches(run, RunState::Failed).await;
        let failed = rig.store.run_get(run).await.unwrap();
        assert_eq!(failed.error_code.as_deref(), Some("SESSION_DIVERGED"));
        rig.has_event(run, "session.stream.diverged").await;
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_runtime_lost_fails_its_run_and_says_so() {
    for kind in Kind::ALL {
        let mut runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        rig.has_recorded(run, 2).await;

        runtime.kill().await;
        runtime.restart_empty().await;

        rig.fails_with(run, "SESSION_GONE").await;
        let gap = rig.has_event(run, "session.stream.gap").await;
        assert_eq!(
            (&gap.data["fromOrdinal"], &gap.data["reason"]),
            (&3.into(), &"SESSION_GONE".into())
        );
        assert_eq!(rig.last_event(run).await, "run.failed");
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_restart_attaches_every_run_again_at_its_cursor() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        let waiting = SessionId::random();
        let queued = rig.post(&waiting, message::DECISION).await;
        rig.has_recorded(run, 2).await;
        rig.reaches(queued, RunState::Starting).await;

        let (database, client, config) = rig.stop().await;
        talk.say(&cast, message::decision::evaluation("p1", "APPROVE", 0.5)).await;
        let rig = Rig::resume(database, client, config);

        let recovered = rig.has_event(run, "session.stream.opened").await;
        assert_eq!(recovered.data["status"], "opened");
        talk.end(&cast).await;
        let late = Talk::open_as(&cast, waiting).await;
        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        let statuses = rig.events(run).await.into_iter().filter_map(|event| {
            event.data.get("status").and_then(|status| status.as_str()).map(str::to_owned)
        });
        assert_eq!(statuses.filter(|status| status == "recovered").count(), 1);
        rig.has_recorded(queued, 2).await;
        rig.is_whole(queued, &late.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_sessions_are_followed_at_once() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Postgres, runtime.client());
    let mut talks = Vec::new();
    for _ in 0..300 {
        let talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        talks.push((run, talk));
    }
    for (run, _) in &talks {
        rig.reaches(*run, RunState::Running).await;
    }

    for (_, talk) in &mut talks {
        talk.end(&cast).await;
    }

    for (run, talk) in &talks {
        rig.reaches(*run, RunState::Completed).await;
        rig.is_whole(*run, &talk.accepted).await;
    }
    rig.stop().await;
}
