//! The HTTP server around the routes.

use std::net::TcpListener;
use std::time::Duration;
use std::{fs, io};

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use actix_web_lab::middleware::CatchPanic;

use crate::context::ApiContext;
use crate::edge::edge;
use crate::routes::configure;

/// How long a client may take to send its request's head.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept; longer than the usual proxy keeps its end.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long `stop(true)` waits for requests that are under way.
const SHUTDOWN_SECONDS: u64 = 3;

/// Serves the API on `listener`. Signals are the caller's business: it stops the server through
/// its handle, after it cancelled the context's token so that streams end by themselves.
///
/// # Errors
/// When the listener cannot be used.
pub fn server(
    context: web::Data<ApiContext>,
    listener: TcpListener,
    workers: usize,
) -> io::Result<Server> {
    let app = move || {
        App::new()
            .app_data(context.clone())
            .configure(configure)
            .wrap(CatchPanic::default())
            .wrap(from_fn(edge))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .worker_max_blocking_threads(4)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .max_connections(connection_limit(workers))
        // A client that goes away is noticed at once, not at the next write.
        .h1_allow_half_closed(false)
        // A frame is one write: waiting for more only delays it.
        .tcp_nodelay(true)
        .listen(listener)?;
    Ok(server.run())
}

/// What each worker may take: the open files that the system grants, less some for ourselves.
fn connection_limit(workers: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    (open_files(&limits).saturating_sub(256) / workers.max(1)).clamp(256, 25_600)
}

/// The soft limit of open files.
fn open_files(limits: &str) -> usize {
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|soft| soft.parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit\nMax open files            4096   524288  files\n";
        assert_eq!(open_files(limits), 4096);
        assert_eq!(open_files("Max open files  unlimited unlimited files"), 1024);
        assert_eq!(open_files(""), 1024);
    }
}
