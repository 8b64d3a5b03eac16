//! A layer that compresses answers, around the routes: streams pass it as they are.

use std::net::TcpListener;

use actix_web::middleware::Compress;
use actix_web::{App, HttpServer};
use control_plane_domain::EventType;
use control_plane_testkit::curl::Curl;

use crate::support::{Api, DEADLINE, Journal};

const ANY_ENCODING: &[&str] = &["-H", "Accept-Encoding: gzip, br, zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn a_compressing_layer_lets_each_frame_of_a_stream_through_as_it_comes() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let context = api.context.clone();
    let app = move || {
        let app = App::new().app_data(context.clone());
        app.configure(control_plane_http::configure).wrap(Compress::default())
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/runs/{}", listener.local_addr().unwrap(), journal.id());
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
    let handle = server.handle();
    tokio::spawn(server);

    let document = Curl::open(&url, ANY_ENCODING, DEADLINE).await;
    let stream = format!("{url}/stream?afterSeq=0&includeSnapshot=false&heartbeatMs=45000");
    let mut stream = Curl::open(&stream, ANY_ENCODING, DEADLINE).await;
    for seq in 1..=8 {
        stream.until(seq, DEADLINE).await;
        journal.append(&[EventType::MessageReceived]).await;
    }

    assert_eq!(document.header("content-encoding"), Some("zstd"), "the layer works");
    assert_eq!(stream.header("content-encoding"), Some("identity"));
    handle.stop(false).await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_not_compressed_whatever_the_client_takes_and_does_not_speak_of_it() {
    let api = Api::start().await;
    let mut journal = Journal::create(&api.store).await;
    let stream = api.at(&format!("/runs/{}/stream?afterSeq=0", journal.id()));

    let mut stream = Curl::open(&stream, ANY_ENCODING, DEADLINE).await;
    for seq in 1..=3 {
        stream.until(seq, DEADLINE).await;
        journal.append(&[EventType::MessageReceived]).await;
    }

    assert_eq!(stream.header("content-encoding"), None);
    assert_eq!(stream.header("transfer-encoding"), Some("chunked"));
    api.stop().await;
}
