//! PostgreSQL as a server of our own: over TLS, restarted, and with its log read.

use std::path::PathBuf;

use control_plane_storage::{Config, DatabaseUrl, Error, Store};
use control_plane_testkit::cluster::Cluster;
use control_plane_testkit::{DEADLINE, wait_until};
use futures_util::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{Writer, log};

/// An authority, and a server's certificate for `localhost` from it.
struct Authority {
    certificate: String,
    server_certificate: String,
    server_key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        Self {
            certificate: issuer.pem(),
            server_certificate: server.signed_by(&key, &issuer).unwrap().pem(),
            server_key: key.serialize_pem(),
        }
    }

    fn save(&self, folder: &TempDir, name: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, &self.certificate).unwrap();
        path
    }
}

fn open(url: &str) -> Store {
    Store::connect(&Config::new(DatabaseUrl::parse(url).unwrap())).unwrap()
}

async fn works(url: &str) {
    let store = open(url);
    store.migrate().await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let mut writer = Writer::create(&store).await;
    let batch = writer.batch(3);
    writer.commit(&store, batch).await;
    assert_eq!(log(&store, writer.id()).await.len(), 4);
}

async fn is_refused(url: &str, why: &str) {
    let refused = open(url).ping().await;
    let Err(Error::Unavailable(reason)) = refused else { panic!("{url}: {refused:?}") };
    assert!(reason.contains(why), "{url}: {reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sslmode_decides_what_of_the_server_is_checked() {
    let folder = TempDir::new().unwrap();
    let (ours, other) = (Authority::new(), Authority::new());
    let ca = ours.save(&folder, "ca.pem").display().to_string();
    let wrong_ca = other.save(&folder, "other.pem").display().to_string();
    let files = [
        ("server.crt", ours.server_certificate.as_str()),
        ("server.key", ours.server_key.as_str()),
        // Nobody comes in without TLS.
        ("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n"),
    ];
    let cluster = Cluster::start(&files, "ssl = on");

    works(&cluster.url("localhost", "")).await;
    works(&cluster.url("127.0.0.1", "sslmode=require")).await;
    works(&cluster.url("localhost", &format!("sslmode=verify-full&sslrootcert={ca}"))).await;
    works(&cluster.url("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}"))).await;
    works(&cluster.url("127.0.0.1", &format!("sslmode=require&sslrootcert={ca}"))).await;

    is_refused(&cluster.url("localhost", "sslmode=disable"), "pg_hba.conf").await;
    let query = format!("sslmode=verify-full&sslrootcert={ca}");
    is_refused(&cluster.url("127.0.0.1", &query), "certificate").await;
    for mode in ["verify-full", "verify-ca", "require"] {
        let query = format!("sslmode={mode}&sslrootcert={wrong_ca}");
        is_refused(&cluster.url("localhost", &query), "certificate").await;
    }
    is_refused(&cluster.url("localhost", "sslmode=verify-full"), "certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let cluster = Cluster::start(&[], "");

    works(&cluster.url("localhost", "")).await;
    works(&cluster.url("localhost", "sslmode=disable")).await;

    is_refused(&cluster.url("localhost", "sslmode=require"), "TLS").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_one_statement_that_is_prepared_once() {
    let cluster = Cluster::start(&[], "log_min_duration_statement = 0");
    let url = DatabaseUrl::parse(&cluster.url("localhost", "")).unwrap();
    let store = Store::connect(&Config { pool_max: 1, ..Config::new(url) }).unwrap();
    store.migrate().await.unwrap();
    let mut writers = [Writer::create(&store).await, Writer::create(&store).await];
    for count in 0..10 {
        for writer in &mut writers {
            let batch = writer.batch(count);
            writer.commit(&store, batch).await;
        }
    }
    let log = cluster.log();
    let count = |step: &str| {
        let entries = log.split("LOG:").filter(|entry| entry.contains("WITH batch AS"));
        entries.filter(|entry| entry.contains(step)).count()
    };

    assert_eq!((count(" parse "), count(" execute ")), (1, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_outlives_a_restart_of_its_server() {
    let cluster = Cluster::start(&[], "");
    let store = open(&cluster.url("localhost", ""));
    store.migrate().await.unwrap();
    store.instance_hold().await.unwrap();
    let mut writer = Writer::create(&store).await;
    for result in join_all((0..10).map(|_| store.ping())).await {
        result.unwrap();
    }

    tokio::task::block_in_place(|| cluster.restart());

    for result in join_all((0..10).map(|_| store.run_get(writer.id()))).await {
        result.unwrap();
    }
    let batch = writer.batch(2);
    writer.commit(&store, batch).await;
    wait_until(DEADLINE, async || store.instance_hold().await.is_ok()).await;
    assert_eq!(store.runs_claim().await.unwrap(), []);
}
