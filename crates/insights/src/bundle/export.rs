//! Takes a run out of the store, page by page, as fast as somebody wants the bytes.
//!
//! **Invariant:** what is exported is one moment: the picture that [`Export::open`] took, and the
//! record up to its end. It reads when it is asked for bytes, and one page ahead at most; between
//! two reads it holds no connection. A run that goes away midway is an error, never a shorter run.

mod ahead;
mod signals;
mod tail;

use bytes::Bytes;
use control_plane_domain::event::ChainHash;
use control_plane_domain::{EventType, Ordinal, RunId, Seq, Timestamp};
use control_plane_projection::state;
use control_plane_storage::model::{LogEntry, RawEnvelope};
use control_plane_storage::{Entity, Error, Result, RunPicture, SignalPlace, Store};

use super::format::{EventsCut, Link, Ordinals, RawCut, Scope, SignalGap, Truncated};
use super::record::{ArtifactRecord, RunRecord, SessionRecord};
use super::write::{Closing, Shape, Writer};
use ahead::{Ahead, Pace};
use signals::Newcomers;
pub use signals::{parse_place, place_text};
use tail::Gaps;

/// About so many bytes are given out at a time.
const CHUNK: usize = 128 * 1024;

/// What somebody wants of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub shape: Shape,
    pub canonical: bool,
    pub raw: bool,
    /// Most events, and most raw envelopes.
    pub limit: Option<i64>,
    pub after_seq: Seq,
    pub after_ordinal: Ordinal,
    pub after_signal: Option<SignalPlace>,
}

impl Ask {
    /// All events and no raw envelopes.
    pub fn events(shape: Shape) -> Self {
        Self {
            shape,
            canonical: true,
            raw: false,
            limit: None,
            after_seq: 0,
            after_ordinal: 0,
            after_signal: None,
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            canonical_events: self.canonical,
            raw_events: self.raw,
            after_seq: self.after_seq,
            after_ordinal: self.after_ordinal,
            after_signal: self.after_signal.as_ref().map(place_text),
        }
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    State,
    Events,
    Envelopes,
    Signals,
    Closing,
    Done,
}

/// An export that is under way.
pub struct Export {
    store: Store,
    ask: Ask,
    log_id: String,
    exported_at: Timestamp,
    run_id: RunId,
    /// The log's end at the moment of the picture.
    log: (Seq, ChainHash),
    /// The session's cursor at that moment.
    cursor: Ordinal,
    /// Until the state is written.
    picture: Option<RunPicture>,
    signal_gaps: Vec<SignalGap>,
    writer: Writer,
    step: Step,
    gaps: Gaps,
    /// The last event, envelope and signal that were written or passed over.
    seq: Seq,
    ordinal: Ordinal,
    signal: Option<SignalPlace>,
    newcomers: Newcomers,
    /// The page of events that is read while the one before it is written.
    ahead: Option<Ahead<Result<Vec<LogEntry>>>>,
    pace: Pace,
}

impl Export {
    /// Takes the picture; the rest is read by [`Export::next`].
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of the database.
    pub async fn open(
        store: &Store,
        run_id: RunId,
        ask: Ask,
        log_id: &str,
        now: Timestamp,
    ) -> Result<Self> {
        let picture = store.run_picture(run_id).await?;
        let RunPicture { run, hash, session, .. } = &picture;
        let log = (run.last_seq, *hash);
        let cursor = session.as_ref().map_or(0, |session| session.cursor);
        let from = match ask.canonical {
            true => link_before(store, run_id, ask.after_seq, log).await?,
            false => (0, ChainHash::EMPTY),
        };
        let began = crate::signals::began(run, session.as_ref());
        let signal_gaps = store.signal_gaps(began, run.ended_at).await?;
        let record = session.as_ref().map(SessionRecord::from);
        let writer = Writer::new(ask.shape, &RunRecord::from(run), record.as_ref(), from);
        Ok(Self {
            store: store.clone(),
            log_id: log_id.to_owned(),
            exported_at: now,
            run_id,
            log,
            cursor,
            picture: Some(picture),
            signal_gaps: signal_gaps.into_iter().map(signals::gap).collect(),
            writer,
            step: Step::State,
            gaps: Gaps::default(),
            seq: from.0,
            ordinal: ask.after_ordinal,
            signal: ask.after_signal.clone(),
            newcomers: Newcomers::after(log.0),
            ahead: None,
            pace: Pace::default(),
            ask,
        })
    }

    /// The log's end that the bundle knows of.
    pub fn latest_seq(&self) -> Seq {
        self.log.0
    }

    /// The next bytes; `None` after the last ones. May be dropped while it waits, and then nobody
    /// may ask again.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the run was deleted meanwhile, [`Error::Corrupt`] when its log has
    /// a hole, and those of the database. The bundle is not whole then.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.step {
                Step::State if self.writer.waiting() > 0 => return Ok(Some(self.writer.take())),
                Step::State => self.write_state().await?,
                Step::Events => self.write_events().await?,
                Step::Envelopes => self.write_envelopes().await?,
                Step::Signals => self.write_signals().await?,
                Step::Closing => self.close().await?,
                Step::Done if self.writer.waiting() == 0 => return Ok(None),
                Step::Done => return Ok(Some(self.writer.take())),
            }
            if self.writer.waiting() >= CHUNK {
                return Ok(Some(self.writer.take()));
            }
        }
    }

    async fn write_state(&mut self) -> Result<()> {
        if let Some(picture) = self.picture.take() {
            let RunPicture { projection, metrics, artifacts, .. } = picture;
            let state = state::until(&self.store, self.run_id, projection, self.log.0).await?;
            let artifacts: Vec<_> = artifacts.into_iter().map(ArtifactRecord::from).collect();
            self.writer.state(Some(&state), metrics.as_ref(), &artifacts, self.exported_at);
        }
        self.step = if self.ask.canonical { Step::Events } else { Step::Envelopes };
        Ok(())
    }

    /// How many more events may be written.
    fn events_left(&self) -> i64 {
        let missing = self.log.0 - self.seq;
        left(self.ask.limit, self.writer.events()).map_or(missing, |left| left.min(missing))
    }

    async fn write_events(&mut self) -> Result<()> {
        let wanted = self.events_left();
        if wanted <= 0 {
            self.step = Step::Envelopes;
            return Ok(());
        }
        let page = match self.ahead.take() {
            Some(ahead) => ahead.await?,
            None => self.store.events(self.run_id, self.seq, self.pace.items(wanted)).await?,
        };
        if let Some(last) = page.last()
            && last.seq < self.log.0
            && wanted > count(page.len())
        {
            let (store, run_id, after) = (self.store.clone(), self.run_id, last.seq);
            self.pace.saw(page.iter().map(|entry| entry.body.len()));
            let items = self.pace.items(wanted - count(page.len()));
            let next = async move { store.events(run_id, after, items).await };
            self.ahead = Some(Ahead::start(next).await);
        }
        if page.is_empty() {
            return Err(self.hole().await);
        }
        for entry in &page {
            if entry.seq != self.seq + 1 {
                return Err(self.hole().await);
            }
            self.seq = entry.seq;
            if entry.event_type == EventType::SessionStreamGap {
                self.gaps.note(entry);
            }
            self.writer.event(entry);
        }
        Ok(())
    }

    /// Why the next event is not there.
    async fn hole(&self) -> Error {
        match self.store.run_head(self.run_id).await {
            Err(fault) => fault,
            Ok(_) => Error::Corrupt {
                entity: Entity::Event,
                id: format!("{} of run {}", self.seq + 1, self.run_id),
                column: "seq",
            },
        }
    }

    fn raws_left(&self) -> i64 {
        left(self.ask.limit, self.writer.raws()).unwrap_or(i64::MAX)
    }

    async fn write_envelopes(&mut self) -> Result<()> {
        let wanted = self.raws_left();
        if !self.ask.raw || wanted <= 0 {
            self.step = Step::Closing;
            return Ok(());
        }
        let page = match self.ordinal < self.cursor {
            true => {
                let items = self.pace.items(wanted);
                self.store.list_raw_by_run(self.run_id, self.ordinal, items).await?
            }
            false => Vec::new(),
        };
        // What was accepted after the picture is not in it.
        let known = |raw: &&RawEnvelope| raw.ordinal.is_some_and(|it| it <= self.cursor);
        let page: Vec<&RawEnvelope> = page.iter().filter(known).collect();
        self.pace.saw(page.iter().map(|raw| raw.envelope.payload.len() * 4 / 3 + 600));
        match page.last().and_then(|raw| raw.ordinal) {
            Some(last) => self.ordinal = last,
            None => self.step = Step::Signals,
        }
        for raw in page {
            self.writer.raw(raw);
        }
        Ok(())
    }

    async fn write_signals(&mut self) -> Result<()> {
        let wanted = self.raws_left();
        if wanted <= 0 {
            self.step = Step::Closing;
            return Ok(());
        }
        let items = self.pace.items(wanted);
        let place = self.signal.as_ref();
        let page = self.store.list_signals_by_run(self.run_id, place, items).await?;
        let Some(last) = page.last() else {
            self.step = Step::Closing;
            return Ok(());
        };
        // Whatever is in the page was committed with its events, so they are there to be read.
        self.newcomers.look(&self.store, self.run_id).await?;
        self.signal = Some(SignalPlace::of(last));
        for raw in page.iter().filter(|raw| !self.newcomers.has(raw)) {
            self.writer.raw(raw);
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        let (store, run_id) = (&self.store, self.run_id);
        let streamed = match self.ask.canonical {
            true => (self.seq - count(self.writer.events()), self.seq),
            false => (0, 0),
        };
        let gaps = self.gaps.complete(store, run_id, streamed, self.log.0).await?;
        let found = store.ordinals_recorded(run_id, 0, self.cursor).await?;
        let truncated = self.truncated().await?;
        // The last look: if the run is still there, everything above was.
        let head = store.run_head(run_id).await?;
        if head.last_seq < self.log.0 {
            return Err(not_found(run_id));
        }
        self.writer.finish(Closing {
            log_id: std::mem::take(&mut self.log_id),
            scope: self.ask.scope(),
            log: Link::new(self.log.0, self.log.1),
            ordinals: Ordinals {
                first: found.first,
                last: found.last,
                recorded: found.count,
                cursor: self.cursor,
            },
            gaps,
            signal_gaps: std::mem::take(&mut self.signal_gaps),
            truncated,
        });
        self.step = Step::Done;
        Ok(())
    }

    async fn truncated(&self) -> Result<Option<Truncated>> {
        let missing = self.log.0 - self.seq;
        let canonical_events = (self.ask.canonical && missing > 0)
            .then_some(EventsCut { next_after_seq: self.seq, remaining: missing });
        let is_cut = self.ask.raw && self.raws_left() <= 0;
        let raw_events = if is_cut { self.raw_cut().await? } else { None };
        let is_whole = canonical_events.is_none() && raw_events.is_none();
        Ok((!is_whole).then_some(Truncated { canonical_events, raw_events }))
    }

    async fn raw_cut(&self) -> Result<Option<RawCut>> {
        let (store, run_id) = (&self.store, self.run_id);
        let envelopes = store.ordinals_recorded(run_id, self.ordinal, self.cursor).await?.count;
        let signals = store.count_signals_by_run(run_id, self.signal.as_ref()).await?;
        let remaining = envelopes + signals;
        Ok((remaining > 0).then(|| RawCut {
            next_after_ordinal: self.ordinal,
            next_after_signal: self.signal.as_ref().map(place_text),
            remaining,
        }))
    }
}

/// The chain's head before the first event after `after_seq`, which may be beyond the log's end.
async fn link_before(
    store: &Store,
    run_id: RunId,
    after_seq: Seq,
    log: (Seq, ChainHash),
) -> Result<(Seq, ChainHash)> {
    if after_seq <= 0 {
        return Ok((0, ChainHash::EMPTY));
    }
    if after_seq >= log.0 {
        return Ok(log);
    }
    let page = store.events(run_id, after_seq - 1, 1).await?;
    let entry = page.first().ok_or_else(|| not_found(run_id))?;
    Ok((entry.seq, entry.hash))
}

fn left(limit: Option<i64>, written: u64) -> Option<i64> {
    limit.map(|limit| limit - count(written))
}

fn count(items: impl TryInto<i64>) -> i64 {
    items.try_into().unwrap_or(i64::MAX)
}

fn not_found(run_id: RunId) -> Error {
    Error::NotFound { entity: Entity::Run, id: run_id.to_string() }
}
