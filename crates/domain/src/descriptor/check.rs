//! Reads fields out of JSON and collects what is wrong with them.

use serde_json::{Map, Value};

use super::Faults;

/// Longest list of faults that is worth sending.
const MAX_FAULTS: usize = 100;

/// Collects faults while fields are read. A field's name is the last part of its path.
pub(super) struct Check {
    faults: Vec<String>,
}

impl Check {
    pub(super) fn new() -> Self {
        Self { faults: Vec::new() }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn into_faults(self) -> Faults {
        Faults(self.faults)
    }

    pub(super) fn fault(&mut self, sentence: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(sentence);
        }
    }

    pub(super) fn root<'a>(
        &mut self,
        body: &'a Value,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let Value::Object(object) = body else {
            self.fault("the body must be a JSON object".to_owned());
            return None;
        };
        self.unknown_fields(object, "", known);
        Some(object)
    }

    pub(super) fn object_at<'a>(
        &mut self,
        value: &'a Value,
        path: &str,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let Value::Object(object) = value else {
            self.fault(format!("{path} must be an object"));
            return None;
        };
        self.unknown_fields(object, path, known);
        Some(object)
    }

    pub(super) fn required_object<'a>(
        &mut self,
        parent: &'a Map<String, Value>,
        path: &str,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        if field(parent, path).is_none() {
            self.fault(format!("{path} is required"));
        }
        self.optional_object(parent, path, known)
    }

    pub(super) fn optional_object<'a>(
        &mut self,
        parent: &'a Map<String, Value>,
        path: &str,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        self.object_at(field(parent, path)?, path, known)
    }

    /// A text that may be absent but not too long.
    pub(super) fn optional_text(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
        max_chars: usize,
    ) -> Option<String> {
        let value = field(parent, path)?;
        let Value::String(text) = value else {
            self.fault(format!("{path} must be a string"));
            return None;
        };
        self.bounded(text, path, max_chars);
        Some(text.clone())
    }

    /// A text that must be there, but may be empty.
    pub(super) fn text_or_empty(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
        max_chars: usize,
    ) -> String {
        if field(parent, path).is_none() {
            self.fault(format!("{path} is required"));
        }
        self.optional_text(parent, path, max_chars).unwrap_or_default()
    }

    /// A text that must be there and hold something.
    pub(super) fn text(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
        max_chars: usize,
    ) -> String {
        let text = self.text_or_empty(parent, path, max_chars);
        if matches!(field(parent, path), Some(Value::String(_))) && text.trim().is_empty() {
            self.fault(format!("{path} should not be empty"));
        }
        text
    }

    pub(super) fn texts(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
        max_items: usize,
        max_chars: usize,
    ) -> Vec<String> {
        let items = match field(parent, path) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault(format!("{path} must be an array"));
                return Vec::new();
            }
        };
        if items.len() > max_items {
            self.fault(format!("{path} must contain at most {max_items} elements"));
            return Vec::new();
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Value::String(text) = item {
                self.bounded(text, &format!("{path}.{index}"), max_chars);
                texts.push(text.clone());
            } else {
                self.fault(format!("{path}.{index} must be a string"));
            }
        }
        texts
    }

    pub(super) fn choice<'a>(
        &mut self,
        parent: &'a Map<String, Value>,
        path: &str,
        choices: &[&str],
    ) -> Option<&'a str> {
        if field(parent, path).is_none() {
            self.fault(format!("{path} is required"));
        }
        self.optional_choice(parent, path, choices)
    }

    pub(super) fn optional_choice<'a>(
        &mut self,
        parent: &'a Map<String, Value>,
        path: &str,
        choices: &[&str],
    ) -> Option<&'a str> {
        let value = field(parent, path)?;
        match value.as_str() {
            Some(text) if choices.contains(&text) => Some(text),
            _ => {
                self.fault(format!("{path} must be one of: {}", choices.join(", ")));
                None
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
        min: i64,
        max: i64,
    ) -> i64 {
        let Some(value) = field(parent, path) else {
            self.fault(format!("{path} is required"));
            return min;
        };
        match value.as_i64() {
            Some(number) if (min..=max).contains(&number) => number,
            Some(_) => {
                self.fault(format!("{path} must be between {min} and {max}"));
                min
            }
            None => {
                self.fault(format!("{path} must be an integer"));
                min
            }
        }
    }

    /// `session.metadata`: opaque but for the keys that mean something to us (spec 1.3.1).
    pub(super) fn metadata(
        &mut self,
        parent: &Map<String, Value>,
        path: &str,
    ) -> Option<Map<String, Value>> {
        let Value::Object(metadata) = field(parent, path)? else {
            self.fault(format!("{path} must be an object"));
            return None;
        };
        for key in ["source", "sourceRef", "environment", "scenarioRef"] {
            self.optional_text(metadata, &format!("{path}.{key}"), 1024);
        }
        let callback = format!("{path}.cancelCallback");
        if let Some(object) = self.optional_object(metadata, &callback, &["url", "bearer"]) {
            self.text(object, &format!("{callback}.url"), 2048);
            self.optional_text(object, &format!("{callback}.bearer"), 4096);
        }
        if metadata.values().any(holds_nul) {
            self.fault(format!("{path} must not contain U+0000"));
        }
        Some(metadata.clone())
    }

    fn bounded(&mut self, text: &str, path: &str, max_chars: usize) {
        if text.chars().count() > max_chars {
            self.fault(format!("{path} must be at most {max_chars} characters long"));
        }
        if text.contains('\0') {
            self.fault(format!("{path} must not contain U+0000"));
        }
    }

    fn unknown_fields(&mut self, object: &Map<String, Value>, path: &str, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            self.fault(format!("{name} is not a known field"));
        }
    }
}

/// The field that `path` ends in; `null` counts as absent (spec 1.1.5).
fn field<'a>(parent: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let name = path.rsplit('.').next().unwrap_or(path);
    parent.get(name).filter(|value| !value.is_null())
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
