//! What only an admin's key may see or do.

pub(crate) mod breaker;
pub(crate) mod sessions;
