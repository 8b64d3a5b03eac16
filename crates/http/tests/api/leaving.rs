//! Clients that go away in the middle of a write.

use control_plane_insights::integrity;
use control_plane_storage::model::{RunFilter, RunOrder};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Api, descriptor};

const CLIENTS: usize = 60;

fn body(number: usize) -> Value {
    let Value::Object(mut body) = descriptor() else { panic!("not an object") };
    body.insert("execution".to_owned(), json!({ "idempotencyKey": format!("key-{number}") }));
    Value::Object(body)
}

fn request(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_of_a_launch_leaves_a_whole_run_or_none() {
    let api = Api::start().await;
    let address = api.url.trim_start_matches("http://").to_owned();
    let mut leaving = Vec::new();
    for number in 0..CLIENTS {
        let address = address.clone();
        leaving.push(tokio::spawn(async move {
            let whole = request(&body(number));
            // Every third goes before all of its request was sent.
            let sent = if number % 3 == 0 { whole.len() - 20 } else { whole.len() };
            let mut socket = TcpStream::connect(&address).await.unwrap();
            socket.write_all(&whole[..sent]).await.unwrap();
        }));
    }
    for client in leaving {
        client.await.unwrap();
    }

    // Nobody's write is in anybody's way, and asking again gives the run that is there already.
    let mut ids = Vec::new();
    for number in 0..CLIENTS {
        let (status, launched) = api.post("/runs", &body(number)).await;
        assert_eq!(status, 201, "{launched:#}");
        ids.push(launched["runId"].as_str().unwrap().to_owned());
    }
    let filter = RunFilter { limit: 200, order: RunOrder::CreatedAt, ..RunFilter::default() };
    let runs = api.store.run_list(&filter).await.unwrap();
    let mut found: Vec<String> = runs.items.iter().map(|run| run.id.to_string()).collect();
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    for run in &runs.items {
        let record = integrity::check(&api.store, run.id).await.unwrap();
        assert!(record.is_sound(), "{record:#?}");
        assert!(run.last_seq >= 1, "a run without its first event");
        assert!(api.store.session_get(run.id).await.unwrap().is_some());
    }
    api.stop().await;
}
