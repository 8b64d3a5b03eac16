//! What a runtime or the network may do to us, done by real ones, and by a scripted one where they
//! cannot be brought to: whatever it is, a run is whole in the end, or says what is missing.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod compacting;
mod history;
mod network;
mod receipts;
mod settling;
mod streams;

use control_plane_domain::{RunId, SessionId};
use control_plane_recovery::Config;
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Message, Outcome};
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::{DEADLINE, wait_until};
use support::{Rig, config};

/// Codes of gRPC.
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// A scripted runtime with one session, and an engine beside it.
struct Stage {
    runtime: ScriptedRuntime,
    rig: Rig,
    session: SessionId,
    spec: SessionSpec,
    /// What the runtime accepted so far.
    accepted: Vec<String>,
}

impl Stage {
    /// A session with its start and nothing more; nobody follows it.
    async fn set(kind: Kind, config: Config) -> Self {
        Self::set_mode(kind, config, message::DECISION).await
    }

    async fn set_mode(kind: Kind, config: Config, mode: &str) -> Self {
        let runtime = ScriptedRuntime::start().await;
        let mut client = runtime.client_config();
        client.request_timeout = std::time::Duration::from_secs(3);
        let client = control_plane_runtime::Client::new(&client).unwrap();
        let rig = Rig::with_config(kind, client, config);
        let session = SessionId::random();
        let spec = SessionSpec::new(mode, &["alice", "bob", "carol"]).with_id(&session);
        let accepted = vec![runtime.open_session(&spec, "alice")];
        Self { runtime, rig, session, spec, accepted }
    }

    /// A session that is followed.
    async fn followed(kind: Kind) -> (Self, RunId) {
        Self::followed_with(kind, config()).await
    }

    async fn followed_with(kind: Kind, config: Config) -> (Self, RunId) {
        let stage = Self::set(kind, config).await;
        let run = stage.post().await;
        stage.rig.has_recorded(run, 1).await;
        (stage, run)
    }

    async fn post(&self) -> RunId {
        self.rig.post(&self.session, &self.spec.mode).await
    }

    fn say(&mut self, count: usize) {
        for _ in 0..count {
            let vote = message::decision::vote("p1", "APPROVE");
            self.accepted.push(self.runtime.accept(&self.session, "bob", vote));
        }
    }

    fn resolve(&mut self) {
        self.accepted.push(self.runtime.resolve(&self.session, "alice", commitment()));
    }

    /// Waits until everything accepted is recorded.
    async fn caught_up(&self, run: RunId) {
        self.rig.has_recorded(run, self.accepted.len()).await;
    }

    /// Waits until the session was subscribed to this often.
    async fn subscribed(&self, times: usize) {
        wait_until(DEADLINE, async || self.runtime.subscriptions(&self.session).len() >= times)
            .await;
    }

    async fn is_whole(&self, run: RunId) {
        self.rig.is_whole(run, &self.accepted).await;
    }

    /// Another history under the same id, start and initiator. What it accepts is held back: the
    /// old streams must end first.
    async fn replace_history(&mut self, run: RunId) {
        let known = self.rig.store.session_get(run).await.unwrap().unwrap();
        self.runtime.evict(&self.session);
        self.runtime.open_session(&self.spec, "alice");
        self.runtime.change_metadata(&self.session, |metadata| {
            metadata.started_at_unix_ms = known.started_at_unix_ms.unwrap();
        });
        self.runtime.hold(&self.session);
    }

    /// Stops our engine, lets things happen, and starts another one.
    async fn away(self, meanwhile: impl FnOnce(&mut Unwatched)) -> Self {
        let Self { runtime, rig, session, spec, accepted } = self;
        let (database, client, config) = rig.stop().await;
        let mut scene = Unwatched { runtime, session, accepted };
        meanwhile(&mut scene);
        let Unwatched { runtime, session, accepted } = scene;
        let rig = Rig::resume(database, client, config);
        Self { runtime, rig, session, spec, accepted }
    }
}

/// A stage without an engine.
struct Unwatched {
    runtime: ScriptedRuntime,
    session: SessionId,
    accepted: Vec<String>,
}

impl Unwatched {
    fn say(&mut self, count: usize) {
        for _ in 0..count {
            let vote = message::decision::vote("p1", "APPROVE");
            self.accepted.push(self.runtime.accept(&self.session, "bob", vote));
        }
    }

    fn resolve(&mut self) {
        self.accepted.push(self.runtime.resolve(&self.session, "alice", commitment()));
    }
}

fn commitment() -> Message {
    message::commitment("c1", "decision.selected", Outcome::Positive)
}
