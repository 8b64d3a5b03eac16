//! The connections that carry streams.
//!
//! **Invariant:** no connection carries more than its capacity of streams: the runtime lets one
//! above its limit wait for ever. A slot is taken before a stream opens and given back when the
//! stream is dropped, whatever way it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::transport::{Channel, Endpoint};

const ACTIVE_STREAMS: &str = "active_runtime_streams";

/// A growing and shrinking set of lazily connected channels.
pub(crate) struct Pool {
    endpoint: Endpoint,
    capacity: usize,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    list: Vec<Connection>,
    next_id: u64,
}

struct Connection {
    id: u64,
    channel: Channel,
    streams: usize,
    /// Takes no more streams, and goes with its last one.
    retired: bool,
}

/// The right to one stream on one connection.
pub(crate) struct Slot {
    pool: Arc<Pool>,
    connection: u64,
    channel: Channel,
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, capacity: usize) -> Arc<Self> {
        Arc::new(Self { endpoint, capacity, connections: Mutex::default() })
    }

    /// A slot on the first connection with room, so that the later ones empty and go.
    pub(crate) fn acquire(self: &Arc<Self>) -> Slot {
        let mut connections = self.lock();
        let free = connections
            .list
            .iter_mut()
            .find(|connection| !connection.retired && connection.streams < self.capacity);
        let (connection, channel) = match free {
            Some(connection) => {
                connection.streams += 1;
                (connection.id, connection.channel.clone())
            }
            None => {
                let id = connections.next_id;
                connections.next_id += 1;
                let channel = self.endpoint.connect_lazy();
                let clone = channel.clone();
                connections.list.push(Connection { id, channel, streams: 1, retired: false });
                (id, clone)
            }
        };
        metrics::gauge!(ACTIVE_STREAMS).increment(1.0);
        Slot { pool: Arc::clone(self), connection, channel }
    }

    fn release(&self, id: u64) {
        metrics::gauge!(ACTIVE_STREAMS).decrement(1.0);
        let mut connections = self.lock();
        let Some(at) = connections.list.iter().position(|connection| connection.id == id) else {
            return;
        };
        let several = connections.list.len() > 1;
        let Some(connection) = connections.list.get_mut(at) else { return };
        connection.streams = connection.streams.saturating_sub(1);
        // One idle connection stays, so that a lone stream need not connect each time.
        if connection.streams == 0 && (several || connection.retired) {
            connections.list.remove(at);
        }
    }

    fn retire(&self, id: u64) {
        let mut connections = self.lock();
        if let Some(connection) = connections.list.iter_mut().find(|found| found.id == id) {
            connection.retired = true;
        }
    }

    /// Every change is done under the lock in one step, so a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Streams per connection.
    #[cfg(test)]
    fn load(&self) -> Vec<usize> {
        self.lock().list.iter().map(|connection| connection.streams).collect()
    }
}

impl Slot {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A stream did not open here in time: the connection hangs, or the runtime allows fewer
    /// streams than we think. The next ones go elsewhere.
    pub(crate) fn retire_connection(&self) {
        self.pool.retire(self.connection);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.release(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(capacity: usize) -> Arc<Pool> {
        Pool::new(Endpoint::from_static("http://127.0.0.1:1"), capacity)
    }

    #[tokio::test]
    async fn a_connection_never_carries_more_than_its_capacity() {
        let pool = pool(3);
        let slots: Vec<_> = (0..8).map(|_| pool.acquire()).collect();
        assert_eq!(pool.load(), [3, 3, 2]);
        drop(slots);
    }

    #[tokio::test]
    async fn empty_connections_go_and_one_stays() {
        let pool = pool(1);
        let slots: Vec<_> = (0..4).map(|_| pool.acquire()).collect();

        drop(slots);

        assert_eq!(pool.load(), [0]);
    }

    #[tokio::test]
    async fn a_freed_slot_is_used_again() {
        let pool = pool(2);
        let mut slots: Vec<_> = (0..4).map(|_| pool.acquire()).collect();

        slots.remove(0);
        assert_eq!(pool.load(), [1, 2]);
        slots.push(pool.acquire());

        assert_eq!(pool.load(), [2, 2]);
    }

    #[tokio::test]
    async fn a_retired_connection_takes_no_more_streams() {
        let pool = pool(4);
        let first = pool.acquire();
        first.retire_connection();

        let second = pool.acquire();
        assert_eq!(pool.load(), [1, 1]);
        drop(first);

        assert_eq!(pool.load(), [1]);
        drop(second);
    }
}
