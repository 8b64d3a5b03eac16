//! How runs went, over all of them.

use std::sync::Arc;

use control_plane_domain::{EventType, RunState};
use control_plane_testkit::database::{Kind, TestDb};
use serde_json::{Value, json};

use crate::support::{Api, Journal, Setup};

/// A server on a database of this kind.
async fn start(kind: Kind) -> Api {
    Api::set(Setup { database: Arc::new(TestDb::new(kind)), ..Setup::default() }).await
}

/// What a participant says.
fn said(sender: &str, confidence: f64) -> Value {
    json!({ "sender": sender, "decodedPayload": { "confidence": confidence } })
}

async fn overview(api: &Api, query: &str) -> Value {
    let (status, body) = api.get(&format!("/dashboard/overview{query}")).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// The sum of a chart's points.
fn total(body: &Value, chart: &str) -> f64 {
    let points = body["charts"][chart]["data"].as_array().unwrap();
    points.iter().map(|point| point.as_f64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_tells_how_runs_went() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let mut good = Journal::create_of(&api.store, "fraud").await;
        good.append_one(EventType::SignalEmitted, said("alice", 0.5)).await;
        let finalized = json!({ "decodedPayload": { "outcomePositive": true } });
        good.append_one(EventType::DecisionFinalized, finalized).await;
        good.complete().await;
        let mut bad = Journal::create_of(&api.store, "loans").await;
        bad.fail("SESSION_EXPIRED").await;
        let running = Journal::create_of(&api.store, "fraud").await;

        let body = overview(&api, "").await;

        let kpis = &body["kpis"];
        for (figure, expected) in [
            ("totalRuns", json!(3)),
            ("activeRuns", json!(1)),
            ("completedRuns", json!(1)),
            ("declinedRuns", json!(0)),
            ("failedRuns", json!(1)),
            ("cancelledRuns", json!(0)),
            ("suspendedRuns", json!(0)),
            ("successRate", json!(0.5)),
            ("totalSignals", json!(1)),
            ("totalTokens", json!(0)),
            ("totalCostUsd", json!(0.0)),
        ] {
            assert_eq!(kpis[figure], expected, "{figure} of {kpis}");
        }
        assert!(kpis["avgDurationMs"].is_i64());
        for (chart, expected) in [
            ("runVolume", 3.0),
            ("signalVolume", 1.0),
            ("throughput", 1.0),
            ("queueDepth", 0.0),
            ("decisionOutcome", 1.0),
            ("cost", 0.0),
        ] {
            assert_eq!(total(&body, chart), expected, "{chart}");
            let points = body["charts"][chart]["labels"].as_array().unwrap().len();
            assert_eq!(body["charts"][chart]["data"].as_array().unwrap().len(), points);
            assert!((24..=25).contains(&points), "{points} hours");
        }
        for chart in ["latency", "latencyP50", "latencyP95", "latencyP99", "successRate"] {
            assert!(body["charts"][chart]["data"].is_array(), "{chart}");
        }
        let errors = json!({ "labels": ["SESSION_EXPIRED"], "data": [1] });
        assert_eq!(body["charts"]["errorClasses"], errors);
        assert_eq!(body["charts"]["perScenario"], json!({ "labels": ["unknown"], "data": [3] }));
        assert_eq!(body["recentRuns"][0]["id"], json!(running.id()));
        assert_eq!(body["recentRuns"].as_array().unwrap().len(), 3);
        assert_eq!(body["runtimeHealth"]["runtimeKind"], "rust");
        assert!(body["runtimeHealth"]["ok"].is_boolean());
        assert_eq!(body["period"]["bucket"], "hour");
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_runs_are_active_and_told_apart() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        Journal::create_of(&api.store, "loans").await;
        let mut paused = Journal::create_of(&api.store, "fraud").await;
        let seen = async || {
            let body = overview(&api, "").await;
            let elsewhere = overview(&api, "?scenarioRef=loans").await;
            let kpis = &body["kpis"];
            let other = elsewhere["kpis"]["suspendedRuns"].clone();
            [kpis["activeRuns"].clone(), kpis["suspendedRuns"].clone(), other]
        };

        paused.turn(RunState::Suspended).await;
        assert_eq!(seen().await, [2, 1, 0]);

        paused.turn(RunState::Running).await;
        assert_eq!(seen().await, [2, 0, 0]);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_and_a_filter_say_which_runs_are_meant() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        Journal::create_of(&api.store, "Fraud check").await;
        Journal::create_of(&api.store, "loans").await;

        for (query, runs) in [
            ("?window=15m", 2),
            ("?range=30d", 2),
            ("?scenarioRef=FRAUD", 1),
            ("?scenarioRef=fraud&window=7d", 1),
            ("?environment=staging", 0),
            ("?from=2020-01-01&to=2020-01-03", 0),
            ("?from=2024-01-01", 2),
        ] {
            let body = overview(&api, query).await;
            assert_eq!(body["kpis"]["totalRuns"], runs, "{query}");
        }
        let past = overview(&api, "?from=2020-01-01&to=2020-01-03T01:30:00Z").await;
        assert_eq!(
            past["period"],
            json!({
                "from": "2020-01-01T00:00:00.000Z",
                "to": "2020-01-03T01:30:00.000Z",
                "bucket": "day",
            })
        );
        assert_eq!(past["charts"]["runVolume"]["data"], json!([0, 0, 0]));
        assert_eq!(past["charts"]["runVolume"]["labels"][2], "2020-01-03T00:00:00.000Z");
        // The list of the newest is for every period.
        assert_eq!(past["recentRuns"].as_array().unwrap().len(), 2);
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_listed_with_what_they_did() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        for runs in [&["alice", "bob"][..], &["alice"]] {
            let mut journal = Journal::create(&api.store).await;
            for id in runs {
                journal.seen(id).await;
                journal.append_one(EventType::MessageReceived, said(id, 0.25)).await;
            }
            journal.append_one(EventType::MessageReceived, said("alice", 1.0)).await;
            let call = json!({ "sender": "alice", "decodedPayload": { "latencyMs": 40 } });
            journal.append_one(EventType::LlmCallCompleted, call).await;
            journal.append_one(EventType::SignalEmitted, said("alice", 0.5)).await;
        }

        let alice = json!({
            "participantId": "alice", "runs": 2, "signals": 2, "messages": 4,
            "averageConfidence": 0.625, "confidenceCount": 4, "averageLatencyMs": 40,
        });
        let bob = json!({
            "participantId": "bob", "runs": 1, "signals": 0, "messages": 1,
            "averageConfidence": 0.25, "confidenceCount": 1,
        });
        let path = "/dashboard/agents/metrics";
        assert_eq!(api.get(path).await, (200, json!([alice, bob])));
        assert_eq!(api.get(&format!("{path}?limit=1&window=24h")).await, (200, json!([alice])));
        let nobody = format!("{path}?from=2020-01-01&to=2020-01-02");
        assert_eq!(api.get(&nobody).await, (200, json!([])));
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_period_is_refused_by_name() {
    let api = Api::start().await;
    for (query, fault) in [
        ("window=2h", "window must be one of: 15m, 1h, 6h, 24h, 7d, 30d"),
        ("range=1h", "range must be one of: 24h, 7d, 30d"),
        ("from=yesterday", "from must be a date (YYYY-MM-DD) or an RFC 3339 time stamp"),
        ("from=2026-01-02&to=2026-01-01", "from must be before to"),
        ("from=1970-01-01", "from and to must not be more than 3660 days apart"),
        ("limit=0", "limit must be between 1 and 1000"),
    ] {
        let (status, body) = api.get(&format!("/dashboard/agents/metrics?{query}")).await;
        assert_eq!((status, &body["message"]), (400, &json!([fault])), "{query}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_deleted_is_not_counted_any_more() {
    for kind in Kind::ALL {
        let api = start(kind).await;
        let mut gone = Journal::create_of(&api.store, "fraud").await;
        gone.append_one(EventType::SignalEmitted, said("alice", 0.5)).await;
        gone.complete().await;
        Journal::create_of(&api.store, "loans").await;

        assert_eq!(api.delete(&format!("/runs/{}", gone.id())).await.0, 204);

        let body = overview(&api, "").await;
        assert_eq!(body["kpis"]["totalRuns"], 1);
        assert_eq!((total(&body, "signalVolume"), total(&body, "throughput")), (0.0, 0.0));
        let wrong = control_plane_insights::dashboard::differences(&api.store).await.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        api.stop().await;
    }
}
