//! Where spans go: the standard variables of OpenTelemetry, as far as they are supported.
//!
//! **Invariant:** without an endpoint nothing is traced.

use std::time::Duration;

use super::env::Env;
use crate::telemetry::{Sampler, TelemetryConfig};

/// Reads the variables; `None` when nothing is to be traced.
pub(super) fn read(env: &mut Env) -> Option<TelemetryConfig> {
    let whole = env.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let base = env.text("OTEL_EXPORTER_OTLP_ENDPOINT");
    // They are read, and their faults told, also when nothing is exported.
    let protocol = read_protocol(env);
    let headers = read_headers(env);
    let resource = read_resource(env);
    let sampler = read_sampler(env);
    let timeout = read_timeout(env);
    let delay = env.millis("OTEL_BSP_SCHEDULE_DELAY", 1..=60_000, 5000);
    let exporter = env.choice("OTEL_TRACES_EXPORTER", &[("otlp", true), ("none", false)]);
    let off = env.flag("OTEL_SDK_DISABLED", false) || exporter == Some(false);

    let (name, endpoint) = match (whole, base) {
        (Some(whole), _) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole),
        (None, Some(base)) => {
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/v1/traces", base.trim_end_matches('/')))
        }
        (None, None) => {
            if exporter == Some(true) {
                env.warn("OTEL_TRACES_EXPORTER=otlp without an endpoint: nothing is traced");
            }
            return None;
        }
    };
    let usable = url::Url::parse(&endpoint).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if !usable {
        // It may hold a password.
        env.secret_fault(name, "must be an http or https URL without a user and a password");
    }
    (!off && protocol).then_some(TelemetryConfig {
        endpoint,
        headers,
        timeout,
        resource,
        sampler,
        delay,
    })
}

/// Whether the protocol is one that we speak. There is one.
fn read_protocol(env: &mut Env) -> bool {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        if let Some(text) = env.text(name) {
            if text != "http/protobuf" {
                env.fault(name, &text, "must be http/protobuf: it is the only one supported");
            }
            return text == "http/protobuf";
        }
    }
    true
}

fn read_timeout(env: &mut Env) -> Duration {
    let name = match env.text("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") {
        Some(_) => "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        None => "OTEL_EXPORTER_OTLP_TIMEOUT",
    };
    env.millis(name, 1..=60_000, 10_000)
}

fn read_headers(env: &mut Env) -> Vec<(String, String)> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"] {
        let Some(text) = env.text(name) else { continue };
        let pairs = pairs(&text).and_then(|pairs| {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_header = |(key, value): &(String, String)| {
                key.bytes().all(is_token) && value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
            };
            pairs.iter().all(is_header).then_some(pairs)
        });
        match pairs {
            Some(pairs) => {
                let lower = |(key, value): (String, String)| (key.to_ascii_lowercase(), value);
                return pairs.into_iter().map(lower).collect();
            }
            None => env.secret_fault(name, "must be name=value pairs, separated by commas"),
        }
    }
    Vec::new()
}

/// Who we are. `OTEL_SERVICE_NAME` goes before what the attributes say.
fn read_resource(env: &mut Env) -> Vec<(String, String)> {
    let text = env.text("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let mut given = pairs(&text).unwrap_or_else(|| {
        env.fault(
            "OTEL_RESOURCE_ATTRIBUTES",
            &text,
            "must be name=value pairs, separated by commas",
        );
        Vec::new()
    });
    let at = given.iter().position(|(key, _)| key == "service.name");
    let named = at.map(|at| given.swap_remove(at).1);
    let name =
        env.text("OTEL_SERVICE_NAME").or(named).unwrap_or_else(|| "macp-control-plane".to_owned());
    let mut resource = vec![("service.name".to_owned(), name)];
    if !given.iter().any(|(key, _)| key == "service.version") {
        resource.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
    }
    resource.extend(given);
    resource
}

fn read_sampler(env: &mut Env) -> Sampler {
    // Whether a parent decides, and what is recorded otherwise; `None` is what the argument says.
    let words = [
        ("always_on", (false, Some(1.0))),
        ("always_off", (false, Some(0.0))),
        ("traceidratio", (false, None)),
        ("parentbased_always_on", (true, Some(1.0))),
        ("parentbased_always_off", (true, Some(0.0))),
        ("parentbased_traceidratio", (true, None)),
    ];
    let (follows_parent, ratio) =
        env.choice("OTEL_TRACES_SAMPLER", &words).unwrap_or((true, Some(1.0)));
    let ratio = ratio.unwrap_or_else(|| {
        let text = env.text("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
        match text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => ratio,
            None => {
                env.fault("OTEL_TRACES_SAMPLER_ARG", &text, "must be a number from 0 to 1");
                1.0
            }
        }
    });
    Sampler { follows_parent, ratio }
}

/// `name=value,name=value`, the values percent-encoded; `None` for anything else.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (key, value) = item.split_once('=')?;
            let (key, value) = (key.trim(), decode(value.trim())?);
            (!key.is_empty()).then(|| (key.to_owned(), value))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> Env<'a> {
        Env::new(move |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    fn config(variables: &[(&str, &str)]) -> Option<TelemetryConfig> {
        let mut env = env(variables);
        let config = read(&mut env);
        assert_eq!(env.finish().0, Vec::<String>::new());
        config
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert!(config(&[]).is_none());
        assert!(config(&[("OTEL_SERVICE_NAME", "x")]).is_none());
        assert!(config(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).is_none());
        assert!(config(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]).is_none());
    }

    #[test]
    fn the_endpoint_gets_its_path_unless_it_is_that_of_traces() {
        let base = config(&[ENDPOINT]).unwrap();
        assert_eq!(base.endpoint, "http://collector:4318/v1/traces");
        assert_eq!(base.sampler, Sampler::default());
        assert_eq!(base.resource[0].1, "macp-control-plane");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://a.example/otlp");
        assert_eq!(config(&[ENDPOINT, whole]).unwrap().endpoint, "https://a.example/otlp");
    }

    #[test]
    fn headers_attributes_and_the_sampler_are_read() {
        let config = config(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b, x-tenant=t"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=test"),
            ("OTEL_SERVICE_NAME", "ours"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(config.headers, [pair("api-key", "a b"), pair("x-tenant", "t")]);
        assert_eq!(config.resource[0], pair("service.name", "ours"));
        assert_eq!(config.resource[2], pair("deployment.environment", "test"));
        assert_eq!(config.sampler, Sampler { follows_parent: true, ratio: 0.25 });
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:p@collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "no pair"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0d%0a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let variables = [(name, value)];
            let mut env = env(&variables);
            let _ = read(&mut env);
            let faults = env.finish().0;
            assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
        }
    }
}
