//! Frames and states as short lines for people.

use control_plane_testkit::sse::Frame;
use serde_json::Value;

/// What is worth a word in an event's data, in this order.
const TELLING: &[&str] = &[
    "messageType",
    "proposalId",
    "option",
    "recommendation",
    "severity",
    "vote",
    "confidence",
    "action",
    "percentage",
    "message",
    "model",
    "participantId",
    "state",
    "status",
    "reason",
];

/// A line for a frame; none for those that say nothing new.
pub(crate) fn frame(frame: &Frame) -> Option<String> {
    match frame.name() {
        "canonical_event" => Some(event(&frame.json())),
        "caught_up" => Some("        (history is over, what follows is live)".to_owned()),
        "end" => Some(format!("        (the run is over: {})", text(&frame.json()["status"]))),
        "reset" | "lagged" | "gap" | "stream_error" => {
            Some(format!("        {}: {}", frame.name(), frame.json()))
        }
        _ => None,
    }
}

fn event(event: &Value) -> String {
    let data = &event["data"];
    let sender = data["sender"].as_str().unwrap_or_default();
    // The event that follows from a message says what the message said.
    let told = if event["type"] == "message.received" { 1 } else { TELLING.len() };
    let words: Vec<String> = TELLING
        .iter()
        .take(told)
        .filter_map(|name| data.get(name))
        .filter(|value| value.is_string() || value.is_number() || value.is_boolean())
        .map(text)
        .filter(|word| !word.is_empty())
        .collect();
    let (seq, kind) = (text(&event["seq"]), text(&event["type"]));
    format!("{seq:>6}  {kind:<24} {sender:<8} {}", words.join(" · ")).trim_end().to_owned()
}

/// The run's state, a few lines long.
pub(crate) fn state(state: &Value) -> String {
    let mut page = String::new();
    let run = &state["run"];
    line(&mut page, "run", &format!("{} ({})", text(&run["runId"]), text(&run["status"])));
    line(&mut page, "session", &text(&run["runtimeSessionId"]));
    let decision = &state["decision"]["current"];
    let outcome = match decision["outcomePositive"].as_bool() {
        Some(true) => "positive",
        Some(false) => "negative",
        None => "open",
    };
    let by = text(&decision["resolvedBy"]);
    let proposal = text(&decision["proposalId"]);
    line(&mut page, "decision", &format!("{proposal}: {}", text(&decision["action"])));
    line(&mut page, "outcome", &format!("{outcome}, committed by {by}"));
    for participant in list(&state["participants"]) {
        let name = text(&participant["participantId"]);
        let summary = text(&participant["latestSummary"]);
        let what = format!("{name:<8} {}, last: {summary}", text(&participant["status"]));
        line(&mut page, "participant", &what);
    }
    for entry in list(&state["progress"]["entries"]) {
        let (who, what) = (text(&entry["participantId"]), text(&entry["message"]));
        line(&mut page, "progress", &format!("{who:<8} {} % {what}", text(&entry["percentage"])));
    }
    let calls = &state["llm"]["totals"];
    if calls["callCount"].as_u64().unwrap_or_default() > 0 {
        let tokens = text(&calls["totalTokens"]);
        line(&mut page, "llm", &format!("{} calls, {tokens} tokens", text(&calls["callCount"])));
    }
    line(&mut page, "events", &text(&state["timeline"]["totalEvents"]));
    page
}

/// What to try next.
pub(crate) fn next_steps(base: &str, id: &str) -> String {
    format!(
        "Go on with:\n\
         \x20 curl {base}/runs/{id}\n\
         \x20 curl {base}/runs/{id}/state\n\
         \x20 curl '{base}/runs/{id}/events?limit=5'\n\
         \x20 curl -N '{base}/runs/{id}/stream?afterSeq=0'\n\
         \x20 curl '{base}/runs?tags=demo'\n\
         \x20 curl {base}/openapi.json"
    )
}

fn line(page: &mut String, name: &str, value: &str) {
    page.push_str(&format!("  {name:<12} {value}\n"));
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
