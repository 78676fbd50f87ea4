//! Requests that are none: nothing of them is served, and nothing after them on their connection either, since nobody
//! can say where they end.

use crate::support::KEY;
use crate::talk::{Answer, Door, LAST, chunked, payment, payment_head, sale};

/// A request that stands in another's body or after it, and must never be taken for one of its own.
fn smuggled() -> String {
    payment("smuggled")
}

/// Sends `bytes` and a request in good order after them. At most one answer may come, a refusal, and nothing is booked.
fn refused(door: &Door, what: &str, bytes: &[u8]) {
    let all = [bytes, LAST.as_bytes()].concat();
    let answers = door.talk(&all);
    let requests: Vec<&str> = answers.iter().map(Answer::request).collect();
    assert!(answers.len() <= 1, "{what}: {answers:?}");
    assert!(!requests.contains(&"last"), "{what}: it went on after what has no end: {answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 400..=499)), "{what}: {answers:?}");
    for name in ["nasty", "smuggled"] {
        assert_eq!(door.asked_to_book(name), 0, "{what}: {name} was booked");
    }
    door.lives();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_unsure_where_a_body_ends() {
    let door = Door::open().await;
    // Read by its chunks, it is a sale and another request; read by a length, it is neither.
    let body = chunked(&sale("nasty")) + &smuggled();
    let n = body.len();
    let heads = [
        format!("Content-Length: {n}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {n}"),
        "Content-Length: 0\r\nTransfer-Encoding: chunked".into(),
        format!("Content-Length: {n}\r\nContent-Length: 5"),
        format!("Content-Length: {n}\r\nContent-Length: {n}"),
        format!("Content-Length: 0\r\nContent-Length: {n}"),
        format!("Content-Length: {n}, {n}"),
        format!("Content-Length: +{n}"),
        format!("Content-Length: -{n}"),
        format!("Content-Length: {n:#x}"),
        format!("Content-Length: {n} {n}"),
        format!("Content-Length: {n};q=1"),
        format!("Content-Length: \"{n}\""),
        format!("Content-Length: {n}.0"),
        "Content-Length: 1e3".into(),
        "Content-Length:".into(),
        "Content-Length: ٣".into(),
        "Content-Length: 99999999999999999999999".into(),
        "Content-Length: -1".into(),
        format!("Content-Length : {n}"),
        format!(" Content-Length: {n}"),
        format!("Content-Length\t: {n}"),
        format!("Content-Length\0: {n}"),
        format!("Content-Length:\r\n {n}"),
        "Transfer-Encoding: xchunked".into(),
        "Transfer-Encoding: chunkedx".into(),
        "Transfer-Encoding: chunked, identity".into(),
        "Transfer-Encoding: identity, chunked".into(),
        "Transfer-Encoding: identity".into(),
        "Transfer-Encoding: chunked, chunked".into(),
        "Transfer-Encoding: gzip, chunked".into(),
        "Transfer-Encoding: chunked;q=1".into(),
        "Transfer-Encoding: \"chunked\"".into(),
        "Transfer-Encoding: 'chunked'".into(),
        "Transfer-Encoding: \u{b}chunked".into(),
        "Transfer-Encoding: chunked\u{c}".into(),
        "Transfer-Encoding: ch\0unked".into(),
        "Transfer-Encoding:".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity".into(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked".into(),
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked".into(),
        "Transfer-Encoding : chunked".into(),
        " Transfer-Encoding: chunked".into(),
        "\tTransfer-Encoding: chunked".into(),
        "X: y\r\n Transfer-Encoding: chunked".into(),
        "Transfer-Encoding:\r\n chunked".into(),
        "Transfer-Encoding: \r\n\tchunked".into(),
        "X: y\rTransfer-Encoding: chunked".into(),
        format!("Content-Length: {n}\rX: y"),
    ];
    for head in heads {
        let nasty = format!("{}{head}\r\n\r\n{body}", payment_head("nasty"));
        refused(&door, &head, nasty.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_what_its_size_says_or_nothing() {
    let door = Door::open().await;
    let sale = sale("nasty");
    let n = sale.len();
    let bodies = [
        format!("-{n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("+{n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("0x{n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x}\n{sale}\n0\n\n"),
        format!("{n:x}\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x}\r{sale}\r\n0\r\n\r\n"),
        format!(" {n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x} {n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x}\r\n{sale}0\r\n\r\n"),
        format!("{n:x}\r\n{sale}\n0\r\n\r\n"),
        format!("{n:x}\r\n{sale}xx0\r\n\r\n"),
        format!("{:x}\r\n{sale}\r\n0\r\n\r\n", n - 1),
        format!("{n:x};a\nb\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x};a\0b\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x};a\r{sale}\r\n0\r\n\r\n"),
        format!("\r\n{n:x}\r\n{sale}\r\n0\r\n\r\n"),
        format!("g\r\n{sale}\r\n0\r\n\r\n"),
        format!("{n:x}\r\n{sale}\r\n;\r\n\r\n"),
        format!("1{}\r\n{sale}\r\n0\r\n\r\n", "0".repeat(17)),
        format!("{}\r\n{sale}\r\n0\r\n\r\n", "f".repeat(17)),
    ];
    for body in bodies {
        let nasty = format!("{}Transfer-Encoding: chunked\r\n\r\n{body}", payment_head("nasty"));
        refused(&door, &body, nasty.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_none_is_refused() {
    let door = Door::open().await;
    let body = sale("nasty");
    let rest = format!(
        "Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nIdempotency-Key: nasty\r\n\
         X-Request-Id: nasty\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let path = "/v1/instances/demo/points-of-sale/1/payments";
    let many: String = (0..200).flat_map(|index| ["X-".to_owned(), index.to_string(), ": y\r\n".to_owned()]).collect();
    let firsts = [
        format!("POST {path} HTTP/1.1\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nHost: b\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nNo colon\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n: no name\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nA space: x\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nÜber: x\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX: a\u{1b}b\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX: folded\r\n into two\r\n"),
        format!("POST {path} HTTP/1.1\r\n Host: a\r\n"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{many}"),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "y".repeat(200_000)),
        format!("POST {path}?{} HTTP/1.1\r\nHost: a\r\n", "y".repeat(200_000)),
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{}: y\r\n", "x".repeat(100_000)),
        format!("POST {path} HTTP/2.0\r\nHost: a\r\n"),
        format!("POST {path} HTTP/1.2\r\nHost: a\r\n"),
        format!("POST {path} HTTP/0.9\r\nHost: a\r\n"),
        format!("POST {path} http/1.1\r\nHost: a\r\n"),
        format!("POST {path} HTTP/1.1 x\r\nHost: a\r\n"),
        format!("POST {path}\r\nHost: a\r\n"),
        format!("POST\t{path}\tHTTP/1.1\r\nHost: a\r\n"),
        format!("POST {path} x HTTP/1.1\r\nHost: a\r\n"),
        format!("POST  {path} HTTP/1.1\r\nHost: a\r\n"),
        format!("PO(ST {path} HTTP/1.1\r\nHost: a\r\n"),
        format!(" POST {path} HTTP/1.1\r\nHost: a\r\n"),
        format!("POST {path}\0 HTTP/1.1\r\nHost: a\r\n"),
        format!("POST {} HTTP/1.1\r\nHost: a\r\n", path.trim_start_matches('/')),
        format!("\0POST {path} HTTP/1.1\r\nHost: a\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for first in firsts {
        let short: String = first.chars().take(120).collect();
        refused(&door, &short, (first + &rest).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_at_all_is_refused() {
    let door = Door::open().await;
    let noise: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 505]].concat();
    for (what, bytes) in [("noise", &noise[..]), ("a TLS hello", &hello), ("HTTP/0.9", b"GET /livez\r\n\r\n")] {
        refused(&door, what, bytes);
    }
}
