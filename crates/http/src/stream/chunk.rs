//! The bytes of some frames on their way to a client.
//!
//! **Invariant:** it holds whole frames. What is one shared frame goes out as it is, uncopied. Only a
//! frame that is too long for one piece is handed on in several.

use bytes::{Bytes, BytesMut};
use control_plane_domain::Clock;

use super::frame::Frame;

/// A chunk is sent when it has this many bytes, or when there is nothing to add.
pub(super) const FULL: usize = 2 * 1024;
/// What is handed to the server at once, at most. It copies that into a buffer that a connection
/// keeps as large as it ever was; together with the head of an answer, this takes one page of memory.
pub(super) const PIECE: usize = 3 * 1024;

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
    /// Where the last frame begins.
    last: usize,
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
                self.out.reserve(PIECE);
            } else if let Some(shared) = frame.shared() {
                self.only = Some(shared);
                return;
            }
        }
        if let Some(first) = self.only.take() {
            self.out.extend_from_slice(&first);
        }
        self.last = self.out.len();
        frame.write(&mut self.out, clock);
    }

    /// The next piece, and what is left.
    pub(super) fn into_pieces(self) -> (Bytes, Bytes) {
        let Self { only, out, last } = self;
        let mut rest = only.unwrap_or_else(|| out.freeze());
        // A long frame goes on its own; what is before it is short.
        let first = if rest.len() > PIECE && last > 0 { last } else { PIECE };
        let piece = next_piece(&mut rest, first);
        (piece, rest)
    }
}

/// Takes so many bytes from what is left, or fewer if there are no more.
pub(super) fn next_piece(rest: &mut Bytes, most: usize) -> Bytes {
    rest.split_to(rest.len().min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::clock::ManualClock;

    fn pieces(frames: &[Frame], more: More) -> Vec<Bytes> {
        let mut chunk = Chunk::default();
        for frame in frames {
            chunk.push(frame, more, &ManualClock::at_unix_ms(0));
        }
        let (first, mut rest) = chunk.into_pieces();
        let mut pieces = vec![first];
        while !rest.is_empty() {
            pieces.push(next_piece(&mut rest, PIECE));
        }
        pieces
    }

    #[test]
    fn a_single_shared_frame_is_not_copied() {
        let shared = Bytes::from(vec![b'x'; 2 * PIECE]);
        let sent = pieces(&[Frame::Snapshot(shared.clone())], More::Perhaps);
        assert_eq!(sent[0].as_ptr(), shared.as_ptr());
        assert_eq!(sent[1].as_ptr(), shared[PIECE..].as_ptr());
    }

    #[test]
    fn frames_are_put_together_in_order() {
        let frames = ["a", "b", "c"].map(|text| Frame::Snapshot(Bytes::from(text)));
        for more in [More::Perhaps, More::Many] {
            assert_eq!(pieces(&frames, more), ["abc"]);
            assert_eq!(pieces(&frames[..1], more), ["a"]);
            assert_eq!(pieces(&[], more), [""]);
        }
    }

    #[test]
    fn only_a_frame_that_is_longer_than_a_piece_is_cut() {
        let table: [(&[usize], &[usize]); 5] = [
            (&[1000, 1900], &[2900]),
            (&[1000, PIECE], &[1000, PIECE]),
            (&[1000, PIECE + 1], &[1000, PIECE, 1]),
            (&[PIECE], &[PIECE]),
            (&[2 * PIECE + 5], &[PIECE, PIECE, 5]),
        ];
        for (lengths, expected) in table {
            let texts = lengths.iter().zip(b'a'..).map(|(length, it)| vec![it; *length]);
            let frames: Vec<_> = texts.map(|text| Frame::Snapshot(Bytes::from(text))).collect();
            let pieces = pieces(&frames, More::Perhaps);
            assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), expected);
            assert!(pieces.concat().is_sorted(), "in order");
        }
    }
}
