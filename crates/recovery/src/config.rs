//! How patient attaching is.

use std::sync::Arc;
use std::time::Duration;

use control_plane_domain::trace::Tracer;
use control_plane_projection::PriceTable;

/// Settings of an [`crate::Engine`]; the names of their variables are in `docs/CONFIG.md`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether runs that are not over are attached again at start.
    pub recovery_enabled: bool,
    /// Whether sessions that nobody registered get a run.
    pub discovery_enabled: bool,
    /// Whether decision receipts are fetched.
    pub receipts_enabled: bool,
    /// How long a run waits for its session to exist.
    pub session_wait: Duration,
    /// After how much silence a stream is opened anew, to see whether it still lives.
    pub stream_idle: Duration,
    /// How often attaching may fail in a row before the run fails; 0 is for ever.
    pub max_retries: u32,
    /// The first wait after a fault.
    pub backoff_base: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// How often all sessions are listed, in case the watch missed something.
    pub sweep: Duration,
    /// How often runs of dead instances are looked for, and the runs are shared anew.
    pub claim: Duration,
    /// How long a session that did not resolve must be silent before its history counts as read.
    pub settle_quiet: Duration,
    /// How long the rest of a compacted history may take to arrive on a stream that is still open.
    pub settle_patience: Duration,
    /// How long the envelope recorded last may take to be delivered again: it is history, so it is
    /// there at once.
    pub overlap_patience: Duration,
    /// How long a cancel callback may take.
    pub callback_timeout: Duration,
    /// Most envelopes of one run in a batch.
    pub batch_envelopes: usize,
    /// How long signals are held whose run is not known yet.
    pub signal_hold: Duration,
    /// Most signals that are held; the oldest make room.
    pub signal_hold_max: u32,
    /// Where spans go; without it nothing is traced, and no run gets a trace.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// What calls of models cost.
    pub prices: Arc<PriceTable>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            recovery_enabled: true,
            discovery_enabled: true,
            receipts_enabled: true,
            session_wait: Duration::from_secs(60),
            stream_idle: Duration::from_secs(120),
            max_retries: 0,
            backoff_base: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            sweep: Duration::from_secs(30),
            claim: Duration::from_secs(1),
            settle_quiet: Duration::from_millis(500),
            settle_patience: Duration::from_secs(5),
            overlap_patience: Duration::from_secs(5),
            callback_timeout: Duration::from_secs(5),
            batch_envelopes: 1000,
            signal_hold: Duration::from_secs(600),
            signal_hold_max: 10_000,
            tracer: None,
            prices: Arc::default(),
        }
    }
}
