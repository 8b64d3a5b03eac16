//! What a run is: ids, states, canonical events, and how an envelope becomes them.
//!
//! **Invariant:** no I/O and no clock of its own. Everything here is a value or a total function
//! over values, so every rule can be tested as a table, and nothing an agent sends can make it fail.

pub mod breaker;
pub mod clock;
pub mod commitment;
pub mod control;
pub mod descriptor;
pub mod envelope;
pub mod event;
pub mod evidence;
pub mod id;
pub mod jcs;
mod masked;
pub mod metrics;
pub mod normalize;
pub mod outbound;
pub mod outcome;
pub mod payload;
pub mod receipt;
pub mod rollup;
pub mod run;
pub mod runtime;
pub mod session;
pub mod time;
pub mod trace;

pub use clock::{Clock, SystemClock};
pub use descriptor::RunDescriptor;
pub use envelope::Envelope;
pub use event::{CanonicalEvent, EventDraft, EventType};
pub use id::{EventId, Ordinal, Position, RunId, Seq, SessionId};
pub use masked::Masked;
pub use run::{Run, RunState};
pub use session::{Session, SessionState};
pub use time::Timestamp;
pub use trace::{RunTrace, TraceContext};
