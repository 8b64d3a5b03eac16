//! The parser sees what a browser sees, and the client comes back with the last id it saw.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::DEADLINE;

/// As it comes; the second line goes on after a backslash.
const STREAM: &str = "\u{FEFF}retry: 1000\n: hello\n\nevent: canonical_event\nid: 7\ndata: \
    {\"seq\":7}\n\r\ndata:a\ndata: b\r\rid\ndata\n\nevent: lonely\n\n";

fn expected() -> Vec<Frame> {
    let text = |text: &str| Some(text.to_owned());
    vec![
        Frame { retry: Some(1000), comments: vec!["hello".to_owned()], ..Frame::default() },
        Frame {
            event: text("canonical_event"),
            id: text("7"),
            data: text("{\"seq\":7}"),
            ..Frame::default()
        },
        Frame { data: text("a\nb"), ..Frame::default() },
        Frame { id: text(""), data: text(""), ..Frame::default() },
        Frame { event: text("lonely"), ..Frame::default() },
    ]
}

#[test]
fn frames_are_the_same_wherever_the_network_cuts() {
    for cut in 0..=STREAM.len() {
        let (first, second) = STREAM.as_bytes().split_at(cut);
        let mut parser = Parser::default();

        let mut frames = parser.push(first);
        frames.extend(parser.push(second));

        assert_eq!(frames, expected(), "cut at {cut}");
    }
}

#[test]
fn a_frame_that_is_not_complete_is_not_given() {
    let mut parser = Parser::default();

    assert_eq!(parser.push(b"data: half\n"), []);
}

#[test]
fn a_frame_without_an_id_line_has_no_id() {
    let frames = expected();

    assert_eq!(frames[1].cursor(), Some(7));
    assert_eq!((frames[2].id.as_deref(), frames[3].id.as_deref()), (None, Some("")));
    assert_eq!((frames[2].name(), frames[4].is_event()), ("message", false));
}

/// Answers each request with this stream and closes; gives the requests.
async fn serve(listener: TcpListener, answers: usize) -> Vec<String> {
    let mut requests = Vec::new();
    for _ in 0..answers {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        requests.push(String::from_utf8(request).unwrap().to_lowercase());
        let head = "HTTP/1.1 200 OK\r\nx-macp-latest-seq: 7\r\nconnection: close\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(STREAM.split("data:a").next().unwrap().as_bytes()).await.unwrap();
    }
    requests
}

#[tokio::test]
async fn a_client_comes_back_with_the_last_id_it_saw() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/stream", listener.local_addr().unwrap());
    let server = tokio::spawn(serve(listener, 2));

    let mut first = SseClient::open(url).await;
    let frames = first.collect_until("canonical_event", DEADLINE).await;
    let end = first.next(DEADLINE).await;
    let second = first.reconnect().await;

    assert_eq!((frames.len(), end), (1, None));
    assert_eq!((second.status(), second.header("x-macp-latest-seq")), (200, Some("7")));
    assert_eq!(second.last_event_id(), Some("7"));
    let requests = server.await.unwrap();
    assert!(!requests[0].contains("last-event-id"), "{}", requests[0]);
    assert!(requests[1].contains("last-event-id: 7\r\n"), "{}", requests[1]);
}
