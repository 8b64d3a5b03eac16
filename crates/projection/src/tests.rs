//! The fold, tested on logs made the way real ones are: by the normalizer, from envelopes.

mod kept;
mod lifecycle;
mod modes;
mod property;
pub(crate) mod support;
