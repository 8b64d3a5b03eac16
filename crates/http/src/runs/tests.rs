//! The filters of a list, and the cursor that goes on with it.

use control_plane_domain::run::RunMode;

use super::*;

fn run() -> Run {
    let at = time::from_unix_ms(1_763_800_000_123).unwrap();
    Run {
        id: RunId(uuid::Uuid::from_u128(7)),
        state: RunState::Running,
        mode: RunMode::Live,
        runtime_kind: "rust".into(),
        runtime_version: None,
        session_id: None,
        trace_id: None,
        idempotency_key: None,
        request_hash: None,
        last_seq: 0,
        source_kind: None,
        source_ref: None,
        tags: vec![],
        metadata: serde_json::Map::new(),
        error_code: None,
        error_message: None,
        created_at: at,
        started_at: None,
        ended_at: None,
        updated_at: at,
        archived_at: None,
        parked_reason: None,
        imported_at: None,
    }
}

#[test]
fn a_cursor_leads_back_to_the_run_that_it_was_made_of() {
    let run = run();
    let cursor = encode_cursor(&run, RunOrder::CreatedAt);
    assert_eq!(
        decode_cursor(&cursor, RunOrder::CreatedAt),
        Some(RunCursor { at: run.created_at, id: run.id })
    );
}

#[test]
fn a_cursor_of_another_order_or_of_nobody_is_refused() {
    let cursor = encode_cursor(&run(), RunOrder::CreatedAt);
    assert_eq!(decode_cursor(&cursor, RunOrder::UpdatedAt), None);
    for bad in ["", "garbage", "!!!!", "YzEyMw"] {
        assert_eq!(decode_cursor(bad, RunOrder::CreatedAt), None, "{bad}");
    }
}

#[test]
fn an_empty_query_is_the_default_page() {
    let filter = read_filter("").unwrap();
    assert_eq!((filter.limit, filter.offset, filter.ascending), (50, 0, false));
    assert!(!filter.include_sandbox && !filter.include_archived);
}

#[test]
fn what_the_console_sends_is_taken() {
    let filter = read_filter(
        "limit=200&offset=0&status=running&tags=a,b&createdAfter=2026-11-01&sortBy=updatedAt\
         &sortOrder=asc&includeArchived=true&search=x&environment=prod&scenarioRef=fraud",
    )
    .unwrap();
    assert_eq!(filter.status, Some(RunState::Running));
    assert_eq!(filter.tags, ["a", "b"]);
    assert_eq!(filter.order, RunOrder::UpdatedAt);
    assert!(filter.ascending && filter.include_archived);
}

#[test]
fn every_bad_value_is_named() {
    let Err(ApiError::Validation(faults)) = read_filter(
        "status=done&limit=0&createdBefore=soon&cursor=x&sortOrder=up&includeSandbox=1",
    ) else {
        panic!("taken");
    };
    for name in ["status", "limit", "createdBefore", "cursor", "sortOrder", "includeSandbox"] {
        assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
    }
}

#[test]
fn an_id_is_a_uuid_or_a_session_id() {
    for good in ["6f9619ff-8b86-1d01-b42d-00cf4fc964ff", "abcdefghijklmnopqrstuv"] {
        assert!(check_id(good).is_ok(), "{good}");
    }
    for bad in ["batch", "1", "../etc/passwd", "abc%00"] {
        assert!(check_id(bad).is_err(), "{bad}");
    }
}
