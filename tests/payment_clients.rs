//! The safe client loops of `docs/payments.md`, run as they stand there against a gateway that fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use std::process::Output;

use concertpos_bridge::internals::http::problem::{Problem, table};
use concertpos_simulator::{Action, Config, Fault};
use serde_json::json;
use support::{World, problem, together};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

const LOOPS: [&str; 2] = ["pay.py", "pay.sh"];

async fn call(client: &str, arguments: &[&str], token: &str, patience_s: u32) -> (i32, String) {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(client));
    command.args(arguments).env("BRIDGE_TOKEN", token).env("PATIENCE", patience_s.to_string());
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
}

async fn run(client: &str, world: &World, token: &str, key: &str, patience_s: u32) -> (i32, String) {
    let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}).to_string();
    call(client, &[&world.path("/points-of-sale/1/payments"), key, &sale], token, patience_s).await
}

/// Something that answers each request with these bytes and closes; its address.
async fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = Vec::new();
            let is_whole =
                |asked: &[u8]| asked.ends_with(b"}") || asked.starts_with(b"GET") && asked.ends_with(b"\r\n\r\n");
            while !is_whole(&asked) && socket.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {}
            let _ = socket.write_all(&answer).await;
        }
    });
    format!("http://{address}/")
}

fn http(head: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// Each client's exit status on an answer, and what it printed.
async fn said_to(answer: Vec<u8>) -> [(i32, String); 2] {
    let url = answering(answer).await;
    let client = async |client| call(client, &[&url, "key", "{}"], "token", 0).await;
    tokio::join!(client(LOOPS[0]), client(LOOPS[1])).into()
}

#[test]
fn the_document_shows_the_loops_that_are_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/payments.md")).unwrap();
    for client in LOOPS {
        let code = std::fs::read_to_string(root.join("examples").join(client)).unwrap();
        assert!(document.contains(&code), "docs/payments.md does not show examples/{client} as it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_loop_ends_with_what_is_true_and_never_sells_twice() {
    let settings = [("BRIDGE_GATEWAY__REQUEST_TIMEOUT", "400ms"), ("BRIDGE_GATEWAY__LATE_PATIENCE", "20s")];
    let world = World::with(Config::default(), &settings).await;
    for client in LOOPS {
        let fault = |action, times| world.gateway.add_fault(Fault::new(action).on("payitems").times(times));
        let key = |name: &str| format!("{client}-{name}");

        let plain = run(client, &world, support::KEY, &key("plain"), 20).await;
        assert_eq!((plain.0, plain.1.starts_with("booked")), (0, true), "{client}: {}", plain.1);

        fault(Action::Latency { ms: 1_500 }, 1);
        let late = run(client, &world, support::KEY, &key("late"), 20).await;
        assert_eq!(late.0, 0, "{client} asks again until the late reply has come: {}", late.1);

        let limit = serde_json::json!({"command": "payitems", "retry_after": 1000});
        fault(Action::Error { word: "ratelimit".into(), code: Some(limit), and_reply: false }, 1);
        let limited = run(client, &world, support::KEY, &key("limited"), 20).await;
        assert_eq!(limited.0, 0, "{client} comes back when it was told to: {}", limited.1);

        fault(Action::Error { word: "invalid_password".into(), code: None, and_reply: false }, 1);
        let refused = run(client, &world, support::KEY, &key("refused"), 20).await;
        assert_eq!((refused.0, refused.1.starts_with("not-booked")), (1, true), "{client}: {}", refused.1);

        fault(Action::CutAfterApply, 1);
        let lost = run(client, &world, support::KEY, &key("lost"), 2).await;
        assert_eq!((lost.0, lost.1.starts_with("unknown")), (2, true), "{client}: {}", lost.1);
        assert!(lost.1.contains("/v1/instances/demo/payments/"), "it says where to look: {}", lost.1);

        let locked_out = run(client, &world, "revoked", &key("lost"), 2).await;
        assert_eq!(locked_out.0, 2, "{client}: that it may not ask says nothing about the sale: {}", locked_out.1);
        assert_eq!(problem(world.sale(&key("lost")).send().await.unwrap()).await.code, "payment-outcome-unknown");

        // The sale is booked; a request that is refused for itself says nothing about it.
        let sold =
            [&world.path("/points-of-sale/1/payments"), key("plain").as_str(), "{\"Products\": 7}"].map(str::to_owned);
        let invalid = call(client, &sold.each_ref().map(String::as_str), support::KEY, 2).await;
        assert_eq!((invalid.0, invalid.1.contains("invalid-request")), (2, true), "{client}: {}", invalid.1);

        let counts = world.gateway.counts();
        for (name, bookings) in [("plain", 1), ("late", 1), ("limited", 1), ("refused", 0), ("lost", 1)] {
            assert_eq!(counts.bookings(&key(name)), bookings, "{client} {name}");
        }
    }
}

/// What is said about the sale itself. Every other code is of one request, and says nothing about an earlier one with
/// the same key.
const NOT_BOOKED: [&str; 6] = [
    "gateway-rejected-parameters",
    "pos-password-rejected",
    "gateway-credentials-rejected",
    "license-invalid",
    "gateway-error",
    "idempotency-key-reused",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_loop_says_not_booked_only_where_the_bridge_says_so_of_the_sale() {
    let as_listed = table::TABLE.iter().map(|entry| (entry, entry.retryable));
    // A row that may be repeated can be told as one that may not.
    let for_good = table::TABLE.iter().filter(|entry| entry.retryable).map(|entry| (entry, false));
    let checks = as_listed.chain(for_good).map(|(entry, retryable)| async move {
        let problem = Problem::new(entry);
        let problem = if retryable { problem } else { problem.not_retryable() };
        let rendered = problem.render("", Some("id")).into_body();
        let body = actix_web::body::to_bytes(rendered).await.ok().unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let expected = if NOT_BOOKED.contains(&entry.code) && !retryable { 1 } else { 2 };
        (entry.code, expected, http(&format!("{} x", entry.status), &body))
    });
    for batch in futures_util::future::join_all(checks).await.chunks(8) {
        let asked = batch.iter().cloned().map(|(code, expected, answer)| async move {
            for (status, said) in said_to(answer).await {
                assert_eq!(status, expected, "{code}: {said}");
            }
        });
        together(asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_something_in_between_is_taken_for_an_outcome() {
    let not_booked = r#"{"code":"license-invalid","retryable":false}"#;
    let unknown = r#"{"code":"payment-outcome-unknown","retryable":true,"gateway":{"error":"error_exec","code":
        {"code":"license-invalid","retryable":false}}}"#;
    let answers = vec![
        http("200 OK", "{}"),
        http("200 OK", not_booked),
        http("403 Forbidden", "[1]"),
        http("403 Forbidden", "<html>"),
        http("403 Forbidden", r#"{"code":7,"retryable":false}"#),
        http("403 Forbidden", r#"{"retryable":false}"#),
        http("503 x\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT", "later"),
        http("503 x\r\nRetry-After: 08", r#"{"code":"overloaded","retryable":true,"retry_after":"soon"}"#),
        http("503 x", r#"{"code":"overloaded","retryable":true,"retry_after":null}"#),
        http("504 x", unknown),
        http("301 x\r\nLocation: /elsewhere", ""),
        b"HTTP/1.1 403 x\r\nContent-Length: 90\r\n\r\n{\"code\":\"license".to_vec(),
        b"HTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{".to_vec(),
        b"220 mail.example ESMTP\r\n".to_vec(),
        Vec::new(),
    ];
    let asked = answers.into_iter().map(|answer| async move {
        let text = String::from_utf8(answer.clone()).unwrap();
        for (status, said) in said_to(answer).await {
            assert_eq!(status, 2, "{text}: {said}");
        }
    });
    together(asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_cannot_run_does_not_say_that_nothing_was_booked() {
    for client in LOOPS {
        for arguments in [&[][..], &["http://127.0.0.1:9/"], &["no url", "key", "{}"], &["", "key\n", "{}"]] {
            let (status, said) = call(client, arguments, "token", 0).await;
            assert_eq!(status, 2, "{client} {arguments:?}: {said}");
        }
    }
}
