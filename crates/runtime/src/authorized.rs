//! A channel that says who we are with every call.
//!
//! **Invariant:** a call goes out with a credential that is the one of that moment, and never with
//! a weaker one than is configured. Minting is waited for within the call's own deadline.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::codegen::{Bytes, Service};
use tonic::transport::Channel;

use crate::error::no_credentials;
use crate::minter::Minter;
use crate::traced::Traced;

type Fault = Box<dyn Error + Send + Sync>;
pub(crate) type Answer = Result<Response<Body>, Fault>;

/// Who we are to the runtime.
#[derive(Clone)]
pub(crate) enum Credentials {
    Nobody,
    /// A token that does not change.
    Static(HeaderValue),
    /// Tokens that are minted, and what to do without one: `None` fails the call.
    Minted {
        minter: Minter,
        fallback: Option<HeaderValue>,
    },
}

/// Whether a call may be sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Its request is one message, which is kept until it is answered.
    Once,
    /// Its request is a stream.
    Never,
}

/// A channel with credentials.
#[derive(Clone)]
pub(crate) struct Authorized {
    channel: Channel,
    credentials: Credentials,
    again: Again,
    trace: Option<Traced>,
}

impl Authorized {
    pub(crate) fn new(channel: Channel, credentials: Credentials, again: Again) -> Self {
        Self { channel, credentials, again, trace: None }
    }

    /// The same, whose calls are part of a trace if there is one.
    pub(crate) fn within(self, trace: Option<Traced>) -> Self {
        Self { trace, ..self }
    }

    async fn send(self, request: Request<Body>) -> Answer {
        let Self { channel, credentials, again, trace: _ } = self;
        let (minter, fallback) = match credentials {
            Credentials::Nobody => return forward(channel, request).await,
            Credentials::Static(value) => return forward_as(channel, request, value).await,
            Credentials::Minted { minter, fallback } => (minter, fallback),
        };
        let token = match (minter.token().await, fallback) {
            (Ok(token), _) => token,
            (Err(_told), Some(value)) => return forward_as(channel, request, value).await,
            (Err(error), None) => return Err(no_credentials(error.to_string()).into()),
        };
        if again == Again::Never {
            let answer = forward_as(channel, request, token.header()).await;
            if is_unauthenticated(&answer) {
                minter.refused(&token);
            }
            return answer;
        }
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.collect().await?.to_bytes());
        let first = forward_as(channel.clone(), copy(&request), token.header()).await;
        if is_unauthenticated(&first)
            && minter.refused(&token)
            && let Ok(newer) = minter.token().await
        {
            return forward_as(channel, copy(&request), newer.header()).await;
        }
        first
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = Response<Body>;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    /// The channel is waited for when there is a credential.
    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        let Some(trace) = &self.trace else { return Box::pin(this.send(request)) };
        let mut request = request;
        let call = trace.begin(&mut request);
        Box::pin(async move {
            let answer = this.send(request).await;
            call.end(&answer);
            answer
        })
    }
}

async fn forward(mut channel: Channel, request: Request<Body>) -> Answer {
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    Ok(channel.call(request).await?)
}

async fn forward_as(channel: Channel, mut request: Request<Body>, value: HeaderValue) -> Answer {
    request.headers_mut().insert("authorization", value);
    forward(channel, request).await
}

fn copy(request: &Request<Bytes>) -> Request<Body> {
    request.clone().map(|bytes| Body::new(Full::new(bytes)))
}

/// A call that is refused before it starts is answered by a head alone.
fn is_unauthenticated(answer: &Answer) -> bool {
    let code = i32::from(Code::Unauthenticated).to_string();
    answer.as_ref().is_ok_and(|response| {
        response.headers().get("grpc-status").is_some_and(|status| *status == code)
    })
}
