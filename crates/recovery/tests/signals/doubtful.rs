//! A sender that the runtime does not vouch for is recorded, and moves nothing.

use control_plane_domain::{RunId, RunState, SessionId};
use control_plane_projection::state;
use control_plane_testkit::agent::{Agent, SessionSpec};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::runtime::{OBSERVER_TOKEN, Options, RuntimeProcess};
use serde_json::Value;

use super::is_told;
use super::support::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unauthenticated_signal_is_listed_and_nothing_else() {
    for kind in Kind::ALL {
        // Without tokens everybody is who they say they are; we have to be a participant then.
        let open_to_all = Options::default().with("MACP_AUTH_TOKENS_JSON", r#"{"tokens":[]}"#);
        let runtime = RuntimeProcess::start(open_to_all).await;
        let alice = Agent::connect(&runtime.address(), "alice", "alice").await;
        let mallory = Agent::connect(&runtime.address(), "mallory", "mallory").await;
        let rig = Rig::start(kind, runtime.client());
        let session = SessionId::random();
        let run = rig.post(&session, message::DECISION).await;
        let participants = ["alice", "bob", OBSERVER_TOKEN];
        let spec = SessionSpec::new(message::DECISION, &participants).with_id(&session);
        let accepted = vec![alice.start_session(&spec).await];
        rig.reaches(run, RunState::Running).await;
        rig.has_recorded(run, 1).await;
        let before = folded(&rig, run).await;

        let call = message::llm_call(session.as_str(), "gpt-4o", 100, 20);
        let progress = message::progress("work", 1.0, 2.0, "nearly");
        let ids =
            [mallory.signal(call).await, mallory.say(&session, message::DECISION, progress).await];

        is_told(&rig, run, &ids).await;
        let signal = rig.has_event(run, "signal.emitted").await;
        assert_eq!(signal.data["senderAuthenticated"], false, "{:#?}", signal.data);
        let after = folded(&rig, run).await;
        assert_eq!(after["signals"]["signals"][0]["senderAuthenticated"], false);
        for section in ["run", "participants", "graph", "decision", "progress", "policy", "llm"] {
            assert_eq!(after[section], before[section], "{section}");
        }
        let metrics = rig.store.metrics_get(run).await.unwrap().unwrap();
        assert_eq!((metrics.total_tokens, metrics.estimated_cost_usd), (0, 0.0));
        rig.is_whole(run, &accepted).await;
        rig.stop().await;
    }
}

/// The state, by section.
async fn folded(rig: &Rig, run: RunId) -> Value {
    let projection = state::load(&rig.store, run).await.unwrap();
    serde_json::to_value(projection).unwrap()
}
