//! When a ticket is good, and what asks for one.

use control_plane_domain::time::from_unix_ms;
use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    from_unix_ms(1_795_000_000_000 + seconds * 1000).unwrap()
}

#[test]
fn a_ticket_is_good_until_it_expires_and_for_a_day_at_most() {
    let day = 24 * 3600;
    for (now, expires_at, good) in [
        (0, 60, true),
        (59, 60, true),
        (60, 60, false),
        (day - 1, day + 120, true),
        (day, day + 120, false),
    ] {
        let ticket = Ticket {
            run_id: RunId::random(),
            key_hash: Vec::new(),
            made_at: at(0),
            expires_at: at(expires_at),
        };
        assert_eq!(is_good(&ticket, at(now)), good, "{now} {expires_at}");
    }
}

#[test]
fn the_query_is_searched_for_a_ticket() {
    for (raw, ticket) in [
        ("", None),
        ("ticket=", None),
        ("afterSeq=0", None),
        ("%zz", None),
        ("ticket=a-b_c", Some("a-b_c")),
        ("afterSeq=0&ticket=&ticket=x%2B", Some("x+")),
    ] {
        assert_eq!(in_query(raw).as_deref(), ticket, "{raw}");
    }
}

#[test]
fn a_request_for_a_ticket_names_a_run_and_nothing_else() {
    let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    assert_eq!(parse(&json!({ "runId": id })), Ok(id.to_owned()));
    for (body, fault) in [
        (json!(null), "the body must be a JSON object"),
        (json!([]), "the body must be a JSON object"),
        (json!({}), "runId is required"),
        (json!({ "runId": 7 }), "runId must be the id of a run or of a session"),
        (json!({ "runId": "no!" }), "runId must be the id of a run or of a session"),
        (json!({ "runId": id, "run": id }), "run is not a known field"),
    ] {
        assert_eq!(parse(&body), Err(vec![fault.to_owned()]), "{body}");
    }
}
