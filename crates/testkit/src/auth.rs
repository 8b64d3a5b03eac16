//! An auth service that mints tokens which a real runtime takes.
//!
//! **Invariant:** its tokens are JWTs by HS256, which a runtime takes only when it is told to; the
//! key is known to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_plane_domain::{Clock, SystemClock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::listener::{Listener, Received, Reply};
use crate::runtime::Options;

const ISSUER: &str = "https://auth.test";
const KEY: &[u8] = b"a key of thirty-two bytes or more";
/// SHA-256's.
const BLOCK: usize = 64;

/// The service.
pub struct AuthService {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    down: AtomicBool,
    /// Signs with a key that no runtime knows.
    wrong_key: AtomicBool,
    /// In seconds.
    life: AtomicI64,
}

impl AuthService {
    /// One whose tokens live for so many seconds.
    pub async fn start(life: i64) -> Self {
        let shared = Arc::new(Shared {
            down: AtomicBool::new(false),
            wrong_key: AtomicBool::new(false),
            life: AtomicI64::new(life),
        });
        let its = Arc::clone(&shared);
        let listener = Listener::start(move |request| its.mint(request)).await;
        Self { listener, shared }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.listener.url("")
    }

    /// The requests that it got.
    pub fn received(&self) -> Vec<Received> {
        self.listener.received()
    }

    /// Whether it fails from now on.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Whether the runtime refuses what is minted from now on.
    pub fn set_wrong_key(&self, wrong: bool) {
        self.shared.wrong_key.store(wrong, Ordering::SeqCst);
    }

    /// A runtime that takes these tokens, besides those of its agents.
    pub fn trusted_by(options: Options) -> Options {
        let key = json!({
            "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(KEY),
        });
        options
            .with("MACP_AUTH_ISSUER", ISSUER)
            .with("MACP_AUTH_JWT_ALGS", "HS256")
            .with("MACP_AUTH_JWKS_JSON", &json!({ "keys": [key] }).to_string())
    }
}

impl Shared {
    fn mint(&self, request: &Received) -> Reply {
        if self.down.load(Ordering::SeqCst) {
            return Reply::Json(503, json!({ "error": "down for a while" }));
        }
        let life = self.life.load(Ordering::SeqCst);
        let now = SystemClock.now().timestamp();
        let claims = json!({
            "sub": request.body.get("sender"),
            "iss": ISSUER,
            "aud": "macp-runtime",
            "exp": now + life,
            "macp_scopes": request.body.get("scopes"),
        });
        let key = if self.wrong_key.load(Ordering::SeqCst) { b"another".as_slice() } else { KEY };
        Reply::Json(200, json!({ "token": sign(&claims, key), "expires_in_seconds": life }))
    }
}

/// A JWT.
fn sign(claims: &Value, key: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "alg": "HS256" })), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(authenticate(key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// HMAC by SHA-256, for a key that is no longer than a block.
fn authenticate(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> {
        let zeros = std::iter::repeat(&0);
        key.iter().chain(zeros).take(BLOCK).map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_rfc_4231() {
        let code = authenticate(b"Jefe", b"what do ya want for nothing?");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex::encode(code), wanted);
    }
}
