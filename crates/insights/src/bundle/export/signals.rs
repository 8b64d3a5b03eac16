//! Signals in an export: where they stand, which ones came too late, and when nobody listened.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_plane_domain::{EventType, RunId, Seq};
use control_plane_projection::state;
use control_plane_storage::model::RawEnvelope;
use control_plane_storage::{Result, SignalPlace, Store};
use serde_json::Value;

use crate::bundle::format::SignalGap;

/// Events that are read at once.
const PAGE: i64 = 500;

/// A signal's place as clients send it back. It says nothing to them.
pub fn place_text(place: &SignalPlace) -> String {
    let SignalPlace { sender, message_id } = place;
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&(sender, message_id)).unwrap_or_default())
}

/// Reads a signal's place; `None` when the text is none that we gave.
pub fn parse_place(text: &str) -> Option<SignalPlace> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (sender, message_id): (String, String) = serde_json::from_slice(&bytes).ok()?;
    let place = SignalPlace { sender, message_id };
    // PostgreSQL takes no such text, and no signal has it.
    (!place.sender.contains('\0') && !place.message_id.contains('\0')).then_some(place)
}

pub(super) fn gap(gap: control_plane_storage::SignalGap) -> SignalGap {
    let control_plane_storage::SignalGap { from, to, reason } = gap;
    SignalGap { from, to, reason }
}

/// The signals that were recorded after the picture. They have no number that would tell; the
/// events that were committed with them have.
#[derive(Debug)]
pub(super) struct Newcomers {
    /// The last event that was looked at.
    seq: Seq,
    found: HashSet<SignalPlace>,
}

impl Newcomers {
    pub(super) fn after(seq: Seq) -> Self {
        Self { seq, found: HashSet::new() }
    }

    /// Reads on to the log's end of this moment.
    pub(super) async fn look(&mut self, store: &Store, run_id: RunId) -> Result<()> {
        loop {
            let page = store.events(run_id, self.seq, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            self.seq = last.seq;
            for entry in page.iter().filter(|it| it.event_type == EventType::MessageReceived) {
                let event = state::event(entry)?;
                // What a session's own envelope makes does not say who vouches for it.
                let vouched = event.data.get("senderAuthenticated");
                let text = |key| event.data.get(key).and_then(Value::as_str).map(str::to_owned);
                if let Some((sender, message_id)) = text("sender").zip(text("messageId"))
                    && vouched.is_some()
                {
                    self.found.insert(SignalPlace { sender, message_id });
                }
            }
            if i64::try_from(page.len()).unwrap_or(i64::MAX) < PAGE {
                return Ok(());
            }
        }
    }

    pub(super) fn has(&self, raw: &RawEnvelope) -> bool {
        !self.found.is_empty() && self.found.contains(&SignalPlace::of(raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_and_nothing_else_is_taken_for_one() {
        let place = SignalPlace { sender: "älice".to_owned(), message_id: "m,1".to_owned() };
        assert_eq!(parse_place(&place_text(&place)), Some(place));
        let forged = SignalPlace { sender: "a\0".to_owned(), message_id: "m".to_owned() };
        for text in ["", "?", "bm9wZQ", "WyJhIl0", &place_text(&forged)] {
            assert_eq!(parse_place(text), None, "{text}");
        }
    }
}
