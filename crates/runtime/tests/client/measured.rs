//! What the client counts.
//!
//! The recorder is the thread's own, and so is each test's tokio runtime.

use control_plane_domain::SessionId;
use control_plane_domain::runtime::Runtime;
use control_plane_testkit::scripted::{Failure, ScriptedRuntime, UnaryFault};
use metrics_exporter_prometheus::PrometheusBuilder;

#[tokio::test]
async fn calls_are_timed_by_method_and_outcome_and_open_streams_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let handle = recorder.handle();
    let has = |line: &str| handle.render().lines().any(|found| found == line);
    let runtime = ScriptedRuntime::start().await;
    let client = runtime.client();

    client.initialize().await.unwrap();
    runtime.fail_next("ListRoots", UnaryFault::Fail(Failure::Internal));
    client.roots().await.unwrap_err();
    let watch = client.watch_sessions().await.unwrap();
    let stream = client.subscribe(&SessionId::random(), 0).await.unwrap();

    assert!(has(r#"grpc_call_duration_seconds_count{method="Initialize",status="ok"} 1"#));
    assert!(has(r#"grpc_call_duration_seconds_count{method="ListRoots",status="error"} 1"#));
    assert!(has("active_runtime_streams 2"), "{}", handle.render());
    drop((watch, stream));
    assert!(has("active_runtime_streams 0"), "{}", handle.render());
}
