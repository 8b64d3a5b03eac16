//! The HTTP API: routes, views, API keys, event streams and the OpenAPI document.
//!
//! **Invariant:** it asks [`control_plane_storage::Store`] and the engine, and decides nothing that
//! changes a run by itself. It names no database and no gRPC.

pub mod auth;

mod admin;
mod batch;
mod body;
mod compare;
mod context;
mod deletion;
mod diagnosis;
mod edge;
mod error;
mod events;
mod filing;
mod health;
mod launch;
mod lifecycle;
mod openapi;
mod process;
mod query;
mod removed;
mod replay;
mod routes;
mod runs;
mod runtime;
mod server;
mod stream;
mod tickets;
mod views;

pub use context::{ApiContext, Parts, Settings};
pub use routes::configure;
pub use server::server;
