//! Who we are to the runtime: a static token, or an auth service that mints short-lived ones.
//!
//! **Invariant:** with an auth service the static token counts only where an explicit switch says
//! so.

use std::time::Duration;

use control_plane_runtime::MinterConfig;

use super::env::Env;

const DAY: i64 = 24 * 3600;

/// The auth service, if there is one. `RUNTIME_BEARER_TOKEN` itself is read with the runtime.
pub(super) fn read(env: &mut Env) -> Option<MinterConfig> {
    let has_token = env.text("RUNTIME_BEARER_TOKEN").is_some();
    let url = env.text("MACP_AUTH_SERVICE_URL");
    let timeout = env.millis("MACP_AUTH_SERVICE_TIMEOUT_MS", 100..=60_000, 5000);
    let ttl = env.integer("MACP_AUTH_TOKEN_TTL_SECONDS", 60..=DAY, 3600);
    let sender =
        env.text("MACP_AUTH_TOKEN_SENDER").unwrap_or_else(|| "macp-control-plane".to_owned());
    let can_manage_registry = env.flag("MACP_AUTH_TOKEN_CAN_MANAGE_REGISTRY", false);
    let fall_back = env.flag("MACP_AUTH_FALL_BACK_TO_BEARER_TOKEN", false);

    let Some(url) = url else {
        if !has_token {
            env.warn("RUNTIME_BEARER_TOKEN is not set: a runtime lets only a known observer in");
        }
        return None;
    };
    let parsed = url::Url::parse(&url).ok();
    let usable = parsed.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if !usable {
        // It may hold a password.
        env.secret_fault(
            "MACP_AUTH_SERVICE_URL",
            "must be an http or https URL without a user and a password",
        );
    }
    match (has_token, fall_back) {
        (true, false) => env.warn(
            "RUNTIME_BEARER_TOKEN is not used: tokens come from MACP_AUTH_SERVICE_URL, and \
             MACP_AUTH_FALL_BACK_TO_BEARER_TOKEN is off",
        ),
        (false, true) => env.warn(
            "MACP_AUTH_FALL_BACK_TO_BEARER_TOKEN has nothing to fall back on: \
             RUNTIME_BEARER_TOKEN is not set",
        ),
        (true, true) | (false, false) => {}
    }
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(3600));
    Some(MinterConfig { url, timeout, ttl, sender, can_manage_registry, fall_back })
}
