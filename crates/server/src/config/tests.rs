//! Defaults, rules and faults of the configuration.

use super::*;

/// Reads exactly these variables.
fn read(variables: &[(&str, &str)]) -> Result<(Config, Vec<String>), Vec<String>> {
    let lookup = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::read(lookup).map_err(|Faults(faults)| faults)
}

fn faults(variables: &[(&str, &str)]) -> Vec<String> {
    read(variables).err().unwrap_or_else(|| panic!("taken: {variables:?}"))
}

const DEVELOPMENT: (&str, &str) = ("APP_ENV", "development");

#[test]
fn development_needs_nothing_else() {
    let Ok((config, _)) = read(&[DEVELOPMENT]) else { panic!("refused") };
    assert_eq!(
        (config.host.to_string().as_str(), config.port, config.workers),
        ("127.0.0.1", 3001, 2)
    );
    assert!(config.keys.is_empty() && config.auto_migrate);
    assert_eq!(config.log, LogConfig { filter: "info".into(), format: Format::Readable });
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("data/control-plane.db".into()));
    assert_eq!(config.runtime.address, "127.0.0.1:50051");
    assert_eq!(config.engine.max_retries, 0);
}

#[test]
fn an_environment_that_says_nothing_is_production() {
    let faults = faults(&[]);
    assert!(faults.iter().any(|fault| fault.starts_with("AUTH_API_KEYS")), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.starts_with("RUNTIME_TLS")), "{faults:?}");
}

#[test]
fn production_works_with_keys_and_a_word_on_tls() {
    for tls in [
        ("RUNTIME_TLS", "true"),
        ("RUNTIME_ALLOW_INSECURE", "true"),
        ("RUNTIME_ADDRESS", "https://runtime:50051"),
    ] {
        let Ok((config, warnings)) = read(&[("AUTH_API_KEYS", "k"), tls]) else {
            panic!("refused: {tls:?}")
        };
        assert_eq!(config.host.to_string(), "0.0.0.0");
        assert_eq!(config.log.format, Format::Json);
        assert!(warnings.iter().any(|warning| warning.contains("RUNTIME_BEARER_TOKEN")));
    }
}

#[test]
fn node_env_is_read_where_app_env_is_not_set() {
    assert!(read(&[("NODE_ENV", "development")]).is_ok());
    assert!(read(&[("NODE_ENV", "test")]).is_err());
    assert!(read(&[("NODE_ENV", "development"), ("APP_ENV", "production")]).is_err());
}

#[test]
fn every_fault_is_reported_at_once_with_its_value() {
    let faults = faults(&[
        DEVELOPMENT,
        ("PORT", "99999"),
        ("HOST", "nowhere"),
        ("LOG_LEVEL", "a=b=c"),
        ("AUTO_MIGRATE", "maybe"),
        ("DB_POOL_MAX", "many"),
        ("DATABASE_SQLITE_SYNCHRONOUS", "off"),
        ("STREAM_SSE_HEARTBEAT_MS", "10"),
        ("REPLAY_MAX_DELAY_MS", "-1"),
        ("STREAM_MAX_CONNECTIONS", "0"),
        ("STREAM_STALL_TIMEOUT_MS", "999"),
        ("IMPORT_MAX_BYTES", "10"),
        ("STREAM_BACKOFF_BASE_MS", "500"),
        ("STREAM_BACKOFF_MAX_MS", "400"),
        ("CORS_ORIGIN", "http://a.example/path"),
        ("RUNTIME_KIND", "java"),
        ("RUNTIME_CIRCUIT_BREAKER_THRESHOLD", "0"),
        ("RUNTIME_CIRCUIT_BREAKER_RESET_MS", "0"),
    ]);
    for expected in [
        "PORT=\"99999\"",
        "HOST=\"nowhere\"",
        "LOG_LEVEL=\"a=b=c\"",
        "AUTO_MIGRATE=\"maybe\"",
        "DB_POOL_MAX=\"many\"",
        "DATABASE_SQLITE_SYNCHRONOUS=\"off\"",
        "STREAM_SSE_HEARTBEAT_MS=\"10\"",
        "REPLAY_MAX_DELAY_MS=\"-1\"",
        "STREAM_MAX_CONNECTIONS=\"0\"",
        "STREAM_STALL_TIMEOUT_MS=\"999\"",
        "IMPORT_MAX_BYTES=\"10\"",
        "STREAM_BACKOFF_MAX_MS=\"400\"",
        "CORS_ORIGIN=\"http://a.example/path\"",
        "RUNTIME_KIND=\"java\"",
        "RUNTIME_CIRCUIT_BREAKER_THRESHOLD=\"0\"",
        "RUNTIME_CIRCUIT_BREAKER_RESET_MS=\"0\"",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
    }
    assert_eq!(faults.len(), 16, "{faults:#?}");
}

#[test]
fn no_fault_shows_a_secret() {
    let faults = faults(&[
        DEVELOPMENT,
        ("DATABASE_URL", "mysql://root:hunter2@host/db"),
        ("AUTH_API_KEYS", "ops:boss:hunter2"),
    ]);
    assert_eq!(faults.len(), 2);
    assert!(!faults.join("\n").contains("hunter2"), "{faults:?}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let Ok((config, _)) = read(&[DEVELOPMENT, ("PORT", ""), ("AUTH_API_KEYS", " ")]) else {
        panic!("refused")
    };
    assert_eq!(config.port, 3001);
    assert!(config.keys.is_empty());
}

#[test]
fn what_is_set_arrives() {
    let Ok((config, _)) = read(&[
        DEVELOPMENT,
        ("PORT", "0"),
        ("DATABASE_URL", "postgres://u:p@h/d"),
        ("DB_POOL_MAX", "7"),
        ("DB_POOL_CONNECTION_TIMEOUT", "1500"),
        ("RUN_RECOVERY_ENABLED", "no"),
        ("SESSION_DISCOVERY_ENABLED", "off"),
        ("SESSION_POLL_TIMEOUT_MS", "1234"),
        ("STREAM_MAX_RETRIES", "9"),
        ("SIGNAL_HOLD_MS", "5000"),
        ("SIGNAL_HOLD_MAX", "7"),
        ("STREAM_SSE_HEARTBEAT_MS", "2000"),
        ("REPLAY_MAX_DELAY_MS", "0"),
        ("STREAM_MAX_CONNECTIONS", "300"),
        ("STREAM_MAX_CONNECTIONS_PER_KEY", "200"),
        ("STREAM_STALL_TIMEOUT_MS", "20000"),
        ("IMPORT_MAX_BYTES", "4096"),
        ("RUNTIME_MAX_STREAMS_PER_CONNECTION", "5"),
        ("CORS_ORIGIN", "http://a.example, https://b.example"),
    ]) else {
        panic!("refused")
    };
    assert_eq!(config.database.pool_max, 7);
    assert_eq!(config.database.pool_timeout, Duration::from_millis(1500));
    assert!(!config.engine.recovery_enabled);
    assert!(!config.engine.discovery_enabled);
    assert_eq!(config.engine.session_wait, Duration::from_millis(1234));
    assert_eq!(config.engine.max_retries, 9);
    assert_eq!(config.engine.signal_hold, Duration::from_secs(5));
    assert_eq!(config.engine.signal_hold_max, 7);
    assert_eq!(config.http.heartbeat, Duration::from_secs(2));
    assert_eq!(config.http.replay_max_delay, Duration::ZERO);
    assert_eq!((config.http.max_streams, config.http.max_streams_per_key), (300, 200));
    assert_eq!(config.http.stall_timeout, Duration::from_secs(20));
    assert_eq!(config.http.import_max_bytes, 4096);
    assert_eq!(config.runtime.max_streams_per_connection, 5);
    assert_eq!(config.http.cors_origins, ["http://a.example", "https://b.example"]);
}

const AUTH: (&str, &str) = ("MACP_AUTH_SERVICE_URL", "http://auth.internal:8080/v1");
const STATIC: (&str, &str) = ("RUNTIME_BEARER_TOKEN", "hush");

#[test]
fn an_auth_service_mints_as_the_reference_has_it() {
    let Ok((config, warnings)) = read(&[DEVELOPMENT, AUTH]) else { panic!("refused") };

    let minter = config.minter.unwrap();
    assert_eq!(minter.url, AUTH.1);
    assert_eq!(minter.sender, "macp-control-plane");
    assert_eq!((minter.timeout.as_secs(), minter.ttl.as_secs()), (5, 3600));
    assert!(!minter.can_manage_registry && !minter.fall_back);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_static_token_beside_an_auth_service_counts_only_when_a_switch_says_so() {
    let switch = ("MACP_AUTH_FALL_BACK_TO_BEARER_TOKEN", "true");
    let Ok((off, told)) = read(&[DEVELOPMENT, AUTH, STATIC]) else { panic!("refused") };
    let Ok((on, quiet)) = read(&[DEVELOPMENT, AUTH, STATIC, switch]) else { panic!("refused") };
    let Ok((_, empty)) = read(&[DEVELOPMENT, AUTH, switch]) else { panic!("refused") };

    assert!(!off.minter.unwrap().fall_back && on.minter.unwrap().fall_back);
    assert!(told.len() == 1 && told[0].contains("is not used"), "{told:?}");
    assert_eq!(quiet, Vec::<String>::new());
    assert!(empty.len() == 1 && empty[0].contains("nothing to fall back on"), "{empty:?}");
}

#[test]
fn an_auth_service_that_cannot_be_called_is_refused_without_its_password() {
    for url in ["auth:8080", "ftp://auth", "http://user:hush@auth", "not a url"] {
        let faults = faults(&[DEVELOPMENT, ("MACP_AUTH_SERVICE_URL", url)]);
        assert!(faults.len() == 1 && faults[0].contains("MACP_AUTH_SERVICE_URL"), "{faults:?}");
        assert!(!faults[0].contains("hush"));
    }
}

#[test]
fn hosts_that_clients_may_aim_at_are_read_as_a_list() {
    let hosts = ("OUTBOUND_ALLOWED_HOSTS", "hooks.internal, 10.0.0.0/8");
    let Ok((config, _)) = read(&[DEVELOPMENT, hosts]) else { panic!("refused") };
    let wanted = ["hooks.internal".to_owned(), "10.0.0.0/8".to_owned()];
    assert_eq!(config.outbound, AllowList::parse(&wanted).unwrap());

    let faults = faults(&[DEVELOPMENT, ("OUTBOUND_ALLOWED_HOSTS", "http://hooks")]);
    assert!(faults.len() == 1 && faults[0].contains("OUTBOUND_ALLOWED_HOSTS"), "{faults:?}");
}
