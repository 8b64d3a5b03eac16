//! The demo: `macp-control-plane dev`, a Decision between real gRPC agents, and what a client of
//! the stream sees of it as it happens. `cargo xtask demo` builds and runs it.
#![expect(clippy::print_stdout, reason = "the demo is there to be read")]
#![expect(clippy::indexing_slicing, reason = "a JSON value gives null for what is not there")]

use std::env;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use control_plane_domain::SessionId;
use control_plane_testkit::process::ServerProcess;
use control_plane_testkit::sse::{Frame, SseClient};
use control_plane_testkit::{DEADLINE, message};
use serde_json::{Value, json};

mod scene;
mod show;

/// The server's own default.
const PORT: u16 = 3001;
/// Between two messages, so that people can follow.
const PAUSE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let once = match arguments.next().as_deref() {
        None => false,
        Some("--once") => true,
        Some(other) => bail!("`{other}` is not known; there is `--once` only"),
    };

    let started = Instant::now();
    let runtime_port = free_port()?;
    let runtime = format!("127.0.0.1:{runtime_port}");
    let port = if is_free(PORT) { PORT } else { free_port()? };
    let command = ServerProcess::dev()
        .env("PORT", port)
        .env("MACP_DEV_RUNTIME_PORT", runtime_port)
        .env("STREAM_SSE_HEARTBEAT_MS", 5000);
    let mut server = command.start().await;
    println!("The control plane answers at {} ({:.1?})", server.base_url(), started.elapsed());
    println!("A real MACP runtime is embedded at {runtime}\n");

    let pause = if once { Duration::ZERO } else { PAUSE };
    let outcome = tokio::select! {
        outcome = play(&server, &runtime, pause) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if outcome.is_ok() && !once {
        println!("\nServing until Ctrl-C.");
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
        println!();
    }
    let code = server.terminate(DEADLINE).await;
    outcome?;
    ensure!(code == 0, "the server ended with exit code {code}");
    Ok(())
}

async fn play(server: &ServerProcess, runtime: &str, pause: Duration) -> Result<()> {
    let session = SessionId::random();
    let (status, run) = server.post("/runs", &descriptor(&session)).await;
    ensure!(status == 201, "POST /runs answered {status}: {run}");
    let id = run["runId"].as_str().context("the answer has no runId")?.to_owned();
    println!("POST /runs gave run {id}; its session does not exist yet\n");

    let url = server.url(&format!("/runs/{id}/stream?afterSeq=0"));
    let mut stream = SseClient::open(&url).await;
    ensure!(stream.status() == 200, "the stream answered {}", stream.status());
    let (reported, mut reports) = tokio::sync::watch::channel(0);
    let watch = async {
        let mut events = Vec::new();
        while let Some(frame) = stream.next(DEADLINE).await {
            let last = frame.name() == "end";
            if is_report(&frame) {
                reported.send_modify(|count| *count += 1);
            }
            if let Some(line) = show::frame(&frame) {
                println!("{line}");
            }
            events.push(frame);
            if last {
                return Ok(events);
            }
        }
        bail!("the stream ended before the run did")
    };
    let (frames, ()) = tokio::try_join!(watch, async {
        // Reports travel beside the session; the vote waits until both are on the record.
        let read = async {
            let both = reports.wait_for(|count| *count == 2);
            tokio::time::timeout(DEADLINE, both).await.is_ok()
        };
        scene::decision(runtime, &session, pause, read).await;
        Ok(())
    })?;

    let (status, state) = server.get(&format!("/runs/{id}/state")).await;
    ensure!(status == 200, "GET /runs/{id}/state answered {status}");
    println!("\n{}", show::state(&state));
    println!("{}", show::next_steps(&server.base_url(), &id));
    check(&frames, &state)
}

fn descriptor(session: &SessionId) -> Value {
    json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": session,
            "modeName": message::DECISION,
            "modeVersion": message::MODE_VERSION,
            "configurationVersion": message::CONFIGURATION_VERSION,
            "policyVersion": message::POLICY_VERSION,
            "ttlMs": 3_600_000,
            "participants": scene::AGENTS.map(|name| json!({ "id": name })),
            "metadata": { "source": "demo", "environment": "demo", "scenarioRef": "release@1.0" },
        },
        "execution": { "tags": ["demo"], "requester": { "actorId": "demo", "actorType": "user" } },
    })
}

/// A report of progress, or of the use of a language model.
fn is_report(frame: &Frame) -> bool {
    frame.name() == "canonical_event"
        && ["progress.reported", "llm.call.completed"]
            .iter()
            .any(|kind| frame.json()["type"] == *kind)
}

/// The demo is a test, too: what must have happened, happened, and in order.
fn check(frames: &[Frame], state: &Value) -> Result<()> {
    let events: Vec<Value> =
        frames.iter().filter(|frame| frame.name() == "canonical_event").map(Frame::json).collect();
    for (index, event) in events.iter().enumerate() {
        ensure!(event["seq"] == index + 1, "event {} has seq {}", index + 1, event["seq"]);
    }
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    ensure!(count("proposal.created") == 2, "{} proposals of 2", count("proposal.created"));
    ensure!(count("proposal.updated") == 6, "{} reactions of 6", count("proposal.updated"));
    ensure!(count("decision.finalized") == 1, "the decision was not finalized once");
    ensure!(count("progress.reported") == 1, "the report of progress is missing");
    ensure!(count("llm.call.completed") == 1, "the use of a language model is missing");
    let last = events.last().and_then(|event| event["type"].as_str());
    ensure!(last == Some("run.completed"), "the last event is {last:?}");
    ensure!(state["run"]["status"] == "completed", "the state says {}", state["run"]["status"]);
    let decision = &state["decision"]["current"];
    ensure!(decision["finalized"] == true, "the state's decision is {decision}");
    Ok(())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no port of 127.0.0.1 is free")?;
    Ok(listener.local_addr()?.port())
}
