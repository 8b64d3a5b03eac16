//! The engine as a whole: who follows a run, what is asked of it, what agents send, and a database
//! that goes away.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

#[path = "../support/mod.rs"]
mod support;

mod database;
mod import;
mod inbox;
mod odd;
mod ownership;
mod sharing;

use control_plane_domain::SessionId;
use control_plane_testkit::agent::{Cast, SessionSpec};
use control_plane_testkit::message::{self, Outcome};

/// A Decision that goes on, with what was accepted.
struct Talk {
    session: SessionId,
    accepted: Vec<String>,
}

impl Talk {
    async fn open(cast: &Cast) -> Self {
        let session = SessionId::random();
        let participants = ["alice", "bob", "carol"];
        let spec = SessionSpec::new(message::DECISION, &participants).with_id(&session);
        let accepted = vec![cast.alice.start_session(&spec).await];
        let mut talk = Self { session, accepted };
        talk.say(cast, message::decision::proposal("p1", "deploy")).await;
        talk
    }

    async fn say(&mut self, cast: &Cast, what: message::Message) {
        self.accepted.push(cast.alice.say(&self.session, message::DECISION, what).await);
    }

    async fn end(&mut self, cast: &Cast) {
        self.say(cast, message::decision::vote("p1", "APPROVE")).await;
        let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
        self.say(cast, commitment).await;
    }
}
