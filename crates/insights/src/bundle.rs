//! A run to take along: one file with everything that is recorded of it, which proves itself.
//!
//! **Invariant:** a bundle is whole or visibly is not, and what it says is one point in time. Its
//! last part, the manifest, has a hash of every other part, so a changed byte is found anywhere.

pub mod export;
pub mod format;
pub mod read;
pub mod record;
mod scan;
mod unpack;
pub mod verify;
pub mod write;

pub use unpack::unpacked;
