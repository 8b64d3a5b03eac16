//! The OpenAPI document, derived from the handlers.
//!
//! **Invariant:** it has the routes of [`crate::routes::ROUTES`], all of them and no others; a test
//! holds that.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::{
    admin, batch, compare, deletion, diagnosis, error, events, filing, health, launch, lifecycle,
    removed, replay, runs, runtime, stream, tickets,
};

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "MACP control plane",
        description = "Follows coordination sessions on a MACP runtime, records every envelope, and \
                       serves runs, their events and their state, afterwards and live."
    ),
    paths(
        health::healthz,
        health::readyz,
        health::metrics,
        health::openapi,
        runs::list,
        launch::launch,
        launch::validate,
        compare::compare,
        batch::cancel,
        batch::archive,
        batch::unarchive,
        batch::delete,
        runs::show,
        deletion::delete,
        lifecycle::cancel,
        lifecycle::suspend,
        lifecycle::resume,
        filing::clone,
        filing::archive,
        filing::unarchive,
        runs::state,
        events::of_run,
        stream::stream,
        replay::replay,
        stream::replay::stream,
        replay::state,
        runs::metrics,
        diagnosis::diagnosis,
        runs::artifacts,
        runs::rebuild,
        filing::messages,
        removed::messages,
        removed::signal,
        removed::context,
        events::feed,
        stream::feed::stream,
        tickets::create,
        runtime::manifest,
        runtime::modes,
        runtime::roots,
        runtime::health,
        admin::sessions::show,
        admin::breaker::reset,
        admin::breaker::history,
    ),
    components(schemas(error::ErrorBody)),
    security(("apiKey" = [])),
    modifiers(&Credentials),
    tags(
        (name = "runs", description = "Launching and reading runs"),
        (name = "events", description = "Their logs, as pages and as streams"),
        (name = "replay", description = "What was recorded, again"),
        (name = "runtime", description = "The runtime behind them"),
        (name = "operations", description = "Probes and figures"),
        (name = "admin", description = "For those who run it"),
    )
)]
pub(crate) struct Document;

/// How a client says who it is.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let ticket = ApiKey::Query(ApiKeyValue::new("ticket"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("apiKey", SecurityScheme::Http(scheme));
        components.add_security_scheme("ticket", SecurityScheme::ApiKey(ticket));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::{Access, ROUTES};

    /// `(METHOD, path, whether it needs a key)` of every operation.
    fn operations() -> BTreeSet<(String, String, bool)> {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut operations = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let public = operation["security"] == serde_json::json!([{}]);
                operations.insert((method.to_uppercase(), path.clone(), !public));
            }
        }
        operations
    }

    #[test]
    fn the_document_and_the_router_have_the_same_routes() {
        let routes: BTreeSet<_> = ROUTES
            .iter()
            .map(|entry| {
                (entry.method.to_string(), entry.path.to_owned(), entry.access != Access::Public)
            })
            .collect();
        assert_eq!(operations(), routes);
    }
}
