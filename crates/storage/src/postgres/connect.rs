//! Opening a connection, with TLS by rustls as `sslmode` and `sslrootcert` say.

use std::sync::Arc;
use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::{StreamExt, stream};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{AsyncMessage, Client, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::{Url, form_urlencoded};

use super::liveness::{Ears, Heard};
use crate::error::{Error, Result};

/// How long opening a connection to one host may take, unless the URL says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent on the network before it counts as gone, unless the URL says.
const SILENCE: Duration = Duration::from_secs(30);

/// libpq's `sslmode`: whether to encrypt, and what of the server to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    /// Encrypt, check nothing.
    Nothing,
    /// The certificate's chain, not its name.
    Chain,
    /// Chain and name.
    Full,
}

struct Target {
    config: tokio_postgres::Config,
    verify: Verify,
    root_cert: Option<String>,
}

/// Whether `url` can be used at all, told at start and not at the first query.
pub(super) fn check(url: &str) -> Result<()> {
    let target = target(url)?;
    if target.config.get_ssl_mode() != SslMode::Disable {
        tls(&target)?;
    }
    Ok(())
}

/// Opens a connection.
pub(super) async fn establish(url: String) -> ConnectionResult<AsyncPgConnection> {
    open(url, None).await
}

/// The same, and tells `ears` of every notification, and when the connection is gone. `number` is
/// what it is called there.
pub(super) async fn establish_listening(
    url: String,
    number: u64,
    ears: Option<Arc<Ears>>,
) -> ConnectionResult<AsyncPgConnection> {
    open(url, ears.map(|ears| (number, ears))).await
}

async fn open(
    url: String,
    listening: Option<(u64, Arc<Ears>)>,
) -> ConnectionResult<AsyncPgConnection> {
    let bad = |fault: &dyn std::error::Error| ConnectionError::BadConnection(super::chain(fault));
    let target = target(&url).map_err(|fault| bad(&fault))?;
    let mut conn = if target.config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) =
            target.config.connect(tokio_postgres::NoTls).await.map_err(|fault| bad(&fault))?;
        drive(client, connection, listening).await?
    } else {
        let connector = MakeRustlsConnect::new(tls(&target).map_err(|fault| bad(&fault))?);
        let (client, connection) =
            target.config.connect(connector).await.map_err(|fault| bad(&fault))?;
        drive(client, connection, listening).await?
    };
    // A commit that we report is on disk, and a fence sees the newest row, whatever the server's
    // defaults are.
    conn.batch_execute(
        "SET synchronous_commit = on; SET default_transaction_isolation = 'read committed'",
    )
    .await
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Has the connection driven by a task of its own.
async fn drive<S>(
    client: Client,
    connection: tokio_postgres::Connection<Socket, S>,
    listening: Option<(u64, Arc<Ears>)>,
) -> ConnectionResult<AsyncPgConnection>
where
    S: TlsStream + Unpin + Send + 'static,
{
    match listening {
        Some((number, ears)) => {
            tokio::spawn(listen(connection, number, ears));
            AsyncPgConnection::try_from(client).await
        }
        None => AsyncPgConnection::try_from_client_and_connection(client, connection).await,
    }
}

async fn listen<S>(connection: tokio_postgres::Connection<Socket, S>, number: u64, ears: Arc<Ears>)
where
    S: TlsStream + Unpin,
{
    let mut connection = connection;
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    while let Some(Ok(message)) = messages.next().await {
        if let AsyncMessage::Notification(note) = message {
            ears(Heard::Said(note.payload()));
        }
    }
    ears(Heard::Lost(number));
}

/// Takes `sslmode` and `sslrootcert` out of the URL: tokio-postgres knows only three modes.
fn target(url: &str) -> Result<Target> {
    let mut url =
        Url::parse(url).map_err(|fault| Error::Config(format!("not a PostgreSQL URL: {fault}")))?;
    let mut mode = "prefer".to_owned();
    let mut root_cert = None;
    let mut rest: Vec<(String, String)> = Vec::new();
    for (key, value) in url.query_pairs() {
        match key.as_ref() {
            "sslmode" => mode = value.into_owned(),
            "sslrootcert" => root_cert = Some(value.into_owned()),
            _ => rest.push((key.into_owned(), value.into_owned())),
        }
    }
    url.set_query(None);
    if !rest.is_empty() {
        // A form writes a space as `+`, which tokio-postgres takes literally.
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&rest).finish();
        url.set_query(Some(&query.replace('+', "%20")));
    }
    let mut config: tokio_postgres::Config = url.as_str().parse().map_err(|fault| {
        Error::Config(format!("not a PostgreSQL URL: {}", super::chain(&fault)))
    })?;
    if config.get_application_name().is_none() {
        config.application_name("macp-control-plane");
    }
    let given = |name: &str| rest.iter().any(|(key, _)| key == name);
    // A server that vanished without a word is noticed within half a minute, not after hours.
    if !given("connect_timeout") {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if !given("tcp_user_timeout") {
        config.tcp_user_timeout(SILENCE);
    }
    if !given("keepalives_idle") {
        config.keepalives_idle(SILENCE / 2).keepalives_interval(SILENCE / 6).keepalives_retries(3);
    }
    let (ssl_mode, verify) = match mode.as_str() {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
        // As libpq does: with a root certificate at hand, `require` checks the chain.
        "require" if root_cert.is_some() => (SslMode::Require, Verify::Chain),
        "require" => (SslMode::Require, Verify::Nothing),
        "verify-ca" => (SslMode::Require, Verify::Chain),
        "verify-full" => (SslMode::Require, Verify::Full),
        other => {
            return Err(Error::Config(format!(
                "sslmode must be disable, allow, prefer, require, verify-ca or verify-full, not {other}"
            )));
        }
    };
    config.ssl_mode(ssl_mode);
    Ok(Target { config, verify, root_cert })
}

fn tls(target: &Target) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|fault| Error::Config(fault.to_string()))?;
    if target.verify == Verify::Nothing {
        let verifier = Arc::new(Lenient { inner: None, provider });
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth());
    }
    let roots = Arc::new(roots(target.root_cert.as_deref())?);
    if target.verify == Verify::Full {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|fault| Error::Config(format!("sslrootcert: {fault}")))?;
    let verifier = Arc::new(Lenient { inner: Some(inner), provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(file: Option<&str>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) if file != "system" => {
            let wrong = |fault: &dyn std::fmt::Display| {
                Error::Config(format!("sslrootcert {file}: {fault}"))
            };
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|fault| wrong(&fault))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|fault| wrong(&fault))?;
                roots.add(certificate).map_err(|fault| wrong(&fault))?;
            }
        }
        Some(_) | None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::Config(
            "sslmode asks for a check, but there is no root certificate".to_owned(),
        ));
    }
    Ok(roots)
}

/// Checks less than everything: the chain without the name, or, without `inner`, nothing but that
/// the server holds the key of the certificate that it shows.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let cases = [
            ("", SslMode::Prefer, Verify::Nothing),
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("?sslmode=require", SslMode::Require, Verify::Nothing),
            ("?sslmode=require&sslrootcert=a.pem", SslMode::Require, Verify::Chain),
            ("?sslmode=verify-ca", SslMode::Require, Verify::Chain),
            ("?sslmode=verify-full", SslMode::Require, Verify::Full),
        ];
        for (query, mode, verify) in cases {
            let target = target(&format!("postgres://u@h/d{query}")).unwrap();
            assert_eq!((target.config.get_ssl_mode(), target.verify), (mode, verify), "{query}");
        }
        assert!(matches!(check("postgres://u@h/d?sslmode=maybe"), Err(Error::Config(_))));
    }

    #[test]
    fn what_else_the_url_says_is_kept() {
        let url =
            "postgres://u@h/d?application_name=my%20app%2B1&sslmode=disable&connect_timeout=3";
        let config = target(url).unwrap().config;
        assert_eq!(config.get_application_name(), Some("my app+1"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&SILENCE));
    }

    #[test]
    fn a_missing_root_certificate_is_told_at_start() {
        let wrong = check("postgres://u@h/d?sslmode=verify-full&sslrootcert=nowhere.pem");
        assert!(wrong.unwrap_err().to_string().contains("nowhere.pem"));
    }
}
