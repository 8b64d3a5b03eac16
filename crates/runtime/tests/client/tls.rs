//! TLS to the runtime.

use std::fs;

use control_plane_domain::runtime::{Runtime, RuntimeErrorKind};
use control_plane_runtime::{Client, Tls};
use control_plane_testkit::scripted::ScriptedRuntime;
use control_plane_testkit::tls::authority;
use tempfile::TempDir;

fn client(runtime: &ScriptedRuntime, directory: &TempDir, roots: &str) -> Client {
    let file = directory.path().join("ca.pem");
    fs::write(&file, roots).unwrap();
    let mut config = runtime.client_config();
    config.tls = Some(Tls { ca_file: Some(file) });
    Client::new(&config).unwrap()
}

#[tokio::test]
async fn a_runtime_whose_authority_is_known_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (roots, tls) = authority();
    let runtime = ScriptedRuntime::start_tls(tls).await;

    let info = client(&runtime, &directory, &roots).initialize().await.unwrap();

    assert_eq!(info.name, "scripted-runtime");
}

#[tokio::test]
async fn a_runtime_of_another_authority_is_refused_and_the_error_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (_, tls) = authority();
    let (strange_roots, _) = authority();
    let runtime = ScriptedRuntime::start_tls(tls).await;

    let error = client(&runtime, &directory, &strange_roots).initialize().await.unwrap_err();

    assert_eq!(error.kind, RuntimeErrorKind::Unavailable);
    assert!(error.message.contains("certificate"), "{error}");
    assert!(error.message.contains(&runtime.address()), "{error}");
}

#[tokio::test]
async fn a_runtime_without_tls_is_not_spoken_to_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let (roots, _) = authority();
    let runtime = ScriptedRuntime::start().await;

    let error = client(&runtime, &directory, &roots).initialize().await.unwrap_err();

    assert_eq!(error.kind, RuntimeErrorKind::Unavailable);
    assert_eq!(runtime.calls("Initialize"), 0);
}
