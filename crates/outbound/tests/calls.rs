//! Calls to a real server on this machine, which is the kind that clients must not reach.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

use std::time::Duration;

use control_plane_domain::outbound::{Answer, Call, Outbound, OutboundError};
use control_plane_outbound::{AllowList, Client};
use control_plane_testkit::listener::{Listener, Reply};
use serde_json::json;

fn call(url: String) -> Call {
    Call {
        url,
        headers: vec![("authorization", "Bearer hush".to_owned())],
        body: br#"{"runId":"r"}"#.to_vec(),
        timeout: Duration::from_secs(20),
        wanted: 1024,
    }
}

fn guarded(open: &[&str]) -> Client {
    let open: Vec<String> = open.iter().map(|&host| host.to_owned()).collect();
    Client::guarded(AllowList::parse(&open).unwrap()).unwrap()
}

async fn refused(client: &Client, url: String) -> Option<OutboundError> {
    client.post(call(url)).await.err()
}

fn is_forbidden(error: Option<OutboundError>) -> bool {
    matches!(error, Some(OutboundError::Forbidden { .. }))
}

#[tokio::test]
async fn a_call_arrives_as_it_was_made_and_its_answer_comes_back() {
    let server = Listener::always(Reply::Json(201, json!({ "ok": true }))).await;

    let Answer { status, body } =
        Client::trusted().unwrap().post(call(server.url("/a/b?c=d"))).await.unwrap();

    assert_eq!((status, body.as_slice()), (201, br#"{"ok":true}"#.as_slice()));
    let received = server.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].line, "POST /a/b?c=d HTTP/1.1");
    assert_eq!(received[0].body, json!({ "runId": "r" }));
    assert_eq!(received[0].headers["authorization"], "Bearer hush");
    assert_eq!(received[0].headers["content-type"], "application/json");
    assert_eq!(received[0].headers["host"], format!("127.0.0.1:{}", server.port()));
}

#[tokio::test]
async fn an_address_of_this_machine_is_refused_however_it_is_written() {
    let server = Listener::always(Reply::Json(200, json!({}))).await;
    let client = guarded(&[]);
    let port = server.port();

    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "192.168.0.1",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let refusal = refused(&client, format!("http://{host}:{port}/")).await;
        assert!(is_forbidden(refusal.clone()), "{host}: {refusal:?}");
    }

    assert_eq!(server.received(), []);
}

#[tokio::test]
async fn an_allow_list_opens_by_name_by_address_and_by_network() {
    let server = Listener::always(Reply::Json(200, json!({}))).await;
    let port = server.port();

    for (open, host) in [
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
    ] {
        let answer = guarded(&[open]).post(call(format!("http://{host}:{port}/"))).await;
        assert!(answer.is_ok_and(|answer| answer.is_success()), "{open}: {host}");
    }
    // A name that is open does not open the address for other names.
    let by_address = format!("http://127.0.0.1:{port}/");
    assert!(is_forbidden(refused(&guarded(&["localhost"]), by_address).await));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let inner = Listener::always(Reply::Json(200, json!({}))).await;
    let outer = Listener::always(Reply::Redirect(inner.url("/secret"))).await;

    let answer = guarded(&["127.0.0.1"]).post(call(outer.url("/"))).await.unwrap();

    assert_eq!(answer.status, 302);
    assert!(!answer.is_success());
    assert_eq!((outer.received().len(), inner.received().len()), (1, 0));
}

#[tokio::test]
async fn no_more_is_read_than_is_wanted() {
    let server = Listener::always(Reply::Endless).await;
    let client = Client::trusted().unwrap();

    let some = client.post(call(server.url("/"))).await.unwrap();
    let none = client.post(Call { wanted: 0, ..call(server.url("/")) }).await.unwrap();

    assert_eq!((some.status, some.body.len()), (200, 1024));
    assert_eq!((none.status, none.body.len()), (200, 0));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_when_the_time_is_over() {
    let silent = Listener::always(Reply::Nothing).await;
    let endless = Listener::always(Reply::Endless).await;
    let client = Client::trusted().unwrap();

    for url in [silent.url("/"), endless.url("/")] {
        let timeout = Duration::from_millis(200);
        let refusal = client.post(Call { timeout, wanted: usize::MAX, ..call(url) }).await.err();
        assert_eq!(
            refusal,
            Some(OutboundError::Timeout { host: "127.0.0.1".to_owned(), limit: timeout })
        );
    }
}

#[tokio::test]
async fn a_connection_that_fails_or_breaks_is_an_error_that_names_no_secret() {
    let server = Listener::always(Reply::Close).await;
    let closed = Listener::always(Reply::Close).await.url("/");
    let client = Client::trusted().unwrap();

    for url in [server.url("/"), closed, "http://does-not-exist.invalid/".to_owned()] {
        let refusal = refused(&client, url.clone()).await;
        let Some(OutboundError::Unreachable { .. }) = &refusal else {
            panic!("{url}: {refusal:?}")
        };
        assert!(!refusal.unwrap().to_string().contains("hush"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_not_spoken_to_in_plain() {
    let server = Listener::always(Reply::Json(200, json!({}))).await;

    let url = format!("https://127.0.0.1:{}/", server.port());
    let refusal = refused(&Client::trusted().unwrap(), url).await;

    assert!(matches!(refusal, Some(OutboundError::Unreachable { .. })), "{refusal:?}");
    assert!(server.received().iter().all(|request| !request.line.starts_with("POST")));
}

#[tokio::test]
async fn only_http_urls_without_credentials_are_called() {
    let client = guarded(&["localhost"]);
    for url in [
        "",
        "localhost/hook",
        "ftp://localhost/",
        "file:///etc/passwd",
        "http://",
        "http://user:hush@localhost/",
        "gopher://localhost:1/",
    ] {
        let refusal = refused(&client, url.to_owned()).await;
        assert!(matches!(refusal, Some(OutboundError::Url(_))), "{url}: {refusal:?}");
    }
}
