//! A client that is only a socket, so that a test decides when it reads, and how it goes away.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::Api;

/// Opens a stream with a receive buffer as small as it gets, and reads nothing.
pub(crate) fn open(api: &Api, path: &str) -> TcpStream {
    use std::io::Write;
    let address: SocketAddr = api.url.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    stream
}

/// Goes away without a word to the server but a reset.
pub(crate) fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}
