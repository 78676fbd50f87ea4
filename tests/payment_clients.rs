//! The safe client loops of `docs/payments.md`, run as they stand there against a gateway that fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use concertpos_bridge::simulator::{Action, Config, Fault};
use support::{World, problem};
use tokio::process::Command;

const LOOPS: [&str; 2] = ["pay.py", "pay.sh"];

async fn run(client: &str, world: &World, token: &str, key: &str, patience_s: u32) -> (i32, String) {
    let sale = serde_json::json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}], "ref": key}).to_string();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(client));
    command.args([&world.path("/points-of-sale/1/payments"), key, &sale]);
    command.env("BRIDGE_TOKEN", token).env("PATIENCE", patience_s.to_string());
    let output = command.output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), printed + &String::from_utf8(output.stderr).unwrap())
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

        let counts = world.gateway.counts();
        for (name, bookings) in [("plain", 1), ("late", 1), ("limited", 1), ("refused", 0), ("lost", 1)] {
            assert_eq!(counts.bookings(&key(name)), bookings, "{client} {name}");
        }
    }
}
