//! Packs a stream's frames into chunks, whatever the stream is of, and decides when it closes.
//!
//! **Invariant:** a chunk holds whole frames and goes out whole, so whenever the body ends it ends
//! between two. While a connection waits it holds no buffer, and the server's for it stays small.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use actix_web::web;
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::chunk::{Chunk, FULL, More, PIECE, next_piece};
use super::frame::Frame;
use super::open::Open;
use crate::context::ApiContext;

/// What a stream is of: it says which frame comes next, and does what has to be done before.
pub(super) trait Producer: 'static {
    /// The next frame, if one is there already.
    fn frame(&mut self, now: Instant) -> Option<Frame>;

    /// Called when no frame is there: reads, folds or waits (no longer than `until`), then returns.
    /// May be dropped at any time without losing anything.
    async fn work(&mut self, until: Instant) -> ControlFlow<Close>;

    /// Whether many frames are about to come.
    fn is_busy(&self) -> bool;

    /// How many events the log has beyond what was sent, if it can say so at once.
    fn lag(&self) -> Option<i64> {
        None
    }
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// Everything was sent, and the client had asked to be told by the close.
    Ended,
    /// The run was deleted.
    Deleted,
    /// It was open for long enough: the client comes back, perhaps to another instance.
    Rotated,
    /// The server stops.
    Stopped,
    /// The client went away.
    Left,
}

impl Close {
    /// The name in the figures.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Deleted => "deleted",
            Self::Rotated => "rotated",
            Self::Stopped => "stopped",
            Self::Left => "left",
        }
    }
}

/// One connection.
pub(super) struct Pump<P> {
    context: web::Data<ApiContext>,
    producer: P,
    open: Open,
    rotate_at: Instant,
    /// What is left of the last chunk: the end of a long frame.
    rest: Bytes,
}

impl<P: Producer> Pump<P> {
    pub(super) fn new(context: web::Data<ApiContext>, open: Open, producer: P) -> Self {
        let rotate_at = Instant::now() + jittered(context.settings.stream_max_age);
        Self { context, producer, open, rotate_at, rest: Bytes::new() }
    }

    /// The chunks, in pieces, one at a time and only when they are asked for.
    pub(super) fn into_body(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        // Boxed: it moves with every chunk.
        stream::unfold(Box::new(self), |mut pump| async move {
            let piece = pump.piece().await?;
            Some((Ok(piece), pump))
        })
    }

    /// The next piece of the body; `None` when it is over.
    async fn piece(&mut self) -> Option<Bytes> {
        if !self.rest.is_empty() {
            return Some(next_piece(&mut self.rest, PIECE));
        }
        let (piece, rest) = self.chunk().await?.into_pieces();
        self.rest = rest;
        Some(piece)
    }

    /// The next chunk; `None` when there is none any more.
    async fn chunk(&mut self) -> Option<Chunk> {
        let clock = &*self.context.clock;
        let mut chunk = Chunk::default();
        let mut frames = 0;
        let mut has_events = false;
        while chunk.len() < FULL && !self.open.is_closing() {
            if self.context.stop.is_cancelled() {
                self.open.close(Close::Stopped);
                break;
            }
            let now = Instant::now();
            if now >= self.rotate_at {
                // The client waits this long before it is back.
                chunk.push(&Frame::Retry { retry_ms: retry_ms() }, More::Perhaps, clock);
                self.open.close(Close::Rotated);
                break;
            }
            if let Some(frame) = self.producer.frame(now) {
                let more = if self.producer.is_busy() { More::Many } else { More::Perhaps };
                chunk.push(&frame, more, clock);
                frames += u64::from(!matches!(frame, Frame::Opening { .. }));
                has_events |= frame.is_event();
                continue;
            }
            // What is there goes out before anything that may take time.
            if !chunk.is_empty() {
                break;
            }
            tokio::select! {
                () = self.context.stop.cancelled() => {}
                flow = self.producer.work(self.rotate_at) => if let ControlFlow::Break(why) = flow {
                    self.open.close(why);
                },
            }
        }
        if chunk.is_empty() {
            return None;
        }
        if has_events && let Some(events) = self.producer.lag() {
            self.open.lags(events);
        }
        self.open.sent(frames, chunk.len());
        Some(chunk)
    }
}

/// One to two seconds, so that clients of a server that went away do not come back together.
pub(super) fn retry_ms() -> u64 {
    1000 + u64::from(rand::random::<u16>()) % 1000
}

/// The given time and up to a tenth more or less.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * rand::random::<f64>())
}
