//! A span under way.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Attribute, AttributeValue, Span, SpanKind, SpanStatus, TraceContext, Tracer};

/// Says of a span that nobody waited for its end.
const GIVEN_UP: &str = "macp.given_up";

/// A span that has begun. Dropped without an end it is one that was given up: nobody waits for
/// what it is about any more.
#[derive(Debug)]
pub struct LiveSpan {
    tracer: Arc<dyn Tracer>,
    context: TraceContext,
    /// `None` once it is over, and from the start for one that is not recorded.
    span: Option<Span>,
}

impl LiveSpan {
    /// Begins a span, as a child of `parent` if there is one.
    pub fn begin(
        tracer: &Arc<dyn Tracer>,
        parent: Option<&TraceContext>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> Self {
        let context = tracer.begin(parent);
        let span = context.sampled.then(|| {
            let start = tracer.now();
            Span {
                context: context.clone(),
                parent: parent.map(|parent| parent.span_id),
                name: name.into(),
                kind,
                start,
                end: start,
                attributes: Vec::new(),
                events: Vec::new(),
                status: SpanStatus::Unset,
            }
        });
        Self { tracer: Arc::clone(tracer), context, span }
    }

    /// For what happens within it.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Says something about it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<AttributeValue>) -> Self {
        self.note((name, value.into()));
        self
    }

    /// The same.
    pub fn note(&mut self, attribute: Attribute) {
        if let Some(span) = &mut self.span {
            span.attributes.push(attribute);
        }
    }

    /// Gives it another name, now that it is known what it is about.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.span {
            span.name = name.into();
        }
    }

    /// It is over.
    pub fn end(mut self, status: SpanStatus) {
        self.finish(status);
    }

    fn finish(&mut self, status: SpanStatus) {
        if let Some(mut span) = self.span.take() {
            span.end = self.tracer.now().max(span.start);
            span.status = status;
            self.tracer.end(span);
        }
    }
}

impl Drop for LiveSpan {
    fn drop(&mut self) {
        self.note((GIVEN_UP, true.into()));
        self.finish(SpanStatus::Unset);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::{SpanId, TraceId, UnixNanos};
    use super::*;

    #[derive(Debug)]
    struct Recorder {
        sampled: bool,
        count: AtomicU64,
        spans: Mutex<Vec<Span>>,
    }

    impl Recorder {
        fn start(sampled: bool) -> Arc<Self> {
            Arc::new(Self { sampled, count: AtomicU64::new(1), spans: Mutex::default() })
        }

        fn next(&self) -> u64 {
            self.count.fetch_add(1, Ordering::SeqCst)
        }
    }

    impl Tracer for Recorder {
        fn begin(&self, parent: Option<&TraceContext>) -> TraceContext {
            let trace_id = parent.map_or(TraceId::new([7; 16]).unwrap(), |it| it.trace_id);
            let span_id = SpanId::new(self.next().to_be_bytes()).unwrap();
            TraceContext { trace_id, span_id, sampled: self.sampled, state: None }
        }

        fn now(&self) -> UnixNanos {
            self.next()
        }

        fn end(&self, span: Span) {
            self.spans.lock().unwrap().push(span);
        }
    }

    #[test]
    fn a_child_has_its_parents_trace_and_ends_after_it_began() {
        let recorder = Recorder::start(true);
        let tracer: Arc<dyn Tracer> = recorder.clone();
        let parent = LiveSpan::begin(&tracer, None, "a", SpanKind::Server);
        let mut child =
            LiveSpan::begin(&tracer, Some(parent.context()), "b", SpanKind::Client).with("k", "v");
        child.rename("c");
        child.end(SpanStatus::Ok);
        let parent_id = parent.context().span_id;
        parent.end(SpanStatus::Unset);

        let spans = recorder.spans.lock().unwrap();
        assert_eq!((&*spans[0].name, &*spans[1].name), ("c", "a"));
        assert_eq!((spans[0].parent, spans[1].parent), (Some(parent_id), None));
        assert_eq!(spans[0].context.trace_id, spans[1].context.trace_id);
        assert!(spans[0].end > spans[0].start);
        assert_eq!(spans[0].attributes, [("k", "v".into())]);
        assert_eq!(spans.len(), 2);
    }

    #[test]
    fn a_span_that_is_dropped_was_given_up_which_is_no_error() {
        let recorder = Recorder::start(true);
        let tracer: Arc<dyn Tracer> = recorder.clone();
        drop(LiveSpan::begin(&tracer, None, "a", SpanKind::Internal));
        let spans = recorder.spans.lock().unwrap();
        assert_eq!(spans[0].status, SpanStatus::Unset);
        assert_eq!(spans[0].attributes, [(GIVEN_UP, true.into())]);
    }

    #[test]
    fn what_is_not_sampled_has_a_context_and_no_span() {
        let recorder = Recorder::start(false);
        let tracer: Arc<dyn Tracer> = recorder.clone();
        let span = LiveSpan::begin(&tracer, None, "a", SpanKind::Internal).with("k", 1_i64);
        assert!(!span.context().sampled);
        span.end(SpanStatus::Ok);
        assert_eq!(recorder.spans.lock().unwrap().len(), 0);
    }
}
