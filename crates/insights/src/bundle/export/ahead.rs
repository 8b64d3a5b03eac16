//! How much is read at once, and reading the next page while the one before it is written.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

/// About how many bytes are read at once.
const BYTES: usize = 256 * 1024;
/// Most items that are read at once.
const MAX_ITEMS: usize = 500;
/// How many items are read before it is known what they weigh.
const FIRST: usize = 32;

/// Work that has begun, whether somebody waits for it or not.
pub(super) struct Ahead<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    done: Option<T>,
}

impl<T> Ahead<T> {
    /// Begins the work. That is only of use for work that goes on by itself once it was looked at,
    /// as the store's reads do: they run in tasks.
    pub(super) async fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        Self { work, done }
    }
}

impl<T: Unpin> Future for Ahead<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.done.take() {
            Some(done) => Poll::Ready(done),
            None => self.work.as_mut().poll(cx),
        }
    }
}

/// By what the last items weighed, about as many as weigh [`BYTES`].
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The mean weight of the last page's items; 0 before the first.
    weight: usize,
}

impl Pace {
    /// How many items to read when `wanted` are wanted at most.
    pub(super) fn items(&self, wanted: i64) -> i64 {
        let items = match self.weight {
            0 => FIRST,
            weight => (BYTES / weight).clamp(1, MAX_ITEMS),
        };
        i64::try_from(items).unwrap_or(i64::MAX).min(wanted)
    }

    /// Takes note of what a page's items weigh.
    pub(super) fn saw(&mut self, weights: impl ExactSizeIterator<Item = usize>) {
        let items = weights.len();
        let bytes: usize = weights.sum();
        self.weight = bytes.checked_div(items).map_or(self.weight, |mean| mean.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_what_the_items_weigh() {
        let mut pace = Pace::default();
        assert_eq!(pace.items(i64::MAX), 32, "nothing is known");
        assert_eq!(pace.items(7), 7);
        pace.saw([100, 300].into_iter());
        assert_eq!(pace.items(i64::MAX), 500, "light ones");
        pace.saw([64 * 1024].into_iter());
        assert_eq!(pace.items(i64::MAX), 4, "heavy ones");
        pace.saw([].into_iter());
        assert_eq!(pace.items(i64::MAX), 4, "an empty page says nothing");
        pace.saw([1024 * 1024].into_iter());
        assert_eq!(pace.items(i64::MAX), 1, "one at least");
    }
}
