//! Pages for browsers, and what the pages report back.
//!
//! **Invariant:** a page's last report is the one with the highest `version`, whatever order its
//! requests came in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::Value;

use crate::wait::{DEADLINE, wait_for, wait_until};

/// Serves files, takes `POST /report`, and answers `GET /when/<field>` once a report has that field.
pub struct Pages {
    port: u16,
    state: web::Data<State>,
    server: ServerHandle,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, String>,
    report: Mutex<Value>,
}

impl State {
    fn report(&self) -> Value {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, report: Value) {
        let mut last = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let version = |report: &Value| report.get("version").and_then(Value::as_u64);
        if version(&report) > version(&last) {
            *last = report;
        }
    }
}

impl Pages {
    /// Serves these files (path, text) on a port of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn serve(files: &[(&str, &str)]) -> Self {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        let files = files.iter().map(own).collect();
        let state = web::Data::from(Arc::new(State { files, report: Mutex::default() }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap_or_else(|error| panic!("no port is free: {error}"));
        let address = listener.local_addr();
        let port = address.unwrap_or_else(|error| panic!("no address: {error}")).port();
        let shared = state.clone();
        let app = move || App::new().app_data(shared.clone()).default_service(web::to(answer));
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener);
        let server = server.unwrap_or_else(|error| panic!("no page server: {error}")).run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { port, state, server: handle }
    }

    /// The origin of every page here.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits for a report that is as wanted.
    ///
    /// # Panics
    /// When none came in a minute; the last one is shown.
    pub async fn report(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(DEADLINE, async || self.state.report(), wanted).await
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // The command is sent at once; nobody waits for its end.
        drop(self.server.stop(false));
    }
}

async fn answer(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let path = request.path();
    if request.method() == Method::POST {
        return match serde_json::from_slice(&body) {
            Ok(report) => {
                state.take(report);
                HttpResponse::NoContent().finish()
            }
            Err(_) => HttpResponse::BadRequest().finish(),
        };
    }
    if let Some(field) = path.strip_prefix("/when/") {
        wait_until(DEADLINE, async || state.report().get(field).is_some_and(|it| !it.is_null()))
            .await;
        return HttpResponse::NoContent().finish();
    }
    let Some(text) = state.files.get(path) else { return HttpResponse::NotFound().finish() };
    let content_type = if path.ends_with(".js") { "text/javascript" } else { "text/html" };
    HttpResponse::Ok().content_type(format!("{content_type}; charset=utf-8")).body(text.clone())
}
