//! A collector of traces: takes what is posted to it, and reads spans out of it without any library of the sender's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;

/// A request's head and its body.
type Posted = (String, Vec<u8>);

/// Everything that was posted.
pub(crate) struct Collector {
    address: String,
    posted: Arc<Mutex<Vec<Posted>>>,
}

/// What matters of a span.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where it has none.
    pub(crate) parent: String,
    pub(crate) name: String,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let posted = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&posted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                taken.lock().unwrap().push(take(stream.unwrap()));
            }
        });
        Self { address, posted }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything as text, for whoever looks for words in it.
    pub(crate) fn text(&self) -> String {
        let posted = self.posted.lock().unwrap();
        posted.iter().map(|(head, body)| head.clone() + &String::from_utf8_lossy(body)).collect()
    }

    /// Every span that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let posted = self.posted.lock().unwrap();
        assert!(posted.iter().all(|(head, _)| head.starts_with("POST /v1/traces HTTP/1.1")), "{posted:?}");
        let resources = posted.iter().flat_map(|(_, body)| fields(body)).filter(|(number, _)| *number == 1);
        let scopes = resources.flat_map(|(_, resource)| fields(resource)).filter(|(number, _)| *number == 2);
        let spans = scopes.flat_map(|(_, scope)| fields(scope)).filter(|(number, _)| *number == 2);
        spans.map(|(_, span)| span_of(span)).collect()
    }
}

fn take(stream: TcpStream) -> Posted {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    (head, body)
}

fn span_of(bytes: &[u8]) -> Span {
    let field = |wanted: u64| {
        fields(bytes).into_iter().find(|(number, _)| *number == wanted).map_or(&[][..], |(_, value)| value)
    };
    Span {
        trace: HEXLOWER.encode(field(1)),
        id: HEXLOWER.encode(field(2)),
        parent: HEXLOWER.encode(field(4)),
        name: String::from_utf8_lossy(field(5)).into_owned(),
    }
}

/// The fields of a message that have a length, as the encoding of Protocol Buffers writes them.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            1 => 8,
            5 => 4,
            _ => usize::try_from(varint(&mut bytes)).unwrap(),
        };
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, value));
        }
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
