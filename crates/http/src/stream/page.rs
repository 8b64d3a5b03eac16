//! How many events a connection reads at once.
//!
//! **Invariant:** by what its last events weighed, about as many as fill the bytes that one
//! connection may hold, whether they are small or large.

/// Most events that are read at once.
const MAX_EVENTS: usize = 512;
/// About how many bytes of events are read at once.
const BYTES: usize = 256 * 1024;
/// What an event is thought to weigh before one was seen.
const TYPICAL_EVENT: usize = 1024;

/// The size of the next page.
#[derive(Debug)]
pub(super) struct PageSize {
    /// The mean size of the events that were read last; at least 1.
    event_bytes: usize,
}

impl PageSize {
    pub(super) fn new() -> Self {
        Self { event_bytes: TYPICAL_EVENT }
    }

    /// How many events to ask for.
    pub(super) fn events(&self) -> usize {
        (BYTES / self.event_bytes).clamp(1, MAX_EVENTS)
    }

    /// Takes note of the sizes of the events that came.
    pub(super) fn read(&mut self, sizes: impl ExactSizeIterator<Item = usize>) {
        let events = sizes.len();
        let bytes: usize = sizes.sum();
        self.event_bytes = bytes.checked_div(events).unwrap_or(self.event_bytes).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_the_size_of_the_events() {
        let mut size = PageSize::new();
        assert_eq!(size.events(), 256);
        size.read([100, 300].into_iter());
        assert_eq!(size.events(), MAX_EVENTS, "small ones");
        size.read([64 * 1024].into_iter());
        assert_eq!(size.events(), 4, "large ones");
        size.read([].into_iter());
        assert_eq!(size.events(), 4, "an empty page says nothing");
        size.read([1024 * 1024].into_iter());
        assert_eq!(size.events(), 1, "one at least");
        size.read([0].into_iter());
        assert_eq!(size.events(), MAX_EVENTS);
    }
}
