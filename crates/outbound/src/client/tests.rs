//! TLS, with a certificate that the test made.

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

/// A server that says yes to whatever it is sent, its port, and its certificate for `localhost`.
async fn server() -> (AbortOnDropHandle<()>, u16, CertificateDer<'static>) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A handshake that the client breaks off is what some tests are about.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut head = [0; 1024];
            let read = socket.read(&mut head).await.unwrap_or_default();
            if head.get(..read).is_some_and(|head| head.starts_with(b"POST ")) {
                drop(socket.write_all(ANSWER).await);
                drop(socket.shutdown().await);
            }
        }
    });
    (AbortOnDropHandle::new(serving), port, certificate)
}

fn trusting(certificate: Option<CertificateDer<'static>>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificate);
    Client { guard: None, tls: tls(roots).unwrap() }
}

async fn status(client: &Client, host: &str, port: u16) -> Result<u16, OutboundError> {
    let call = Call {
        url: format!("https://{host}:{port}/"),
        headers: Vec::new(),
        body: b"{}".to_vec(),
        timeout: Duration::from_secs(20),
        wanted: 0,
    };
    client.post(call).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_server_with_a_certificate_that_we_trust_is_called() {
    let (_serving, port, certificate) = server().await;
    assert_eq!(status(&trusting(Some(certificate)), "localhost", port).await, Ok(204));
}

#[tokio::test]
async fn a_certificate_for_another_name_or_by_a_stranger_is_refused() {
    let (_serving, port, certificate) = server().await;

    let another = status(&trusting(Some(certificate)), "127.0.0.1", port).await;
    let stranger = status(&trusting(None), "localhost", port).await;

    for refusal in [another, stranger] {
        let Err(OutboundError::Unreachable { detail, .. }) = refusal else { panic!("{refusal:?}") };
        assert!(detail.contains("certificate"), "{detail}");
    }
}
