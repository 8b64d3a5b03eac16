//! Reads what an export is to hold from the query string.

use control_plane_insights::bundle::export::{Ask, parse_place};
use control_plane_insights::bundle::write::Shape;

use crate::error::ApiError;
use crate::query::Query;

/// Reads a query string; every fault names its parameter.
pub(super) fn read(raw: &str) -> Result<Ask, ApiError> {
    let mut query = Query::new(raw);
    let after_signal = query.text("afterSignal").and_then(|text| {
        let place = parse_place(&text);
        if place.is_none() {
            query.fault("afterSignal must be the nextAfterSignal of a bundle".to_owned());
        }
        place
    });
    let ask = Ask {
        shape: query
            .choice("format", &[("json", Shape::Json), ("jsonl", Shape::Lines)])
            .unwrap_or(Shape::Json),
        canonical: query.flag("includeCanonical").unwrap_or(true),
        raw: query.flag("includeRaw").unwrap_or(false),
        limit: query.integer("eventLimit", 1..=i64::MAX),
        after_seq: query.integer("afterSeq", 0..=i64::MAX).unwrap_or(0),
        after_ordinal: query.integer("afterOrdinal", 0..=i64::MAX).unwrap_or(0),
        after_signal,
    };
    query.finish()?;
    Ok(ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_parameters_all_events_are_asked_for() {
        assert_eq!(read("").unwrap(), Ask::events(Shape::Json));
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let raw = "includeCanonical=yes&includeRaw=1&eventLimit=0&afterSeq=-1&afterOrdinal=x\
                   &afterSignal=%3F&format=xml";
        let fault = read(raw).unwrap_err().to_string();
        for name in [
            "includeCanonical must be true or false",
            "includeRaw must be true or false",
            "eventLimit must not be less than 1",
            "afterSeq must not be less than 0",
            "afterOrdinal must be an integer",
            "afterSignal must be the nextAfterSignal of a bundle",
            "format must be one of: json, jsonl",
        ] {
            assert!(fault.contains(name), "{name} in {fault}");
        }
    }
}
