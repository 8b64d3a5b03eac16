//! The HTTP server around the routes.

use std::net::TcpListener;
use std::time::Duration;
use std::{fs, io};

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer, web};
use actix_web_lab::middleware::CatchPanic;
use socket2::SockRef;

use crate::context::ApiContext;
use crate::edge::edge;
use crate::routes::configure;

/// How long a client may take to send its request's head.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept; longer than the usual proxy keeps its end.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long `stop(true)` waits for requests that are under way.
const SHUTDOWN_SECONDS: u64 = 3;
/// How many clients may wait to be accepted: after a restart all of them come at once.
const BACKLOG: i32 = 4096;
/// How many bytes of an answer are gathered before they are written: its head and what comes next.
/// A connection keeps the buffer as large as it ever was, so one that gathered more would make every
/// stream that sent a long history expensive for as long as it is open.
const WRITE_BUFFER: usize = 2 * 1024;
/// Files that are not connections of clients.
const OTHER_FILES: usize = 256;

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
    SockRef::from(&listener).listen(BACKLOG)?;
    let per_worker = connection_limit(workers);
    context.streams.cap(room_for_streams(per_worker * workers.max(1)));
    let stall_timeout = context.settings.stall_timeout;
    let app = move || {
        App::new()
            .app_data(context.clone())
            .configure(configure)
            .wrap(CatchPanic::default())
            // Boxed: what it keeps while a request is under way is nothing to keep room for in an
            // open stream.
            .wrap(from_fn(|request, next| Box::pin(edge(request, next))))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .worker_max_blocking_threads(4)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .client_request_timeout(REQUEST_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .max_connections(per_worker)
        .on_connect(move |socket, _| {
            if let Some(socket) = socket.downcast_ref::<TcpStream>() {
                close_when_stalled(socket, stall_timeout);
            }
        })
        // A client that goes away is noticed at once, not at the next write.
        .h1_allow_half_closed(false)
        // A frame is one write: waiting for more only delays it.
        .tcp_nodelay(true)
        .h1_write_buffer_size(WRITE_BUFFER)
        .listen(listener)?;
    Ok(server.run())
}

/// Lets the system close a connection whose client takes nothing of what was sent to it, be it gone
/// or asleep. Nobody else can: ending an answer does not help while its bytes cannot be written.
#[cfg(target_os = "linux")]
fn close_when_stalled(socket: &TcpStream, after: Duration) {
    if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(after)) {
        // The client may be gone already.
        tracing::debug!(error = &error as &dyn std::error::Error, "A connection has no timeout");
    }
}

#[cfg(not(target_os = "linux"))]
fn close_when_stalled(_socket: &TcpStream, _after: Duration) {}

/// How many of all connections may be streams: the rest is for other requests, and for telling
/// clients that there is no room.
fn room_for_streams(connections: usize) -> usize {
    connections - connections / 8
}

/// What each worker may take: the open files that the system grants, less some for ourselves.
fn connection_limit(workers: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    (open_files(&limits).saturating_sub(OTHER_FILES) / workers.max(1)).clamp(16, 25_600)
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
