//! How a bundle is laid out: its parts, its hashes and what stands around them.
//!
//! There are two shapes, one JSON object and one line per item (NDJSON), with the same parts in the
//! same order. Nothing is written without need, so that the bytes are determined:
//!
//! ```text
//! {"run":…,"session":…,"projection":…,"metrics":…,"artifacts":[…],"canonicalEvents":[…],
//!  "rawEvents":[…],"exportedAt":"…"[,"truncated":…],"manifest":…}
//!
//! {"kind":"header","run":…,"session":…,"projection":…,"metrics":…,"artifacts":[…],"exportedAt":"…"}
//! {"kind":"canonical_event",…}
//! {"kind":"raw_event","raw":…}
//! {"kind":"manifest",…}
//! {"kind":"end",…}
//! ```
//!
//! **Invariant:** a part has the same hash in both shapes, and each sum is over bytes that stand in
//! the file, so that checking one takes no JSON library that keeps the order of keys.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::event::ChainHash;
use control_plane_domain::{Ordinal, RunId, Seq, Timestamp, time};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The name of this layout.
pub const FORMAT: &str = "macp-run-bundle/1";

/// What the first line begins with instead of `{`.
pub const HEADER_LINE: &str = r#"{"kind":"header","#;
/// What the line of an event begins with instead of the `{` of its text.
pub const EVENT_LINE: &str = r#"{"kind":"canonical_event","#;
/// What stands before the text of a raw envelope, which has a `kind` of its own; `}` follows.
pub const RAW_LINE: &str = r#"{"kind":"raw_event","raw":"#;
/// What the manifest's line begins with instead of `{`.
pub const MANIFEST_LINE: &str = r#"{"kind":"manifest","#;
/// What the last line begins with instead of `{`.
pub const END_LINE: &str = r#"{"kind":"end","#;

/// How many bytes of an item's SHA-256 its mark is: enough to tell which item was
/// changed. That one was is what the sum over all of them tells.
pub const MARK: usize = 3;

/// What stands between the manifest's fields and its own sum.
const SUM: &str = r#","sha256":""#;

/// A part of a bundle, by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Run,
    Session,
    Projection,
    Metrics,
    Artifacts,
    CanonicalEvents,
    RawEvents,
    ExportedAt,
    Truncated,
}

impl Part {
    /// Every part, in the order in which they stand.
    pub const ALL: [Self; 9] = [
        Self::Run,
        Self::Session,
        Self::Projection,
        Self::Metrics,
        Self::Artifacts,
        Self::CanonicalEvents,
        Self::RawEvents,
        Self::ExportedAt,
        Self::Truncated,
    ];

    /// Its key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Session => "session",
            Self::Projection => "projection",
            Self::Metrics => "metrics",
            Self::Artifacts => "artifacts",
            Self::CanonicalEvents => "canonicalEvents",
            Self::RawEvents => "rawEvents",
            Self::ExportedAt => "exportedAt",
            Self::Truncated => "truncated",
        }
    }
}

/// The sum of a part while it is written or read.
///
/// That of a value is over the bytes of its JSON; that of a list over each item's JSON and a line
/// feed after it, so that it does not depend on the shape.
#[derive(Debug, Clone, Default)]
pub struct PartHash {
    hash: Sha256,
    bytes: u64,
    items: u64,
    marks: Vec<u8>,
}

impl PartHash {
    /// Takes in some bytes of a value.
    pub fn value(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    /// Takes in an item of a list.
    pub fn item(&mut self, bytes: &[u8]) {
        self.value(bytes);
        self.value(b"\n");
        self.items += 1;
        self.marks.extend(Sha256::digest(bytes).iter().take(MARK));
    }

    /// The marks of the items so far, [`MARK`] bytes each.
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }

    /// How many items there were.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// The sum of a value.
    pub fn finish(self) -> Sum {
        let sha256 = hex::encode(self.hash.finalize());
        Sum { sha256, bytes: self.bytes, items: None, marks: None }
    }

    /// The sum of a list.
    pub fn finish_list(self) -> Sum {
        let (items, marks) = (Some(self.items), Some(STANDARD.encode(&self.marks)));
        Sum { items, marks, ..self.finish() }
    }

    /// The sum of a value that is there as a whole.
    pub fn of(value: &[u8]) -> Sum {
        let mut hash = Self::default();
        hash.value(value);
        hash.finish()
    }
}

/// What a part sums up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// How many bytes were summed up.
    pub bytes: u64,
    /// Of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// Of a list: the first [`MARK`] bytes of each item's SHA-256, in Base64. They tell which item
    /// of a list was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<String>,
}

/// The last part: what holds the others together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    pub run_id: RunId,
    /// The name of the log that the run stands in.
    pub log_id: String,
    /// What was asked for.
    pub scope: Scope,
    pub parts: Sums,
    /// The hash chain before the first event in the bundle, and after the last.
    pub chain: Chain,
    /// The end of the run's log at the moment of the export; the same hash is in the `end` frame
    /// of the run's stream.
    pub log: Link,
    pub ordinals: Ordinals,
    /// Ordinals that were accepted and could not be read any more.
    pub gaps: Vec<Gap>,
    /// When signals may have been missed.
    pub signal_gaps: Vec<SignalGap>,
}

/// What a bundle was asked to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scope {
    pub canonical_events: bool,
    pub raw_events: bool,
    /// The events after this one; 0 for all.
    pub after_seq: Seq,
    /// The envelopes after this ordinal; 0 for all.
    pub after_ordinal: Ordinal,
    /// The signals after this place; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_signal: Option<String>,
}

/// The sum of every other part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sums {
    pub run: Sum,
    pub session: Sum,
    pub projection: Sum,
    pub metrics: Sum,
    pub artifacts: Sum,
    pub canonical_events: Sum,
    pub raw_events: Sum,
    pub exported_at: Sum,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Sum>,
}

impl Sums {
    /// The sum of a part; `None` when the bundle is not to have it.
    pub fn of(&self, part: Part) -> Option<&Sum> {
        match part {
            Part::Run => Some(&self.run),
            Part::Session => Some(&self.session),
            Part::Projection => Some(&self.projection),
            Part::Metrics => Some(&self.metrics),
            Part::Artifacts => Some(&self.artifacts),
            Part::CanonicalEvents => Some(&self.canonical_events),
            Part::RawEvents => Some(&self.raw_events),
            Part::ExportedAt => Some(&self.exported_at),
            Part::Truncated => self.truncated.as_ref(),
        }
    }
}

/// A stretch of the hash chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    pub from: Link,
    pub to: Link,
}

/// The head of the hash chain after an event; after none at 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub seq: Seq,
    /// As [`ChainHash`] is written: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
}

impl Link {
    /// The head after event `seq`.
    pub fn new(seq: Seq, hash: ChainHash) -> Self {
        Self { seq, hash: hash.to_string() }
    }
}

/// Which of the runtime's ordinals are recorded, of the whole run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordinals {
    /// The first; `null` when none is.
    pub first: Option<Ordinal>,
    /// The last.
    pub last: Option<Ordinal>,
    /// How many.
    pub recorded: i64,
    /// The last one that is recorded, or known to be missing.
    pub cursor: Ordinal,
}

/// Ordinals that are missing, as the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gap {
    pub from_ordinal: Ordinal,
    /// `null` when nobody knows where it ends.
    pub to_ordinal: Option<Ordinal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A time in which nobody listened to the runtime's signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalGap {
    #[serde(with = "time::millis")]
    pub from: Timestamp,
    /// `null` while it lasts.
    #[serde(with = "time::millis_option")]
    pub to: Option<Timestamp>,
    /// A word for why.
    pub reason: String,
}

/// What a limit has cut off, and how to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Truncated {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_events: Option<EventsCut>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_events: Option<RawCut>,
}

/// Where the events were cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsCut {
    /// `afterSeq` of the request that goes on.
    pub next_after_seq: Seq,
    pub remaining: i64,
}

/// Where the raw envelopes were cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawCut {
    /// `afterOrdinal` of the request that goes on.
    pub next_after_ordinal: Ordinal,
    /// `afterSignal` of that request, when the cut is among the signals, which come last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after_signal: Option<String>,
    pub remaining: i64,
}

/// The last line of a bundle in lines. A file without it is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// How many lines of events there are.
    pub canonical_events: u64,
    /// How many lines of raw envelopes there are.
    pub raw_events: u64,
    /// The hash chain after the last event in the bundle.
    pub hash: String,
    /// Whether everything that was asked for is there.
    pub complete: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
}

/// Why a text is not a sound manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// It does not end in a sum.
    #[error("the manifest does not end with its own sha256")]
    NoSum,
    /// It was changed.
    #[error("the manifest's sha256 is {stated}, and its text gives {computed}")]
    Changed { stated: String, computed: String },
    /// Its sum holds, and it is not one that we know.
    #[error("the manifest cannot be read: {0}")]
    Unknown(String),
}

impl Manifest {
    /// Its text: the fields, and last the sum of their text.
    pub fn encode(&self) -> String {
        // Texts and integers: there is nothing that serde_json would refuse.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.pop();
        let sum = hex::encode(Sha256::digest(&text));
        // Writing to a text cannot fail.
        let _ = write!(text, "{SUM}{sum}\"}}");
        text
    }

    /// Reads its text, which begins with `{`, and holds it against its own sum.
    ///
    /// # Errors
    /// [`ManifestFault`].
    pub fn decode(text: &str) -> Result<Self, ManifestFault> {
        let (fields, rest) = text.rsplit_once(SUM).ok_or(ManifestFault::NoSum)?;
        let stated = rest.strip_suffix("\"}").ok_or(ManifestFault::NoSum)?;
        let computed = hex::encode(Sha256::digest(fields));
        if stated != computed {
            let stated = stated.to_owned();
            return Err(ManifestFault::Changed { stated, computed });
        }
        let manifest: Self = serde_json::from_str(&format!("{fields}}}"))
            .map_err(|fault| ManifestFault::Unknown(fault.to_string()))?;
        if manifest.format != FORMAT {
            return Err(ManifestFault::Unknown(format!("its format is {}", manifest.format)));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests;
