//! The fold of a run's canonical events into its state and its figures (spec 6 and 11.8).
//!
//! **Invariant:** state is a function of the log. Any split of a log into batches, with the state
//! written to a row and read back in between, gives the same state, and an event that is already
//! folded changes nothing; so a snapshot is never more than a shortcut.

mod fold;
mod keyed;
mod metrics;
mod price;
mod projection;
mod read;
mod sections;
pub mod state;
#[cfg(test)]
mod tests;
mod threshold;

pub use keyed::{Keyed, KeyedList};
pub use metrics::apply as apply_metrics;
pub use price::{Price, PriceTable};
pub use projection::{Projection, SNAPSHOT_DISTANCE};
pub use sections::{
    Anomaly, CommitmentEvaluation, Contribution, Decision, Divergence, Edge, Finding, Graph,
    HistoryGap, Llm, LlmCall, LlmTotals, Node, OutboundMessages, Participant, Policy, Progress,
    ProgressEntry, Quorum, RunSummary, Signal, Signals, Status, Supersedes, Timeline,
    TimelineEntry, Trace, Vote, VoteTally,
};
