//! The Python client of our document, and what holds for both of the document's clients.

use std::fs;
use std::process::{ExitStatus, Stdio};

use control_plane_domain::SessionId;
use control_plane_testkit::database::Kind;
use control_plane_testkit::document::code_block;
use control_plane_testkit::network::{Cut, Network};
use control_plane_testkit::program::PYTHON;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, play};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::all;
use crate::support::{Stage, Talk};

/// What a program that uses the client looks like: a line for each frame.
const USER: &str = "
import sys
for name, data in follow(*sys.argv[1:]):
    print(name, data.get('seq', data.get('status', '-')), flush=True)
";
const LINES: usize = 20;

/// A running Python.
struct Python {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
    _home: TempDir,
}

impl Python {
    fn follow(url: &str, more: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let file = home.path().join("client.py");
        let client = code_block("docs/streaming.md", "## In Python", "python");
        fs::write(&file, client + USER).unwrap();
        let mut command = Command::new(PYTHON.path());
        // Neither packages that happen to be installed, nor a proxy.
        command.arg("-I").arg(file).arg(url).args(more).env("no_proxy", "*");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, child, _home: home }
    }

    /// The next line; `None` when there are no more.
    async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await;
        line.unwrap().unwrap()
    }

    async fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            let found = line == wanted;
            lines.push(line);
            if found {
                return lines;
            }
        }
        panic!("no `{wanted}`, only {lines:?}")
    }

    async fn rest(mut self) -> (Vec<String>, ExitStatus) {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        (lines, self.child.wait().await.unwrap())
    }
}

fn events(lines: &[String]) -> Vec<i64> {
    let seqs = lines.iter().filter_map(|line| line.strip_prefix("canonical_event "));
    seqs.map(|seq| seq.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_python_client_gets_every_event_once_across_kills() {
    for kind in Kind::ALL {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let mut stage = Stage::set(kind, &runtime).await;
        let mut talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        let mut python = Python::follow(&stage.server.url(&format!("/runs/{run}/stream")), &[]);

        let mut lines = Vec::new();
        for _ in 0..2 {
            talk.evaluate(&cast).await;
            stage.has_recorded(run, talk.accepted.len()).await;
            let last = stage.store.run_head(run).await.unwrap().last_seq;
            lines.extend(python.until(&format!("canonical_event {last}")).await);
            stage.server.kill();
            talk.evaluate(&cast).await;
            stage.server.restart().await;
        }
        talk.end(&cast).await;
        let (rest, status) = python.rest().await;

        lines.extend(rest);
        let last = stage.store.run_head(run).await.unwrap().last_seq;
        assert_eq!(events(&lines), all(last), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "end completed");
        assert!(status.success(), "{status}");
        stage.is_whole(run, &talk.accepted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_python_client_survives_cuts_and_is_told_to_stop() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let session = SessionId::random();
    let run = stage.post(&session, message::DECISION).await;
    play::decision(&cast, &session).await;
    stage.reaches(run, "completed").await;
    let last = stage.store.run_head(run).await.unwrap().last_seq;
    let cuts = [
        Cut::Within("\nid: 2\ndata: {".to_owned()),
        Cut::After("\nid: 3\n".to_owned()),
        Cut::After(format!("\nid: {last}\n")),
    ];
    let network = Network::before(stage.server.port(), cuts).await;

    let (lines, status) =
        Python::follow(&network.url(&format!("/runs/{run}/stream")), &[]).rest().await;

    assert_eq!(events(&lines), all(last));
    assert!(!lines.contains(&"end completed".to_owned()), "204 came instead: {lines:?}");
    assert!(status.success(), "{status}");
    assert_eq!(network.remaining(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_python_client_notices_another_log_and_a_run_that_is_not_there() {
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let stage = Stage::set(Kind::Sqlite, &runtime).await;
    let session = SessionId::random();
    let run = stage.post(&session, message::DECISION).await;
    play::decision(&cast, &session).await;
    stage.reaches(run, "completed").await;
    let url = stage.server.url(&format!("/runs/{run}/stream"));
    let nowhere = stage.server.url("/runs/00000000-0000-4000-8000-000000000000/stream");

    let (lines, status) = Python::follow(&url, &["3", "the-log-before"]).rest().await;
    let (nothing, failed) = Python::follow(&nowhere, &[]).rest().await;

    let last = stage.store.run_head(run).await.unwrap().last_seq;
    assert_eq!(lines[0], "reset -");
    assert_eq!(events(&lines), all(last));
    assert!(status.success(), "{status}");
    assert!(nothing.is_empty() && !failed.success(), "{nothing:?} {failed}");
}

#[test]
fn the_documents_clients_are_short() {
    for (heading, language) in [("## In a browser", "js"), ("## In Python", "python")] {
        let code = code_block("docs/streaming.md", heading, language);
        let lines = code.lines().count();
        assert!(lines <= LINES, "{language}: {lines} lines");
    }
}
