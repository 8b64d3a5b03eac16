//! Exports that go wrong midway, and clients that take their time.

use std::io::Read;
use std::net::TcpStream;

use control_plane_testkit::database::Kind;
use tokio::task::spawn_blocking;

use super::api;
use crate::raw;
use crate::support::{Api, DEADLINE, Journal};

/// More than what lies between a server and a client that reads nothing.
const EVENTS: usize = 160;
const EVENT_BYTES: usize = 64 * 1024;
/// More than there are connections to the database.
const SLOW_CLIENTS: usize = 12;

async fn large(api: &Api) -> Journal {
    let mut journal = Journal::create(&api.store).await;
    for _ in 0..8 {
        journal.append_large(EVENTS / 8, EVENT_BYTES).await;
    }
    journal.complete().await;
    journal
}

/// The beginning of an answer, so that it is known to be under way.
async fn begin(mut client: TcpStream) -> (TcpStream, Vec<u8>) {
    let reading = spawn_blocking(move || {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut first = vec![0; 512];
        client.read_exact(&mut first).unwrap();
        (client, first)
    });
    reading.await.unwrap()
}

/// All of an answer, until the server closes or everything is there.
async fn read_to_end((mut client, mut text): (TcpStream, Vec<u8>)) -> Vec<u8> {
    let reading = spawn_blocking(move || {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = [0; 64 * 1024];
        loop {
            match client.read(&mut rest) {
                Ok(0) | Err(_) => return text,
                Ok(read) => text.extend_from_slice(&rest[..read]),
            }
            // A connection that is kept alive says nothing more after a whole answer.
            if text.ends_with(LAST_CHUNK) {
                return text;
            }
        }
    });
    reading.await.unwrap()
}

/// What a whole chunked answer ends with.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_deleted_midway_ends_the_connection_and_no_bundle() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        for path in ["export", "export/stream"] {
            let journal = large(&api).await;
            let url = format!("/runs/{}/{path}", journal.id());

            let whole = read_to_end(begin(raw::open(&api, &url)).await).await;
            let slow = begin(raw::open(&api, &url)).await;
            let (status, _) = api.delete(&format!("/runs/{}", journal.id())).await;
            let cut = read_to_end(slow).await;

            assert_eq!(status, 204);
            assert!(whole.ends_with(LAST_CHUNK), "{path}: {} bytes", whole.len());
            assert!(cut.starts_with(b"HTTP/1.1 200"), "it had begun");
            assert!(!cut.ends_with(LAST_CHUNK), "{path}: {} bytes", cut.len());
            assert!(cut.len() < whole.len());
            let cut = String::from_utf8_lossy(&cut);
            assert!(!cut.contains("\"manifest\"") && !cut.contains("{\"kind\":\"end\""));
        }
        api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_hold_no_connection_to_the_database() {
    for kind in Kind::ALL {
        let api = api(kind).await;
        let journal = large(&api).await;
        let url = format!("/runs/{}/export", journal.id());

        let mut slow = Vec::new();
        for _ in 0..SLOW_CLIENTS {
            slow.push(begin(raw::open(&api, &url)).await);
        }

        assert_eq!(api.get(&format!("/runs/{}", journal.id())).await.0, 200);
        assert_eq!(api.get("/runs").await.1["total"], 1);
        let last = read_to_end(slow.pop().unwrap()).await;
        assert!(last.ends_with(LAST_CHUNK), "and each gets all of it in the end");
        drop(slow);
        api.stop().await;
    }
}
