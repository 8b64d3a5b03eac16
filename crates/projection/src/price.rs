//! What a model call is estimated to cost (spec 11.8).
//!
//! **Invariant:** every call has a price; a model that is not listed has that of the last line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// For what was sent to the model.
    pub prompt: f64,
    /// For what came back.
    pub completion: f64,
}

/// Prices by the name of the model. One with a date or a version behind its name
/// (`gpt-4o-2024-08-06`, `claude-3-opus@20240229`, `gpt-4o-latest`) has the price of the name, unless
/// it is listed itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceTable {
    models: BTreeMap<String, Price>,
    other: Price,
}

const BUILT_IN: &[(&str, f64, f64)] = &[
    ("gpt-4o", 2.5, 10.0),
    ("gpt-4o-mini", 0.15, 0.6),
    ("gpt-4-turbo", 10.0, 30.0),
    ("claude-3-opus", 15.0, 75.0),
    ("claude-3-sonnet", 3.0, 15.0),
    ("claude-3-haiku", 0.25, 1.25),
];

impl Default for PriceTable {
    /// The built-in table.
    fn default() -> Self {
        let models = BUILT_IN
            .iter()
            .map(|&(model, prompt, completion)| (model.to_owned(), Price { prompt, completion }))
            .collect();
        Self { models, other: Price { prompt: 1.0, completion: 3.0 } }
    }
}

impl PriceTable {
    /// The table with another price for `model`.
    #[must_use]
    pub fn with(mut self, model: impl Into<String>, price: Price) -> Self {
        self.models.insert(model.into(), price);
        self
    }

    /// The built-in table with what `text` says: a JSON object of `models`, by their names, and
    /// `other`, for those that are not listed; each price has `promptPerMillion` and
    /// `completionPerMillion`, in dollars.
    ///
    /// # Errors
    /// A sentence for everything that is wrong.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let document = match serde_json::from_str(text) {
            Ok(Value::Object(document)) => document,
            Ok(_) => return Err(vec!["it must hold a JSON object".to_owned()]),
            Err(fault) => return Err(vec![format!("it is not JSON: {fault}")]),
        };
        let mut table = Self::default();
        let mut faults = Vec::new();
        for (field, value) in &document {
            match (field.as_str(), value) {
                ("models", Value::Object(models)) => {
                    for (model, price) in models {
                        let path = format!("models.{model}");
                        if let Some(price) = read_price(&path, price, &mut faults) {
                            table.models.insert(model.clone(), price);
                        }
                    }
                }
                ("models", _) => faults.push("models must be an object".to_owned()),
                ("other", value) => {
                    if let Some(price) = read_price("other", value, &mut faults) {
                        table.other = price;
                    }
                }
                (unknown, _) => faults.push(format!("{unknown} is not known")),
            }
        }
        if faults.is_empty() { Ok(table) } else { Err(faults) }
    }

    /// What a call costs, in US dollars.
    pub fn cost(&self, model: Option<&str>, prompt_tokens: i64, completion_tokens: i64) -> f64 {
        let price = model.and_then(|model| self.price(model)).unwrap_or(&self.other);
        #[expect(clippy::cast_precision_loss, reason = "an estimate of money")]
        let millions = |tokens: i64| tokens as f64 / 1_000_000.0;
        millions(prompt_tokens) * price.prompt + millions(completion_tokens) * price.completion
    }

    fn price(&self, model: &str) -> Option<&Price> {
        let listed = || {
            let versions = self.models.iter().filter(|(name, _)| is_version_of(model, name));
            versions.max_by_key(|(name, _)| name.len()).map(|(_, price)| price)
        };
        self.models.get(model).or_else(listed)
    }
}

/// Whether `model` is `name` with a date or a version behind it.
fn is_version_of(model: &str, name: &str) -> bool {
    let Some(rest) = model.strip_prefix(name) else { return false };
    let Some(rest) = rest.strip_prefix(['-', '@', ':']) else { return false };
    let rest = rest.strip_prefix('v').unwrap_or(rest);
    rest == "latest" || rest.starts_with(|first: char| first.is_ascii_digit())
}

fn read_price(path: &str, value: &Value, faults: &mut Vec<String>) -> Option<Price> {
    let Value::Object(fields) = value else {
        faults.push(format!("{path} must be an object"));
        return None;
    };
    let known = ["promptPerMillion", "completionPerMillion"];
    for unknown in fields.keys().filter(|field| !known.contains(&field.as_str())) {
        faults.push(format!("{path}.{unknown} is not known"));
    }
    let [prompt, completion] = known.map(|field| dollars(path, field, fields, faults));
    Some(Price { prompt: prompt?, completion: completion? })
}

fn dollars(
    path: &str,
    field: &str,
    fields: &Map<String, Value>,
    faults: &mut Vec<String>,
) -> Option<f64> {
    let dollars = fields.get(field).and_then(Value::as_f64).filter(|price| *price >= 0.0);
    if dollars.is_none() {
        faults.push(format!("{path}.{field} must be a number of dollars, not below 0"));
    }
    dollars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_own_price_and_any_other_the_last_line() {
        let table = PriceTable::default().with("mine", Price { prompt: 0.0, completion: 1.0 });

        assert_eq!(table.cost(Some("gpt-4o"), 1_000_000, 1_000_000), 12.5);
        assert_eq!(table.cost(Some("mine"), 1_000_000, 1_000_000), 1.0);
        assert_eq!(table.cost(Some("gpt-4o-audio"), 1_000_000, 1_000_000), 4.0);
        assert_eq!(table.cost(None, 1_000_000, 0), 1.0);
    }

    #[test]
    fn a_date_or_version_behind_a_name_changes_no_price() {
        let own = Price { prompt: 7.0, completion: 0.0 };
        let table = PriceTable::default().with("gpt-4o-2024-05-13", own);
        for (model, dollars) in [
            ("gpt-4o-2024-08-06", 2.5),
            ("gpt-4o-mini-2024-07-18", 0.15),
            ("gpt-4o-latest", 2.5),
            ("claude-3-opus@20240229", 15.0),
            ("claude-3-haiku-v2", 0.25),
            ("gpt-4o-2024-05-13", 7.0),
            ("gpt-4o-minimal", 1.0),
            ("gpt-4oo", 1.0),
            ("gpt-4o-", 1.0),
        ] {
            assert_eq!(table.cost(Some(model), 1_000_000, 0), dollars, "{model}");
        }
    }

    #[test]
    fn a_file_overrides_what_is_built_in_and_keeps_the_rest() {
        let table = PriceTable::parse(
            r#"{ "models": { "gpt-4o": { "promptPerMillion": 1, "completionPerMillion": 2.5 } },
                 "other": { "promptPerMillion": 0, "completionPerMillion": 9 } }"#,
        )
        .unwrap();

        assert_eq!(table.cost(Some("gpt-4o"), 1_000_000, 1_000_000), 3.5);
        assert_eq!(table.cost(Some("gpt-4-turbo"), 1_000_000, 0), 10.0);
        assert_eq!(table.cost(Some("unheard of"), 0, 1_000_000), 9.0);
        assert_eq!(PriceTable::parse("{}"), Ok(PriceTable::default()));
    }

    #[test]
    fn everything_that_is_wrong_with_a_file_is_named() {
        let faults = PriceTable::parse(
            r#"{ "models": { "a": { "promptPerMillion": -1, "completion": 2 }, "b": 3 },
                 "others": {} }"#,
        )
        .unwrap_err();

        assert_eq!(
            faults,
            [
                "models.a.completion is not known",
                "models.a.promptPerMillion must be a number of dollars, not below 0",
                "models.a.completionPerMillion must be a number of dollars, not below 0",
                "models.b must be an object",
                "others is not known",
            ]
        );
        assert_eq!(PriceTable::parse("[]").unwrap_err(), ["it must hold a JSON object"]);
        assert_eq!(PriceTable::parse("{").unwrap_err().len(), 1);
    }
}
