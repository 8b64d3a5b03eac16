//! The bytes of some frames on their way to a client.
//!
//! **Invariant:** it holds whole frames. What is one shared frame goes out as it is, uncopied.

use bytes::{Bytes, BytesMut};
use control_plane_domain::Clock;

use super::frame::Frame;

/// A chunk is sent when it has this many bytes, or when there is nothing to add.
pub(super) const FULL: usize = 16 * 1024;

/// Whether more frames will follow one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Perhaps,
    Many,
}

/// A chunk as it grows.
#[derive(Default)]
pub(super) struct Chunk {
    /// The first frame, as long as it is the only one and shared with other connections.
    only: Option<Bytes>,
    out: BytesMut,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.only.as_ref().map_or(self.out.len(), Bytes::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, frame: &Frame, more: More, clock: &dyn Clock) {
        if self.is_empty() {
            if more == More::Many {
                self.out.reserve(FULL + FULL / 8);
            } else if let Some(shared) = frame.shared() {
                self.only = Some(shared);
                return;
            }
        }
        if let Some(first) = self.only.take() {
            self.out.extend_from_slice(&first);
        }
        frame.write(&mut self.out, clock);
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.only.unwrap_or_else(|| self.out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::clock::ManualClock;

    fn chunk(frames: &[Frame], more: More) -> Bytes {
        let mut chunk = Chunk::default();
        for frame in frames {
            chunk.push(frame, more, &ManualClock::at_unix_ms(0));
        }
        chunk.into_bytes()
    }

    #[test]
    fn a_single_shared_frame_is_not_copied() {
        let shared = Bytes::from(vec![b'x'; 100]);
        let sent = chunk(&[Frame::Snapshot(shared.clone())], More::Perhaps);
        assert_eq!(sent.as_ptr(), shared.as_ptr());
    }

    #[test]
    fn frames_are_put_together_in_order() {
        let frames = ["a", "b", "c"].map(|text| Frame::Snapshot(Bytes::from(text)));
        for more in [More::Perhaps, More::Many] {
            assert_eq!(chunk(&frames, more), "abc");
            assert_eq!(chunk(&frames[..1], more), "a");
            assert_eq!(chunk(&[], more), "");
        }
    }
}
