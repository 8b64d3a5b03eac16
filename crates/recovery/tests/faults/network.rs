//! A real runtime that is hard to reach: cut off, swallowed, slow, garbled, hanging.

use std::time::Duration;

use control_plane_domain::breaker::BreakerState;
use control_plane_domain::{RunId, RunState, SessionId};
use control_plane_recovery::Config;
use control_plane_runtime::Client;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::link::{Link, Way};
use control_plane_testkit::message;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, wait_until};

use super::commitment;
use super::support::{Rig, config};

/// A client on the other side of the link.
pub(super) fn beyond(link: &Link, runtime: &RuntimeProcess) -> Client {
    let mut config = runtime.client_config();
    config.address = link.address();
    config.request_timeout = Duration::from_secs(2);
    Client::new(&config).unwrap()
}

/// A Decision that goes on until it is ended, whatever the network does to us.
pub(super) struct Talk {
    pub(super) session: SessionId,
    pub(super) accepted: Vec<String>,
}

impl Talk {
    /// A session with its start and a proposal.
    pub(super) async fn open(cast: &Cast) -> Self {
        let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]);
        let start = cast.alice.start_session(&spec).await;
        let mut talk = Self { session: spec.session_id, accepted: vec![start] };
        let proposal = message::decision::proposal("p1", "deploy");
        talk.accepted.push(cast.alice.say(&talk.session, message::DECISION, proposal).await);
        talk
    }

    pub(super) async fn go_on(&mut self, cast: &Cast, count: usize) {
        for _ in 0..count {
            let said = message::decision::evaluation("p1", "REVIEW", 0.5);
            self.accepted.push(cast.bob.say(&self.session, message::DECISION, said).await);
        }
    }

    pub(super) async fn end(&mut self, cast: &Cast) {
        let vote = message::decision::vote("p1", "APPROVE");
        self.accepted.push(cast.alice.say(&self.session, message::DECISION, vote).await);
        let said = cast.alice.say(&self.session, message::DECISION, commitment()).await;
        self.accepted.push(said);
    }
}

/// Waits until the log says that the stream is down.
async fn is_down(rig: &Rig, run: RunId) {
    wait_until(DEADLINE, async || rig.count_status(run, "reconnecting").await == 1).await;
}

/// Opens a session that is followed, and lets the network be like this until the run has noticed;
/// meanwhile the talk goes on, and in the end nothing is missing.
async fn survives(kind: Kind, way: Way) {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let link = Link::to(runtime.address()).await;
    // Silence is looked into soon.
    let config = Config { stream_idle: Duration::from_secs(1), ..config() };
    let rig = Rig::with_config(kind, beyond(&link, &runtime), config);
    let mut talk = Talk::open(&cast).await;
    let run = rig.post(&talk.session, message::DECISION).await;
    rig.has_recorded(run, 2).await;

    link.set(way);
    talk.go_on(&cast, 3).await;
    is_down(&rig, run).await;
    assert_eq!(rig.store.run_get(run).await.unwrap().state, RunState::Running);
    link.set(Way::Open);
    talk.end(&cast).await;

    rig.reaches(run, RunState::Completed).await;
    rig.is_whole(run, &talk.accepted).await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_loses_nothing() {
    for kind in Kind::ALL {
        survives(kind, Way::Cut).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_loses_nothing() {
    for kind in Kind::ALL {
        survives(kind, Way::Stalled).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_instead_of_frames_loses_nothing() {
    for kind in Kind::ALL {
        survives(kind, Way::Garbled).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_outage_is_noticed_at_once_however_long_it_was() {
    const RUNS: usize = 10;
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let link = Link::to(runtime.address()).await;
        let client = beyond(&link, &runtime);
        // As after many failures: who is not woken sleeps longer than this test waits.
        let long = Duration::from_secs(600);
        let rig = Rig::with_config(
            kind,
            client,
            Config { backoff_base: long, backoff_max: long, ..config() },
        );
        let mut talks = Vec::new();
        for _ in 0..RUNS {
            let talk = Talk::open(&cast).await;
            let run = rig.post(&talk.session, message::DECISION).await;
            talks.push((run, talk));
        }
        for (run, _) in &talks {
            rig.has_recorded(*run, 2).await;
        }

        link.set(Way::Cut);
        for (run, talk) in &mut talks {
            is_down(&rig, *run).await;
            talk.go_on(&cast, 1).await;
        }
        let breaker = || rig.engine.runtime().breaker().unwrap().state();
        let ask = async || {
            let _failed = rig.engine.runtime().manifest().await;
            breaker() == BreakerState::Open
        };
        wait_until(DEADLINE, ask).await;
        link.set(Way::Open);

        for (run, talk) in &mut talks {
            rig.has_recorded(*run, 3).await;
            talk.end(&cast).await;
            rig.reaches(*run, RunState::Completed).await;
            rig.is_whole(*run, &talk.accepted).await;
            assert_eq!(rig.count_status(*run, "reconnecting").await, 1);
        }
        assert_eq!(breaker(), BreakerState::Closed);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_delays_a_run_and_loses_nothing() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let link = Link::to(runtime.address()).await;
        link.set(Way::Slow { bytes: 100, pause: Duration::from_millis(5) });
        let rig = Rig::start(kind, beyond(&link, &runtime));
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;

        // All but a little is still on its way when the session ends.
        talk.go_on(&cast, 60).await;
        talk.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_hangs_is_waited_for() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut client = runtime.client_config();
        client.request_timeout = Duration::from_secs(1);
        let idle = Config { stream_idle: Duration::from_secs(1), ..config() };
        let rig = Rig::with_config(kind, Client::new(&client).unwrap(), idle);
        let mut talk = Talk::open(&cast).await;
        let run = rig.post(&talk.session, message::DECISION).await;
        let waiting = SessionId::random();
        rig.has_recorded(run, 2).await;

        runtime.pause().await;
        let queued = rig.post(&waiting, message::DECISION).await;
        is_down(&rig, run).await;
        let state = rig.store.run_get(queued).await.unwrap().state;
        assert!(!state.is_terminal(), "{state}");
        runtime.go_on().await;
        talk.end(&cast).await;

        rig.reaches(run, RunState::Completed).await;
        rig.is_whole(run, &talk.accepted).await;
        rig.stop().await;
    }
}
