//! What each kind of parameter takes, and how it says no.

use super::*;

type Read = fn(&mut Query);

fn fault(mut read: impl FnMut(&mut Query), raw: &str) -> String {
    let mut query = Query::new(raw);
    read(&mut query);
    match query.finish() {
        Err(ApiError::Validation(faults)) => faults.join("; "),
        other => panic!("expected a validation error, got {other:?}"),
    }
}

#[test]
fn good_values_are_taken() {
    let mut query = Query::new("limit=20&all=true&type=run.created,%20run.failed&word=b&q=a+b");
    assert_eq!(query.integer("limit", 1..=200), Some(20));
    assert_eq!(query.flag("all"), Some(true));
    assert_eq!(query.event_types("type"), [EventType::RunCreated, EventType::RunFailed]);
    assert_eq!(query.choice("word", &[("a", 1), ("b", 2)]), Some(2));
    assert_eq!(query.text("q").as_deref(), Some("a b"));
    assert_eq!(query.integer("absent", 0..=1), None);
    assert!(query.finish().is_ok());
}

#[test]
fn each_fault_names_its_parameter() {
    let table: [(&str, Read, &str); 10] = [
        (
            "limit=ten",
            |q| {
                q.integer("limit", 1..=2);
            },
            "limit must be an integer",
        ),
        (
            "limit=",
            |q| {
                q.integer("limit", 1..=2);
            },
            "limit must be an integer",
        ),
        (
            "limit=%2B1",
            |q| {
                q.integer("limit", 1..=2);
            },
            "limit must be an integer",
        ),
        (
            "limit=3",
            |q| {
                q.integer("limit", 1..=2);
            },
            "limit must be between 1 and 2",
        ),
        (
            "after=-1",
            |q| {
                q.integer("after", 0..=i64::MAX);
            },
            "after must not be less than 0",
        ),
        (
            "all=1",
            |q| {
                q.flag("all");
            },
            "all must be true or false",
        ),
        (
            "s=x",
            |q| {
                q.choice("s", &[("a", ()), ("b", ())]);
            },
            "s must be one of: a, b",
        ),
        (
            "t=run.nope",
            |q| {
                q.event_types("t");
            },
            "t must hold event types; 'run.nope' is none",
        ),
        (
            "q=%00",
            |q| {
                q.text("q");
            },
            "q must not contain U+0000",
        ),
        (
            "a=1&a=2",
            |q| {
                q.one("a");
            },
            "a must be given once",
        ),
    ];
    for (raw, read, expected) in table {
        assert_eq!(fault(read, raw), expected, "{raw}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let faults = fault(
        |query| {
            query.integer("limit", 1..=2);
            query.flag("all");
        },
        "limit=x&all=x",
    );
    assert_eq!(faults, "limit must be an integer; all must be true or false");
}

#[test]
fn a_time_is_a_date_or_rfc_3339() {
    for (text, expected) in [
        ("2026-11-22", Some("2026-11-22T00:00:00.000Z")),
        ("2026-11-22T09:46:30.085Z", Some("2026-11-22T09:46:30.085Z")),
        ("2026-11-22T09:46:30+02:00", Some("2026-11-22T07:46:30.000Z")),
        ("2026-11-22T09:46:30 02:00", Some("2026-11-22T07:46:30.000Z")),
        ("yesterday", None),
        ("2026-13-01", None),
        ("2026-1-1", None),
        ("", None),
    ] {
        let parsed = parse_time(text).map(control_plane_domain::time::format);
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }
}
