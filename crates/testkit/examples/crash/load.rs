//! What agents and callers do, whoever dies meanwhile: they try again until it is done.
//!
//! **Invariant:** a line is said once it is acknowledged, and until then the same envelope is sent
//! again; so the order in which a session's envelopes were accepted is known exactly.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control_plane_domain::runtime::Runtime;
use control_plane_domain::{SessionId, SessionState};
use control_plane_runtime::proto;
use control_plane_testkit::agent::{Agent, Cast, SessionSpec};
use control_plane_testkit::script::{Line, Script};
use control_plane_testkit::{DEADLINE, message};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::plan::{Aside, Fate, Talk};

const PAUSE: Duration = Duration::from_millis(15);
/// A call that takes longer is made again.
const CALL: Duration = Duration::from_secs(10);

/// The way to the processes, which stays when they go.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) cast: Cast,
    pub(crate) observer: control_plane_runtime::Client,
    pub(crate) http: reqwest::Client,
    /// The server's URL.
    pub(crate) server: String,
}

/// What became of a session, as those know who took part.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) session: SessionId,
    pub(crate) mode: &'static str,
    /// The ids of its envelopes, in the order of their ordinals.
    pub(crate) accepted: Vec<String>,
    /// The ids of what was said beside it. The runtime replays none of that, so it may be missed.
    pub(crate) asides: Vec<String>,
    pub(crate) state: SessionState,
}

/// Plays a session to its end, and asks for its run when it is time.
pub(crate) async fn play(doors: &Doors, talk: &Talk) -> Result<Told> {
    let posting = async {
        match talk.posted {
            Some(at) => {
                sleep(at).await;
                post(doors, &talk.session, &talk.script).await
            }
            None => Ok(()),
        }
    };
    let talking = async {
        sleep(talk.starts).await;
        let mut told = Told {
            session: talk.session.clone(),
            mode: talk.script.mode,
            accepted: Vec::new(),
            asides: Vec::new(),
            state: SessionState::Open,
        };
        say_all(doors, talk, &mut told).await?;
        told.state = end(doors, talk).await?;
        Ok(told)
    };
    let (told, ()) = tokio::try_join!(talking, posting)?;
    Ok(told)
}

async fn say_all(doors: &Doors, talk: &Talk, told: &mut Told) -> Result<()> {
    let Talk { session, script, fate, pauses, asides, suspended, .. } = talk;
    let mut spec = SessionSpec::new(script.mode, script.participants).with_id(session);
    if let Fate::Expires(ttl) = fate {
        spec.ttl_ms = i64::try_from(ttl.as_millis())?;
    }
    let alice = &doors.cast.alice;
    // One that has to be short may be over before it is taken; then another one starts it.
    while !say(alice, alice.envelope(session.as_str(), script.mode, spec.message()), fate, told)
        .await?
    {
        sleep(PAUSE).await;
    }
    for (index, (Line { speaker, message }, pause)) in script.lines.iter().zip(pauses).enumerate() {
        sleep(*pause).await;
        if *fate == Fate::Cancelled(index) {
            return become_state(doors, session, SessionState::Cancelled, fate).await;
        }
        for (_, aside) in asides.iter().filter(|(at, _)| *at == index) {
            told.asides.push(beside(doors, session, script, *aside).await?);
        }
        if let Some((at, length)) = suspended
            && *at == index
        {
            become_state(doors, session, SessionState::Suspended, fate).await?;
            sleep(*length).await;
            become_state(doors, session, SessionState::Open, fate).await?;
        }
        let agent = speaker.of(&doors.cast);
        let envelope = agent.envelope(session.as_str(), script.mode, message.clone());
        if !say(agent, envelope, fate, told).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Says it until it is accepted; `false` when the session is over by then.
async fn say(
    agent: &Agent,
    envelope: proto::Envelope,
    fate: &Fate,
    told: &mut Told,
) -> Result<bool> {
    let id = envelope.message_id.clone();
    match insist(|| agent.deliver(envelope.clone())).await? {
        Ok(_ack) => {
            told.accepted.push(id);
            Ok(true)
        }
        Err(_over) if matches!(fate, Fate::Expires(_)) => Ok(false),
        Err(refusal) => bail!(
            "{}: {}'s {} was refused: {}: {}",
            told.session,
            agent.name,
            envelope.message_type,
            refusal.code,
            refusal.message
        ),
    }
}

/// Tells the session's initiator to bring it into a state, until it is in it, or over.
async fn become_state(
    doors: &Doors,
    session: &SessionId,
    wanted: SessionState,
    fate: &Fate,
) -> Result<()> {
    let alice = &doors.cast.alice;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let told = match wanted {
            SessionState::Cancelled => alice.try_cancel(session, "enough").await,
            SessionState::Suspended => alice.try_suspend(session, "later").await,
            SessionState::Open
            | SessionState::Resolved
            | SessionState::Expired
            | SessionState::Unspecified => alice.try_resume(session, "now").await,
        };
        let state = state(doors, session).await?;
        if state == wanted || (state.is_over() && matches!(fate, Fate::Expires(_))) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{session} is {state}, not {wanted}: {told:?}");
        sleep(PAUSE).await;
    }
}

/// A signal or a report of progress, sent until it is taken.
async fn beside(
    doors: &Doors,
    session: &SessionId,
    script: &Script,
    aside: Aside,
) -> Result<String> {
    let bob = &doors.cast.bob;
    let envelope = match aside {
        Aside::Signal => {
            let signal = message::signal("crash.note", session.as_str(), &json!({ "n": 1 }));
            bob.envelope("", "", signal)
        }
        Aside::Progress => {
            let progress = message::progress("work", 1.0, 2.0, "half of it");
            bob.envelope(session.as_str(), script.mode, progress)
        }
    };
    let id = envelope.message_id.clone();
    // A refusal says that the session is over or suspended; then nothing was said.
    let _refused = insist(|| bob.deliver(envelope.clone())).await?;
    Ok(id)
}

/// How the session ended, once it has.
async fn end(doors: &Doors, talk: &Talk) -> Result<SessionState> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let state = state(doors, &talk.session).await?;
        if state.is_over() {
            return Ok(state);
        }
        ensure!(Instant::now() < deadline, "{} is still {state}", talk.session);
        sleep(PAUSE).await;
    }
}

async fn state(doors: &Doors, session: &SessionId) -> Result<SessionState> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match doors.observer.get_session(session).await {
            Ok(info) => return Ok(info.state),
            Err(fault) if fault.kind.is_transient() && Instant::now() < deadline => {
                sleep(PAUSE).await;
            }
            Err(fault) => bail!("GetSession of {session}: {fault}"),
        }
    }
}

/// Makes a call until it is answered.
async fn insist<T, F: Future<Output = Result<T, Status>>>(call: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match tokio::time::timeout(CALL, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(fault)) if Instant::now() > deadline => return Err(fault).context("no answer"),
            Err(late) if Instant::now() > deadline => return Err(late).context("no answer"),
            Ok(Err(_)) | Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Asks for a run of the session until it is there. The key makes that safe.
pub(crate) async fn post(doors: &Doors, session: &SessionId, script: &Script) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let participants: Vec<Value> =
        script.participants.iter().map(|name| json!({ "id": name })).collect();
    let body = json!({
        "mode": "live",
        "runtime": { "kind": "rust" },
        "session": {
            "sessionId": session.as_str(),
            "modeName": script.mode,
            "modeVersion": message::MODE_VERSION,
            "configurationVersion": message::CONFIGURATION_VERSION,
            "ttlMs": 600_000,
            "participants": participants,
        },
    });
    loop {
        let request = doors.http.post(format!("{}/runs", doors.server)).json(&body);
        let request = request.header("idempotency-key", session.as_str()).timeout(CALL);
        if let Ok(answer) = request.send().await {
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap_or_default();
            match status {
                201 => return Ok(()),
                503 => {}
                other => bail!("POST /runs for {session} was answered with {other}: {text}"),
            }
        }
        ensure!(Instant::now() < deadline, "POST /runs for {session} is not answered");
        sleep(PAUSE).await;
    }
}
