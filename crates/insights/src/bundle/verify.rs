//! Whether a bundle is what was exported: every byte, and what the bytes say.
//!
//! **Invariant:** it trusts nothing that it has not summed up or folded itself, and its memory does
//! not grow with the bundle but for [`super::format::MARK`] bytes per item.

mod checks;
mod envelopes;
mod log;
mod marks;
mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Seek};

use control_plane_domain::metrics::RunMetrics;
use control_plane_projection::Projection;
use control_plane_storage::model::RawEnvelope;
use serde::de::DeserializeOwned;

use super::format::{Link, Manifest, ManifestFault, Part, PartHash, Sum, Truncated};
use super::read::{Piece, ReadFault, Reader};
use super::record::{ArtifactRecord, RunRecord, SessionRecord};
use super::unpack::unpacked;
use envelopes::Envelopes;
use log::Log;
pub use log::parse_hash;
use report::Faults;
pub use report::{Check, Report, Verdict};

/// What is to be known beside the bundle.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A head of the run's hash chain that is known from elsewhere.
    pub known_hash: Option<String>,
    /// The longest bundle that is read, unpacked.
    pub at_most: Option<u64>,
}

/// What was found, and the records that there is one of.
#[derive(Debug)]
pub struct Verified {
    pub report: Report,
    pub run: Option<RunRecord>,
    pub session: Option<SessionRecord>,
    pub metrics: Option<RunMetrics>,
}

/// Checks a bundle as it comes in, compressed or not.
///
/// # Errors
/// When it cannot be read. That it is not sound is no error.
pub fn verify(input: impl Read, options: &Options) -> io::Result<Verified> {
    look(unpacked(input, options.at_most)?, options, None)
}

/// Checks a bundle in a file. One that begins in the middle of a log is read twice: where its hash
/// chain begins stands at its end.
///
/// # Errors
/// When it cannot be read.
pub fn verify_file(file: &mut File, options: &Options) -> io::Result<Verified> {
    file.rewind()?;
    let first = verify(&mut *file, options)?;
    let Some(from) = &first.report.begins_after else { return Ok(first) };
    file.rewind()?;
    look(unpacked(file, options.at_most)?, options, Some(from))
}

/// The envelope in the text of a raw event.
///
/// # Errors
/// A sentence about what is wrong.
pub fn envelope(text: &[u8]) -> Result<RawEnvelope, String> {
    envelopes::read(text)
}

fn look(input: impl BufRead, options: &Options, from: Option<&Link>) -> io::Result<Verified> {
    let mut reader = Reader::new(input);
    let mut found = Found::new(from);
    let broken = loop {
        match reader.piece() {
            Ok(Some(piece)) => found.take(piece),
            Ok(None) => break None,
            Err(ReadFault::Io(error)) => return Err(error),
            Err(fault) => break Some(fault),
        }
    };
    let report = checks::report(&mut found, reader.shape(), broken, options);
    Ok(Verified { report, run: found.run, session: found.session, metrics: found.metrics })
}

/// What was read of a bundle so far.
struct Found {
    /// The sums of the parts that are one value.
    values: BTreeMap<Part, Sum>,
    /// Parts whose text is not what belongs there.
    unreadable: BTreeMap<Part, Faults>,
    /// Parts that belong to another run.
    foreign: Faults,
    run: Option<RunRecord>,
    session: Option<SessionRecord>,
    state: Option<Projection>,
    metrics: Option<RunMetrics>,
    artifacts: PartHash,
    log: Log,
    envelopes: Envelopes,
    exported_at: Option<String>,
    truncated: Option<Truncated>,
    manifest: Option<Result<Manifest, ManifestFault>>,
    /// The last line of a bundle in lines.
    end: Option<Vec<u8>>,
}

impl Found {
    fn new(from: Option<&Link>) -> Self {
        Self {
            values: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            foreign: Faults::default(),
            run: None,
            session: None,
            state: None,
            metrics: None,
            artifacts: PartHash::default(),
            log: Log::new(from),
            envelopes: Envelopes::default(),
            exported_at: None,
            truncated: None,
            manifest: None,
            end: None,
        }
    }

    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Value(part, text) => {
                self.values.insert(part, PartHash::of(text));
                self.value(part, text);
            }
            Piece::Item(Part::CanonicalEvents, text) => self.log.take(text),
            Piece::Item(Part::RawEvents, text) => self.envelopes.take(text),
            Piece::Item(_artifacts, text) => self.artifact(text),
            Piece::Manifest(text) => {
                let text = std::str::from_utf8(text);
                let manifest = text.map_err(|_bytes| ManifestFault::NoSum);
                self.manifest = Some(manifest.and_then(Manifest::decode));
            }
            Piece::End(text) => self.end = Some(text.to_vec()),
        }
    }

    fn value(&mut self, part: Part, text: &[u8]) {
        match part {
            Part::Run => {
                self.run = self.read(part, text);
                if let Some(run) = &self.run {
                    self.log.belongs_to(run.id);
                    self.envelopes.run_id = Some(run.id);
                }
            }
            Part::Session => {
                self.session = self.read::<Option<SessionRecord>>(part, text).flatten();
                self.owned(part, self.session.as_ref().map(|session| session.run_id));
            }
            Part::Projection => {
                self.state = self.read::<Option<Projection>>(part, text).flatten();
                self.owned(part, self.state.as_ref().map(|state| state.run.run_id));
            }
            Part::Metrics => {
                self.metrics = self.read::<Option<RunMetrics>>(part, text).flatten();
                self.owned(part, self.metrics.as_ref().map(|metrics| metrics.run_id));
            }
            Part::ExportedAt => self.exported_at = self.read(part, text),
            Part::Truncated => self.truncated = self.read(part, text),
            // Lists come item by item.
            Part::Artifacts | Part::CanonicalEvents | Part::RawEvents => {}
        }
    }

    fn artifact(&mut self, text: &[u8]) {
        let index = self.artifacts.items();
        self.artifacts.item(text);
        match serde_json::from_slice::<ArtifactRecord>(text) {
            Ok(artifact) => {
                if self.run.as_ref().is_some_and(|run| run.id != artifact.run_id) {
                    self.foreign.add(format!("artifacts[{index}] belongs to {}", artifact.run_id));
                }
            }
            Err(fault) => {
                let faults = self.unreadable.entry(Part::Artifacts).or_default();
                faults.add(format!("artifacts[{index}] cannot be read: {fault}"));
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self, part: Part, text: &[u8]) -> Option<T> {
        match serde_json::from_slice(text) {
            Ok(value) => Some(value),
            Err(fault) => {
                let faults = self.unreadable.entry(part).or_default();
                faults.add(format!("it cannot be read: {fault}"));
                None
            }
        }
    }

    fn owned(&mut self, part: Part, run_id: Option<control_plane_domain::RunId>) {
        if let (Some(run), Some(run_id)) = (&self.run, run_id)
            && run.id != run_id
        {
            self.foreign.add(format!("{} belongs to run {run_id}", part.as_str()));
        }
    }
}

#[cfg(test)]
mod tests;
