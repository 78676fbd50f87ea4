//! Posts traces to the collector: one HTTP request at a time, on the exporter's own thread, which may block.
//!
//! An HTTP client (reqwest) would add 17 crates and 1.3 MB to the program for one kind of request to one address.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// For each step. Longer than a collector in the same network takes; what is not exported by then is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of an answer is read: only its status matters.
const MAX_ANSWER: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Post {
    tls: Arc<ClientConfig>,
}

impl Post {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    fn send(&self, request: &Request<Bytes>) -> io::Result<Response<Bytes>> {
        let uri = request.uri();
        let host = uri.host().ok_or_else(|| io::Error::other("the endpoint names no host"))?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = connect((bare, port).to_socket_addrs()?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let answer = if secure {
            let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
            let connection = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
            exchange(StreamOwned::new(connection, stream), request)?
        } else {
            exchange(stream, request)?
        };
        let status = status_of(&answer).ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
        Response::builder().status(status).body(Bytes::new()).map_err(io::Error::other)
    }
}

/// Connects to the first address that accepts: a collector on `localhost` may listen on IPv4 alone.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failure = io::Error::other("the endpoint has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn exchange(mut stream: impl Read + Write, request: &Request<Bytes>) -> io::Result<Vec<u8>> {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // A name and a password are no part of the host's name.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n").into_bytes();
    for (name, value) in request.headers() {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(format!("Content-Length: {}\r\n\r\n", request.body().len()).into_bytes());
    stream.write_all(&head)?;
    stream.write_all(request.body())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        // Some close a TLS connection without its last message; what was read by then is the answer.
        Err(fault) if answer.is_empty() => Err(fault),
        _ => Ok(answer),
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(self.send(&request)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_collector_that_listens_on_the_second_address_of_its_name_is_reached() {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let refusing = listener().local_addr().unwrap();
        let listening = listener();
        let address = listening.local_addr().unwrap();
        assert_eq!(connect([refusing, address].into_iter()).unwrap().peer_addr().unwrap(), address);
        assert!(connect([refusing].into_iter()).is_err() && connect([].into_iter()).is_err());
    }
}
