//! Replaying a run: what a replay can be told, where to get it, and the state on the way.
//!
//! **Invariant:** the addresses that `POST /runs/{id}/replay` gives out work as they are, with
//! everything that was asked for.

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse, web};
use control_plane_domain::Seq;
use control_plane_projection::state as projection_state;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::context::ApiContext;
use crate::error::{ApiError, ErrorBody};
use crate::query::Query;
use crate::runs::find;

const MIN_SPEED: f64 = 0.1;
const FIELDS: [&str; 4] = ["mode", "speed", "fromSeq", "toSeq"];

/// How fast a replay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As fast as the client reads.
    Instant,
    /// With the recorded pauses.
    Timed,
    /// As `Instant`: the client steps through what it has read.
    Step,
}

impl Mode {
    const WORDS: [(&'static str, Self); 3] =
        [("instant", Self::Instant), ("timed", Self::Timed), ("step", Self::Step)];

    fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Timed => "timed",
            Self::Step => "step",
        }
    }
}

/// What a replay was told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    /// Recorded pauses are divided by it.
    pub(crate) speed: f64,
    /// The first event, if not that of the log.
    pub(crate) from: Option<Seq>,
    /// The last event, if not that of the log.
    pub(crate) to: Option<Seq>,
}

impl Options {
    /// Reads a query string; what is wrong is noted there.
    pub(crate) fn of_query(query: &mut Query) -> Self {
        let options = Self {
            mode: query.choice("mode", &Mode::WORDS).unwrap_or(Mode::Timed),
            speed: query.number("speed", MIN_SPEED).unwrap_or(1.0),
            from: query.integer("fromSeq", 1..=Seq::MAX),
            to: query.integer("toSeq", 1..=Seq::MAX),
        };
        options.order_fault().into_iter().for_each(|fault| query.fault(fault));
        options
    }

    fn of_body(body: Option<Value>) -> Result<Self, ApiError> {
        let fields = match body {
            None => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                let fault = "the body must be a JSON object".to_owned();
                return Err(ApiError::Validation(vec![fault]));
            }
        };
        let unknown = fields.keys().filter(|name| !FIELDS.contains(&name.as_str()));
        let mut faults: Vec<String> =
            unknown.map(|name| format!("{name} is not a known field")).collect();
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());

        let mut mode = Mode::Timed;
        if let Some(value) = given("mode") {
            let word = Mode::WORDS.into_iter().find(|(word, _)| value.as_str() == Some(*word));
            match word {
                Some((_, meaning)) => mode = meaning,
                None => faults.push("mode must be one of: instant, timed, step".to_owned()),
            }
        }
        let mut speed = 1.0;
        if let Some(value) = given("speed") {
            match value.as_f64() {
                Some(number) if number >= MIN_SPEED => speed = number,
                Some(_) => faults.push(format!("speed must not be less than {MIN_SPEED}")),
                None => faults.push("speed must be a number".to_owned()),
            }
        }
        let mut place = |name: &str| {
            let number = given(name)?.as_i64().filter(|number| *number >= 1);
            if number.is_none() {
                faults.push(format!("{name} must be an integer, and not less than 1"));
            }
            number
        };
        let options = Self { mode, speed, from: place("fromSeq"), to: place("toSeq") };
        faults.extend(options.order_fault());
        if faults.is_empty() { Ok(options) } else { Err(ApiError::Validation(faults)) }
    }

    fn order_fault(&self) -> Option<String> {
        let (from, to) = (self.from?, self.to?);
        (from > to).then(|| "fromSeq must not be greater than toSeq".to_owned())
    }

    /// The query string that says the same.
    fn to_query(self) -> String {
        let Self { mode, speed, from, to } = self;
        let mut query = format!("mode={}&speed={speed}", mode.as_str());
        for (name, seq) in [("fromSeq", from), ("toSeq", to)] {
            if let Some(seq) = seq {
                // Writing to memory does not fail.
                let _ = write!(query, "&{name}={seq}");
            }
        }
        query
    }
}

/// Where a replay is to be had.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replay)]
pub(crate) struct ReplayView {
    #[schema(value_type = uuid::Uuid)]
    run_id: String,
    /// instant, timed or step.
    mode: &'static str,
    #[schema(value_type = f64)]
    speed: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_seq: Option<Seq>,
    stream_url: String,
    state_url: String,
}

/// `POST /runs/{id}/replay`
#[utoipa::path(
    post, path = "/runs/{id}/replay", tag = "replay",
    params(("id" = String, Path, description = "A run's id, or its session's")),
    request_body(content = Object, description = "`mode?` (instant, timed, step; default timed), `speed?` (at least 0.1, default 1), `fromSeq?`, `toSeq?`"),
    responses(
        (status = 201, body = ReplayView, description = "Nothing is started: opening `streamUrl` does"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn replay(
    context: web::Data<ApiContext>,
    id: web::Path<String>,
    body: JsonBody,
) -> Result<HttpResponse, ApiError> {
    let options = Options::of_body(body.0)?;
    let run = find(&context.store, &id).await?;
    let path = format!("/runs/{}/replay", run.id);
    Ok(HttpResponse::Created().json(ReplayView {
        run_id: run.id.to_string(),
        mode: options.mode.as_str(),
        speed: plain(options.speed),
        from_seq: options.from,
        to_seq: options.to,
        stream_url: format!("{path}/stream?{}", options.to_query()),
        state_url: format!("{path}/state"),
    }))
}

/// `GET /runs/{id}/replay/state`
#[utoipa::path(
    get, path = "/runs/{id}/replay/state", tag = "replay",
    params(
        ("id" = String, Path, description = "A run's id, or its session's"),
        ("seq" = Option<i64>, Query, description = "The state after this event; 0 is the empty state, and absent or beyond the log's end the state now"),
    ),
    responses(
        (status = 200, body = Object, description = "The run's state, as `/runs/{id}/state` gave it then; `timeline.latestSeq` says where it stands"),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
    )
)]
pub(crate) async fn state(
    context: web::Data<ApiContext>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let seq = query.integer("seq", 0..=Seq::MAX).unwrap_or(Seq::MAX);
    query.finish()?;
    let run = find(&context.store, &id).await?;
    let store = context.store.clone();
    // Not on a worker: folding is work, and a worker has streams to feed.
    let folding =
        context.executor.spawn(async move { projection_state::at(&store, run.id, seq).await });
    let projection = folding
        .await
        .map_err(|error| ApiError::Internal(format!("the fold ended early: {error}")))??;
    Ok(HttpResponse::Ok().json(projection))
}

/// A number as people write it: without a fraction that says nothing.
fn plain(number: f64) -> Value {
    format!("{number}").parse::<i64>().map_or_else(|_| json!(number), |whole| json!(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_query(raw: &str) -> Result<Options, ApiError> {
        let mut query = Query::new(raw);
        let options = Options::of_query(&mut query);
        query.finish().map(|()| options)
    }

    #[test]
    fn the_defaults_are_a_timed_replay_of_everything_at_its_own_speed() {
        let expected = Options { mode: Mode::Timed, speed: 1.0, from: None, to: None };
        assert_eq!(of_query("").unwrap(), expected);
        for body in [None, Some(json!({})), Some(json!({ "mode": null, "toSeq": null }))] {
            assert_eq!(Options::of_body(body).unwrap(), expected);
        }
    }

    #[test]
    fn the_query_that_is_given_out_says_what_the_body_said() {
        for body in [
            json!({}),
            json!({ "mode": "step" }),
            json!({ "mode": "timed", "speed": 0.1 }),
            json!({ "mode": "instant", "speed": 2.5, "fromSeq": 3, "toSeq": 3 }),
            json!({ "speed": 1e300, "toSeq": i64::MAX }),
        ] {
            let options = Options::of_body(Some(body.clone())).unwrap();
            assert_eq!(of_query(&options.to_query()).unwrap(), options, "{body}");
        }
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        for (raw, named) in [
            ("mode=fast", "mode"),
            ("speed=0.09", "speed"),
            ("speed=NaN", "speed"),
            ("speed=inf", "speed"),
            ("speed=", "speed"),
            ("fromSeq=0", "fromSeq"),
            ("toSeq=1.5", "toSeq"),
            ("fromSeq=5&toSeq=4", "fromSeq"),
        ] {
            let fault = of_query(raw).unwrap_err().to_string();
            assert!(fault.starts_with(named), "{raw}: {fault}");
        }
        for (body, named) in [
            (json!({ "mode": "fast" }), "mode"),
            (json!({ "mode": 1 }), "mode"),
            (json!({ "speed": 0 }), "speed"),
            (json!({ "speed": "1" }), "speed"),
            (json!({ "fromSeq": 0 }), "fromSeq"),
            (json!({ "toSeq": 1.5 }), "toSeq"),
            (json!({ "fromSeq": 5, "toSeq": 4 }), "fromSeq"),
            (json!({ "spede": 1 }), "spede"),
            (json!([]), "the body"),
        ] {
            let fault = Options::of_body(Some(body.clone())).unwrap_err().to_string();
            assert!(fault.starts_with(named), "{body}: {fault}");
        }
    }

    #[test]
    fn a_whole_speed_is_a_whole_number() {
        assert_eq!(plain(1.0), json!(1));
        assert_eq!(plain(0.5), json!(0.5));
        assert_eq!(plain(1e300), json!(1e300));
    }
}
