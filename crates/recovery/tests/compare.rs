//! Comparing what the real runtime's sessions left behind.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use control_plane_domain::{RunId, RunState, SessionId};
use control_plane_insights::compare::{self, Change, Comparison};
use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::Outcome;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::script::{self, Script};
use control_plane_testkit::{message, play};
use support::Rig;

/// The run of a session in which this is said.
async fn held(rig: &Rig, cast: &Cast, script: &Script) -> RunId {
    let session = SessionId::random();
    let run = rig.post(&session, script.mode).await;
    play::perform(cast, &session, script).await;
    rig.reaches(run, RunState::Completed).await;
    run
}

async fn compared(rig: &Rig, left: RunId, right: RunId) -> Comparison {
    let read = async |id: RunId| {
        let run = rig.store.run_get(id).await.unwrap();
        compare::read(&rig.store, run).await.unwrap()
    };
    compare::runs(&read(left).await, &read(right).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_decisions_that_differ_in_one_vote_differ_in_that_vote() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let rig = Rig::start(kind, runtime.client());
        let mut other = script::decision();
        let place = other
            .lines
            .iter()
            .position(|line| line.message == message::decision::vote("p1", "APPROVE"))
            .unwrap();
        let vote = other.lines.get_mut(place).unwrap();
        vote.message = message::decision::vote("p1", "REJECT");
        let left = held(&rig, &cast, &script::decision()).await;
        let right = held(&rig, &cast, &other).await;

        let found = compared(&rig, left, right).await;

        assert_eq!(
            found.summary,
            "alice voted REJECT instead of APPROVE on 'deploy now'; \
             the outcome is the same: 'decision.selected', positive"
        );
        let [only] = found.alignment.differences.as_slice() else { panic!("{found:#?}") };
        assert_eq!((only.change, only.kind.as_str()), (Change::Changed, "vote"));
        assert_eq!(only.fields, ["reason", "vote"]);
        assert_eq!(found.alignment.unchanged, other.lines.len());
        assert_eq!(found.decision_diff.changed, ["confidence"]);
        assert!(compared(&rig, left, left).await.identical);
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_twice_is_the_same_in_every_mode() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    for script in script::ALL {
        let script = script();
        let (left, right) = (held(&rig, &cast, &script).await, held(&rig, &cast, &script).await);

        let found = compared(&rig, left, right).await;

        assert!(found.identical, "{found:#?}");
        assert_eq!(found.alignment.unchanged, script.lines.len() + 1, "{}", script.mode);
        assert!(found.limits.is_empty());
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_refused_instead_turns_the_outcome() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let rig = Rig::start(Kind::Sqlite, runtime.client());
    let mut refused = script::quorum();
    for line in &mut refused.lines {
        if line.message == message::quorum::approve("r1") {
            line.message = message::quorum::reject("r1");
        }
    }
    if let Some(last) = refused.lines.last_mut() {
        last.message = message::commitment("c1", "quorum.rejected", Outcome::Negative);
    }
    let left = held(&rig, &cast, &script::quorum()).await;
    let right = held(&rig, &cast, &refused).await;

    let found = compared(&rig, left, right).await;

    assert_eq!(
        found.summary,
        "bob said Reject instead of Approve to 'delete the old data', and one more step differs; \
         the outcome turned negative"
    );
    assert_eq!(found.decision_diff.action.right.as_deref(), Some("quorum.rejected"));
    rig.stop().await;
}
