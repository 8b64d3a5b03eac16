//! The durable record of runs, on PostgreSQL and on SQLite.
//!
//! Usable without the rest of the system: open a [`Store`], page through a run's events
//! ([`Store::list_canonical_range`]) and envelopes ([`Store::list_raw_by_run`]), or follow its log
//! ([`Store::follow`]) or that of all runs ([`Store::follow_feed`]).
//!
//! **Invariant:** this is the only crate that names diesel. A query is written once (`queries/`)
//! and compiled against each database; what truly differs is in the databases' own modules.
//!
//! ```no_run
//! use control_plane_storage::{Access, Config, DatabaseUrl, Store};
//!
//! # async fn example() -> Result<(), control_plane_storage::Error> {
//! let url = DatabaseUrl::parse("sqlite://data/control-plane.db")?;
//! // Reading beside a running server.
//! let store = Store::connect(&Config { access: Access::Read, ..Config::new(url) })?;
//! let run = store.run_find("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").await?;
//! let envelopes = store.list_raw_by_run(run.id, 0, 100).await?;
//! let events = store.list_canonical_range(run.id, 0, 100).await?;
//! assert!(envelopes.len() <= events.len());
//!
//! let mut follower = store.follow(run.id, 0);
//! while follower.cursor() < run.last_seq {
//!     for event in follower.next(100).await? {
//!         println!("{} {}", event.seq, event.event_type);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![expect(clippy::duplicate_mod, reason = "a query is written once, compiled for each database")]

#[macro_use]
mod ask;
mod append;
mod config;
mod deletion;
mod diagnosis;
mod discovery;
mod duties;
mod error;
mod feed;
mod filing;
mod like;
mod loading;
pub mod model;
mod news;
mod ownership;
mod postgres;
mod signals;
mod snapshots;
mod sqlite;
mod store;
mod tail;
mod tickets;
mod types;

pub use config::{Access, Config, DatabaseUrl, Synchronous, TailLimits};
pub use diagnosis::{Owner, Ownership};
pub use discovery::{ActiveSession, Adopted, Adoption, KnownSessions};
pub use duties::Duty;
pub use error::{Entity, Error, Result};
pub use feed::{FeedBounds, FeedFilter, FeedFollower, FeedPage};
pub use filing::ARCHIVED_TAG;
pub use loading::{LoadedRun, Recorded};
pub use model::Head;
pub use news::Knock;
pub use ownership::Census;
pub use signals::{About, NewSignal, SIGNAL, SignalGap, SignalNews, SignalWatch, SignalsDone};
pub use store::Store;
pub use tail::{Follower, KeptEntry, TailEntry};
pub use tickets::{Ticket, TicketHash};
