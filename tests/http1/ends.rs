//! Requests that break off, and answers that come before a request has ended.

use std::io::Write as _;

use crate::support::{KEY, eventually};
use crate::talk::{Door, LAST, chunked, payment, payment_head, sale};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_payment_that_breaks_off_at_any_byte_nothing_is_booked() {
    let door = Door::open().await;
    let in_chunks = format!("{}Transfer-Encoding: chunked\r\n\r\n{}", payment_head("broken"), chunked(&sale("broken")));
    for whole in [payment("broken"), in_chunks] {
        for end in 0..whole.len() {
            door.break_off(&whole.as_bytes()[..end]);
        }
    }
    assert_eq!(door.asked_to_book("broken"), 0);
    assert_eq!(door.talk((payment("broken") + LAST).as_bytes())[0].status, 201, "its key is free");
    assert_eq!(door.asked_to_book("broken"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_came_whole_is_booked_once_though_its_sender_has_left() {
    let door = Door::open().await;
    for index in 0..20 {
        let mut stream = door.connect();
        stream.write_all(payment(&format!("left-{index}")).as_bytes()).unwrap();
        drop(stream);
    }
    // One that left before it was read may not have come at all; none is booked twice.
    eventually("they are booked", async || (0..20).any(|index| door.asked_to_book(&format!("left-{index}")) == 1))
        .await;
    for index in 0..20 {
        let name = format!("left-{index}");
        eventually("it is known to be booked", async || door.talk((payment(&name) + LAST).as_bytes())[0].status == 201)
            .await;
        assert_eq!(door.asked_to_book(&name), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_wants_is_no_request() {
    let door = Door::open().await;
    let smuggled = payment("smuggled");
    let n = smuggled.len();
    let config = format!("/v1/instances/demo/config HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {KEY}");
    let payments = "/v1/instances/demo/points-of-sale/1/payments HTTP/1.1\r\nHost: bridge";
    let json = "Content-Type: application/json";
    let heads = [
        (200, "GET /livez HTTP/1.1\r\nHost: bridge".to_owned()),
        (200, format!("GET {config}")),
        (304, format!("GET {config}\r\nIf-None-Match: *")),
        (405, format!("DELETE {config}")),
        (204, format!("OPTIONS {config}")),
        (401, format!("POST {payments}")),
        (401, format!("POST {payments}\r\nAuthorization: Bearer nobody")),
        (400, format!("POST {payments}\r\nAuthorization: Bearer {KEY}\r\n{json}")),
        (
            415,
            format!("POST {payments}\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: k\r\nContent-Type: text/html"),
        ),
        (400, format!("POST {payments}\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: k\r\n{json}")),
        (404, "POST /nowhere HTTP/1.1\r\nHost: bridge".to_owned()),
    ];
    for (status, head) in heads {
        let chunks = chunked(&smuggled);
        let bodies =
            [format!("Content-Length: {n}\r\n\r\n{smuggled}"), format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")];
        for body in bodies {
            let answers = door.talk(format!("{head}\r\nX-Request-Id: first\r\n{body}{LAST}").as_bytes());
            let told: Vec<_> = answers.iter().map(|answer| (answer.status, answer.request())).collect();
            // It may close instead of reading what nobody wants.
            let right = told == [(status, "first"), (200, "last")] || told == [(status, "first")];
            assert!(right, "{head}: {answers:?}");
            assert_eq!(door.asked_to_book("smuggled"), 0, "{head}");
        }
    }
    door.lives();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_measure_is_refused_at_once_and_is_no_request() {
    let door = Door::open().await;
    let head = payment_head("huge");
    let smuggled = payment("smuggled");
    let megabyte = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let requests = [
        (true, format!("{head}Content-Length: 10000000000\r\n\r\n{smuggled}")),
        (true, format!("{head}Content-Length: 18446744073709551615\r\n\r\n{smuggled}")),
        (true, format!("{head}Content-Length: 1048577\r\n\r\n{}", smuggled.repeat(4000))),
        (false, format!("{head}Transfer-Encoding: chunked\r\n\r\n{}{smuggled}", megabyte.repeat(3))),
    ];
    for (announced, request) in requests {
        let answers = door.talk((request + LAST).as_bytes());
        // Where it was told at the very start, the answer may be lost behind what was still being sent.
        assert!(answers.len() == 1 || !announced && answers.is_empty(), "{answers:?}");
        assert!(answers.iter().all(|answer| answer.code() == "too-large" && answer.request() == "huge"), "{answers:?}");
    }
    // Chunks of a size that nobody can send: its sender leaves, and that is all.
    for size in ["7fffffffffffffff", "ffffffffffffffff", "fffffffffffffffe"] {
        door.break_off(format!("{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{smuggled}").as_bytes());
    }
    assert_eq!((door.asked_to_book("huge"), door.asked_to_book("smuggled")), (0, 0));
    door.lives();
}

/// Asks to speak the gateway's protocol. The server then reads whatever follows as one body without an end.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_where_there_is_none_is_answered_once_and_ends_the_connection() {
    let door = Door::open().await;
    let requests = [
        (401, format!("GET /v1/instances HTTP/1.1\r\nHost: bridge\r\nX-Request-Id: first\r\n{UPGRADE}\r\n")),
        (404, format!("GET /nowhere/at/all HTTP/1.1\r\nHost: bridge\r\nX-Request-Id: first\r\n{UPGRADE}\r\n")),
        (404, "CONNECT bridge:443 HTTP/1.1\r\nHost: bridge:443\r\nX-Request-Id: first\r\n\r\n".to_owned()),
        (405, "CONNECT /livez HTTP/1.1\r\nHost: bridge\r\nX-Request-Id: first\r\n\r\n".to_owned()),
    ];
    for (status, request) in requests {
        let answers = door.talk((request.clone() + &payment("smuggled") + LAST).as_bytes());
        let told: Vec<_> = answers.iter().map(|answer| (answer.status, answer.request())).collect();
        assert_eq!(told, [(status, "first")], "{request}");
    }
    assert_eq!(door.asked_to_book("smuggled"), 0);
    door.lives();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_with_an_upgrade_is_refused_at_once_for_nobody_knows_where_it_ends() {
    let door = Door::open().await;
    let sale = sale("upgraded");
    for length in [sale.len(), sale.len() + 100] {
        let head = format!("{}{UPGRADE}Content-Length: {length}\r\n\r\n", payment_head("upgraded"));
        let whole = head.clone() + &sale;
        door.break_off(whole.as_bytes());
        let answers = door.talk((whole + LAST).as_bytes());
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!((answers[0].code().as_str(), answers[0].request()), ("invalid-request", "upgraded"));
        assert!(answers[0].body.contains("asks for another protocol"), "{answers:?}");
    }
    assert_eq!(door.asked_to_book("upgraded"), 0);
}
