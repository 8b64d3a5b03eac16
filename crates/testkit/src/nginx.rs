//! Debian's nginx in front of a server, on a port of its own.
//!
//! **Invariant:** it buffers as it does by default: nothing in its configuration helps a stream.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::program::{self, Kept, NGINX};
use crate::runtime::free_port;
use crate::wait::{DEADLINE, wait_until};

/// What nginx does besides passing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing: everything is as it is by default.
    Off,
    /// It compresses whatever a client takes compressed, and keeps connections to the server.
    Gzip,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    _kept: Kept,
    _home: TempDir,
}

impl Nginx {
    /// Starts it in front of a server, which may be away, and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn in_front_of(server: &str, compression: Compression) -> Self {
        let home = TempDir::with_prefix("macp-nginx-")
            .unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let (folder, port) = (home.path(), free_port());
        program::write(&folder.join("nginx.conf"), &configuration(server, port, compression));
        let prefix = folder.to_string_lossy();
        let log = folder.join("error.log");
        // One process, so that it needs no other account for its workers when we are root.
        let arguments = ["-p", &prefix, "-e", "stderr", "-c", "nginx.conf"];
        let single = ["-g", "daemon off; master_process off;"];
        let kept = Kept::start(NGINX, &[&arguments[..], &single[..]].concat(), folder, &log);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let answers = async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(!said.contains("[emerg]"), "nginx does not start:\n{said}");
            TcpStream::connect(address).await.is_ok()
        };
        wait_until(DEADLINE, answers).await;
        Self { port, _kept: kept, _home: home }
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

fn configuration(server: &str, port: u16, compression: Compression) -> String {
    let more = match compression {
        Compression::Off => "",
        Compression::Gzip => {
            "gzip on; gzip_proxied any; gzip_min_length 1;
             gzip_types text/event-stream application/json;
             proxy_http_version 1.1; proxy_set_header Connection '';"
        }
    };
    format!(
        "pid nginx.pid; error_log stderr;
         events {{ worker_connections 256; }}
         http {{
             access_log off;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             {more}
             server {{
                 listen 127.0.0.1:{port};
                 location / {{ proxy_pass {server}; }}
             }}
         }}\n"
    )
}
