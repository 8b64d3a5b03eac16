//! Decision receipts as a runtime issues them, for those that no real one would: of a scripted
//! runtime, signed by keys that a test has, and altered afterwards.
//!
//! **Invariant:** unaltered, they verify; the key is made of a fixed seed, so a test is the same
//! every time.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control_plane_domain::commitment::Commitment;
use control_plane_domain::{SessionId, jcs};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

/// The issuer of what [`document`] makes.
pub const ISSUER: &str = "runtime:scripted-runtime";

/// A receipt of a Commitment, given as the payload's bytes, with no signature.
///
/// # Panics
/// When the payload is not a Commitment.
pub fn document(session: &SessionId, payload: &[u8]) -> Value {
    let commitment = Commitment::from_wire(payload).expect("a Commitment resolves a session");
    json!({
        "receipt_format": "macp-receipt/1",
        "session_id": session,
        "mode": "macp.mode.decision.v1",
        "commitment": commitment,
        "commitment_hash": commitment.hash(),
        "commitment_wire_b64": STANDARD.encode(payload),
        "semantics_rev": { "implementation": "scripted", "rev": 1 },
        "issuer": ISSUER,
        "issued_at": "2026-11-28T12:00:00Z",
        "attestations": [],
    })
}

/// A key to sign receipts with.
#[derive(Debug)]
pub struct Signer {
    id: String,
    seed: [u8; 32],
}

impl Signer {
    /// The key made of `seed`, under this key id.
    pub fn new(id: &str, seed: u8) -> Self {
        Self { id: id.to_owned(), seed: [seed; 32] }
    }

    /// The public key, as `GetReceiptKeys` publishes it.
    pub fn public_jwk(&self) -> Value {
        json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
            "kid": self.id, "x": self.public_key(),
        })
    }

    /// The public key alone: `x` of [`Self::public_jwk`].
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair().public_key())
    }

    /// The private key, as a real runtime takes it in `MACP_RECEIPT_SIGNING_KEY`.
    pub fn private_jwk(&self) -> String {
        let d = URL_SAFE_NO_PAD.encode(self.seed);
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "d": d }).to_string()
    }

    /// The receipt with one more signature.
    ///
    /// # Panics
    /// When the receipt has no canonical form.
    #[must_use]
    pub fn sign(&self, receipt: Value) -> Value {
        let mut receipt = receipt;
        let mut body = receipt.clone();
        body.as_object_mut().expect("a receipt is an object").remove("attestations");
        let body = jcs::canonical(&body).expect("a receipt has a canonical form");
        let header = json!({ "alg": "EdDSA", "kid": self.id }).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(body));
        let signature = URL_SAFE_NO_PAD.encode(self.pair().sign(signed.as_bytes()));
        let jws = json!({ "type": "jws", "jws": format!("{header}..{signature}") });
        let attestations = receipt.get_mut("attestations").and_then(Value::as_array_mut);
        attestations.expect("a receipt has attestations").push(jws);
        receipt
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).expect("any 32 bytes are a seed")
    }
}
