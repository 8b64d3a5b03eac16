//! Finds the model call that a message reports (spec 5.9).
//!
//! **Invariant:** one message reports at most one call, with the tokens and the model that belong
//! together even when they are on different levels.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::text_of;
use crate::payload;

type Fields = Map<String, Value>;

/// The call that `payload` reports: counts always, the rest where known.
pub(super) fn descriptor(payload: &Fields) -> Option<Fields> {
    let metadata = object(payload, &["metadata"]);
    let direct = || {
        call(payload)
            .and_then(|call| read(call, usage(call), None))
            .or_else(|| metadata.and_then(call).and_then(|call| read(call, usage(call), None)))
            .or_else(|| usage(payload).and_then(|usage| read(usage, None, Some(payload))))
            .or_else(|| {
                let metadata = metadata?;
                read(usage(metadata)?, None, Some(metadata))
            })
    };
    direct().or_else(|| {
        let Value::Object(reported) = signal_data(payload)? else { return None };
        read(&reported, usage(&reported), None)
    })
}

/// The JSON in the `data` of an `llm.call.completed` signal.
fn signal_data(payload: &Fields) -> Option<Value> {
    if text_of(payload, &["signalType", "signal_type"]) != Some("llm.call.completed") {
        return None;
    }
    match payload.get("data")? {
        Value::String(text) => {
            let bytes = STANDARD.decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
            payload::parse_json(&bytes, &mut false)
        }
        data @ Value::Object(_) => Some(data.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

fn call(fields: &Fields) -> Option<&Fields> {
    object(fields, &["llmCall", "llm_call"])
}

fn usage(fields: &Fields) -> Option<&Fields> {
    object(fields, &["tokenUsage", "token_usage"])
}

fn object<'a>(fields: &'a Fields, names: &[&str]) -> Option<&'a Fields> {
    names.iter().find_map(|name| fields.get(*name)?.as_object())
}

/// Reads a call from `own`, its token counts perhaps from `nested`, and what else is missing from
/// `outer`; `None` when it is not one.
fn read(own: &Fields, nested: Option<&Fields>, outer: Option<&Fields>) -> Option<Fields> {
    let inner = [Some(own), nested];
    let prompt_tokens = tokens(&inner, &["promptTokens", "prompt_tokens"])?;
    let completion_tokens = tokens(&inner, &["completionTokens", "completion_tokens"])?;
    let first = |levels: &[Option<&Fields>], names: &[&str]| {
        levels
            .iter()
            .flatten()
            .find_map(|fields| {
                names.iter().find_map(|name| fields.get(*name).filter(|value| !value.is_null()))
            })
            .cloned()
    };
    let told = ["model", "prompt", "response"];
    if prompt_tokens == 0
        && completion_tokens == 0
        && told.iter().all(|name| first(&inner, &[*name]).is_none())
    {
        return None;
    }
    let mut call = Map::new();
    call.insert("promptTokens".to_owned(), prompt_tokens.into());
    call.insert("completionTokens".to_owned(), completion_tokens.into());
    call.insert("totalTokens".to_owned(), prompt_tokens.saturating_add(completion_tokens).into());
    let everywhere = [Some(own), nested, outer];
    for (name, levels, names) in [
        ("model", &everywhere[..], &["model"][..]),
        ("latencyMs", &everywhere[..], &["latencyMs", "latency_ms"][..]),
        ("provider", &everywhere[..], &["provider"][..]),
        ("prompt", &inner[..], &["prompt"][..]),
        ("response", &inner[..], &["response"][..]),
    ] {
        if let Some(value) = first(levels, names) {
            call.insert(name.to_owned(), value);
        }
    }
    Some(call)
}

/// A count: 0 when it is not there, `None` when something else is.
fn tokens(levels: &[Option<&Fields>], names: &[&str]) -> Option<i64> {
    let found = levels.iter().flatten().find_map(|fields| {
        names.iter().find_map(|name| fields.get(*name).filter(|value| !value.is_null()))
    });
    let Some(value) = found else { return Some(0) };
    let count = match value.as_i64() {
        Some(count) => count,
        None => {
            let count = value.as_f64().filter(|count| count.is_finite())?;
            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
            {
                count as i64
            }
        }
    };
    Some(count.max(0))
}
