//! Writes a bundle: records go in, bytes come out. Nothing here reads anything.
//!
//! **Invariant:** what was taken out is the beginning of a bundle, and only after
//! [`Writer::finish`] a whole one: without its manifest, or the line after it, no reader takes it
//! for one.

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{RunId, Seq, Timestamp, time};
use control_plane_projection::Projection;
use control_plane_storage::model::{LogEntry, RawEnvelope};
use serde::Serialize;

use super::format::{
    Chain, END_LINE, EVENT_LINE, End, FORMAT, Gap, HEADER_LINE, Link, MANIFEST_LINE, Manifest,
    Ordinals, Part, PartHash, RAW_LINE, Scope, SignalGap, Sum, Sums, Truncated,
};
use super::record::{ArtifactRecord, RawRecord, RunRecord, SessionRecord};

/// The two shapes of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One object.
    Json,
    /// One line per item.
    Lines,
}

/// What the manifest says beside what was written.
#[derive(Debug, Clone)]
pub struct Closing {
    pub log_id: String,
    pub scope: Scope,
    /// The end of the run's log.
    pub log: Link,
    pub ordinals: Ordinals,
    pub gaps: Vec<Gap>,
    pub signal_gaps: Vec<SignalGap>,
    pub truncated: Option<Truncated>,
}

/// A bundle as it grows. Its methods are called in the order in which they stand here.
pub struct Writer {
    shape: Shape,
    run_id: RunId,
    out: Vec<u8>,
    run: Sum,
    session: Sum,
    /// The parts that come with [`Writer::state`].
    state: Option<State>,
    events: PartHash,
    raw: PartHash,
    /// Whether the list of events is behind us.
    after_events: bool,
    from: Link,
    to: (Seq, ChainHash),
}

struct State {
    projection: Sum,
    metrics: Sum,
    artifacts: Sum,
    /// With its quotes.
    exported_at: Vec<u8>,
}

impl Writer {
    /// Begins a bundle whose first event comes after `from`.
    pub fn new(
        shape: Shape,
        run: &RunRecord,
        session: Option<&SessionRecord>,
        from: (Seq, ChainHash),
    ) -> Self {
        let mut out = Vec::new();
        let run_id = run.id;
        let (run, session) = (json(run), json(&session));
        out.extend_from_slice(match shape {
            Shape::Json => b"{",
            Shape::Lines => HEADER_LINE.as_bytes(),
        });
        key(&mut out, Part::Run);
        out.extend_from_slice(&run);
        out.push(b',');
        key(&mut out, Part::Session);
        out.extend_from_slice(&session);
        Self {
            shape,
            run_id,
            out,
            run: PartHash::of(&run),
            session: PartHash::of(&session),
            state: None,
            events: PartHash::default(),
            raw: PartHash::default(),
            after_events: false,
            from: Link::new(from.0, from.1),
            to: from,
        }
    }

    /// Writes what is known of the run besides its record.
    pub fn state(
        &mut self,
        projection: Option<&Projection>,
        metrics: Option<&RunMetrics>,
        artifacts: &[ArtifactRecord],
        exported_at: Timestamp,
    ) {
        let (projection, metrics) = (json(&projection), json(&metrics));
        for (part, text) in [(Part::Projection, &projection), (Part::Metrics, &metrics)] {
            self.out.push(b',');
            key(&mut self.out, part);
            self.out.extend_from_slice(text);
        }
        self.out.push(b',');
        key(&mut self.out, Part::Artifacts);
        self.out.push(b'[');
        let mut sum = PartHash::default();
        for artifact in artifacts {
            let text = json(artifact);
            self.separate(sum.items());
            self.out.extend_from_slice(&text);
            sum.item(&text);
        }
        self.out.push(b']');
        let exported_at = json(&time::format(exported_at));
        self.out.push(b',');
        match self.shape {
            Shape::Json => {
                key(&mut self.out, Part::CanonicalEvents);
                self.out.push(b'[');
            }
            Shape::Lines => {
                key(&mut self.out, Part::ExportedAt);
                self.out.extend_from_slice(&exported_at);
                self.out.extend_from_slice(b"}\n");
            }
        }
        self.state = Some(State {
            projection: PartHash::of(&projection),
            metrics: PartHash::of(&metrics),
            artifacts: sum.finish_list(),
            exported_at,
        });
    }

    /// Writes the next event: its stored text, byte for byte.
    pub fn event(&mut self, entry: &LogEntry) {
        match self.shape {
            Shape::Json => {
                self.separate(self.events.items());
                self.out.extend_from_slice(&entry.body);
            }
            Shape::Lines => {
                self.out.extend_from_slice(EVENT_LINE.as_bytes());
                // The line's own brace stands for the text's.
                self.out.extend_from_slice(entry.body.get(1..).unwrap_or_default());
                self.out.push(b'\n');
            }
        }
        self.events.item(&entry.body);
        self.to = (entry.seq, entry.hash);
    }

    /// Writes the next raw envelope.
    pub fn raw(&mut self, raw: &RawEnvelope) {
        self.end_events();
        let text = json(&RawRecord::from(raw));
        match self.shape {
            Shape::Json => {
                self.separate(self.raw.items());
                self.out.extend_from_slice(&text);
            }
            Shape::Lines => {
                self.out.extend_from_slice(RAW_LINE.as_bytes());
                self.out.extend_from_slice(&text);
                self.out.extend_from_slice(b"}\n");
            }
        }
        self.raw.item(&text);
    }

    /// Writes the manifest and what comes after it. The bundle is whole then.
    pub fn finish(&mut self, closing: Closing) {
        self.end_events();
        let Closing { log_id, scope, log, ordinals, gaps, signal_gaps, truncated } = closing;
        let Some(state) = self.state.take() else { return };
        let cut = truncated.as_ref().map(json);
        if self.shape == Shape::Json {
            self.out.extend_from_slice(b"],");
            key(&mut self.out, Part::ExportedAt);
            self.out.extend_from_slice(&state.exported_at);
            if let Some(cut) = &cut {
                self.out.push(b',');
                key(&mut self.out, Part::Truncated);
                self.out.extend_from_slice(cut);
            }
        }
        let (events, raw) = (self.events.items(), self.raw.items());
        let to = Link::new(self.to.0, self.to.1);
        let hash = to.hash.clone();
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            run_id: self.run_id,
            log_id,
            scope,
            parts: Sums {
                run: self.run.clone(),
                session: self.session.clone(),
                projection: state.projection,
                metrics: state.metrics,
                artifacts: state.artifacts,
                canonical_events: std::mem::take(&mut self.events).finish_list(),
                raw_events: std::mem::take(&mut self.raw).finish_list(),
                exported_at: PartHash::of(&state.exported_at),
                truncated: cut.as_deref().map(PartHash::of),
            },
            chain: Chain { from: self.from.clone(), to },
            log,
            ordinals,
            gaps,
            signal_gaps,
        };
        let manifest = manifest.encode();
        match self.shape {
            Shape::Json => {
                self.out.extend_from_slice(br#","manifest":"#);
                self.out.extend_from_slice(manifest.as_bytes());
                self.out.push(b'}');
            }
            Shape::Lines => {
                self.line(MANIFEST_LINE, manifest.as_bytes());
                let end = End {
                    canonical_events: events,
                    raw_events: raw,
                    hash,
                    complete: truncated.is_none(),
                    truncated,
                };
                self.line(END_LINE, &json(&end));
            }
        }
    }

    /// How many bytes wait to be taken.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }

    /// How many events were written.
    pub fn events(&self) -> u64 {
        self.events.items()
    }

    /// How many raw envelopes were written.
    pub fn raws(&self) -> u64 {
        self.raw.items()
    }

    fn end_events(&mut self) {
        if std::mem::replace(&mut self.after_events, true) || self.shape == Shape::Lines {
            return;
        }
        self.out.extend_from_slice(b"],");
        key(&mut self.out, Part::RawEvents);
        self.out.push(b'[');
    }

    /// A comma before every item but the first.
    fn separate(&mut self, before: u64) {
        if before > 0 {
            self.out.push(b',');
        }
    }

    /// An object as a line, whose prefix has its opening brace.
    fn line(&mut self, prefix: &str, object: &[u8]) {
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(object.get(1..).unwrap_or_default());
        self.out.push(b'\n');
    }
}

fn key(out: &mut Vec<u8>, part: Part) {
    out.push(b'"');
    out.extend_from_slice(part.as_str().as_bytes());
    out.extend_from_slice(b"\":");
}

/// A value's text. Keys are texts and numbers finite: there is nothing that serde_json would refuse.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_refused| b"null".to_vec())
}

#[cfg(test)]
mod tests;
