//! Verifies a decision receipt: whether it is whole, and who vouches for it (RFC-MACP-0013,
//! appendix A.4).
//!
//! **Invariant:** the verdict is the one that the SDKs give for the same document and keys. Nothing
//! about a document makes this fail.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control_plane_domain::commitment::{self, Check, Commitment};
use control_plane_domain::receipt::FORMAT;
use control_plane_domain::time::{self, millis_option};
use control_plane_domain::{Timestamp, jcs};
use control_plane_storage::PinnedKey;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Facts;

/// Public keys by key id, as `x` of their JWKs.
pub(super) type Keys = BTreeMap<String, String>;

/// What is to be thought of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is whole, and signed by a key that we trust.
    Attested,
    /// It is whole, and nobody whom we trust vouches for it.
    IntegrityOnly,
    /// It is not whole.
    Unverified,
    /// It is of a format that we do not know.
    Refused,
}

/// What a signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttestationOutcome {
    Valid,
    Invalid,
    /// It is by a key that we do not have.
    UnknownKey,
    /// It is of a kind that we do not know.
    Unsupported,
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    pub outcome: AttestationOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The key that it was checked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// When that key was first seen.
    #[serde(skip_serializing_if = "Option::is_none", with = "millis_option")]
    pub pinned_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome of [`verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// `None` for a format that is not known.
    pub(super) integrity: Option<Check>,
    /// One for each attestation, and none unless it is whole.
    pub(super) attestations: Vec<(AttestationOutcome, Option<String>)>,
    pub(super) verdict: Verdict,
}

/// A receipt as clients see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub status: Verdict,
    pub integrity: Option<Check>,
    /// The key of the signature that counts, or else of the first one.
    pub key_id: Option<String>,
    pub issuer: Option<String>,
    pub issued_at: Option<String>,
    pub attestations: Vec<Attestation>,
    #[serde(with = "millis_option")]
    pub fetched_at: Option<Timestamp>,
    /// Byte for byte as the runtime sent it.
    pub document: Box<RawValue>,
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        let Self { status, integrity, attestations, document, .. } = self;
        (status, integrity, attestations, document.get())
            == (&other.status, &other.integrity, &other.attestations, other.document.get())
    }
}

impl View {
    /// Why the receipt is no evidence although it is whole: somebody signed something else.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.status == Verdict::Attested {
            return None;
        }
        let invalid = |it: &&Attestation| it.outcome == AttestationOutcome::Invalid;
        let broken = self.attestations.iter().find(invalid)?;
        let key = broken.key_id.as_deref().unwrap_or("no key");
        let why = broken.reason.as_deref().unwrap_or("it is not a signature of this document");
        Some(format!("the receipt's signature under {key} does not hold: {why}"))
    }

    /// Why the receipt counts.
    pub(super) fn agreement(&self, issuer: &str) -> String {
        let is = "names the hash of the Commitment that is recorded";
        match (self.status, self.key_id.as_deref()) {
            (Verdict::Attested, Some(key)) => {
                format!("the decision receipt of {issuer}, signed with its key {key}, {is}")
            }
            (_, Some(key)) => format!(
                "the decision receipt of {issuer} {is}; nobody whom we trust has signed it (its key \
                 {key} is not known)"
            ),
            (_, None) if self.attestations.is_empty() => {
                format!("the decision receipt of {issuer}, which is not signed, {is}")
            }
            (_, None) => {
                format!("the decision receipt of {issuer} {is}; nobody whom we trust has signed it")
            }
        }
    }
}

/// Verifies a receipt against keys.
pub(super) fn verify(receipt: &Value, keys: &Keys) -> Checked {
    if receipt.get("receipt_format").and_then(Value::as_str) != Some(FORMAT) {
        return Checked { integrity: None, attestations: vec![], verdict: Verdict::Refused };
    }
    let integrity = integrity(receipt);
    if integrity != Check::Match {
        let attestations = vec![];
        return Checked { integrity: Some(integrity), attestations, verdict: Verdict::Unverified };
    }
    let body = body(receipt);
    let attestations = receipt.get("attestations").and_then(Value::as_array);
    let attestations: Vec<_> = attestations
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|attestation| check(attestation, body.as_deref(), keys))
        .collect();
    let is_valid = attestations.iter().any(|(outcome, _)| *outcome == AttestationOutcome::Valid);
    let verdict = if is_valid { Verdict::Attested } else { Verdict::IntegrityOnly };
    Checked { integrity: Some(Check::Match), attestations, verdict }
}

/// Whether the Commitment has the hash that the receipt names, and is what the bytes say.
fn integrity(receipt: &Value) -> Check {
    let Some(shown) = receipt.get("commitment").and_then(Commitment::from_projection) else {
        return Check::CannotVerify;
    };
    let claimed = receipt.get("commitment_hash").and_then(Value::as_str);
    let Some(claimed) = claimed.filter(|claimed| *claimed == shown.hash()) else {
        return Check::Mismatch;
    };
    let Some(bytes) = receipt.get("commitment_wire_b64") else { return Check::Match };
    let Some(bytes) = bytes.as_str().and_then(|text| STANDARD.decode(text).ok()) else {
        return Check::CannotVerify;
    };
    // The same hash is the same nine fields.
    commitment::verify(&bytes, claimed)
}

/// What is signed: the receipt without its attestations, in base64.
fn body(receipt: &Value) -> Option<String> {
    let mut body = receipt.as_object()?.clone();
    body.remove("attestations");
    Some(URL_SAFE_NO_PAD.encode(jcs::canonical(&Value::Object(body))?))
}

/// Checks a detached JWS; with it, the key id that it names.
fn check(
    attestation: &Value,
    body: Option<&str>,
    keys: &Keys,
) -> (AttestationOutcome, Option<String>) {
    if attestation.get("type").and_then(Value::as_str) != Some("jws") {
        return (AttestationOutcome::Unsupported, None);
    }
    let jws = attestation.get("jws").and_then(Value::as_str).unwrap_or_default();
    let parts: Vec<&str> = jws.split('.').collect();
    let [header, "", signature] = parts[..] else { return (AttestationOutcome::Invalid, None) };
    let read = URL_SAFE_NO_PAD.decode(header).ok();
    let read: Option<Value> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (Some(read), Ok(signature)) = (read, URL_SAFE_NO_PAD.decode(signature)) else {
        return (AttestationOutcome::Invalid, None);
    };
    let kid = read.get("kid").and_then(Value::as_str);
    let outcome = if read.get("alg").and_then(Value::as_str) != Some("EdDSA") {
        AttestationOutcome::Unsupported
    } else if let Some(key) = kid.and_then(|kid| keys.get(kid)) {
        let key = URL_SAFE_NO_PAD.decode(key).unwrap_or_default();
        let signed = body.map(|body| format!("{header}.{body}")).unwrap_or_default();
        let key = UnparsedPublicKey::new(&ED25519, key);
        if body.is_some() && key.verify(signed.as_bytes(), &signature).is_ok() {
            AttestationOutcome::Valid
        } else {
            AttestationOutcome::Invalid
        }
    } else {
        AttestationOutcome::UnknownKey
    };
    (outcome, kid.map(str::to_owned))
}

/// A stored receipt, verified against the pinned keys of its issuer.
pub(super) fn view(text: &str, facts: &Facts) -> View {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let pinned = facts.keys.iter();
    let keys: Keys = pinned.map(|key| (key.kid.clone(), key.public_key.clone())).collect();
    let checked = verify(&document, &keys);
    let attestations: Vec<Attestation> = checked
        .attestations
        .into_iter()
        .map(|(outcome, key_id)| {
            let pinned = facts.keys.iter().find(|key| Some(&key.kid) == key_id.as_ref());
            Attestation {
                outcome,
                reason: explain(outcome, pinned),
                public_key: pinned.map(|key| key.public_key.clone()),
                pinned_at: pinned.map(|key| key.pinned_at),
                key_id,
            }
        })
        .collect();
    let counts = attestations.iter().find(|it| it.outcome == AttestationOutcome::Valid);
    let key_id = counts.or(attestations.first()).and_then(|it| it.key_id.clone());
    let member = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
    View {
        status: checked.verdict,
        integrity: checked.integrity,
        key_id,
        issuer: member("issuer"),
        issued_at: member("issued_at"),
        attestations,
        fetched_at: facts.receipt.as_ref().and_then(|receipt| receipt.answered_at),
        document: raw(text),
    }
}

/// The document as it is; what is not JSON, as a text.
fn raw(text: &str) -> Box<RawValue> {
    let quoted = || serde_json::value::to_raw_value(text).unwrap_or_default();
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_not_json| quoted())
}

fn explain(outcome: AttestationOutcome, pinned: Option<&PinnedKey>) -> Option<String> {
    match outcome {
        AttestationOutcome::Valid => None,
        AttestationOutcome::Invalid => {
            let (key, at) = pinned.and_then(|pinned| pinned.refused.as_ref())?;
            let since = pinned.map(|pinned| time::format(pinned.pinned_at)).unwrap_or_default();
            Some(format!(
                "the runtime published another key under this id ({key}, seen {}) than the one that \
                 is pinned since {since}; it is refused",
                time::format(*at)
            ))
        }
        AttestationOutcome::UnknownKey => {
            Some("the runtime has never published a key of this id to us".to_owned())
        }
        AttestationOutcome::Unsupported => Some("only EdDSA signatures are checked".to_owned()),
    }
}
