//! Signals and progress: heard from the runtime, and put into the inbox of the run they are about.
//!
//! Every instance listens, and the one that has the duty records. So at a hand-over the next one
//! has in memory what was said while nobody recorded, and a crash costs nothing but what the
//! runtime sends to nobody; that two of them record the same moment does no harm, because a signal
//! is known by run, sender and message id. The price is one more stream per instance.
//!
//! **Invariant:** a signal moves nothing but the log of its run, and is in it once. The runtime
//! replays no signals: what nobody heard is a gap in `signal_watch_gaps`, never silence.

mod ear;
mod listen;
mod record;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::Envelope;
use control_plane_domain::envelope::SignalSeen;
use control_plane_domain::normalize::correlate;
use control_plane_domain::{SessionId, Timestamp};
use control_plane_storage::{About, NewSignal};
use serde::{Deserialize, Serialize};

use crate::engine::Context;

pub(crate) use ear::Ear;

/// Longest sender and message id, in bytes: with the run they are a key, which databases bound.
/// Beyond it a signal could park a run that its sender has no part in.
const MAX_KEY: usize = 512;

/// A signal as it lies in an inbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Heard {
    macp_version: String,
    mode: String,
    message_type: String,
    pub(crate) message_id: String,
    session_id: String,
    pub(crate) sender: String,
    timestamp_unix_ms: i64,
    /// Base64.
    payload: String,
    sanitized: bool,
    pub(crate) sender_authenticated: bool,
}

impl From<SignalSeen> for Heard {
    fn from(seen: SignalSeen) -> Self {
        let SignalSeen { envelope, sender_authenticated } = seen;
        Self {
            payload: STANDARD.encode(&envelope.payload),
            macp_version: envelope.macp_version,
            mode: envelope.mode,
            message_type: envelope.message_type,
            message_id: envelope.message_id,
            session_id: envelope.session_id,
            sender: envelope.sender,
            timestamp_unix_ms: envelope.timestamp_unix_ms,
            sanitized: envelope.sanitized,
            sender_authenticated,
        }
    }
}

impl Heard {
    /// The envelope; `None` for a payload that is no base64, which only another program writes.
    pub(crate) fn into_envelope(self) -> Option<Envelope> {
        Some(Envelope {
            payload: STANDARD.decode(&self.payload).ok()?,
            macp_version: self.macp_version,
            mode: self.mode,
            message_type: self.message_type,
            message_id: self.message_id,
            session_id: self.session_id,
            sender: self.sender,
            timestamp_unix_ms: self.timestamp_unix_ms,
            sanitized: self.sanitized,
        })
    }
}

/// Listens and records until the engine stops.
pub(crate) async fn watch(context: Arc<Context>) {
    tokio::join!(listen::listen(&context), record::record(&context));
}

/// Why a signal belongs to no run that there could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    /// It names neither a session nor a message.
    NamesNothing,
    /// Its sender, its id or what it names is longer than any that is recorded.
    TooLong,
}

impl Unfit {
    fn as_str(self) -> &'static str {
        match self {
            Self::NamesNothing => "uncorrelated",
            Self::TooLong => "refused",
        }
    }
}

/// A signal as it is recorded. A session that is named decides alone: a message's id counts only
/// where there is none.
fn signal(seen: SignalSeen, heard_at: Timestamp) -> Result<NewSignal, Unfit> {
    let correlation = correlate(&seen.envelope);
    let about = match (correlation.session_id, correlation.target_message_id) {
        (Some(id), _) if id.len() > SessionId::MAX_BYTES => return Err(Unfit::TooLong),
        (Some(id), _) => About::Session(id),
        (None, Some(id)) if id.len() > MAX_KEY => return Err(Unfit::TooLong),
        (None, Some(id)) => About::Message(id),
        (None, None) => return Err(Unfit::NamesNothing),
    };
    let (sender, message_id) = (seen.envelope.sender.clone(), seen.envelope.message_id.clone());
    if sender.len() > MAX_KEY || message_id.len() > MAX_KEY {
        return Err(Unfit::TooLong);
    }
    let payload = serde_json::to_value(Heard::from(seen)).unwrap_or_default();
    Ok(NewSignal { about, sender, message_id, payload, heard_at })
}

#[cfg(test)]
mod tests {
    use control_plane_domain::time::from_unix_ms;
    use serde_json::json;

    use super::*;

    fn seen(message_type: &str, session: &str, payload: &serde_json::Value) -> SignalSeen {
        let envelope = Envelope {
            macp_version: "1.0".to_owned(),
            mode: String::new(),
            message_type: message_type.to_owned(),
            message_id: "m1".to_owned(),
            session_id: session.to_owned(),
            sender: "alice".to_owned(),
            timestamp_unix_ms: 0,
            // No type has this name, so JSON is read.
            payload: payload.to_string().into_bytes(),
            sanitized: false,
        };
        SignalSeen { envelope, sender_authenticated: true }
    }

    fn about(session: &str, payload: &serde_json::Value) -> Result<About, Unfit> {
        let at = from_unix_ms(0).unwrap();
        signal(seen("Note", session, payload), at).map(|signal| signal.about)
    }

    #[test]
    fn a_session_decides_before_a_message_and_the_payload_before_the_envelope() {
        let session = |id: &str| Ok(About::Session(id.to_owned()));
        let both = json!({ "correlationSessionId": "s1", "targetMessageId": "m0" });
        assert_eq!(about("s2", &both), session("s1"));
        assert_eq!(about("s2", &json!({ "targetMessageId": "m0" })), session("s2"));
        let message = Ok(About::Message("m0".to_owned()));
        assert_eq!(about("", &json!({ "targetMessageId": "m0" })), message);
        assert_eq!(about("", &json!({ "text": "hello" })), Err(Unfit::NamesNothing));
    }

    #[test]
    fn what_could_never_be_a_key_is_turned_away() {
        let at = from_unix_ms(0).unwrap();
        let long = "x".repeat(MAX_KEY + 1);
        let named = json!({ "correlationSessionId": "s1" });

        assert_eq!(about("", &json!({ "correlationSessionId": long })), Err(Unfit::TooLong));
        assert_eq!(about("", &json!({ "targetMessageId": long })), Err(Unfit::TooLong));
        let mut other = seen("Note", "", &named);
        other.envelope.message_id.clone_from(&long);
        assert_eq!(signal(other, at), Err(Unfit::TooLong));
        let mut other = seen("Note", "", &named);
        other.envelope.sender = long;
        assert_eq!(signal(other, at), Err(Unfit::TooLong));
    }
}
