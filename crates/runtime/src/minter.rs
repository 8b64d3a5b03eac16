//! Short-lived tokens from an auth service: minted, kept, and renewed before they expire.
//!
//! **Invariant:** one mint at a time, whoever waits for it; a token that is still good is used
//! while the next one is fetched. A token leaves this module only as a header that is marked
//! sensitive, and no error or log line quotes what the service said.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use control_plane_domain::outbound::{Call, Outbound};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tonic::codegen::http::HeaderValue;

/// A new token is fetched so long before the old one expires, or in the middle of its life if that
/// is later.
const RENEW_BEFORE: Duration = Duration::from_secs(40);
/// A token is not used in the last moments of its life: clocks differ, and calls take time.
const UNUSED: Duration = Duration::from_secs(10);
/// How long a failure counts for those who come after it, and how often renewing is tried.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A service whose new tokens are refused as well is not asked at every call.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// A token that lives longer is renewed as if it did not.
const MAX_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// More than any token needs.
const MAX_ANSWER: usize = 64 * 1024;

/// What to ask for, and where.
#[derive(Debug, Clone)]
pub struct MinterConfig {
    /// The service; tokens are minted at `<url>/tokens`.
    pub url: String,
    /// How long it may take.
    pub timeout: Duration,
    /// How long a token is to live.
    pub ttl: Duration,
    /// Who we want to be.
    pub sender: String,
    /// Whether to ask for the right to manage modes and policies.
    pub can_manage_registry: bool,
    /// Whether the static token, if there is one, stands in when no token can be minted.
    pub fall_back: bool,
}

/// Mints tokens and keeps the newest. Clones share it.
#[derive(Clone)]
pub struct Minter(Arc<Inner>);

struct Inner {
    config: MinterConfig,
    outbound: Arc<dyn Outbound>,
    state: Mutex<State>,
}

type Minted = Result<Token, MintError>;

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// How many were minted.
    count: u64,
    /// The mint that is under way.
    minting: Option<Shared<BoxFuture<'static, Minted>>>,
    failed: Option<(Instant, MintError)>,
    refused_at: Option<Instant>,
}

/// A token that may be used.
#[derive(Clone)]
pub(crate) struct Token {
    header: HeaderValue,
    number: u64,
    /// It is used until then.
    until: Instant,
}

impl Token {
    /// The value of `authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token for the runtime: the auth service at {url} {why}")]
pub struct MintError {
    url: String,
    why: String,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
    expires_in_seconds: Option<f64>,
}

impl Minter {
    /// Mints through `outbound`, when the first token is needed.
    pub fn new(config: MinterConfig, outbound: Arc<dyn Outbound>) -> Self {
        Self(Arc::new(Inner { config, outbound, state: Mutex::default() }))
    }

    pub(crate) fn config(&self) -> &MinterConfig {
        &self.0.config
    }

    /// The newest token; waits for one when there is none that is good.
    pub(crate) async fn token(&self) -> Minted {
        let minting = {
            let mut state = self.lock();
            let now = Instant::now();
            if let Some(token) = state.token.as_ref().filter(|token| now < token.until) {
                return Ok(token.clone());
            }
            if let Some((at, error)) = &state.failed
                && at.elapsed() < AFTER_FAILURE
            {
                return Err(error.clone());
            }
            self.minting(&mut state)
        };
        minting.await
    }

    /// The runtime refused this token. Whether it is worth asking for another.
    pub(crate) fn refused(&self, token: &Token) -> bool {
        let mut state = self.lock();
        if state.token.as_ref().is_none_or(|newest| newest.number != token.number) {
            return true;
        }
        if state.refused_at.is_some_and(|at| at.elapsed() < AFTER_REFUSAL) {
            return false;
        }
        tracing::warn!("The runtime refused our token before it expired: minting another");
        state.refused_at = Some(Instant::now());
        state.token = None;
        true
    }

    /// The mint that is under way, or a new one. It is a task: whoever waits may go away.
    fn minting(&self, state: &mut State) -> Shared<BoxFuture<'static, Minted>> {
        let minting = state.minting.get_or_insert_with(|| {
            let minter = self.clone();
            let task = tokio::spawn(async move { minter.mint().await });
            let gone = self.error("was not asked to the end");
            async move { task.await.unwrap_or(Err(gone)) }.boxed().shared()
        });
        minting.clone()
    }

    async fn mint(&self) -> Minted {
        let asked = Instant::now();
        let answer = self.ask().await;
        let mut state = self.lock();
        state.minting = None;
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        metrics::counter!("macp_token_mints_total", "outcome" => outcome).increment(1);
        let (header, life) = match answer {
            Ok(minted) => minted,
            Err(error) => {
                tracing::warn!(error = %error, "Could not mint a token");
                state.failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        state.failed = None;
        state.count += 1;
        let (renew_after, use_for) = plan(life);
        let token = Token { header, number: state.count, until: asked + use_for };
        state.token = Some(token.clone());
        drop(state);
        tokio::spawn(renew(Arc::downgrade(&self.0), token.clone(), asked + renew_after));
        Ok(token)
    }

    /// Asks the service for a token; gives it and how long it lives.
    async fn ask(&self) -> Result<(HeaderValue, Duration), MintError> {
        let MinterConfig { url, timeout, ttl, sender, can_manage_registry, fall_back: _ } =
            &self.0.config;
        let mut scopes = json!({ "can_start_sessions": false, "is_observer": true });
        if *can_manage_registry && let Some(scopes) = scopes.as_object_mut() {
            scopes.insert("can_manage_mode_registry".to_owned(), true.into());
        }
        let body = json!({ "sender": sender, "ttl_seconds": ttl.as_secs(), "scopes": scopes });
        let call = Call {
            url: format!("{}/tokens", url.trim_end_matches('/')),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
            timeout: *timeout,
            wanted: MAX_ANSWER,
        };
        let answer = self.0.outbound.post(call).await;
        let answer = answer.map_err(|error| self.error(&format!("cannot be asked: {error}")))?;
        if !answer.is_success() {
            return Err(self.error(&format!("answered with status {}", answer.status)));
        }
        let unusable = || self.error("gave an answer without a token that can be used");
        let minted: Answer = serde_json::from_slice(&answer.body).map_err(|_fault| unusable())?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", minted.token))
            .map_err(|_fault| unusable())?;
        header.set_sensitive(true);
        let life = match minted.expires_in_seconds {
            None => *ttl,
            Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_fault| unusable())?,
        };
        let life = life.min(MAX_LIFE);
        if minted.token.is_empty() || life.is_zero() {
            return Err(unusable());
        }
        Ok((header, life))
    }

    fn error(&self, why: &str) -> MintError {
        MintError { url: self.0.config.url.clone(), why: why.to_owned() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// After how much of its life a token is renewed, and how long it is used.
fn plan(life: Duration) -> (Duration, Duration) {
    (life.saturating_sub(RENEW_BEFORE).max(life / 2), life - UNUSED.min(life / 4))
}

/// Fetches the next token while this one is good, so that no call waits for it. Keeps nobody alive.
async fn renew(minter: Weak<Inner>, token: Token, renew_at: Instant) {
    tokio::time::sleep_until(renew_at).await;
    while Instant::now() < token.until {
        let Some(minter) = minter.upgrade().map(Minter) else { return };
        let minting = {
            let mut state = minter.lock();
            if state.token.as_ref().is_none_or(|newest| newest.number != token.number) {
                return;
            }
            minter.minting(&mut state)
        };
        drop(minter);
        if minting.await.is_ok() {
            return;
        }
        tokio::time::sleep(AFTER_FAILURE).await;
    }
}

#[cfg(test)]
mod tests;
