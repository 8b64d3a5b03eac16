//! `GET /events/stream`: the events of all runs as they happen, after all that happened before.
//!
//! **Invariant:** an event's id is its position, and positions become visible in their own order:
//! a client that sends back the last id it saw gets every later event that passes its filters once,
//! in order, whatever it has read by `GET /events`.

mod machine;
mod request;

use std::ops::ControlFlow;
use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_storage::{FeedFilter, FeedFollower};

use super::frame::Frame;
use super::page::PageSize;
use super::pump::{Close, Producer, retry_ms};
use super::{last_event_id, respond};
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::runs::find;
use machine::{Machine, Step};
use request::{FeedAsk, decide};

/// `GET /events/stream`
#[utoipa::path(
    get, path = "/events/stream", tag = "events",
    params(
        ("types" = Option<String>, Query, description = "Comma-separated event types"),
        ("scenarioRef" = Option<String>, Query, description = "As for `GET /events`"),
        ("runId" = Option<String>, Query, description = "A run's id, or its session's"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last id seen, a position; wins over the query"),
        ("lastEventId" = Option<i64>, Query, description = "The same, for clients that cannot send headers"),
        ("afterSeq" = Option<i64>, Query, description = "A position. 0 is everything; without any cursor only what comes"),
        ("logId" = Option<String>, Query, description = "`X-MACP-Log-Id` of an earlier answer"),
        ("heartbeatMs" = Option<i64>, Query, description = "1000 to 45000"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 429, body = ErrorBody, description = "Too many streams are open"),
    )
)]
pub(crate) async fn stream(
    context: web::Data<ApiContext>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let FeedAsk { ask, run_id, scenario_ref } = FeedAsk::parse(
        request.query_string(),
        last_event_id(request.headers())?,
        context.settings.heartbeat,
    )?;
    if context.stop.is_cancelled() {
        return Err(ApiError::Draining);
    }
    let run_id = match run_id {
        Some(run_id) => Some(find(&context.store, &run_id).await?.id),
        None => None,
    };
    let bounds = context.store.feed_bounds().await?;
    let opening = decide(&ask, &context.log_id, bounds);
    let after = opening.after;
    let filter = FeedFilter { run_id, scenario_ref, types: ask.types };
    let stream = FeedStream {
        follower: context.store.follow_feed(after, filter),
        machine: Machine::new(opening, ask.heartbeat, retry_ms(), Instant::now()),
        next: None,
        page: PageSize::new(),
    };
    respond(&context, &request, "feed", after, bounds.last, stream)
}

/// The events of all runs, as one connection sees them.
struct FeedStream {
    follower: FeedFollower,
    machine: Machine,
    /// What the machine wants done before it has a frame again.
    next: Option<Step>,
    page: PageSize,
}

impl FeedStream {
    async fn read(&mut self) {
        let limit = self.page.events();
        // Boxed: a waiting connection should not carry room for a query.
        match Box::pin(self.follower.try_next(limit)).await {
            Ok(page) => {
                self.page.read(page.entries.iter().map(|entry| entry.body.len()));
                if page.fell {
                    metrics::counter!("sse_store_fallbacks_total").increment(1);
                }
                self.machine.read(page);
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "A stream of all events could not read"
                );
                self.machine.failed(Instant::now());
            }
        }
    }
}

impl Producer for FeedStream {
    fn frame(&mut self, now: Instant) -> Option<Frame> {
        let step = self.machine.step(now);
        if let Step::Send(frame) = step {
            return Some(frame);
        }
        self.next = Some(step);
        None
    }

    fn is_busy(&self) -> bool {
        self.machine.waiting() > 8
    }

    fn lag(&self) -> Option<i64> {
        Some(self.follower.latest() - self.machine.cursor())
    }

    async fn work(&mut self, until: Instant) -> ControlFlow<Close> {
        match self.next.take() {
            // Sent by the caller.
            None | Some(Step::Send(_)) => {}
            Some(Step::Read) => self.read().await,
            Some(Step::Wait(due)) => {
                tokio::select! {
                    () = tokio::time::sleep_until(due.min(until).into()) => {}
                    () = self.follower.changed() => self.machine.woken(),
                }
            }
            Some(Step::Pause(due)) => tokio::time::sleep_until(due.min(until).into()).await,
        }
        ControlFlow::Continue(())
    }
}
