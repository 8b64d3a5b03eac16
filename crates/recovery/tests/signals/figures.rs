//! What a run's figures, and the sums over runs, say of model calls.

use std::sync::Arc;

use control_plane_domain::{Clock, RunState, SessionId, SystemClock};
use control_plane_insights::dashboard::{Span, Window, agents, overview};
use control_plane_recovery::{Config, PriceTable};
use control_plane_storage::FilingFilter;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::Outcome;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play, wait_for};

use super::running;
use super::support::{Rig, config};

const PRICES: &str =
    r#"{ "models": { "house": { "promptPerMillion": 2, "completionPerMillion": 4 } } }"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_counted_once_at_its_own_price_and_a_late_one_moves_no_time() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let prices = Arc::new(PriceTable::parse(PRICES).unwrap());
        let rig = Rig::with_config(kind, runtime.client(), Config { prices, ..config() });
        let (session, run, _) = running(&rig, &cast).await;
        let figures = async || rig.store.metrics_get(run).await.unwrap().unwrap();
        let call = || message::llm_call(session.as_str(), "house-2026-01-01", 500_000, 250_000);

        cast.bob.signal(call()).await;
        wait_for(DEADLINE, figures, |figures| figures.total_tokens == 750_000).await;
        let say = async |what| cast.alice.say(&session, message::DECISION, what).await;
        say(message::decision::proposal("p1", "deploy")).await;
        cast.bob.say(&session, message::DECISION, message::decision::vote("p1", "APPROVE")).await;
        say(message::commitment("c1", "decision.selected", Outcome::Positive)).await;
        rig.reaches(run, RunState::Completed).await;
        let ended = figures().await;
        cast.carol.signal(call()).await;
        let late = wait_for(DEADLINE, figures, |figures| figures.total_tokens == 1_500_000).await;

        assert_eq!((ended.prompt_tokens, ended.completion_tokens), (500_000, 250_000));
        assert_eq!((ended.estimated_cost_usd, late.estimated_cost_usd), (2.0, 4.0));
        assert_eq!(
            (late.duration_ms, late.last_event_at),
            (ended.duration_ms, ended.last_event_at)
        );
        assert!(ended.ended && late.signal_count == ended.signal_count + 1);
        let span = Span::ending(Window::Day, SystemClock.now());
        let filter = FilingFilter::default();
        let shown = overview(&rig.store, &span, &filter).await.unwrap();
        assert_eq!((shown.kpis.total_tokens, shown.kpis.total_cost_usd), (1_500_000, 4.0));
        assert_eq!((shown.kpis.completed_runs, shown.kpis.declined_runs), (1, 0));
        assert_eq!((shown.kpis.total_signals, shown.kpis.success_rate), (2, 1.0));
        let agents = agents(&rig.store, None, &filter, 10).await.unwrap();
        let counts = |agent: &control_plane_insights::dashboard::Agent| {
            (agent.participant_id.clone(), agent.runs, agent.messages, agent.signals)
        };
        let counts: Vec<_> = agents.iter().map(counts).collect();
        let of = |id: &str, messages, signals| (id.to_owned(), 1, messages, signals);
        // A signal is a message, too.
        assert_eq!(counts, [of("alice", 3, 0), of("bob", 2, 1), of("carol", 1, 1)]);

        let refused = SessionId::random();
        let declined = rig.post(&refused, message::QUORUM).await;
        play::quorum_refused(&cast, &refused).await;
        rig.reaches(declined, RunState::Completed).await;
        let span = Span::ending(Window::Day, SystemClock.now());
        let kpis = overview(&rig.store, &span, &filter).await.unwrap().kpis;
        assert_eq!((kpis.completed_runs, kpis.declined_runs, kpis.success_rate), (2, 1, 1.0));
        rig.stop().await;
    }
}
