//! Requests that are in order, however strange they look: each is served as what it says, once.

use std::io::{Read as _, Write as _};

use crate::support::KEY;
use crate::talk::{Answer, Bodies, Door, LAST, answers, chunked, payment, payment_head, read_to_end, sale};

/// The payment of this name is answered with 201, once, and so is what comes after it.
fn booked(door: &Door, name: &str, what: &str, answers: &[Answer]) {
    let answers: Vec<_> = answers.iter().filter(|answer| answer.status >= 200).collect();
    let told: Vec<_> = answers.iter().map(|answer| (answer.status, answer.request())).collect();
    assert_eq!(told, [(201, name), (200, "last")], "{what}: {answers:?}");
    assert_eq!(door.asked_to_book(name), 1, "{what}");
}

/// What comes after the head of a sale, from the name of its key and its body.
type Written = fn(&str, &str) -> String;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_however_it_is_cut_and_what_follows_it_is_a_request_of_its_own() {
    let door = Door::open().await;
    let forms: [(&str, Written); 14] = [
        ("by its length", |_, sale| format!("Content-Length: {}\r\n\r\n{sale}", sale.len())),
        ("blanks around", |_, sale| format!("Content-Length: \t {} \t\r\n\r\n{sale}", sale.len())),
        ("leading zeros", |_, sale| format!("Content-Length: 000{}\r\n\r\n{sale}", sale.len())),
        ("other letters", |_, sale| format!("cOnTeNt-LeNgTh: {}\r\n\r\n{sale}", sale.len())),
        ("one chunk", |_, sale| format!("Transfer-Encoding: chunked\r\n\r\n{}", chunked(sale))),
        ("Chunked", |_, sale| format!("tRANSFER-eNCODING: ChUnKeD\r\n\r\n{}", chunked(sale))),
        ("byte by byte", |_, sale| {
            let chunks: String = sale.chars().flat_map(|one| ['1', '\r', '\n', one, '\r', '\n']).collect();
            format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        }),
        ("zeros before a size", |_, sale| {
            format!("Transfer-Encoding: chunked\r\n\r\n0000{:X}\r\n{sale}\r\n000\r\n\r\n", sale.len())
        }),
        ("extensions", |_, sale| {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x};a=b;c=\"d;e\"\r\n{sale}\r\n0;x\r\n\r\n", sale.len())
        }),
        ("a blank after a size", |_, sale| {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x} \t\r\n{sale}\r\n0\r\n\r\n", sale.len())
        }),
        // Trailers are not looked at: they cannot change what was said in the head.
        ("trailers", |name, sale| {
            let trailers = format!("Idempotency-Key: {name}-2\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n");
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{sale}\r\n0\r\n{trailers}\r\n", sale.len())
        }),
        ("a trailer that is none", |_, sale| {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{sale}\r\n0\r\nno colon\r\n\r\n", sale.len())
        }),
        ("another upgrade", |_, sale| {
            let length = sale.len();
            format!("Upgrade: h2c, irc/6.9\r\nConnection: Upgrade\r\nContent-Length: {length}\r\n\r\n{sale}")
        }),
        ("an expectation", |_, sale| format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n{sale}", sale.len())),
    ];
    for (index, (what, written)) in forms.into_iter().enumerate() {
        let name = format!("form-{index}");
        let request = payment_head(&name) + &written(&name, &sale(&name)) + LAST;
        booked(&door, &name, what, &door.talk(request.as_bytes()));
        assert_eq!(door.asked_to_book(&format!("{name}-2")), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_read_as_it_is_meant() {
    let door = Door::open().await;
    let path = "/v1/instances/demo/points-of-sale/1/payments";
    let heads = [
        format!("\r\n\r\nPOST {path} HTTP/1.1\r\nHost: bridge"),
        format!("POST http://elsewhere.example{path} HTTP/1.1\r\nHost: bridge"),
        format!("POST {path}?&& HTTP/1.1\r\nHost: bridge"),
        format!("POST {path} HTTP/1.1\r\nHost:bridge"),
        format!("POST {path} HTTP/1.1\r\nHost:"),
        format!("POST {path} HTTP/1.1\r\nHost: bridge\r\nX-Empty:\r\nX-Umlaut: größe\r\nX-Tab: a\tb"),
        format!("POST {path} HTTP/1.1\r\nHost: bridge\r\nX-Long: {}", "y".repeat(15_000)),
        format!("POST {path} HTTP/1.1\r\nHost: bridge\r\nX!#$%&'*+-.^_`|~9: y"),
        format!("POST {path} HTTP/1.1\r\nHost: bridge\r\nContent-Encoding: identity\r\nTE: trailers"),
    ];
    for (index, head) in heads.into_iter().enumerate() {
        let name = format!("head-{index}");
        let sale = sale(&name);
        let request = format!(
            "{head}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nIdempotency-Key: {name}\r\n\
             X-Request-Id: {name}\r\nContent-Length: {}\r\n\r\n{sale}{LAST}",
            sale.len()
        );
        booked(&door, &name, &head[..head.len().min(120)], &door.talk(request.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_may_end_with_a_line_feed_alone_in_a_head_and_is_the_same_line() {
    let door = Door::open().await;
    let request = payment("bare") + LAST;
    // RFC 9112, section 2.2, allows it, and the head ends at the same byte for whoever reads it so.
    booked(&door, "bare", "line feeds alone", &door.talk(request.replace('\r', "").as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_in_one_go_are_answered_each_and_in_order() {
    let door = Door::open().await;
    let read = |name: &str| {
        format!(
            "GET /v1/instances/demo/points-of-sale HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {KEY}\r\n\
             X-Request-Id: {name}\r\n\r\n"
        )
    };
    let (mut all, mut expected) = (String::new(), Vec::new());
    for index in 0..40 {
        let (one, other) = (format!("read-{index}"), format!("pay-{index}"));
        all += &(read(&one) + &payment(&other));
        expected.extend([(200, one), (201, other)]);
    }
    expected.push((200, "last".into()));
    let told = |answers: Vec<Answer>| -> Vec<_> {
        answers.into_iter().map(|answer| (answer.status, answer.request().to_owned())).collect()
    };
    assert_eq!(told(door.talk((all + LAST).as_bytes())), expected);
    for index in 0..40 {
        assert_eq!(door.asked_to_book(&format!("pay-{index}")), 1);
    }
    // And so are they when they come byte by byte.
    let mut stream = door.connect();
    stream.set_nodelay(true).unwrap();
    for byte in (read("slow") + &payment("slow-too") + LAST).bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    let slow = told(answers(&read_to_end(&mut stream), Bodies::Sent));
    assert_eq!(slow, [(200, "slow".into()), (201, "slow-too".into()), (200, "last".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_told_to_go_on_is_told_so() {
    let door = Door::open().await;
    let mut stream = door.connect();
    let sale = sale("patient");
    let head = format!("{}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", payment_head("patient"), sale.len());
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all((sale + LAST).as_bytes()).unwrap();
    booked(&door, "patient", "an expectation", &answers(&read_to_end(&mut stream), Bodies::Sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_one_answer_and_the_end_of_its_connection_unless_it_asks_for_more() {
    let door = Door::open().await;
    let get = |more: &str| format!("GET /livez HTTP/1.0\r\n{more}\r\n");
    assert_eq!(door.talk(get("").as_bytes()).len(), 1);
    let two = door.talk((get("Connection: keep-alive\r\n") + &get("")).as_bytes());
    assert_eq!(two.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200]);
    let paid = payment("old").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(door.talk(paid.as_bytes()).iter().map(|answer| answer.status).collect::<Vec<_>>(), [201]);
    // Its answer has no chunks, which it would not know, and so no more than its length.
    let page = door.talk(b"GET /openapi.json HTTP/1.0\r\n\r\n");
    assert_eq!((page.len(), page[0].header("transfer-encoding")), (1, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_gets_no_chunks_whatever_it_accepts_and_asks() {
    let door = Door::open().await;
    let routes = ["/openapi.json", "/", "/docs/swagger-ui.css", "/v1/instances/demo/points-of-sale", "/v1/nowhere"];
    for path in routes {
        for accepted in ["gzip", "br", "zstd, gzip", "identity"] {
            for more in ["", "Connection: keep-alive\r\n"] {
                let request = format!(
                    "GET {path} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nAccept-Encoding: {accepted}\r\n{more}\r\n"
                );
                let answer = exchange(&door, &request);
                assert!(!answer.contains("transfer-encoding"), "{path} {accepted}: {answer}");
                // Its end is told by a length, or by the end of the connection.
                let told = answer.contains("content-length: ") || !answer.contains("connection: keep-alive");
                assert!(told, "{path} {accepted} {more}: {answer}");
            }
        }
    }
    let mut stream = door.connect();
    let events = format!(
        "GET /v1/instances/demo/events HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nConnection: keep-alive\r\n\r\n"
    );
    stream.write_all(events.as_bytes()).unwrap();
    let (mut heard, mut some) = (String::new(), [0; 4096]);
    while !heard.contains("event: ready") {
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "{heard}");
        heard += std::str::from_utf8(&some[..count]).unwrap();
    }
    let (fields, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(!fields.contains("transfer-encoding") && !fields.contains("keep-alive"), "{fields}");
    assert!(body.starts_with("retry: "), "no sizes of chunks: {body}");
}

/// What is answered to one request until the connection ends, or until its length has come.
fn exchange(door: &Door, request: &str) -> String {
    let mut stream = door.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut some).unwrap();
        all.extend_from_slice(&some[..count]);
        let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(all[..end].to_vec()).unwrap().to_ascii_lowercase() + "\r\n";
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if count == 0 || length.is_some_and(|length: usize| all.len() >= end + 4 + length) {
            return head;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_nobody_knows_is_ignored_and_its_connection_kept() {
    let door = Door::open().await;
    let mut stream = door.connect();
    for index in 0..3 {
        let name = format!("offered-{index}");
        let sale = sale(&name);
        // As Java's client sends it with each request, those with a body too.
        let offer = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n\
            Upgrade: h2c\r\n";
        let read = format!("GET /livez HTTP/1.1\r\n{offer}Host: bridge\r\n\r\n");
        let pay = format!("{}{offer}Content-Length: {}\r\n\r\n{sale}", payment_head(&name), sale.len());
        for (request, status) in [(read, 200), (pay, 201)] {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            let mut some = [0; 4096];
            while !answer.ends_with(b"}") {
                let count = stream.read(&mut some).unwrap();
                assert!(count > 0, "the connection ended after {}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&some[..count]);
            }
            let text = String::from_utf8(answer).unwrap().to_ascii_lowercase();
            assert!(text.starts_with(&format!("http/1.1 {status} ")), "{text}");
            assert!(!text.contains("upgrade") && !text.contains("connection: "), "{text}");
        }
        assert_eq!(door.asked_to_book(&name), 1);
    }
}
