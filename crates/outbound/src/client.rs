//! One call: resolve, check, connect, check again, speak.
//!
//! **Invariant:** one connection per call, to an address that the guard permits. No proxy, no
//! redirect, no retry; everything happens within the call's time.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use control_plane_domain::outbound::{Answer, Call, Outbound, OutboundError};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Position, Url};

use crate::guard::AllowList;

/// How long one of several addresses may take to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const OURSELVES: &str = concat!("macp-control-plane/", env!("CARGO_PKG_VERSION"));

/// Calls servers elsewhere.
pub struct Client {
    /// `None` goes anywhere.
    guard: Option<AllowList>,
    tls: TlsConnector,
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS for outbound calls cannot be set up")]
pub struct ClientError(#[from] rustls::Error);

/// Where a URL leads.
struct Target {
    /// As the URL names it.
    host: String,
    port: u16,
    /// The address, when the host is one.
    literal: Option<IpAddr>,
    /// For the `Host` header.
    authority: String,
    /// Path and query.
    path: String,
    /// Whom the certificate must name; `None` without TLS.
    tls: Option<ServerName<'static>>,
}

impl Client {
    /// For what our clients may aim: public addresses, and what `allowed` opens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn guarded(allowed: AllowList) -> Result<Self, ClientError> {
        Ok(Self { guard: Some(allowed), tls: tls(roots())? })
    }

    /// For what only the operator names: any address.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn trusted() -> Result<Self, ClientError> {
        Ok(Self { guard: None, tls: tls(roots())? })
    }

    async fn exchange(&self, target: &Target, call: &Call) -> Result<Answer, OutboundError> {
        let unreachable = |error: &dyn fmt::Display| OutboundError::Unreachable {
            host: target.host.clone(),
            detail: error.to_string(),
        };
        let socket = self.connect(target).await?;
        let done = match &target.tls {
            None => speak(socket, target, call).await,
            Some(name) => {
                let shaken = self.tls.connect(name.clone(), socket).await;
                speak(shaken.map_err(|error| unreachable(&error))?, target, call).await
            }
        };
        done.map_err(|error| match error {
            Fault::Call(error) => error,
            Fault::Http(error) => unreachable(&error),
        })
    }

    /// Connects to the first address that is permitted and answers.
    async fn connect(&self, target: &Target) -> Result<TcpStream, OutboundError> {
        let unreachable = |error: &io::Error| OutboundError::Unreachable {
            host: target.host.clone(),
            detail: error.to_string(),
        };
        let forbidden = || OutboundError::Forbidden { host: target.host.clone() };
        let addresses: Vec<SocketAddr> = match target.literal {
            Some(address) => vec![SocketAddr::new(address, target.port)],
            None => tokio::net::lookup_host((target.host.as_str(), target.port))
                .await
                .map_err(|error| unreachable(&error))?
                .collect(),
        };
        let mut last = forbidden();
        for address in addresses {
            if !self.permits(target, address.ip()) {
                continue;
            }
            let connecting = TcpStream::connect(address);
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                // What counts is where the connection leads, not what was resolved.
                Ok(Ok(socket)) => {
                    let peer = socket.peer_addr().map_err(|error| unreachable(&error))?;
                    let permitted = self.permits(target, peer.ip());
                    return if permitted { Ok(socket) } else { Err(forbidden()) };
                }
                Ok(Err(error)) => last = unreachable(&error),
                Err(_late) => last = unreachable(&io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }

    fn permits(&self, target: &Target, address: IpAddr) -> bool {
        self.guard.as_ref().is_none_or(|allowed| allowed.permits(&target.host, address))
    }
}

#[async_trait]
impl Outbound for Client {
    async fn post(&self, call: Call) -> Result<Answer, OutboundError> {
        let target = Target::of(&call.url)?;
        let limit = call.timeout;
        tokio::time::timeout(limit, self.exchange(&target, &call))
            .await
            .unwrap_or(Err(OutboundError::Timeout { host: target.host.clone(), limit }))
    }
}

impl Target {
    fn of(url: &str) -> Result<Self, OutboundError> {
        let url = Url::parse(url).map_err(|_fault| OutboundError::Url("is not a URL"))?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(OutboundError::Url("is neither http nor https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutboundError::Url("must not hold a user or a password"));
        }
        let no_host = OutboundError::Url("names no host");
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(no_host);
        };
        let literal = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        let name = match (literal, &host) {
            (Some(address), _) => Ok(ServerName::from(address)),
            (None, host) => ServerName::try_from(host.to_string()),
        };
        let name = name.map_err(|_fault| no_host)?;
        Ok(Self {
            host: host.to_string(),
            port,
            literal,
            authority: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            path: url[Position::BeforePath..Position::AfterQuery].to_owned(),
            tls: secure.then_some(name),
        })
    }
}

/// What can go wrong once there is a connection.
enum Fault {
    Call(OutboundError),
    Http(hyper::Error),
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

/// Sends the request and reads as much of the answer as is wanted.
async fn speak<S>(socket: S, target: &Target, call: &Call) -> Result<Answer, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    // It ends with this call, however that ends.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request(target, call)?).await?;
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while body.len() < call.wanted {
        let Some(frame) = incoming.frame().await else { break };
        if let Some(data) = frame?.data_ref() {
            let room = call.wanted - body.len();
            body.extend(data.iter().take(room));
        }
    }
    Ok(Answer { status, body })
}

fn request(target: &Target, call: &Call) -> Result<Request<Full<Bytes>>, Fault> {
    let bad = |what| Fault::Call(OutboundError::Url(what));
    let mut request = Request::post(&target.path)
        .header(HOST, &target.authority)
        .header(USER_AGENT, OURSELVES)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(call.body.clone())))
        .map_err(|_fault| bad("cannot be put into a request"))?;
    for (name, value) in &call.headers {
        let name = HeaderName::from_static(name);
        let mut value = HeaderValue::from_str(value)
            .map_err(|_fault| bad("goes with a header that cannot be sent"))?;
        value.set_sensitive(name == AUTHORIZATION);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// The system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn tls(roots: RootCertStore) -> Result<TlsConnector, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
