//! What holds for every request: keys, errors, ids, CORS, limits.

use serde_json::{Value, json};

use crate::support::{Api, descriptor, read};

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_routed() {
    let api = Api::start().await;
    let (_, document) = api.get("/openapi.json").await;
    let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let url = api.at(&path.replace("{id}", id));
            let response = api.client.request(method.clone(), url).send().await.unwrap();
            let (status, body) = read(response).await;
            assert_ne!(status, 405, "{method} {path}");
            assert!(
                status != 404 || body["errorCode"] == "RUN_NOT_FOUND",
                "{method} {path}: {body}"
            );
        }
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_good_key_is_refused_unless_the_route_is_public() {
    let api = Api::with_keys("secret-key,ui:read:reader-key").await;

    let (missing, body) = api.get("/runs").await;
    let wrong = api.client.get(api.at("/runs")).bearer_auth("guess").send().await.unwrap().status();
    let good = api.client.get(api.at("/runs")).bearer_auth("secret-key").send().await.unwrap();
    let raw = api.client.get(api.at("/runs")).header("authorization", "secret-key").send();
    let reader = api.client.post(api.at("/runs")).bearer_auth("reader-key").json(&descriptor());
    let (forbidden, _) = read(reader.send().await.unwrap()).await;

    assert_eq!((missing, wrong.as_u16(), good.status().as_u16()), (401, 401, 200));
    assert_eq!(raw.await.unwrap().status().as_u16(), 200);
    assert_eq!(body["message"], "Missing Authorization header");
    assert_eq!(forbidden, 403);
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(
            api.client.get(api.at(path)).send().await.unwrap().status().as_u16(),
            200,
            "{path}"
        );
    }
    // An unknown path says so to anybody.
    assert_eq!(api.get("/nope").await.0, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_the_one_body() {
    let api = Api::start().await;
    let huge = "x".repeat(1024 * 1024 + 1);
    let post = |path: &str| api.client.post(api.at(path));
    let table = [
        (api.client.get(api.at("/nope")), 404, "NOT_FOUND"),
        (api.client.put(api.at("/runs")), 405, "METHOD_NOT_ALLOWED"),
        (api.client.get(api.at("/runs/not-an-id")), 400, "VALIDATION_ERROR"),
        (
            api.client.get(api.at("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff")),
            404,
            "RUN_NOT_FOUND",
        ),
        (api.client.get(api.at("/runs?limit=0&status=x")), 400, "VALIDATION_ERROR"),
        (
            post("/runs").header("content-type", "application/json").body("{"),
            400,
            "VALIDATION_ERROR",
        ),
        (
            post("/runs").header("content-type", "application/json").body(""),
            400,
            "VALIDATION_ERROR",
        ),
        (
            post("/runs").header("content-type", "text/plain").body("{}"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            post("/runs").header("content-type", "application/json").body(huge),
            413,
            "PAYLOAD_TOO_LARGE",
        ),
        (post("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/signal"), 410, "ENDPOINT_REMOVED"),
        (post("/runs/nope/messages"), 400, "VALIDATION_ERROR"),
        (api.client.get(api.at("/runtime/roots")), 503, "RUNTIME_UNAVAILABLE"),
        (
            api.client.get(api.at("/events?runId=6f9619ff-8b86-4d01-b42d-00cf4fc964ff")),
            404,
            "RUN_NOT_FOUND",
        ),
    ];
    for (request, status, code) in table {
        let (got, body) = read(request.send().await.unwrap()).await;
        assert_eq!((got, &body["errorCode"]), (status, &json!(code)), "{body}");
        assert_eq!(body["statusCode"], status);
        assert!(body["error"].is_string() && !body["message"].is_null(), "{body}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removed_routes_name_the_sdk() {
    let api = Api::start().await;
    for route in ["messages", "signal", "context"] {
        let path = format!("/runs/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/{route}");
        let (status, body) = api.post(&path, &json!({})).await;
        assert_eq!(status, 410);
        assert!(body["message"].as_str().unwrap().contains("macp-sdk"), "{body}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_carries_the_request_id_and_cors() {
    let api = Api::start().await;
    let request = api.client.get(api.at("/nope")).header("x-request-id", "abc-1");
    let response = request.header("origin", "http://localhost:3000").send().await.unwrap();

    let header =
        |name: &str| response.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
    assert_eq!(header("x-request-id").as_deref(), Some("abc-1"));
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("http://localhost:3000"));
    assert!(header("access-control-expose-headers").unwrap().contains("X-MACP-Latest-Seq"));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_needs_no_key() {
    let api = Api::with_keys("secret").await;
    let response = api
        .client
        .request(reqwest::Method::OPTIONS, api.at("/runs"))
        .header("origin", "http://localhost:3000")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 204);
    assert!(response.headers().contains_key("access-control-allow-headers"));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_turns_red_while_the_server_drains_and_liveness_does_not() {
    let api = Api::start().await;
    let (status, body) = api.get("/readyz").await;
    assert_eq!((status, &body["ok"], &body["database"]), (200, &json!(true), &json!("ok")));
    assert_eq!(body["circuitBreaker"], "CLOSED");
    assert_eq!(body["runtime"]["ok"], true);
    assert_eq!(body["runtime"].get("manifest"), None);

    api.streams.cancel();

    assert_eq!(api.get("/readyz").await.0, 503);
    assert_eq!(
        api.get("/healthz").await,
        (200, json!({ "ok": true, "service": "macp-control-plane" }))
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_is_described() {
    let api = Api::start().await;
    let (_, manifest) = api.get("/runtime/manifest").await;
    let (_, standard) = api.get("/runtime/modes").await;
    let (_, all) = api.get("/runtime/modes?include=ext").await;
    let (status, health) = api.get("/runtime/health").await;

    assert_eq!(manifest["agentId"], "macp-runtime");
    assert_eq!(standard.as_array().map(Vec::len), Some(1));
    assert_eq!(all[1]["mode"], "ext.multi_round.v1");
    assert_eq!(
        (status, &health["ok"], &health["detail"]),
        (200, &json!(true), &json!("connected to nowhere:1"))
    );
    assert_eq!(health["runtimeKind"], "rust");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_reports_faults_in_a_good_answer() {
    let api = Api::start().await;
    let (good, fine) = api.post("/runs/validate", &descriptor()).await;
    let mut unknown_mode = descriptor();
    unknown_mode["session"]["modeName"] = json!("macp.mode.chess.v1");
    let mut unknown_kind = descriptor();
    unknown_kind["runtime"]["kind"] = json!("java");

    assert_eq!(good, 201);
    assert_eq!(fine["valid"], true);
    assert_eq!(fine["runtime"]["reachable"], true);
    for (body, word) in [
        (unknown_mode, "macp.mode.chess.v1"),
        (unknown_kind, "java"),
        (json!({ "mode": "live", "runtime": { "kind": "rust" } }), "session is required"),
        (json!({ "kickoff": [] }), "kickoff is not a known field"),
    ] {
        let (status, answer) = api.post("/runs/validate", &body).await;
        assert_eq!((status, &answer["valid"]), (201, &json!(false)), "{answer}");
        let errors: &Vec<Value> = answer["errors"].as_array().unwrap();
        assert!(errors.iter().any(|it| it.as_str().unwrap().contains(word)), "{answer}");
    }
    assert_eq!(api.get("/runs").await.1["total"], 0);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admins_key_sees_the_runtimes_sessions() {
    let api = Api::with_keys("ui:read:reader,ops:operate:operator,root:admin:admin").await;
    let url = api.at("/admin/runtime/sessions");

    for (key, status) in [("reader", 403), ("operator", 403), ("admin", 200)] {
        let response = api.client.get(&url).bearer_auth(key).send().await.unwrap();
        assert_eq!(read(response).await.0, status, "{key}");
    }
    assert_eq!(api.get("/admin/runtime/sessions").await.0, 401);
    api.stop().await;
}
