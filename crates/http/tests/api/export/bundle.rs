//! A reader of bundles that shares nothing with the writer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane_domain::event::ChainHash;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::Api;

/// A bundle as its text says it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Texts {
    run: Box<RawValue>,
    session: Box<RawValue>,
    projection: Box<RawValue>,
    metrics: Box<RawValue>,
    artifacts: Vec<Box<RawValue>>,
    canonical_events: Vec<Box<RawValue>>,
    raw_events: Vec<Box<RawValue>>,
    exported_at: Box<RawValue>,
    truncated: Option<Box<RawValue>>,
    manifest: Box<RawValue>,
}

pub(super) struct Bundle {
    texts: Texts,
    pub(super) value: Value,
    pub(super) manifest: Value,
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_value(value: &RawValue) -> Value {
    json!({ "sha256": sha256(value.get()), "bytes": value.get().len() })
}

fn of_list(items: &[Box<RawValue>]) -> Value {
    let text: String = items.iter().map(|item| format!("{}\n", item.get())).collect();
    let marks: Vec<u8> =
        items.iter().flat_map(|item| Sha256::digest(item.get()).into_iter().take(3)).collect();
    let marks = STANDARD.encode(marks);
    json!({ "sha256": sha256(&text), "bytes": text.len(), "items": items.len(), "marks": marks })
}

impl Bundle {
    pub(super) fn of(text: &str) -> Self {
        let texts: Texts = serde_json::from_str(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        let manifest = value["manifest"].clone();
        Self { texts, value, manifest }
    }

    pub(super) async fn get(api: &Api, path: &str) -> Self {
        let response = api.client.get(api.at(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Self::of(&response.text().await.unwrap())
    }

    /// The sums that the parts give.
    pub(super) fn sums(&self) -> Value {
        let texts = &self.texts;
        let mut sums = json!({
            "run": of_value(&texts.run),
            "session": of_value(&texts.session),
            "projection": of_value(&texts.projection),
            "metrics": of_value(&texts.metrics),
            "artifacts": of_list(&texts.artifacts),
            "canonicalEvents": of_list(&texts.canonical_events),
            "rawEvents": of_list(&texts.raw_events),
            "exportedAt": of_value(&texts.exported_at),
        });
        if let Some(truncated) = &texts.truncated {
            sums["truncated"] = of_value(truncated);
        }
        sums
    }

    /// Whether the manifest ends with the sum of what stands before.
    pub(super) fn is_sealed(&self) -> bool {
        let text = self.texts.manifest.get();
        let (before, sum) = text.rsplit_once(",\"sha256\":").unwrap();
        sum == format!("\"{}\"}}", sha256(before))
    }

    pub(super) fn event_texts(&self) -> Vec<&[u8]> {
        self.texts.canonical_events.iter().map(|event| event.get().as_bytes()).collect()
    }

    /// The head of the chain that the events give.
    pub(super) fn chain(&self) -> ChainHash {
        let events = self.texts.canonical_events.iter();
        events.fold(ChainHash::EMPTY, |head, event| head.then(event.get()))
    }

    /// Where its events begin and end in the chain; nothing without events.
    pub(super) fn links(&self) -> Vec<Value> {
        let chain = &self.manifest["chain"];
        let has_events = !self.texts.canonical_events.is_empty();
        if has_events { vec![chain["from"].clone(), chain["to"].clone()] } else { vec![] }
    }
}
