//! What people do to a run: suspend it, resume it, cancel it (spec 8.5).
//!
//! **Invariant:** only the runtime says what a session is, and only a run's owner writes the run.
//! So a request goes to the runtime (or to the session's initiator) first, and a refusal changes
//! nothing; what was acknowledged is told to the owner, who looks for himself. A run whose session
//! nobody has seen yet is ended by its owner alone.

use std::time::Duration;

use control_plane_domain::outbound::{Call, Outbound, OutboundError};
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::{Run, RunId, RunState, SessionId, SessionState};
use control_plane_storage::Error;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::engine::{AskError, Engine};
use crate::run::{CANCEL, SESSION_SEEN};

/// How long a change that was acknowledged is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a run may be bound while it is being cancelled as an unbound one.
const ATTEMPTS: u32 = 3;

/// A run after a request that was not refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// As it is now.
    pub run: Run,
    /// Whether it is already what was asked for; if not, it will be when the runtime says so.
    pub done: bool,
}

/// Why a run was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("only running runs can be suspended (current status: {0})")]
    NotRunning(RunState),
    #[error("only suspended runs can be resumed (current status: {0})")]
    NotSuspended(RunState),
    #[error("run has no bound runtime session")]
    NoSession,
    /// Nobody has said how.
    #[error(
        "run has no cancelCallback in metadata and no policy delegation - cannot cancel from \
         control-plane"
    )]
    NoWay,
    /// The runtime refused, or could not be asked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The initiator could not be asked.
    #[error("the cancel callback could not be made: {0}")]
    Callback(#[from] OutboundError),
    /// The initiator refused.
    #[error("the cancel callback was answered with status {0}")]
    CallbackRefused(u16),
    /// It was asked for, and the run's owner will see to it.
    #[error("the run's owner has not answered yet")]
    Late,
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<AskError> for LifecycleError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Storage(error) => Self::Storage(error),
            AskError::Late => Self::Late,
        }
    }
}

/// How a run's session can be cancelled from here.
enum Way<'a> {
    /// The session's policy lets us.
    Delegated,
    /// Its initiator does it when told to.
    Callback {
        url: &'a str,
        bearer: Option<&'a str>,
    },
    None,
}

impl<'a> Way<'a> {
    /// Delegation goes before a callback.
    fn of(metadata: &'a Map<String, Value>) -> Self {
        if metadata.get("cancellationDelegated").is_some_and(is_truthy) {
            return Self::Delegated;
        }
        let callback = metadata.get("cancelCallback");
        let text = |key| callback.and_then(|it| it.get(key)).and_then(Value::as_str);
        match text("url").filter(|url| !url.is_empty()) {
            Some(url) => {
                Self::Callback { url, bearer: text("bearer").filter(|bearer| !bearer.is_empty()) }
            }
            None => Self::None,
        }
    }
}

/// As JavaScript has it (spec 1.3.1).
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

impl Engine {
    /// Suspends the session of a run that is running.
    ///
    /// # Errors
    /// [`LifecycleError`]; the run is as it was, unless it is [`LifecycleError::Late`].
    pub async fn suspend(
        &self,
        id: RunId,
        reason: Option<&str>,
    ) -> Result<Changed, LifecycleError> {
        let run = self.changeable(id).await?;
        if run.state != RunState::Running {
            return Err(LifecycleError::NotRunning(run.state));
        }
        let session = session_of(&run)?;
        let reason = reason.unwrap_or("suspended by control plane");
        let runtime = self.0.runtime_of(id).await?;
        let state = runtime.suspend_session(session, reason).await?;
        self.tell(&run, state, |now| now != RunState::Running).await
    }

    /// Resumes the session of a run that is suspended.
    ///
    /// # Errors
    /// [`LifecycleError`]; the run is as it was, unless it is [`LifecycleError::Late`].
    pub async fn resume(&self, id: RunId, reason: Option<&str>) -> Result<Changed, LifecycleError> {
        let run = self.changeable(id).await?;
        if run.state != RunState::Suspended {
            return Err(LifecycleError::NotSuspended(run.state));
        }
        let session = session_of(&run)?;
        let reason = reason.unwrap_or("resumed by control plane");
        let runtime = self.0.runtime_of(id).await?;
        let state = runtime.resume_session(session, reason).await?;
        self.tell(&run, state, |now| now != RunState::Suspended).await
    }

    /// Cancels a run: its session, as its metadata say that this is done, or its attaching, when
    /// its session was not seen yet. A run that is over stays what it is.
    ///
    /// # Errors
    /// [`LifecycleError`]; the run is as it was, unless it is [`LifecycleError::Late`].
    pub async fn cancel(
        &self,
        id: RunId,
        reason: Option<&str>,
        outbound: &dyn Outbound,
    ) -> Result<Changed, LifecycleError> {
        for _ in 0..ATTEMPTS {
            let run = self.changeable(id).await?;
            if run.state.is_terminal() {
                return Ok(Changed { run, done: true });
            }
            let seen = !matches!(run.state, RunState::Queued | RunState::Starting);
            match Way::of(&run.metadata) {
                Way::Delegated => match self.cancel_session(&run, reason).await {
                    Ok(state) => return self.tell(&run, state, RunState::is_terminal).await,
                    // It ended long ago, and the run finds out how.
                    Err(fault) if is_unknown(&fault) && seen => {
                        let state = SessionState::Unspecified;
                        return self.tell(&run, state, RunState::is_terminal).await;
                    }
                    Err(fault) if is_unknown(&fault) => {}
                    Err(fault) => return Err(fault),
                },
                Way::Callback { url, bearer } if seen => {
                    let call = self.callback(id, url, bearer, reason);
                    let answer = outbound.post(call).await?;
                    if !answer.is_success() {
                        return Err(LifecycleError::CallbackRefused(answer.status));
                    }
                    let deadline = Instant::now() + PATIENCE;
                    return self.arrives(&run, deadline, RunState::is_terminal).await;
                }
                Way::None if seen && run.state != RunState::BindingSession => {
                    return Err(LifecycleError::NoWay);
                }
                Way::Callback { .. } | Way::None => {}
            }
            let key = Uuid::new_v4().to_string();
            self.ask(id, CANCEL, key, json!({ "bound": seen })).await?;
            // If it goes on, its session came just now, and is cancelled as such.
        }
        Err(LifecycleError::Late)
    }

    /// Loads a run whose session is ours to ask for. One that was imported says that it is not
    /// before its session is asked: the runtime may know another one by that id.
    async fn changeable(&self, id: RunId) -> Result<Run, Error> {
        let run = self.0.store.run_get(id).await?;
        match run.imported_at {
            None => Ok(run),
            Some(_) => Err(Error::ReadOnly { run_id: id }),
        }
    }

    async fn cancel_session(
        &self,
        run: &Run,
        reason: Option<&str>,
    ) -> Result<SessionState, LifecycleError> {
        let reason = reason.unwrap_or("cancelled by control plane");
        let runtime = self.0.runtime_of(run.id).await?;
        Ok(runtime.cancel_session(session_of(run)?, reason).await?)
    }

    fn callback(&self, id: RunId, url: &str, bearer: Option<&str>, reason: Option<&str>) -> Call {
        let authorization = bearer.map(|bearer| ("authorization", format!("Bearer {bearer}")));
        Call {
            url: url.to_owned(),
            headers: authorization.into_iter().collect(),
            body: json!({ "runId": id, "reason": reason }).to_string().into_bytes(),
            timeout: self.0.config.callback_timeout,
            // The status says everything.
            wanted: 0,
        }
    }

    /// Tells the run's owner what the session is by now, and waits until the run is that, too.
    async fn tell(
        &self,
        run: &Run,
        state: SessionState,
        is_it: impl Fn(RunState) -> bool,
    ) -> Result<Changed, LifecycleError> {
        let deadline = Instant::now() + PATIENCE;
        let payload = json!({ "state": state.as_str() });
        let key = Uuid::new_v4().to_string();
        self.ask(run.id, SESSION_SEEN, key, payload).await?;
        self.arrives(run, deadline, is_it).await
    }

    /// Waits until the run is in a state as wanted, but not for long.
    async fn arrives(
        &self,
        before: &Run,
        deadline: Instant,
        is_it: impl Fn(RunState) -> bool,
    ) -> Result<Changed, LifecycleError> {
        let mut follower = self.0.store.follow(before.id, before.last_seq);
        loop {
            let run = self.0.store.run_get(before.id).await?;
            if is_it(run.state) {
                return Ok(Changed { run, done: true });
            }
            if timeout_at(deadline, follower.changed()).await.is_err() {
                return Ok(Changed { run, done: false });
            }
        }
    }
}

fn session_of(run: &Run) -> Result<&SessionId, LifecycleError> {
    run.session_id.as_ref().ok_or(LifecycleError::NoSession)
}

fn is_unknown(fault: &LifecycleError) -> bool {
    matches!(fault, LifecycleError::Runtime(fault) if fault.kind == RuntimeErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(metadata: Value) -> String {
        let Value::Object(metadata) = metadata else { panic!("an object") };
        match Way::of(&metadata) {
            Way::Delegated => "delegated".to_owned(),
            Way::Callback { url, bearer } => format!("{url} {}", bearer.unwrap_or("-")),
            Way::None => "none".to_owned(),
        }
    }

    #[test]
    fn delegation_goes_before_a_callback_and_a_callback_before_nothing() {
        let callback = json!({ "url": "https://a.example/", "bearer": "b" });
        for yes in [json!(true), json!(1), json!("yes"), json!({})] {
            let both = json!({ "cancellationDelegated": yes, "cancelCallback": callback });
            assert_eq!(way(both), "delegated");
        }
        for no in [json!(false), json!(0), json!(""), Value::Null] {
            let one = json!({ "cancellationDelegated": no, "cancelCallback": callback });
            assert_eq!(way(one), "https://a.example/ b");
        }
        assert_eq!(way(json!({ "cancelCallback": { "url": "u", "bearer": "" } })), "u -");
        for none in [json!({}), json!({ "cancelCallback": { "url": "" } })] {
            assert_eq!(way(none), "none");
        }
    }
}
