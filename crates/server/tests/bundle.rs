//! `verify` and `import` as people call them, with bundles of a real server.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use control_plane_domain::RunId;
use control_plane_testkit::database::{Kind, TestDb};
use control_plane_testkit::process::{ServerProcess, program};
use control_plane_testkit::runtime::{OBSERVER_TOKEN, RuntimeProcess};
use control_plane_testkit::{DEADLINE, message, sse::SseClient};
use serde_json::Value;
use support::{Stage, Talk};
use tempfile::TempDir;

/// What a call ended with: its code, and what it said on both outputs.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn call(arguments: &[&str], input: Option<&Path>, database: Option<&str>) -> Said {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().env("APP_ENV", "development");
    command.envs(database.map(|url| ("DATABASE_URL", url)));
    command.stdin(input.map_or(Stdio::null(), |path| Stdio::from(File::open(path).unwrap())));
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
}

/// A finished run of a real server, in files.
struct Exported {
    folder: TempDir,
    run: RunId,
    /// The hash in the `end` frame of its stream.
    hash: String,
}

impl Exported {
    async fn new(stage: &Stage, runtime: &RuntimeProcess) -> Self {
        let cast = runtime.cast().await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        talk.end(&cast).await;
        stage.reaches(run, "completed").await;
        let folder = tempfile::tempdir().unwrap();
        for (name, path) in
            [("run.json", "export?includeRaw=true"), ("run.jsonl", "export/stream?includeRaw=true")]
        {
            let url = stage.server.url(&format!("/runs/{run}/{path}"));
            let bundle = reqwest::get(url).await.unwrap().bytes().await.unwrap();
            fs::write(folder.path().join(name), bundle).unwrap();
        }
        let mut stream =
            SseClient::open(stage.server.url(&format!("/runs/{run}/stream?afterSeq=0"))).await;
        let end = stream.collect_until("end", DEADLINE).await.pop().unwrap().json();
        let hash = end["hash"].as_str().unwrap().to_owned();
        Self { folder, run, hash }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_verified_offline_and_what_was_changed_is_named() {
    let runtime = RuntimeProcess::in_memory().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let exported = Exported::new(&stage, &runtime).await;
    let (json, lines) = (exported.path("run.json"), exported.path("run.jsonl"));
    let changed = exported.path("changed.json");
    let bundle = fs::read_to_string(&json).unwrap();
    fs::write(&changed, bundle.replacen(r#""vote":"APPROVE""#, r#""vote":"APPROVF""#, 1)).unwrap();

    let sound = call(&["verify", text(&json), "--hash", &exported.hash], None, None);
    let from_input = call(&["verify", "-", "--json"], Some(&lines), None);
    let found = call(&["verify", text(&changed)], None, None);
    let wrong = call(&["verify", text(&json), "--hash", &"0".repeat(64)], None, None);
    let missing = call(&["verify", text(&exported.path("nothing"))], None, None);
    let misused = call(&["verify"], None, None);

    assert_eq!(sound.code, 0, "{}{}", sound.out, sound.err);
    assert!(sound.out.contains("The bundle is sound."), "{}", sound.out);
    assert!(sound.out.contains("it is the head of this log"), "{}", sound.out);
    let report: Value = serde_json::from_str(&from_input.out).unwrap();
    assert_eq!((from_input.code, &report["sound"]), (0, &Value::Bool(true)), "{report:#}");
    assert_eq!(report["runId"], exported.run.to_string());
    assert_eq!(found.code, 1, "{}", found.out);
    assert!(found.out.contains("NOT SOUND"), "{}", found.out);
    assert!(found.out.contains("canonicalEvents[") && found.out.contains("was changed"));
    assert_eq!((wrong.code, missing.code, misused.code), (1, 2, 2));
    assert!(missing.err.contains("nothing"), "{}", missing.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_imported_while_no_server_runs_and_served_afterwards() {
    let runtime = RuntimeProcess::in_memory().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let exported = Exported::new(&stage, &runtime).await;
    let (json, lines) = (exported.path("run.json"), exported.path("run.jsonl"));
    for database in [TestDb::sqlite_empty(), TestDb::postgres()] {
        let into = |bundle: &Path| call(&["import", text(bundle)], None, Some(database.url()));

        let imported = into(&lines);
        let again = into(&json);
        let server = ServerProcess::serve()
            .env("DATABASE_URL", database.url())
            .env("RUNTIME_ADDRESS", runtime.address())
            .env("RUNTIME_BEARER_TOKEN", OBSERVER_TOKEN)
            .env("RUNTIME_ALLOW_INSECURE", "true")
            .start()
            .await;
        let (status, run) = server.get(&format!("/runs/{}", exported.run)).await;

        assert_eq!(imported.code, 0, "{}{}", imported.out, imported.err);
        assert!(imported.out.contains(&exported.run.to_string()), "{}", imported.out);
        assert_eq!(again.code, 1);
        assert!(again.err.contains(&exported.run.to_string()), "{}", again.err);
        assert_eq!((status, &run["status"]), (200, &Value::from("completed")));
        assert!(run["importedAt"].is_string(), "{run}");
    }
    let beside = call(&["import", text(&json)], None, Some(&stage.url));
    assert_eq!(beside.code, 1);
    assert!(beside.err.contains("POST /runs/import"), "{}", beside.err);
}
