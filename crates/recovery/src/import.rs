//! Importing a bundle: it is verified first, and then written as a run that is only read here.
//!
//! **Invariant:** what is written is what was verified: the file is read twice, and the second time
//! must end with the same hash. It is in memory page by page only, whatever its size.

use std::fs::File;
use std::io::{self, BufRead, Seek};

use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{CanonicalEvent, Run, RunId, Session, Timestamp};
use control_plane_insights::bundle::format::Part;
use control_plane_insights::bundle::read::{Piece, ReadFault, Reader};
use control_plane_insights::bundle::record::ArtifactRecord;
use control_plane_insights::bundle::unpacked;
use control_plane_insights::bundle::verify::{self, Options, Report, Verified};
use control_plane_projection::Projection;
use control_plane_storage::model::{Artifact, LogEntry, RawEnvelope, SnapshotRow};
use control_plane_storage::{Error, ImportPage, ImportedRun, Store};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::spawn_blocking;

/// Most rows of a page, and about how many bytes of texts it has at most.
const PAGE_ROWS: usize = 1000;
const PAGE_BYTES: usize = 1024 * 1024;
/// How many pages wait while one is written.
const PAGES_AHEAD: usize = 2;

/// A run that was imported.
#[derive(Debug)]
pub struct Imported {
    pub run: Run,
    pub report: Report,
}

/// Why a bundle was not imported. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It was changed, or cut, or is something else.
    #[error("the bundle is not sound: {}", .0.faults().join("; "))]
    Unsound(Box<Report>),
    /// It is sound, and not all there is.
    #[error("only a whole log can be imported, and this bundle is partial: {0}")]
    Partial(String),
    /// It is longer than it may be, or unpacks to something that is.
    #[error("the bundle is larger than {0} bytes")]
    TooLarge(u64),
    /// Somebody writes the file.
    #[error("the file changed while it was read")]
    Changed,
    #[error("the bundle cannot be read: {0}")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Verifies a bundle and writes its run, whole or not at all. A bundle that has more bytes than
/// `at_most`, unpacked, is refused.
///
/// # Errors
/// [`ImportError`]; a run or session that is there already is [`Error::SessionTaken`].
pub async fn import(
    store: &Store,
    file: File,
    at_most: Option<u64>,
    now: Timestamp,
) -> Result<Imported, ImportError> {
    let options = Options { known_hash: None, at_most };
    let mut of_pages = file.try_clone().map_err(ImportError::Io)?;
    let mut file = file;
    let verified = spawn_blocking(move || verify::verify_file(&mut file, &options));
    let verified = verified.await.map_err(|_ended| Error::Task)?;
    let Verified { report, run, session, metrics } =
        verified.map_err(|error| too_large(error, at_most))?;
    if !report.sound {
        return Err(ImportError::Unsound(Box::new(report)));
    }
    if let Some(partial) = report.partial {
        return Err(ImportError::Partial(partial));
    }
    // A sound bundle that is not partial has these.
    let (Some(run), Some(chain)) = (run, report.hash.as_deref().and_then(verify::parse_hash))
    else {
        return Err(ImportError::Partial("it has no run, or no events".to_owned()));
    };
    let run = Run { imported_at: Some(now), ..Run::from(run) };
    let mut metrics = metrics.unwrap_or_else(|| RunMetrics::empty(run.id));
    metrics.ended = run.state.is_terminal();
    let session = session.map(Session::from);
    let new = ImportedRun { run: run.clone(), session, chain, metrics };

    let (pages, receiver) = channel(PAGES_AHEAD);
    let importing = store.run_import(new, receiver);
    let run_id = run.id;
    let reading = spawn_blocking(move || {
        of_pages.rewind()?;
        let input = unpacked(&mut of_pages, at_most)?;
        Pages::new(run_id, pages).send(input, chain)
    });
    let (written, read) = tokio::join!(importing, reading);
    match (written, read.map_err(|_ended| Error::Task)?) {
        (Ok(()), Ok(_)) => Ok(Imported { run, report }),
        (_, Err(error)) => Err(too_large(error, at_most)),
        // Nothing is wrong with the pages but that they were not all there.
        (Err(Error::Refused(_)), Ok(Sent::Other)) => Err(ImportError::Changed),
        (Err(fault), Ok(_)) => Err(fault.into()),
    }
}

fn too_large(error: io::Error, at_most: Option<u64>) -> ImportError {
    match at_most {
        Some(at_most) if error.kind() == io::ErrorKind::FileTooLarge => {
            ImportError::TooLarge(at_most)
        }
        _ => ImportError::Io(error),
    }
}

/// What became of the pages.
enum Sent {
    /// All were taken, or whoever takes them has given up.
    Whole,
    /// The file is not the one that was verified, so the last page was kept back.
    Other,
}

/// Makes pages of a bundle.
struct Pages {
    run_id: RunId,
    pages: Sender<ImportPage>,
    artifacts: Vec<Artifact>,
    events: Vec<LogEntry>,
    envelopes: Vec<RawEnvelope>,
    snapshots: Vec<SnapshotRow>,
    /// How many bytes the unfinished page has.
    bytes: usize,
    chain: ChainHash,
    state: Projection,
}

/// Why it does not go on.
struct Stop(Sent);

impl Pages {
    fn new(run_id: RunId, pages: Sender<ImportPage>) -> Self {
        Self {
            run_id,
            pages,
            artifacts: Vec::new(),
            events: Vec::new(),
            envelopes: Vec::new(),
            snapshots: Vec::new(),
            bytes: 0,
            chain: ChainHash::EMPTY,
            state: Projection::empty(run_id),
        }
    }

    /// Sends everything; the last page only when the log's head is the one that was verified.
    fn send(mut self, input: impl BufRead, verified: ChainHash) -> io::Result<Sent> {
        let mut reader = Reader::new(input);
        loop {
            let done = match reader.piece() {
                Ok(Some(piece)) => self.take(piece),
                Ok(None) => break,
                Err(ReadFault::Io(error)) => return Err(error),
                Err(ReadFault::Cut { .. } | ReadFault::Layout { .. }) => return Ok(Sent::Other),
            };
            if let Err(Stop(sent)) = done {
                return Ok(sent);
            }
        }
        if let Err(Stop(sent)) = self.flush() {
            return Ok(sent);
        }
        if self.chain != verified {
            return Ok(Sent::Other);
        }
        let end = ImportPage::End(Box::new(self.state.to_row()));
        Ok(match self.pages.blocking_send(end) {
            Ok(()) | Err(_) => Sent::Whole,
        })
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<(), Stop> {
        let Piece::Item(part, text) = piece else { return Ok(()) };
        let other = || Stop(Sent::Other);
        match part {
            Part::CanonicalEvents => {
                let entry = self.entry(text).ok_or_else(other)?;
                self.events.push(entry);
            }
            Part::RawEvents => {
                let raw = verify::envelope(text).map_err(|_fault| other())?;
                self.envelopes.push(raw);
            }
            // The only other list.
            Part::Artifacts
            | Part::Run
            | Part::Session
            | Part::Projection
            | Part::Metrics
            | Part::ExportedAt
            | Part::Truncated => {
                let artifact: ArtifactRecord =
                    serde_json::from_slice(text).map_err(|_fault| other())?;
                self.artifacts.push(Artifact::from(artifact));
            }
        }
        self.bytes += text.len();
        let rows = self.events.len() + self.envelopes.len() + self.artifacts.len();
        if rows >= PAGE_ROWS || self.bytes >= PAGE_BYTES { self.flush() } else { Ok(()) }
    }

    /// The row of an event.
    fn entry(&mut self, text: &[u8]) -> Option<LogEntry> {
        let text = std::str::from_utf8(text).ok()?;
        let event: CanonicalEvent = serde_json::from_str(text).ok()?;
        if event.run_id != self.run_id {
            return None;
        }
        self.chain = self.chain.then(text);
        self.state.apply(&event);
        self.snapshots.extend(self.state.snapshot_due());
        Some(LogEntry {
            run_id: event.run_id,
            seq: event.seq,
            position: 0,
            ts: event.ts,
            received_at: event.received_at,
            event_type: event.event_type,
            subject: event.subject.map(|subject| (subject.kind.as_str().to_owned(), subject.id)),
            hash: self.chain,
            body: text.to_owned().into(),
        })
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.bytes = 0;
        let pages = [
            ImportPage::Artifacts(std::mem::take(&mut self.artifacts)),
            ImportPage::Events(std::mem::take(&mut self.events)),
            ImportPage::Envelopes(std::mem::take(&mut self.envelopes)),
            ImportPage::Snapshots(std::mem::take(&mut self.snapshots)),
        ];
        for page in pages.into_iter().filter(|page| !page.is_empty()) {
            self.pages.blocking_send(page).map_err(|_given_up| Stop(Sent::Whole))?;
        }
        Ok(())
    }
}
