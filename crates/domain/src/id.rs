//! Identifiers as types of their own, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The place of an event in its run's log: contiguous from 1.
pub type Seq = i64;
/// The place of an accepted envelope in its session, counted by us from 1: the runtime's
/// `after_sequence` is the last one we have.
pub type Ordinal = i64;
/// The place of an event in the feed over all runs: strictly increasing in commit order.
pub type Position = i64;

/// A run of this control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new random id (UUID v4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A canonical event. It follows from run and `seq`, so that deriving an event again gives the
/// same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// The id of event `seq` of `run` (UUID v5 with the run's id as its name space).
    pub fn of(run: RunId, seq: Seq) -> Self {
        Self(Uuid::new_v5(&run.0, &seq.to_be_bytes()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A session of the runtime.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(String);

/// Why a text is not a session id (spec 3.4; the message is the one clients know, spec 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("session.sessionId must be a UUID v4/v7 or base64url 22+ chars")]
pub struct InvalidSessionId;

impl SessionId {
    /// Longest id that the runtime takes, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// A new random id (UUID v4).
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// Takes what the runtime takes: a canonical lowercase UUID v4 or v7, or 22 to 128
    /// characters of `A-Z a-z 0-9 _ -`.
    ///
    /// # Errors
    /// [`InvalidSessionId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidSessionId> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidSessionId);
        }
        if text.len() == 36
            && text.contains('-')
            && let Ok(uuid) = Uuid::try_parse(text)
        {
            let canonical = uuid.as_hyphenated().to_string() == text;
            let version = matches!(uuid.get_version_num(), 4 | 7);
            return if canonical && version {
                Ok(Self(text.to_owned()))
            } else {
                Err(InvalidSessionId)
            };
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.len() >= 22 && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidSessionId)
    }

    /// An id that the runtime or our own database gave us; it was checked when it came in.
    pub fn trusted(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_what_the_runtime_takes() {
        for good in [
            "0190b6c4-6f2a-7cc3-9d5e-1f2a3b4c5d6e",
            "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
            "abcdefghijklmnopqrstuv",
            "A_-4567890123456789012",
        ] {
            assert!(SessionId::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "too-short",
            "",
            "6F9619FF-8B86-4D01-B42D-00CF4FC964FF",
            "6f9619ff-8b86-1d01-b42d-00cf4fc964ff",
            "abcdefghijklmnopqrst!v",
            long.as_str(),
        ] {
            assert_eq!(SessionId::parse(bad), Err(InvalidSessionId), "{bad}");
        }
    }

    #[test]
    fn an_event_id_follows_from_run_and_seq() {
        let run = RunId(Uuid::nil());
        assert_eq!(EventId::of(run, 7), EventId::of(run, 7));
        assert_ne!(EventId::of(run, 7), EventId::of(run, 8));
    }
}
