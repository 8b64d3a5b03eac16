//! Server streams as streams of our own values.
//!
//! **Invariant:** an error is the last item. Dropping the stream ends it at the runtime, closes
//! our sending side and gives the slot back; while it lives, our sending side stays open, because
//! closing it stops the live feed.

use control_plane_domain::runtime::RuntimeError;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::oneshot;
use tonic::Streaming;

use crate::error;
use crate::pool::Slot;

/// What an open stream keeps alive.
pub(crate) struct Hold {
    /// The sending side; `None` where the call has none.
    #[expect(dead_code, reason = "held, so that the sending side stays open")]
    pub(crate) open: Option<oneshot::Sender<()>>,
    #[expect(dead_code, reason = "held, so that it is given back with the stream")]
    pub(crate) slot: Slot,
    pub(crate) address: String,
    pub(crate) method: &'static str,
}

struct State<Wire, Map> {
    streaming: Streaming<Wire>,
    map: Map,
    hold: Hold,
}

/// Reads `streaming` to its end; `map` skips with `None`.
pub(crate) fn adapt<Wire, Item, Map>(
    streaming: Streaming<Wire>,
    hold: Hold,
    map: Map,
) -> BoxStream<'static, Result<Item, RuntimeError>>
where
    Wire: Send + 'static,
    Item: Send + 'static,
    Map: FnMut(Wire) -> Option<Result<Item, RuntimeError>> + Send + 'static,
{
    unfold(Some(State { streaming, map, hold }), |state| async move {
        let mut state = state?;
        loop {
            match state.streaming.message().await {
                Ok(Some(wire)) => match (state.map)(wire) {
                    None => {}
                    Some(Ok(item)) => return Some((Ok(item), Some(state))),
                    Some(Err(error)) => return Some((Err(error), None)),
                },
                Ok(None) => return None,
                Err(status) => {
                    let Hold { address, method, .. } = &state.hold;
                    return Some((Err(error::from_status(address, method, &status)), None));
                }
            }
        }
    })
    .boxed()
}
