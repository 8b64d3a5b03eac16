//! Reads query parameters and collects everything that is wrong with them.
//!
//! **Invariant:** no value is taken unchecked, and a fault names its parameter. Parameters that
//! nobody reads are ignored (spec 1.1.3).

use std::ops::RangeInclusive;

use actix_web::web;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use control_plane_domain::{EventType, Timestamp};

use crate::error::ApiError;

/// The most items of a comma-separated list.
const MAX_ITEMS: usize = 100;
/// The longest free text.
const MAX_TEXT: usize = 1024;

/// A request's query string while it is being read.
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<String>,
}

impl Query {
    /// Takes a raw query string.
    pub(crate) fn new(raw: &str) -> Self {
        match web::Query::<Vec<(String, String)>>::from_query(raw) {
            Ok(pairs) => Self { pairs: pairs.into_inner(), faults: Vec::new() },
            Err(error) => Self {
                pairs: Vec::new(),
                faults: vec![format!("the query string cannot be read: {error}")],
            },
        }
    }

    /// Notes something that is wrong.
    pub(crate) fn fault(&mut self, sentence: String) {
        self.faults.push(sentence);
    }

    /// Ends the reading: an error if anything was wrong.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.faults.is_empty() { Ok(()) } else { Err(ApiError::Validation(self.faults)) }
    }

    /// The value of a parameter that may be given once.
    pub(crate) fn one(&mut self, name: &str) -> Option<String> {
        let mut found = self.pairs.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.clone())?;
        if found.next().is_some() {
            self.fault(format!("{name} must be given once"));
        }
        Some(value)
    }

    /// Free text; an empty one is no condition.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.one(name).filter(|value| !value.is_empty())?;
        if value.chars().count() > MAX_TEXT {
            self.fault(format!("{name} must be at most {MAX_TEXT} characters long"));
        }
        if value.contains('\0') {
            self.fault(format!("{name} must not contain U+0000"));
        }
        Some(value)
    }

    /// An integer within `range`.
    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.one(name)?;
        let (min, max) = (*range.start(), *range.end());
        match parse_integer(&value) {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) if max == i64::MAX => {
                self.fault(format!("{name} must not be less than {min}"));
                None
            }
            Some(_) => {
                self.fault(format!("{name} must be between {min} and {max}"));
                None
            }
            None => {
                self.fault(format!("{name} must be an integer"));
                None
            }
        }
    }

    /// A number of at least `min`.
    pub(crate) fn number(&mut self, name: &str, min: f64) -> Option<f64> {
        let value = self.one(name)?;
        match value.parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) if number >= min => Some(number),
            Some(_) => {
                self.fault(format!("{name} must not be less than {min}"));
                None
            }
            None => {
                self.fault(format!("{name} must be a number"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.one(name)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.fault(format!("{name} must be true or false"));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.one(name)?;
        let found = choices.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.fault(format!("{name} must be one of: {}", words.join(", ")));
        }
        found
    }

    /// A comma-separated list; the parameter may be repeated, and empty items do not count.
    pub(crate) fn list(&mut self, name: &str) -> Vec<String> {
        let items: Vec<String> = self
            .pairs
            .iter()
            .filter(|(key, _)| key == name)
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect();
        if items.len() > MAX_ITEMS {
            self.fault(format!("{name} must contain at most {MAX_ITEMS} elements"));
        }
        if items.iter().any(|item| item.contains('\0') || item.len() > MAX_TEXT) {
            self.fault(format!("{name} must hold short texts without U+0000"));
        }
        items
    }

    /// A comma-separated list of event types.
    pub(crate) fn event_types(&mut self, name: &str) -> Vec<EventType> {
        let mut types = Vec::new();
        for item in self.list(name) {
            match item.parse() {
                Ok(event_type) => types.push(event_type),
                Err(control_plane_domain::event::UnknownEventType) => {
                    self.fault(format!("{name} must hold event types; '{item}' is none"));
                }
            }
        }
        types
    }

    /// `YYYY-MM-DD` (midnight UTC) or RFC 3339.
    pub(crate) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let value = self.one(name)?;
        let parsed = parse_time(&value);
        if parsed.is_none() {
            self.fault(format!("{name} must be a date (YYYY-MM-DD) or an RFC 3339 time stamp"));
        }
        parsed
    }
}

/// Digits with an optional minus: what `str::parse` takes, less its leading plus.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return (text.len() == 10).then(|| date.and_time(NaiveTime::MIN).and_utc());
    }
    // An unescaped `+` of an offset arrives as a space.
    let text = text.replace(' ', "+");
    DateTime::parse_from_rfc3339(&text).ok().map(|at| at.with_timezone(&Utc))
}

#[cfg(test)]
mod tests;
