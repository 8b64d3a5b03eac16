//! What a model call is estimated to cost (spec 11.8).
//!
//! **Invariant:** every call has a price; a model that is not listed has that of the last line.

use std::collections::BTreeMap;

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Price {
    /// For what was sent to the model.
    pub prompt: f64,
    /// For what came back.
    pub completion: f64,
}

/// Prices by the exact name of the model.
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

    /// What a call costs, in US dollars.
    pub fn cost(&self, model: Option<&str>, prompt_tokens: i64, completion_tokens: i64) -> f64 {
        let price = model.and_then(|model| self.models.get(model)).unwrap_or(&self.other);
        #[expect(clippy::cast_precision_loss, reason = "an estimate of money")]
        let millions = |tokens: i64| tokens as f64 / 1_000_000.0;
        millions(prompt_tokens) * price.prompt + millions(completion_tokens) * price.completion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_its_own_price_and_any_other_the_last_line() {
        let table = PriceTable::default().with("mine", Price { prompt: 0.0, completion: 1.0 });

        assert_eq!(table.cost(Some("gpt-4o"), 1_000_000, 1_000_000), 12.5);
        assert_eq!(table.cost(Some("mine"), 1_000_000, 1_000_000), 1.0);
        assert_eq!(table.cost(Some("gpt-4o-2024"), 1_000_000, 1_000_000), 4.0);
        assert_eq!(table.cost(None, 1_000_000, 0), 1.0);
    }
}
