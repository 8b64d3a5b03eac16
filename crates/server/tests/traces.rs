//! Spans of real runs, as a collector gets them; and that without one nothing is there at all.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::collections::HashSet;

use control_plane_domain::{RunId, SessionId};
use control_plane_testkit::agent::SessionSpec;
use control_plane_testkit::collector::{Collector, SeenSpan};
use control_plane_testkit::database::Kind;
use control_plane_testkit::message::{self, Outcome};
use control_plane_testkit::process::{ServerCommand, ServerProcess};
use control_plane_testkit::runtime::{Durability, Options, RuntimeProcess};
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use control_plane_testkit::{DEADLINE, wait_for};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};
use support::{EXIT, Stage, Talk, descriptor};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CALLERS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN: &str = "00f067aa0ba902b7";

fn settings(endpoint: &str) -> [(&str, &str); 4] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_SERVICE_NAME", "ours"),
        // A session that is found has a run, and that a trace, before anybody posts it.
        ("SESSION_DISCOVERY_ENABLED", "false"),
    ]
}

/// Waits for the root span of a trace; everything else of the run arrived before or with it.
async fn root_of(collector: &Collector, trace: &str) -> SeenSpan {
    let ask = async || lifecycles(collector, trace);
    wait_for(DEADLINE, ask, |roots| !roots.is_empty()).await.remove(0)
}

fn lifecycles(collector: &Collector, trace: &str) -> Vec<SeenSpan> {
    let ours = |span: &SeenSpan| span.name == "run.lifecycle" && span.trace_id == trace;
    collector.spans().into_iter().filter(ours).collect()
}

async fn trace_of(stage: &Stage, run: RunId) -> String {
    let (_, view) = stage.server.get(&format!("/runs/{run}")).await;
    view["traceId"].as_str().unwrap().to_owned()
}

async fn events(stage: &Stage, run: RunId) -> Vec<Value> {
    let (_, events) = stage.server.get(&format!("/runs/{run}/events?limit=1000")).await;
    events.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_of_a_run_arrive_as_one_trace_that_ends_with_it() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let collector = Collector::start().await;
        let stage = Stage::with(kind, &runtime, &settings(&collector.endpoint())).await;
        let mut talk = Talk::open(&cast).await;

        let (_, launched) =
            stage.server.post("/runs", &descriptor(&talk.session, message::DECISION)).await;
        let run: RunId = launched["runId"].as_str().unwrap().parse().unwrap();
        let trace = launched["traceId"].as_str().unwrap();
        stage.reaches(run, "running").await;
        talk.end(&cast).await;
        let view = stage.reaches(run, "completed").await;
        let root = root_of(&collector, trace).await;

        assert_eq!(view["traceId"], trace);
        assert_eq!((root.service.as_str(), root.status), ("ours", StatusCode::Ok));
        assert_eq!(root.attributes["run.terminal_status"], "completed");
        assert_eq!(root.attributes["run_id"], run.to_string());
        assert_eq!(root.attributes["mode_name"], message::DECISION);
        let millis = |at: &Value| {
            let at = at.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
            u128::try_from(at.timestamp_millis()).unwrap()
        };
        assert_eq!(root.start.as_millis(), millis(&view["createdAt"]));
        assert_eq!(root.end.as_millis(), millis(&view["endedAt"]));
        let moment = &root.events[0];
        assert_eq!(moment.0, "decision.finalized");
        assert_eq!(moment.1["action"], "decision.selected");
        assert_eq!(moment.1["outcome"], true);

        let spans = collector.spans();
        let within: Vec<&SeenSpan> = spans.iter().filter(|span| span.trace_id == trace).collect();
        let request = within.iter().find(|span| span.name == "POST /runs").unwrap();
        assert_eq!((request.kind, request.parent_span_id.as_str()), (SpanKind::Server, ""));
        assert_eq!(root.parent_span_id, request.span_id);
        assert_eq!(request.attributes["http.response.status_code"], 201);
        for (name, kind) in [
            ("runtime.get_session", SpanKind::Client),
            ("runtime.stream_session", SpanKind::Client),
            ("run-event.persist", SpanKind::Internal),
        ] {
            let span = within.iter().find(|span| span.name == name).unwrap();
            assert_eq!((span.kind, &span.parent_span_id), (kind, &root.span_id), "{name}");
            assert!(span.start <= span.end, "{name}");
        }
        let persisted: i64 = within
            .iter()
            .filter(|span| span.name == "run-event.persist")
            .map(|span| span.attributes["macp.event_count"].as_i64().unwrap())
            .sum();
        // All but `run.created`, which is written with the run.
        assert_eq!(persisted, view["lastEventSeq"].as_i64().unwrap() - 1);
        let ids: HashSet<&str> = within.iter().map(|span| span.span_id.as_str()).collect();
        assert_eq!(ids.len(), within.len(), "a span came twice");
        assert_eq!(stage.server.log().matches("ERROR").count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_says_its_trace_wherever_it_is_looked_at() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let collector = Collector::start().await;
        let stage = Stage::with(kind, &runtime, &settings(&collector.endpoint())).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;
        let trace = trace_of(&stage, run).await;
        let root = root_of(&collector, &trace).await;

        let (_, traces) = stage.server.get(&format!("/runs/{run}/traces")).await;
        let (_, artifacts) = stage.server.get(&format!("/runs/{run}/artifacts")).await;
        let (_, state) = stage.server.get(&format!("/runs/{run}/state")).await;
        let events = events(&stage, run).await;

        assert_eq!(traces["traceId"], trace);
        assert_eq!(traces["rootSpanId"], root.span_id);
        assert_eq!(traces["lastSpanId"], root.span_id);
        assert_eq!(traces["runStatus"], "completed");
        assert!(traces["spanCount"].as_i64().unwrap() > 0);
        assert_eq!(state["run"]["traceId"], trace);
        let artifact = &artifacts[0];
        assert_eq!(artifacts.as_array().unwrap().len(), 1);
        assert_eq!(
            (&artifact["kind"], &artifact["label"], &artifact["inline"]),
            (&json!("trace"), &json!("Root run trace"), &json!({ "traceId": trace }))
        );
        assert_eq!(traces["linkedArtifacts"], json!([artifact["id"]]));
        let of_type = |name: &str| {
            events.iter().filter(|event| event["type"] == name).cloned().collect::<Vec<_>>()
        };
        let created = of_type("artifact.created");
        assert_eq!(created.len(), 1);
        assert_eq!(created[0]["data"]["traceId"], trace);
        for name in ["run.created", "run.started", "run.completed"] {
            let event = &of_type(name)[0];
            assert_eq!(event["trace"], json!({ "traceId": trace }), "{name}");
            assert_eq!(event["data"]["traceId"], trace, "{name}");
        }
        let message = &of_type("message.received")[0];
        assert_eq!(message["trace"], json!({ "traceId": trace, "spanId": root.span_id }));
        stage.is_whole(run, &talk.accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_trace_goes_on() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let collector = Collector::start().await;
    let stage = Stage::with(Kind::Sqlite, &runtime, &settings(&collector.endpoint())).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |session: &SessionId, headers: &[(&'static str, &str)]| {
        let request = client.post(stage.server.url("/runs"));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let body = descriptor(session, message::DECISION);
        request.json(&body).send().await.unwrap().json::<Value>().await.unwrap()
    };
    let (mut first, mut second) = (Talk::open(&cast).await, Talk::open(&cast).await);

    let child = post(&first.session, &[("traceparent", CALLER), ("tracestate", "x=1")]).await;
    // Somebody's mistake, which the rules say to ignore.
    let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    let own = post(&second.session, &[("traceparent", zeros.as_str())]).await;
    first.end(&cast).await;
    second.end(&cast).await;

    assert_eq!(child["traceId"], CALLERS_TRACE);
    let root = root_of(&collector, CALLERS_TRACE).await;
    assert_eq!(root.trace_state, "x=1");
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.span_id == root.parent_span_id).unwrap();
    assert_eq!(
        (request.name.as_str(), request.parent_span_id.as_str()),
        ("POST /runs", CALLERS_SPAN)
    );
    let own = own["traceId"].as_str().unwrap();
    assert!(own != CALLERS_TRACE && own != "0".repeat(32), "{own}");
    root_of(&collector, own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_found_has_a_trace_of_its_own_and_whoever_posts_it_is_told() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let found =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let stage = Stage::with(Kind::Sqlite, &runtime, &found).await;
    let mut talk = Talk::open(&cast).await;
    let path = format!("/runs/{}", talk.session);
    let ask = async || stage.server.get(&path).await.1;
    let run = wait_for(DEADLINE, ask, |run| run["status"] == "running").await;

    let (status, launched) =
        stage.server.post("/runs", &descriptor(&talk.session, message::DECISION)).await;
    talk.end(&cast).await;

    assert_eq!(status, 201);
    assert_eq!(launched["traceId"], run["traceId"]);
    let root = root_of(&collector, run["traceId"].as_str().unwrap()).await;
    assert_eq!((root.parent_span_id.as_str(), root.status), ("", StatusCode::Ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_keeps_its_trace_through_kills_and_is_told_once() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::start(Options::new(Durability::KeepsHistory)).await;
        let cast = runtime.cast().await;
        let collector = Collector::start().await;
        let mut stage = Stage::with(kind, &runtime, &settings(&collector.endpoint())).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.reaches(run, "running").await;
        stage.has_recorded(run, talk.accepted.len()).await;
        let trace = trace_of(&stage, run).await;
        let (_, before) = stage.server.get(&format!("/runs/{run}/traces")).await;

        for _ in 0..3 {
            stage.server.kill();
            talk.evaluate(&cast).await;
            stage.server.restart().await;
            stage.has_recorded(run, talk.accepted.len()).await;
        }
        assert_eq!(lifecycles(&collector, &trace), [], "the run goes on");
        talk.end(&cast).await;
        let view = stage.reaches(run, "completed").await;
        let root = root_of(&collector, &trace).await;
        // Restarts look for runs that nobody has told of.
        stage.server.restart().await;
        assert_eq!(stage.server.terminate(EXIT).await, 0);

        assert_eq!(view["traceId"], trace);
        assert_eq!(before["rootSpanId"], root.span_id);
        assert_eq!(lifecycles(&collector, &trace).len(), 1);
        let spans = collector.spans();
        let followed = spans.iter().filter(|span| {
            span.name == "runtime.stream_session" && span.parent_span_id == root.span_id
        });
        // Those that were killed may have taken theirs along.
        assert!(followed.count() > 0, "the last process has followed it within the same trace");
        stage.is_whole(run, &talk.accepted).await;
    }
}

fn with_scripted(runtime: &ScriptedRuntime, collector: &Collector) -> ServerCommand {
    let command = ServerProcess::serve()
        .env("RUNTIME_ADDRESS", runtime.address())
        .env("RUNTIME_ALLOW_INSECURE", "true");
    settings(&collector.endpoint())
        .iter()
        .fold(command, |command, (name, value)| command.env(name, value))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runtime_is_told_which_trace_a_call_is_part_of() {
    let runtime = ScriptedRuntime::start().await;
    let collector = Collector::start().await;
    let mut server =
        with_scripted(&runtime, &collector).env("RUNTIME_REQUEST_TIMEOUT_MS", "500").start().await;
    let session = SessionId::random();
    runtime.fail_next("GetSession", UnaryFault::Fail(Failure::Internal));
    runtime.fail_next("GetSession", UnaryFault::Hang);
    let spec = SessionSpec::new(message::DECISION, &["alice", "bob", "carol"]).with_id(&session);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let launch = client
        .post(server.url("/runs"))
        .header("traceparent", CALLER)
        .header("tracestate", "x=1")
        .json(&descriptor(&session, message::DECISION));
    let launched: Value = launch.send().await.unwrap().json().await.unwrap();
    runtime.open_session(&spec, "alice");
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());
    let status = async || server.get(&path).await.1["status"].clone();
    wait_for(DEADLINE, status, |status| status == "running").await;
    let commitment = message::commitment("c1", "decision.selected", Outcome::Positive);
    runtime.resolve(&session, "alice", commitment);
    root_of(&collector, CALLERS_TRACE).await;
    assert_eq!(server.terminate(EXIT).await, 0);

    let spans = collector.spans();
    let calls: Vec<&SeenSpan> =
        spans.iter().filter(|span| span.name.starts_with("runtime.")).collect();
    let mut arrived = runtime.traces();
    let told = |span: &SeenSpan| {
        (format!("00-{CALLERS_TRACE}-{}-01", span.span_id), Some("x=1".to_owned()))
    };
    // A look at the session that its commitment overtook may be given up before it is sent.
    let kept = |span: &&&SeenSpan| {
        !span.attributes.contains_key("macp.given_up") || arrived.contains(&told(span))
    };
    let mut sent: Vec<_> = calls.iter().filter(kept).map(|span| told(span)).collect();
    sent.sort();
    arrived.sort();
    assert_eq!(arrived, sent);
    let failed: Vec<_> = calls.iter().filter(|span| span.status == StatusCode::Error).collect();
    assert!(failed.iter().all(|span| span.name == "runtime.get_session"), "{failed:?}");
    assert_eq!(failed[0].attributes["rpc.grpc.status_code"], 13);
    assert_eq!(failed[1].status_message, "the deadline passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_is_a_failed_span() {
    let runtime = ScriptedRuntime::start().await;
    let collector = Collector::start().await;
    let server =
        with_scripted(&runtime, &collector).env("SESSION_POLL_TIMEOUT_MS", "300").start().await;
    let body = descriptor(&SessionId::random(), message::DECISION);

    let (_, launched) = server.post("/runs", &body).await;

    let root = root_of(&collector, launched["traceId"].as_str().unwrap()).await;
    assert_eq!(root.status, StatusCode::Error);
    assert!(root.status_message.contains("did not start"), "{}", root.status_message);
    assert_eq!(root.attributes["run.terminal_status"], "failed");
    assert_eq!(root.attributes["error.type"], "RUNTIME_TIMEOUT");
    // It never ran, so there is no artifact.
    let path = format!("/runs/{}/artifacts", launched["runId"].as_str().unwrap());
    assert_eq!(server.get(&path).await.1, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_its_caller_does_not_record_has_an_id_and_no_span() {
    let runtime = ScriptedRuntime::start().await;
    let collector = Collector::start().await;
    let mut server =
        with_scripted(&runtime, &collector).env("SESSION_POLL_TIMEOUT_MS", "300").start().await;
    let unsampled = CALLER.replace("-01", "-00");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(server.url("/runs")).header("traceparent", &unsampled);
    let body = descriptor(&SessionId::random(), message::DECISION);
    let launched: Value = request.json(&body).send().await.unwrap().json().await.unwrap();
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());
    let status = async || server.get(&path).await.1["status"].clone();
    wait_for(DEADLINE, status, |status| status == "failed").await;
    assert_eq!(server.get(&format!("{path}/traces")).await.1["sampled"], false);

    assert_eq!(server.terminate(EXIT).await, 0);

    assert_eq!(launched["traceId"], CALLERS_TRACE);
    let of_trace = |span: &&SeenSpan| span.trace_id == CALLERS_TRACE;
    assert_eq!(collector.spans().iter().filter(of_trace).count(), 0);
    let told = runtime.traces();
    assert!(!told.is_empty() && told.iter().all(|(parent, _)| parent.ends_with("-00")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_changes_nothing_for_runs() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let collector = Collector::start().await;
        collector.set_down(true);
        let mut stage = Stage::with(kind, &runtime, &settings(&collector.endpoint())).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        for _ in 0..50 {
            talk.evaluate(&cast).await;
        }
        talk.end(&cast).await;

        stage.reaches(run, "completed").await;

        stage.is_whole(run, &talk.accepted).await;
        let ask = async || collector.received().len();
        wait_for(DEADLINE, ask, |requests| *requests > 0).await;
        assert_eq!(stage.server.terminate(EXIT).await, 0);
        let told = stage.server.log().matches("Spans cannot be exported").count();
        assert!(told <= 1, "said {told} times");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_is_exported_when_the_server_stops() {
    let runtime = ScriptedRuntime::start().await;
    let collector = Collector::start().await;
    let mut server = with_scripted(&runtime, &collector)
        .env("OTEL_BSP_SCHEDULE_DELAY", "60000")
        .env("SESSION_POLL_TIMEOUT_MS", "300")
        .start()
        .await;
    let body = descriptor(&SessionId::random(), message::DECISION);
    let (_, launched) = server.post("/runs", &body).await;
    let path = format!("/runs/{}", launched["runId"].as_str().unwrap());
    let status = async || server.get(&path).await.1["status"].clone();
    wait_for(DEADLINE, status, |status| status == "failed").await;
    assert_eq!(collector.received().len(), 0);

    assert_eq!(server.terminate(EXIT).await, 0);

    assert_eq!(lifecycles(&collector, launched["traceId"].as_str().unwrap()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_configuration_nothing_is_traced() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let collector = Collector::start().await;
        let endpoint = collector.endpoint();
        let off =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_SDK_DISABLED", "true")];
        let mut stage = Stage::with(kind, &runtime, &off).await;
        let mut talk = Talk::open(&cast).await;
        let (_, launched) =
            stage.server.post("/runs", &descriptor(&talk.session, message::DECISION)).await;
        let run: RunId = launched["runId"].as_str().unwrap().parse().unwrap();
        talk.end(&cast).await;
        let view = stage.reaches(run, "completed").await;
        let (_, artifacts) = stage.server.get(&format!("/runs/{run}/artifacts")).await;
        let (_, traces) = stage.server.get(&format!("/runs/{run}/traces")).await;
        let events = events(&stage, run).await;
        assert_eq!(stage.server.terminate(EXIT).await, 0);

        assert_eq!((launched.get("traceId"), &view["traceId"]), (None, &Value::Null));
        assert_eq!(artifacts, json!([]));
        assert_eq!((traces.get("traceId"), &traces["spanCount"]), (None, &json!(0)));
        let text = serde_json::to_string(&events).unwrap();
        assert!(!text.contains("traceId") && !text.contains("spanId"), "{text}");
        assert_eq!(collector.received().len(), 0);
    }
}
