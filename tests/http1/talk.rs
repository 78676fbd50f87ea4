//! Speaks to the built program in bytes, and reads its answers by the letter.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use concertpos_simulator::{Config, Simulator};

use crate::support::program::{Program, free_address};
use crate::support::{KEY, eventually};

/// A request in good order that ends its connection. What stands before it may not swallow it, nor be taken for it.
pub(crate) const LAST: &str = "GET /livez HTTP/1.1\r\nHost: bridge\r\nX-Request-Id: last\r\nConnection: close\r\n\r\n";

/// The built program on a simulated gateway.
pub(crate) struct Door {
    pub(crate) gateway: Simulator,
    pub(crate) address: String,
    _program: Program,
    _data: tempfile::TempDir,
}

impl Door {
    pub(crate) async fn open() -> Self {
        let gateway = Simulator::start(Config::default()).await.expect("a simulated gateway");
        let (address, data) = (free_address(), tempfile::tempdir().expect("a folder"));
        let journal = data.path().join("journal").display().to_string();
        let more = [("BRIDGE_AUTH__GATEWAY_KEY__PER_SECOND", "1000000")];
        let program = Program::start_with(&address, &gateway.url(), &journal, &more);
        let door = Self { gateway, address, _program: program, _data: data };
        eventually("it is ready", async || {
            let ready = "GET /readyz?require=gateway HTTP/1.1\r\nHost: bridge\r\nConnection: close\r\n\r\n";
            TcpStream::connect(&door.address).is_ok() && door.talk(ready.as_bytes())[0].status == 200
        })
        .await;
        // It asks for the licence by itself as soon as it can. From then on only what callers ask goes to the gateway.
        eventually("it has fetched the licence", async || door.gateway.counts().command("getlicense").received > 0)
            .await;
        door
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Everything that is answered to `bytes` until the connection ends. That it ends is part of what is asked.
    pub(crate) fn talk(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut stream = self.connect();
        // It may close before it has read everything, and what it said then may be lost on the way.
        let _ = stream.write_all(bytes);
        answers(&read_to_end(&mut stream), Bodies::Sent)
    }

    /// The same for requests with HEAD.
    pub(crate) fn talk_of_heads(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answers(&read_to_end(&mut stream), Bodies::LeftOut)
    }

    /// Sends what is no whole request, and leaves.
    pub(crate) fn break_off(&self, bytes: &[u8]) {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_end(&mut stream);
    }

    /// The program still answers.
    pub(crate) fn lives(&self) {
        let alive = self.talk(LAST.as_bytes());
        assert_eq!((alive.len(), alive[0].status), (1, 200), "it lives");
    }

    /// How often the gateway was asked to book the sale of this name.
    pub(crate) fn asked_to_book(&self, name: &str) -> u64 {
        self.gateway.counts().payitems_received.get(name).copied().unwrap_or_default()
    }
}

pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the connection does not end: {error}; until then: {}", String::from_utf8_lossy(&all)),
        }
    }
}

/// A payment's sale, named.
pub(crate) fn sale(name: &str) -> String {
    format!(r#"{{"PaymentMethod":1,"Products":[{{"ID":1,"Amount":2}}],"ref":"{name}"}}"#)
}

/// The head of a payment without what says how long its body is, and without its end.
pub(crate) fn payment_head(name: &str) -> String {
    format!(
        "POST /v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nIdempotency-Key: {name}\r\nX-Request-Id: {name}\r\n"
    )
}

/// A payment in good order.
pub(crate) fn payment(name: &str) -> String {
    let sale = sale(name);
    format!("{}Content-Length: {}\r\n\r\n{sale}", payment_head(name), sale.len())
}

/// A body in chunks.
pub(crate) fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The name of the request that it answers.
    pub(crate) fn request(&self) -> &str {
        self.header("x-request-id")
    }

    /// The code of a problem document.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        serde_json::from_str::<serde_json::Value>(&self.body).unwrap()["code"].as_str().unwrap().to_owned()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    Sent,
    LeftOut,
}

/// Reads answers, one after the other and nothing between them.
pub(crate) fn answers(mut bytes: &[u8], bodies: Bodies) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.").unwrap_or_else(|| panic!("no answer: {text}"));
        let status: u16 = status[2..5].parse().unwrap();
        let fields = lines.map(|line| line.split_once(": ").unwrap());
        let headers: BTreeMap<_, _> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        bytes = &bytes[end + 4..];
        let without = bodies == Bodies::LeftOut || status < 200 || status == 204 || status == 304;
        let body = if without { String::new() } else { body(&headers, &mut bytes) };
        answers.push(Answer { status, headers, body });
    }
    answers
}

fn body(headers: &BTreeMap<String, String>, bytes: &mut &[u8]) -> String {
    let take = |bytes: &mut &[u8], count: usize| {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        String::from_utf8(taken.to_vec()).unwrap()
    };
    if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        let mut whole = String::new();
        loop {
            let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a size");
            let size = usize::from_str_radix(take(bytes, end).as_str(), 16).unwrap();
            take(bytes, 2);
            whole += &take(bytes, size);
            assert_eq!(take(bytes, 2), "\r\n");
            if size == 0 {
                return whole;
            }
        }
    }
    let length = headers.get("content-length").map(|length| length.parse().unwrap());
    take(bytes, length.unwrap_or(bytes.len()))
}
