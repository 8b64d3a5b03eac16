//! Every route, in one table.
//!
//! **Invariant:** the application is built from this table and the OpenAPI document is held against
//! it, so neither can have a route that the other lacks.

use std::collections::BTreeSet;

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, Resource, Route, web};

use crate::error::ApiError;
use crate::{
    admin, auth, batch, body, compare, deletion, diagnosis, events, filing, health, launch,
    lifecycle, removed, replay, runs, runtime, stream, tickets,
};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody: probes, scrapers and the document.
    Public,
    /// Whoever has an API key; one that may only read has to use `GET`.
    Key,
    /// Whoever has an API key, one that may only read too, whatever the method.
    AnyKey,
    /// Whoever has an admin's API key.
    Admin,
    /// Whoever has an API key, or a ticket for the run that the path's `{id}` names.
    KeyOrTicket,
}

/// A route: where it is, and what makes its handler.
pub(crate) struct Entry {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    route: fn() -> Route,
}

const fn get(path: &'static str, access: Access, route: fn() -> Route) -> Entry {
    Entry { method: Method::GET, path, access, route }
}

const fn post(path: &'static str, route: fn() -> Route) -> Entry {
    post_by(path, Access::Key, route)
}

const fn post_by(path: &'static str, access: Access, route: fn() -> Route) -> Entry {
    Entry { method: Method::POST, path, access, route }
}

const fn delete(path: &'static str, route: fn() -> Route) -> Entry {
    Entry { method: Method::DELETE, path, access: Access::Key, route }
}

/// The table. A fixed path stands before a pattern that would take it too.
pub(crate) const ROUTES: &[Entry] = &[
    get("/healthz", Access::Public, || web::get().to(health::healthz)),
    get("/readyz", Access::Public, || web::get().to(health::readyz)),
    get("/metrics", Access::Public, || web::get().to(health::metrics)),
    get("/openapi.json", Access::Public, || web::get().to(health::openapi)),
    get("/runs", Access::Key, || web::get().to(runs::list)),
    post("/runs", || web::post().to(launch::launch)),
    post("/runs/validate", || web::post().to(launch::validate)),
    post_by("/runs/compare", Access::AnyKey, || web::post().to(compare::compare)),
    post("/runs/batch/cancel", || web::post().to(batch::cancel)),
    post("/runs/batch/archive", || web::post().to(batch::archive)),
    post("/runs/batch/unarchive", || web::post().to(batch::unarchive)),
    post_by("/runs/batch/delete", Access::Admin, || web::post().to(batch::delete)),
    get("/runs/{id}", Access::Key, || web::get().to(runs::show)),
    delete("/runs/{id}", || web::delete().to(deletion::delete)),
    post("/runs/{id}/cancel", || web::post().to(lifecycle::cancel)),
    post("/runs/{id}/suspend", || web::post().to(lifecycle::suspend)),
    post("/runs/{id}/resume", || web::post().to(lifecycle::resume)),
    post("/runs/{id}/clone", || web::post().to(filing::clone)),
    post("/runs/{id}/archive", || web::post().to(filing::archive)),
    post("/runs/{id}/unarchive", || web::post().to(filing::unarchive)),
    get("/runs/{id}/state", Access::Key, || web::get().to(runs::state)),
    get("/runs/{id}/events", Access::Key, || web::get().to(events::of_run)),
    get("/runs/{id}/stream", Access::KeyOrTicket, || web::get().to(stream::stream)),
    post_by("/runs/{id}/replay", Access::AnyKey, || web::post().to(replay::replay)),
    get("/runs/{id}/replay/stream", Access::KeyOrTicket, || web::get().to(stream::replay::stream)),
    get("/runs/{id}/replay/state", Access::Key, || web::get().to(replay::state)),
    get("/runs/{id}/metrics", Access::Key, || web::get().to(runs::metrics)),
    get("/runs/{id}/diagnosis", Access::Key, || web::get().to(diagnosis::diagnosis)),
    get("/runs/{id}/artifacts", Access::Key, || web::get().to(runs::artifacts)),
    post("/runs/{id}/projection/rebuild", || web::post().to(runs::rebuild)),
    get("/runs/{id}/messages", Access::Key, || web::get().to(filing::messages)),
    post("/runs/{id}/messages", || web::post().to(removed::messages)),
    post("/runs/{id}/signal", || web::post().to(removed::signal)),
    post("/runs/{id}/context", || web::post().to(removed::context)),
    post_by("/stream-tickets", Access::AnyKey, || web::post().to(tickets::create)),
    get("/events", Access::Key, || web::get().to(events::feed)),
    get("/events/stream", Access::Key, || web::get().to(stream::feed::stream)),
    get("/runtime/manifest", Access::Key, || web::get().to(runtime::manifest)),
    get("/runtime/modes", Access::Key, || web::get().to(runtime::modes)),
    get("/runtime/roots", Access::Key, || web::get().to(runtime::roots)),
    get("/runtime/health", Access::Key, || web::get().to(runtime::health)),
    get("/admin/runtime/sessions", Access::Admin, || web::get().to(admin::sessions::show)),
    post_by("/admin/circuit-breaker/reset", Access::Admin, || {
        web::post().to(admin::breaker::reset)
    }),
    get("/admin/circuit-breaker/history", Access::Admin, || web::get().to(admin::breaker::history)),
];

/// Puts the table into an application.
pub fn configure(config: &mut web::ServiceConfig) {
    let mut done = BTreeSet::new();
    for entry in ROUTES {
        if done.insert(entry.path) {
            register(config, entry.path, entry.access);
        }
    }
    config.app_data(web::PayloadConfig::new(body::MAX_BYTES));
    config.default_service(web::to(no_such_route));
}

fn register(config: &mut web::ServiceConfig, path: &'static str, access: Access) {
    let mut resource: Resource = web::resource(path);
    for entry in ROUTES.iter().filter(|entry| entry.path == path) {
        resource = resource.route((entry.route)());
    }
    let resource = resource.default_service(web::to(wrong_method));
    match access {
        Access::Public => config.service(resource),
        Access::Key => config.service(resource.wrap(from_fn(auth::key))),
        Access::AnyKey => config.service(resource.wrap(from_fn(auth::any_key))),
        Access::Admin => config.service(resource.wrap(from_fn(auth::admin))),
        Access::KeyOrTicket => config.service(resource.wrap(from_fn(auth::key_or_ticket))),
    };
}

async fn no_such_route(request: HttpRequest) -> Result<String, ApiError> {
    Err(ApiError::NoSuchRoute {
        method: request.method().to_string(),
        path: request.path().to_owned(),
    })
}

async fn wrong_method(request: HttpRequest) -> Result<String, ApiError> {
    let pattern = request.match_pattern().unwrap_or_default();
    let allowed: Vec<&str> = ROUTES
        .iter()
        .filter(|entry| entry.path == pattern)
        .map(|entry| entry.method.as_str())
        .collect();
    Err(ApiError::MethodNotAllowed {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        allowed: allowed.join(", "),
    })
}
