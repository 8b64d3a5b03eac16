//! `GET /runs/{id}/replay/stream`: what was recorded, again.
//!
//! **Invariant:** it reads the log and nothing else, a page at a time and only when its client has
//! read the one before; it ends where the log ended when it was opened, or earlier.

mod machine;
mod plan;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::RunId;
use control_plane_storage::Error;

use super::frame::Frame;
use super::page::PageSize;
use super::pump::{Close, Producer, retry_ms};
use super::request::{Ask, Log};
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::query::Query;
use crate::replay::Options;
use crate::runs::find;
use machine::{Machine, Pace, Step};
use plan::{Plan, decide};

/// `GET /runs/{id}/replay/stream`
#[utoipa::path(
    get, path = "/runs/{id}/replay/stream", tag = "replay",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("mode" = Option<String>, Query, description = "instant, timed (default) or step"),
        ("speed" = Option<f64>, Query, description = "Recorded pauses are divided by it; at least 0.1, default 1"),
        ("fromSeq" = Option<i64>, Query, description = "The first event; default 1"),
        ("toSeq" = Option<i64>, Query, description = "The last event; default the last one there is"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last id seen; wins over the query"),
        ("lastEventId" = Option<i64>, Query, description = "The same, for clients that cannot send headers"),
        ("afterSeq" = Option<i64>, Query, description = "The same again"),
        ("logId" = Option<String>, Query, description = "`X-MACP-Log-Id` of an earlier answer"),
        ("heartbeatMs" = Option<i64>, Query, description = "1000 to 45000"),
        ("types" = Option<String>, Query, description = "Comma-separated event types"),
    ),
    security(("apiKey" = []), ("ticket" = [])),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 204, description = "The cursor is the end of the replay"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 429, body = ErrorBody, description = "Too many streams are open"),
    )
)]
pub(crate) async fn stream(
    context: web::Data<ApiContext>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let raw = request.query_string();
    let ask =
        Ask::parse(raw, super::last_event_id(request.headers())?, context.settings.heartbeat)?;
    let mut query = Query::new(raw);
    let options = Options::of_query(&mut query);
    query.finish()?;
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    let run = find(&context.store, &id).await?;
    let log = Log { id: &context.log_id, last_seq: run.last_seq, over: run.is_over() };
    let opening = match decide(&ask, &options, &log) {
        Plan::NoContent => return Ok(super::no_content("replay")),
        Plan::Open(opening) => opening,
    };
    let after = opening.after;
    let pace = Pace::new(&options, context.settings.replay_max_delay);
    let machine = Machine::new(ask, pace, opening, retry_ms(), Instant::now());
    let replay = ReplayStream {
        context: context.clone(),
        run_id: run.id,
        machine,
        next: None,
        page: PageSize::new(),
    };
    super::respond(&context, &request, "replay", after, log.last_seq, replay)
}

/// A replay, as one connection has it.
struct ReplayStream {
    context: web::Data<ApiContext>,
    run_id: RunId,
    machine: Machine,
    /// What the machine wants done before it has a frame again.
    next: Option<Step>,
    page: PageSize,
}

impl ReplayStream {
    async fn read(&mut self, after: i64, limit: usize) {
        let limit = limit.min(self.page.events());
        let page = i64::try_from(limit).unwrap_or(i64::MAX);
        // Boxed, as below: a waiting connection should not carry room for a query.
        match Box::pin(self.context.store.events(self.run_id, after, page)).await {
            Ok(entries) => {
                self.page.read(entries.iter().map(|entry| entry.body.len()));
                self.machine.read(entries.into_iter().map(Arc::new));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) {
        if matches!(error, Error::NotFound { .. }) {
            self.machine.gone();
        } else {
            tracing::warn!(run.id = %self.run_id, error = error as &dyn std::error::Error, "A replay could not read");
            self.machine.failed(Instant::now());
        }
    }
}

impl Producer for ReplayStream {
    fn frame(&mut self, now: Instant) -> Option<Frame> {
        let step = self.machine.step(now);
        if let Step::Send(frame) = step {
            return Some(frame);
        }
        self.next = Some(step);
        None
    }

    fn is_busy(&self) -> bool {
        self.machine.is_busy()
    }

    async fn work(&mut self, until: Instant) -> ControlFlow<Close> {
        match self.next.take() {
            // Sent by the caller.
            None | Some(Step::Send(_)) => {}
            Some(Step::Close(why)) => return ControlFlow::Break(why),
            Some(Step::Read { after, limit }) => self.read(after, limit).await,
            Some(Step::AskHead) => match Box::pin(self.context.store.run_head(self.run_id)).await {
                Ok(head) => self.machine.head(head.state, Instant::now()),
                Err(error) => self.failed(&error),
            },
            Some(Step::Wait(due)) => tokio::time::sleep_until(due.min(until).into()).await,
        }
        ControlFlow::Continue(())
    }
}
