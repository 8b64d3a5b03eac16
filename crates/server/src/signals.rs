//! When to stop: SIGTERM and SIGINT. And when not to: SIGXFSZ.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that end the server, registered once so that none is missed.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A file that reached the limit of its size, which would end us if nobody listened. Listening
    /// makes it an error of the one who writes, as a full disk is, and that is waited for.
    _file_size: Signal,
}

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Waits for the next signal, and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
