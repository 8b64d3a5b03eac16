//! HTTP to servers elsewhere: [`Client`] implements the domain's `Outbound` port.
//!
//! **Invariant:** what a client of ours can aim goes through a guarded [`Client`], which connects
//! to public addresses and to those that an operator has opened, and to no other: the address is
//! checked that a connection is made to, not the name that was resolved to it before.

mod client;
mod guard;

pub use client::{Client, ClientError};
pub use guard::{AllowList, NotAHost, is_public};
