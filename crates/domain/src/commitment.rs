//! A Commitment as evidence: the nine fields that its hash covers, and the hash (RFC-MACP-0013).
//!
//! **Invariant:** the hash is that of the payload's bytes as they were received. A payload that has
//! anything besides the nine fields has no hash: leaving it out would attest what nobody said.

mod wire;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::jcs;

/// What the hash is over, and in which form.
const LABEL: &str = "macp-commitment-hash/1";
const PREFIX: &str = "sha256:";
/// The texts of a Commitment, as the projection names them.
const TEXTS: [&str; 7] = [
    "commitment_id",
    "action",
    "authority_scope",
    "reason",
    "mode_version",
    "policy_version",
    "configuration_version",
];

/// `CommitmentPayload`; it is serialized as the projection of RFC-MACP-0013, section 3.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Commitment {
    pub commitment_id: String,
    pub action: String,
    pub authority_scope: String,
    pub reason: String,
    pub mode_version: String,
    pub policy_version: String,
    pub configuration_version: String,
    pub outcome_positive: bool,
    /// Absent and empty are not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Supersedes>,
}

/// `CommitmentRef`: the decision of another session that this one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Supersedes {
    pub session_id: String,
    pub commitment_hash: String,
}

/// Why a payload has no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHashable {
    /// A field outside of those that the label covers.
    #[error("the Commitment has a field {0} that {LABEL} does not cover")]
    UnknownField(u64),
    /// The same within `supersedes`.
    #[error("the Commitment's supersedes has a field {0} that {LABEL} does not cover")]
    UnknownInSupersedes(u64),
    /// The bytes are not a `CommitmentPayload`.
    #[error("the stored payload is not a Commitment: {0}")]
    Malformed(&'static str),
}

impl Commitment {
    /// Reads a payload's bytes.
    ///
    /// # Errors
    /// [`NotHashable`], for which there is no hash.
    pub fn from_wire(payload: &[u8]) -> Result<Self, NotHashable> {
        wire::commitment(payload)
    }

    /// Reads a projection; `None` when something is missing, too much, or of another type.
    pub fn from_projection(projection: &Value) -> Option<Self> {
        let members = projection.as_object()?;
        let known = |name: &String| {
            TEXTS.contains(&name.as_str()) || name == "outcome_positive" || name == "supersedes"
        };
        if !members.keys().all(known) {
            return None;
        }
        Some(Self {
            commitment_id: text(members, "commitment_id")?,
            action: text(members, "action")?,
            authority_scope: text(members, "authority_scope")?,
            reason: text(members, "reason")?,
            mode_version: text(members, "mode_version")?,
            policy_version: text(members, "policy_version")?,
            configuration_version: text(members, "configuration_version")?,
            outcome_positive: members.get("outcome_positive")?.as_bool()?,
            supersedes: match members.get("supersedes") {
                Some(reference) => Some(Supersedes::from_projection(reference)?),
                None => None,
            },
        })
    }

    /// The canonical hash: `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(LABEL);
        hasher.update(":");
        hasher.update(self.canonical());
        format!("{PREFIX}{}", hex::encode(hasher.finalize()))
    }

    /// The canonical JSON that is hashed.
    pub fn canonical(&self) -> String {
        // Texts, a boolean and an object of texts always have a form.
        let projection = serde_json::to_value(self).unwrap_or_default();
        jcs::canonical(&projection).unwrap_or_default()
    }
}

impl Supersedes {
    fn from_projection(reference: &Value) -> Option<Self> {
        let members = reference.as_object().filter(|members| members.len() == 2)?;
        Some(Self {
            session_id: text(members, "session_id")?,
            commitment_hash: text(members, "commitment_hash")?,
        })
    }
}

fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name)?.as_str().map(str::to_owned)
}

/// How a claim compares with a payload (RFC-MACP-0013, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Match,
    Mismatch,
    CannotVerify,
}

impl Check {
    /// Its name, as the wire has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Mismatch => "mismatch",
            Self::CannotVerify => "cannot_verify",
        }
    }
}

/// Compares a payload's bytes with the hash that somebody claims. A claim that is not in canonical
/// form never matches, whatever digits it has.
pub fn verify(payload: &[u8], claimed: &str) -> Check {
    match Commitment::from_wire(payload) {
        Ok(commitment) if commitment.hash() == claimed => Check::Match,
        Ok(_) => Check::Mismatch,
        Err(_) => Check::CannotVerify,
    }
}

#[cfg(test)]
mod tests;
