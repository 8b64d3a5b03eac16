//! Reading events: of one run, and of all.
//!
//! **Invariant:** an event is sent as the text that is stored, spliced in; it is never parsed on
//! its way out.

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{BufMut, Bytes, BytesMut};
use control_plane_storage::model::{EventFilter, LogEntry, Page};

use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::query::Query;
use crate::runs::find;

type Context = web::Data<ApiContext>;

/// The most events of one answer.
const MAX_LIMIT: i64 = 10_000;

/// `GET /runs/{id}/events`
#[utoipa::path(
    get, path = "/runs/{id}/events", tag = "events",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("afterSeq" = Option<i64>, Query, description = "Exclusive, default 0"),
        ("limit" = Option<i64>, Query, description = "1 to 10000, default 200"),
        ("afterTs" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("beforeTs" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("type" = Option<String>, Query, description = "Comma-separated event types"),
    ),
    responses(
        (status = 200, body = Object, description = "A bare array without filters; with any of afterTs, beforeTs and type an object `{data, total, limit, nextCursor?}`"),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn of_run(
    context: Context,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let mut filter = EventFilter {
        run_id: None,
        scenario_ref: None,
        types: query.event_types("type"),
        after_ts: query.time("afterTs"),
        before_ts: query.time("beforeTs"),
        after: query.integer("afterSeq", 0..=i64::MAX).unwrap_or(0),
        limit: query.integer("limit", 1..=MAX_LIMIT).unwrap_or(200),
    };
    query.finish()?;
    let run = find(&context.store, &id).await?;
    filter.run_id = Some(run.id);

    let plain = filter.types.is_empty() && filter.after_ts.is_none() && filter.before_ts.is_none();
    if plain {
        let entries = context.store.events(run.id, filter.after, filter.limit).await?;
        return Ok(json(array(&entries, Row::Plain)));
    }
    let page = context.store.event_list(&filter).await?;
    let next_cursor = page.items.last().map(|entry| entry.seq);
    Ok(json(object(&page, filter.limit, next_cursor, Row::Plain)))
}

/// `GET /events`
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("runId" = Option<String>, Query, description = "A run's id, or its session's"),
        ("scenarioRef" = Option<String>, Query),
        ("afterSeq" = Option<i64>, Query, description = "A position; with `runId` that run's seq. Exclusive"),
        ("limit" = Option<i64>, Query, description = "1 to 10000, default 500"),
        ("afterTs" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("beforeTs" = Option<String>, Query, description = "YYYY-MM-DD or RFC 3339, exclusive"),
        ("type" = Option<String>, Query, description = "Comma-separated event types"),
    ),
    responses(
        (status = 200, body = Object, description = "`{data, total, limit, nextCursor?}`; rows carry `position`"),
        (status = 400, body = ErrorBody),
    )
)]
pub(crate) async fn feed(context: Context, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let run_id = query.text("runId");
    let mut filter = EventFilter {
        run_id: None,
        scenario_ref: query.text("scenarioRef"),
        types: query.event_types("type"),
        after_ts: query.time("afterTs"),
        before_ts: query.time("beforeTs"),
        after: query.integer("afterSeq", 0..=i64::MAX).unwrap_or(0),
        limit: query.integer("limit", 1..=MAX_LIMIT).unwrap_or(500),
    };
    query.finish()?;
    if let Some(run_id) = run_id {
        filter.run_id = Some(find(&context.store, &run_id).await?.id);
    }
    let page = context.store.event_list(&filter).await?;
    let by_run = filter.run_id.is_some();
    let next_cursor = page
        .items
        .last()
        .filter(|_| page.more)
        .map(|entry| if by_run { entry.seq } else { entry.position });
    Ok(json(object(&page, filter.limit, next_cursor, Row::WithPosition)))
}

/// How a row is written.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    Plain,
    /// With `position` as its first key.
    WithPosition,
}

fn json(body: Bytes) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(body)
}

fn object(page: &Page<LogEntry>, limit: i64, next_cursor: Option<i64>, row: Row) -> Bytes {
    let mut out = BytesMut::with_capacity(size_of_rows(&page.items) + 96);
    out.put_slice(b"{\"data\":");
    put_array(&mut out, &page.items, row);
    put(&mut out, format_args!(",\"total\":{},\"limit\":{limit}", page.total));
    if let Some(next_cursor) = next_cursor {
        put(&mut out, format_args!(",\"nextCursor\":{next_cursor}"));
    }
    out.put_u8(b'}');
    out.freeze()
}

fn array(entries: &[LogEntry], row: Row) -> Bytes {
    let mut out = BytesMut::with_capacity(size_of_rows(entries));
    put_array(&mut out, entries, row);
    out.freeze()
}

fn size_of_rows(entries: &[LogEntry]) -> usize {
    entries.iter().map(|entry| entry.body.len() + 32).sum::<usize>() + 2
}

fn put_array(out: &mut BytesMut, entries: &[LogEntry], row: Row) {
    out.put_u8(b'[');
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        put_row(out, entry, row);
    }
    out.put_u8(b']');
}

/// Writes one event, for whoever sends events as JSON.
pub(crate) fn put_row(out: &mut BytesMut, entry: &LogEntry, row: Row) {
    // A stored text is an object with keys: it goes on after its opening brace.
    match (row, entry.body.strip_prefix(b"{")) {
        // An imported event has no place in the feed.
        (Row::WithPosition, Some(rest)) if entry.position == 0 => {
            out.put_slice(b"{\"position\":null,");
            out.put_slice(rest);
        }
        (Row::WithPosition, Some(rest)) => {
            put(out, format_args!("{{\"position\":{},", entry.position));
            out.put_slice(rest);
        }
        (Row::WithPosition, None) | (Row::Plain, _) => out.put_slice(&entry.body),
    }
}

fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = std::fmt::Write::write_fmt(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_domain::event::ChainHash;
    use control_plane_domain::{EventType, RunId, time};
    use serde_json::{Value, json};

    fn entry(seq: i64) -> LogEntry {
        let at = time::from_unix_ms(0).unwrap();
        LogEntry {
            run_id: RunId(uuid::Uuid::nil()),
            seq,
            position: seq + 100,
            ts: at,
            received_at: at,
            event_type: EventType::RunCreated,
            subject: None,
            hash: ChainHash::EMPTY,
            body: Bytes::from(format!("{{\"seq\":{seq},\"z\":1,\"a\":2}}")),
        }
    }

    #[test]
    fn a_bare_array_is_the_stored_texts() {
        let body = array(&[entry(1), entry(2)], Row::Plain);
        assert_eq!(&body[..], br#"[{"seq":1,"z":1,"a":2},{"seq":2,"z":1,"a":2}]"#);
        assert_eq!(&array(&[], Row::Plain)[..], b"[]");
    }

    #[test]
    fn a_row_of_the_feed_says_where_it_stands() {
        let page = Page { items: vec![entry(1)], total: 9, more: true };
        let body = object(&page, 1, Some(101), Row::WithPosition);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({
                "data": [{ "position": 101, "seq": 1, "z": 1, "a": 2 }],
                "total": 9, "limit": 1, "nextCursor": 101,
            })
        );
    }

    #[test]
    fn the_last_page_has_no_next_cursor() {
        let page = Page { items: vec![], total: 0, more: false };
        let body: Value = serde_json::from_slice(&object(&page, 5, None, Row::Plain)).unwrap();
        assert_eq!(body, json!({ "data": [], "total": 0, "limit": 5 }));
    }
}
