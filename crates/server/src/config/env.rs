//! Reads variables and collects what is wrong with them. An empty variable counts as unset.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Gives a variable's value.
type Lookup<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// The environment while it is being read.
pub(super) struct Env<'a> {
    lookup: Lookup<'a>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Env<'a> {
    pub(super) fn new(lookup: impl Fn(&str) -> Option<String> + 'a) -> Self {
        Self { lookup: Box::new(lookup), faults: Vec::new(), warnings: Vec::new() }
    }

    /// Faults and warnings.
    pub(super) fn finish(self) -> (Vec<String>, Vec<String>) {
        (self.faults, self.warnings)
    }

    /// Notes a value that cannot be used.
    pub(super) fn fault(&mut self, name: &str, value: &str, rule: &str) {
        self.faults.push(format!("{name}={value:?}: {rule}"));
    }

    /// The same for a variable whose value must not be shown.
    pub(super) fn secret_fault(&mut self, name: &str, rule: &str) {
        self.faults.push(format!("{name}: {rule}"));
    }

    /// Notes something that works and is probably not meant.
    pub(super) fn warn(&mut self, sentence: &str) {
        self.warnings.push(sentence.to_owned());
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Comma-separated; empty items do not count.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.text(name) else { return default };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => true,
            "0" | "false" | "no" | "off" => false,
            _ => {
                self.fault(name, &text, "must be true or false");
                default
            }
        }
    }

    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<i64>, default: i64) -> i64 {
        let Some(text) = self.text(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let rule = format!("must be an integer from {} to {}", range.start(), range.end());
                self.fault(name, &text, &rule);
                default
            }
        }
    }

    pub(super) fn millis(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
        default: i64,
    ) -> Duration {
        let ms = self.integer(name, range, default);
        Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }

    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.fault(name, &text, &format!("must be one of: {}", words.join(", ")));
        }
        found
    }
}
