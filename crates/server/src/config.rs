//! Configuration, from the environment alone (spec 10).
//!
//! **Invariant:** it is read and checked as a whole before anything starts: every fault is reported
//! at once, with the variable's name and, unless it is a secret, its value.

mod credentials;
mod env;
mod prices;
mod telemetry;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control_plane_http::Settings;
use control_plane_http::auth::ApiKeys;
use control_plane_outbound::AllowList;
use control_plane_runtime::MinterConfig;
use control_plane_storage::{Config as StorageConfig, DatabaseUrl, Synchronous};

use crate::logging::{self, Format, LogConfig};
use crate::telemetry::TelemetryConfig;
use env::Env;

/// Everything that can be set.
pub(crate) struct Config {
    pub(crate) log: LogConfig,
    pub(crate) host: IpAddr,
    pub(crate) port: u16,
    pub(crate) workers: usize,
    pub(crate) http: Settings,
    pub(crate) keys: ApiKeys,
    pub(crate) database: StorageConfig,
    /// Whether to migrate at start.
    pub(crate) auto_migrate: bool,
    pub(crate) runtime: control_plane_runtime::Config,
    /// Where the runtime's tokens come from, if not from the configuration.
    pub(crate) minter: Option<MinterConfig>,
    /// Which hosts clients may aim calls at besides those of the internet.
    pub(crate) outbound: AllowList,
    pub(crate) engine: control_plane_recovery::Config,
    /// Where spans go, if anywhere.
    pub(crate) telemetry: Option<TelemetryConfig>,
}

/// What is wrong with the environment.
#[derive(Debug)]
pub(crate) struct Faults(Vec<String>);

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration is not usable:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl std::error::Error for Faults {}

/// For whom the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    Development,
    Production,
}

impl Config {
    /// Reads and checks everything; the second part are warnings.
    pub(crate) fn read(
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<String>), Faults> {
        let mut env = Env::new(lookup);
        let environment = read_environment(&mut env);
        let (host, port, workers) = read_listener(&mut env, environment);
        let (database, auto_migrate) = read_database(&mut env, environment);
        let config = Self {
            log: read_log(&mut env, environment),
            host,
            port,
            workers,
            http: read_http(&mut env),
            keys: read_keys(&mut env, environment),
            database,
            auto_migrate,
            runtime: read_runtime(&mut env, environment),
            minter: credentials::read(&mut env),
            outbound: read_outbound(&mut env),
            engine: read_engine(&mut env),
            telemetry: telemetry::read(&mut env),
        };
        let (faults, warnings) = env.finish();
        if faults.is_empty() { Ok((config, warnings)) } else { Err(Faults(faults)) }
    }
}

/// `APP_ENV`; `NODE_ENV` where that is all there is, and there anything but development is
/// production. Nothing at all is production: no anonymous access by accident.
fn read_environment(env: &mut Env) -> Environment {
    let words =
        [("development", Environment::Development), ("production", Environment::Production)];
    if let Some(environment) = env.choice("APP_ENV", &words) {
        return environment;
    }
    match env.text("NODE_ENV").as_deref() {
        Some("development") => Environment::Development,
        Some(_) | None => Environment::Production,
    }
}

fn read_log(env: &mut Env, environment: Environment) -> LogConfig {
    let filter = env.text("LOG_LEVEL").unwrap_or_else(|| "info".to_owned());
    if logging::parse(&filter).is_err() {
        env.fault("LOG_LEVEL", &filter, "must be error, warn, info, debug, trace or directives");
    }
    let format = match environment {
        Environment::Development => Format::Readable,
        Environment::Production => Format::Json,
    };
    LogConfig { filter, format }
}

fn read_listener(env: &mut Env, environment: Environment) -> (IpAddr, u16, usize) {
    let default = match environment {
        Environment::Development => IpAddr::from([127, 0, 0, 1]),
        Environment::Production => IpAddr::from([0, 0, 0, 0]),
    };
    let host = match env.text("HOST").as_deref() {
        None => default,
        Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(text) => text.parse().unwrap_or_else(|_| {
            env.fault("HOST", text, "must be an IP address");
            default
        }),
    };
    let port = u16::try_from(env.integer("PORT", 0..=65_535, 3001)).unwrap_or_default();
    let workers = usize::try_from(env.integer("HTTP_WORKERS", 1..=64, 2)).unwrap_or(2);
    (host, port, workers)
}

fn read_http(env: &mut Env) -> Settings {
    let origins = env.list("CORS_ORIGIN");
    for origin in &origins {
        let plain = origin == "*"
            || url::Url::parse(origin)
                .is_ok_and(|url| url.has_host() && url.origin().ascii_serialization() == *origin);
        if !plain {
            env.fault("CORS_ORIGIN", origin, "must be an origin such as http://localhost:3000");
        }
    }
    let kind = env.text("RUNTIME_KIND").unwrap_or_else(|| "rust".to_owned());
    if kind != "rust" {
        env.fault("RUNTIME_KIND", &kind, "must be rust: it is the only provider");
    }
    let default = Settings::default();
    Settings {
        runtime_kind: kind,
        cors_origins: if origins.is_empty() { default.cors_origins } else { origins },
        heartbeat: env.millis("STREAM_SSE_HEARTBEAT_MS", 1000..=45_000, 15_000),
        replay_max_delay: env.millis("REPLAY_MAX_DELAY_MS", 0..=600_000, 2000),
        stream_max_age: env.millis("STREAM_MAX_AGE_MS", 1000..=86_400_000, 1_800_000),
        max_streams: count(env, "STREAM_MAX_CONNECTIONS", default.max_streams),
        max_streams_per_key: count(
            env,
            "STREAM_MAX_CONNECTIONS_PER_KEY",
            default.max_streams_per_key,
        ),
        stall_timeout: env.millis("STREAM_STALL_TIMEOUT_MS", 1000..=600_000, 30_000),
        ticket_renewal: default.ticket_renewal,
        artifact_max_bytes: bytes(env, "ARTIFACT_MAX_BYTES", default.artifact_max_bytes),
        import_max_bytes: env
            .integer("IMPORT_MAX_BYTES", 1024..=1_099_511_627_776, 1_073_741_824)
            .unsigned_abs(),
    }
}

fn count(env: &mut Env, name: &str, default: usize) -> usize {
    let number = env.integer(name, 1..=1_000_000, i64::try_from(default).unwrap_or(i64::MAX));
    usize::try_from(number).unwrap_or(default)
}

/// At most what a request's body may have.
fn bytes(env: &mut Env, name: &str, default: usize) -> usize {
    let number = env.integer(name, 1024..=1_000_000, i64::try_from(default).unwrap_or(i64::MAX));
    usize::try_from(number).unwrap_or(default)
}

fn read_keys(env: &mut Env, environment: Environment) -> ApiKeys {
    let text = env.text("AUTH_API_KEYS").unwrap_or_default();
    let keys = match ApiKeys::parse(&text) {
        Ok(keys) => keys,
        Err(faults) => {
            for fault in faults {
                env.secret_fault("AUTH_API_KEYS", &fault);
            }
            return ApiKeys::default();
        }
    };
    if keys.is_empty() && environment == Environment::Production {
        env.secret_fault(
            "AUTH_API_KEYS",
            "must hold at least one key (APP_ENV=development works without)",
        );
    }
    keys
}

fn read_database(env: &mut Env, environment: Environment) -> (StorageConfig, bool) {
    let default = "sqlite://data/control-plane.db";
    let text = env.text("DATABASE_URL").unwrap_or_else(|| default.to_owned());
    let url = DatabaseUrl::parse(&text).unwrap_or_else(|fault| {
        // It may hold a password.
        env.secret_fault("DATABASE_URL", &fault.to_string());
        DatabaseUrl::Sqlite(PathBuf::from(default))
    });
    let defaults = StorageConfig::new(url);
    let pool_max = env.integer("DB_POOL_MAX", 1..=1000, 20);
    if pool_max < 2 && environment == Environment::Production {
        env.fault("DB_POOL_MAX", &pool_max.to_string(), "must be at least 2 in production");
    }
    let synchronous = env.choice(
        "DATABASE_SQLITE_SYNCHRONOUS",
        &[("full", Synchronous::Full), ("normal", Synchronous::Normal)],
    );
    let config = StorageConfig {
        pool_max: usize::try_from(pool_max).unwrap_or(defaults.pool_max),
        pool_timeout: env.millis("DB_POOL_CONNECTION_TIMEOUT", 100..=60_000, 5000),
        synchronous: synchronous.unwrap_or(defaults.synchronous),
        ..defaults
    };
    (config, env.flag("AUTO_MIGRATE", true))
}

fn read_runtime(env: &mut Env, environment: Environment) -> control_plane_runtime::Config {
    let address = env.text("RUNTIME_ADDRESS").unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let ca_file = env.text("RUNTIME_TLS_CA_FILE").map(PathBuf::from);
    let tls = env.flag("RUNTIME_TLS", false) || address.starts_with("https://");
    let insecure = env.flag("RUNTIME_ALLOW_INSECURE", environment == Environment::Development);
    if !tls && !insecure {
        env.fault(
            "RUNTIME_TLS",
            "false",
            "must be true, or RUNTIME_ALLOW_INSECURE=true must allow plain connections",
        );
    }
    if !tls && ca_file.is_some() {
        env.warn("RUNTIME_TLS_CA_FILE is not used: RUNTIME_TLS is off");
    }
    let token = env.text("RUNTIME_BEARER_TOKEN");
    let request_timeout = env.millis("RUNTIME_REQUEST_TIMEOUT_MS", 100..=600_000, 30_000);
    if request_timeout < Duration::from_secs(5) {
        env.warn("RUNTIME_REQUEST_TIMEOUT_MS is below 5000: slow answers count as outages");
    }
    let streams = env.integer("RUNTIME_MAX_STREAMS_PER_CONNECTION", 1..=128, 100);
    let mut config = control_plane_runtime::Config::new(address);
    config.tls = tls.then_some(control_plane_runtime::Tls { ca_file });
    config.bearer_token = token.map(control_plane_runtime::Secret::new);
    config.request_timeout = request_timeout;
    config.max_streams_per_connection = usize::try_from(streams).unwrap_or(100);
    let failures = env.integer("RUNTIME_CIRCUIT_BREAKER_THRESHOLD", 1..=1_000_000, 5);
    config.breaker_threshold = u32::try_from(failures).unwrap_or(5);
    config.breaker_cool_down =
        env.millis("RUNTIME_CIRCUIT_BREAKER_RESET_MS", 1..=3_600_000, 30_000);
    config
}

fn read_outbound(env: &mut Env) -> AllowList {
    let hosts = env.list("OUTBOUND_ALLOWED_HOSTS");
    AllowList::parse(&hosts).unwrap_or_else(|error| {
        env.fault("OUTBOUND_ALLOWED_HOSTS", &hosts.join(","), &error.to_string());
        AllowList::default()
    })
}

fn read_engine(env: &mut Env) -> control_plane_recovery::Config {
    let base = env.millis("STREAM_BACKOFF_BASE_MS", 1..=600_000, 250);
    let max = env.millis("STREAM_BACKOFF_MAX_MS", 1..=3_600_000, 30_000);
    if max < base {
        let value = max.as_millis().to_string();
        env.fault("STREAM_BACKOFF_MAX_MS", &value, "must not be below STREAM_BACKOFF_BASE_MS");
    }
    control_plane_recovery::Config {
        recovery_enabled: env.flag("RUN_RECOVERY_ENABLED", true),
        discovery_enabled: env.flag("SESSION_DISCOVERY_ENABLED", true),
        session_wait: env.millis("SESSION_POLL_TIMEOUT_MS", 1..=86_400_000, 60_000),
        stream_idle: env.millis("STREAM_IDLE_TIMEOUT_MS", 1000..=86_400_000, 120_000),
        max_retries: u32::try_from(env.integer("STREAM_MAX_RETRIES", 0..=1_000_000, 0))
            .unwrap_or_default(),
        backoff_base: base,
        backoff_max: max,
        signal_hold: env.millis("SIGNAL_HOLD_MS", 1000..=86_400_000, 600_000),
        signal_hold_max: u32::try_from(env.integer("SIGNAL_HOLD_MAX", 0..=1_000_000, 10_000))
            .unwrap_or_default(),
        prices: Arc::new(prices::read(env)),
        callback_timeout: env.millis("CANCEL_CALLBACK_TIMEOUT_MS", 100..=60_000, 5000),
        ..control_plane_recovery::Config::default()
    }
}

#[cfg(test)]
mod tests;
