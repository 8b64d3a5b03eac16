//! What these tests share: reading streams with a deadline.

use std::time::Duration;

use control_plane_domain::Envelope;
use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use futures_core::stream::BoxStream;
use futures_util::StreamExt;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A stream as the client gives it.
pub(crate) type Items<T> = BoxStream<'static, Result<T, RuntimeError>>;

/// The next item, which must come.
pub(crate) async fn next<T>(stream: &mut Items<T>) -> Result<T, RuntimeError> {
    let item = tokio::time::timeout(DEADLINE, stream.next()).await.expect("an item in time");
    item.expect("the stream goes on")
}

/// The stream's end, which must come without an error.
pub(crate) async fn ended<T>(stream: &mut Items<T>) -> bool {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("an end in time").is_none()
}

/// The message ids of the next `count` envelopes.
pub(crate) async fn ids(stream: &mut Items<Envelope>, count: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(next(stream).await.expect("an envelope").message_id);
    }
    ids
}

/// Why the stream's first item is an error.
pub(crate) async fn refusal<T: std::fmt::Debug>(stream: &mut Items<T>) -> RuntimeErrorKind {
    next(stream).await.expect_err("a refusal").kind
}
