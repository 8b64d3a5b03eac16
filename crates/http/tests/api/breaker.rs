//! The circuit breaker's routes: who may use them, and what they take.

use serde_json::{Value, json};

use crate::support::{Api, read};

const HISTORY: &str = "/admin/circuit-breaker/history";
const RESET: &str = "/admin/circuit-breaker/reset";

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_sees_and_resets_the_circuit_breaker() {
    let api = Api::with_keys("ui:read:r,ops:operate:o,root:admin:a").await;
    let ask = async |method: reqwest::Method, path: &str, key: &str| {
        // As clients do: a type without a body.
        let request = api.client.request(method, api.at(path)).bearer_auth(key);
        read(request.header("Content-Type", "application/json").send().await.unwrap()).await
    };

    for key in ["r", "o"] {
        let (status, body) = ask(reqwest::Method::GET, HISTORY, key).await;
        assert_eq!((status, &body["errorCode"]), (403, &json!("FORBIDDEN")));
        assert_eq!(ask(reqwest::Method::POST, RESET, key).await.0, 403);
    }
    assert_eq!(ask(reqwest::Method::GET, HISTORY, "").await.0, 401);
    let (status, body) = ask(reqwest::Method::POST, RESET, "a").await;
    assert_eq!((status, body), (200, json!({ "status": "ok", "state": "CLOSED" })));
    // This runtime has no breaker, so there is nothing to tell.
    let (status, body) = ask(reqwest::Method::GET, HISTORY, "a").await;
    assert_eq!((status, body), (200, json!({ "state": "CLOSED", "history": [] })));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_is_none_is_refused_by_name() {
    let api = Api::start().await;
    for good in ["", "?window=1h", "?window=7d&since=2026-11-22", "?since=2026-11-22T09:46:30Z"] {
        assert_eq!(api.get(&format!("{HISTORY}{good}")).await.0, 200, "{good}");
    }
    for (bad, name) in [("?window=2h", "window"), ("?since=yesterday", "since")] {
        let (status, body) = api.get(&format!("{HISTORY}{bad}")).await;
        assert_eq!(status, 400, "{bad}");
        assert!(body["message"][0].as_str().unwrap().starts_with(name), "{body}");
    }
    let (status, body) = api.get("/runtime/health").await;
    assert_eq!((status, &body["circuitBreaker"]), (200, &json!("CLOSED")));
    assert_ne!(body["ok"], Value::Null);
    api.stop().await;
}
