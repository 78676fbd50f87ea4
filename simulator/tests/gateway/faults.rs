//! Each fault does what it says, and nothing else.

use concertpos_simulator::{Action, Config, Counting, Fault, Garbage, Limits, Simulator};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, PATIENCE, error_word, event, sale, start, start_with, wait_until};

/// Longer than any test runs: what waits for it has not happened by the end.
const NEVER_MS: u64 = 3_600_000;

#[tokio::test]
async fn latency_applies_first_and_late_applies_last() {
    let (simulator, mut client) = start_with(Fault::new(Action::Latency { ms: NEVER_MS }).times(1)).await;
    client.send("payitems", sale("at once")).await;
    wait_until(&simulator, |counts| counts.bookings("at once") == 1).await;
    assert_eq!(simulator.counts().command("payitems").answered, 0);

    simulator.add_fault(Fault::new(Action::Late { ms: NEVER_MS }).on("payitems").times(1));
    client.send("payitems", sale("late")).await;
    assert!(event("version")(&client.ask("version", json!({})).await), "others are answered meanwhile");
    let counts = simulator.counts();
    assert_eq!((counts.payitems_received["late"], counts.bookings("late")), (1, 0));
    assert_eq!(counts.max_in_progress, 3);
}

#[tokio::test]
async fn a_late_sale_is_booked_even_if_its_connection_is_gone() {
    let (simulator, mut client) = start_with(Fault::new(Action::Late { ms: 50 })).await;
    client.send("payitems", sale("a")).await;
    wait_until(&simulator, |counts| counts.command("payitems").received == 1).await;
    drop(client);
    wait_until(&simulator, |counts| counts.bookings("a") == 1).await;
}

#[tokio::test]
async fn a_command_that_hangs_stays_in_progress_without_an_answer() {
    let (simulator, mut client) = start_with(Fault::new(Action::Hang).times(1)).await;
    simulator.add_fault(Fault::new(Action::HangAfterApply).on("payitems").times(1));
    client.send("payitems", sale("hung")).await;
    client.send("payitems", sale("hung once applied")).await;
    assert!(event("version")(&client.ask("version", json!({})).await));
    let counts = simulator.counts();
    assert_eq!((counts.bookings("hung"), counts.bookings("hung once applied")), (0, 1));
    assert_eq!((counts.command("payitems").answered, counts.max_in_progress), (0, 3));
}

#[tokio::test]
async fn a_duplicate_comes_twice_and_books_once() {
    let (simulator, mut client) = start_with(Fault::new(Action::Duplicate).on("payitems")).await;
    let first = client.ask("payitems", sale("a")).await;
    assert!(event("payitem")(&first));
    assert_eq!(client.frame().await, first);
    assert_eq!(simulator.counts().bookings("a"), 1);
}

#[tokio::test]
async fn a_cut_before_books_nothing_and_a_cut_after_books() {
    let (simulator, mut client) = start_with(Fault::new(Action::CutBeforeApply).on("payitems").times(1)).await;
    client.send("payitems", sale("before")).await;
    client.expect_reset().await;
    simulator.add_fault(Fault::new(Action::CutAfterApply).on("payitems").times(1));
    let mut client = Client::open(&simulator, "exon", "json").await;
    client.send("payitems", sale("after")).await;
    client.expect_reset().await;
    let counts = simulator.counts();
    assert_eq!((counts.bookings("before"), counts.bookings("after")), (0, 1));
    assert_eq!((counts.payitems_received["before"], counts.payitems_received["after"]), (1, 1));
    wait_until(&simulator, |counts| counts.open() == 0).await;
}

#[tokio::test]
async fn garbage_is_no_frame_and_comes_before_or_instead_of_the_reply() {
    let (simulator, mut client) = start(Config::default()).await;
    for (kind, instead) in
        [(Garbage::Text, false), (Garbage::Truncated, false), (Garbage::Binary, false), (Garbage::Text, true)]
    {
        simulator.add_fault(Fault::new(Action::Garbage { kind, instead }).times(1));
        client.send("getdeposit", json!({})).await;
        let garbage = client.next().await.unwrap().unwrap();
        assert_eq!(garbage.is_binary(), kind == Garbage::Binary);
        assert!(serde_json::from_slice::<Value>(&garbage.into_data()).is_err());
        if !instead {
            assert!(event("getdeposit")(&client.frame().await));
        }
    }
    assert!(event("version")(&client.ask("version", json!({})).await), "nothing followed the garbage");
}

#[tokio::test]
async fn unasked_events_come_before_the_reply_and_a_session_before_everything() {
    let fault = Fault::new(Action::Unasked { event: "getconfig".into() }).times(1);
    let (_simulator, mut client) =
        start(Config { session_event: true, faults: vec![fault], ..Config::default() }).await;
    assert!(event("session")(&client.frame().await));
    assert!(event("getconfig")(&client.ask("version", json!({})).await));
    assert!(event("version")(&client.frame().await));
}

#[tokio::test]
async fn errors_apply_nothing_unless_they_say_so() {
    let error = |code, and_reply| Action::Error { word: "error_exec".into(), code, and_reply };
    let (simulator, mut client) = start(Config::default()).await;
    simulator.add_fault(Fault::new(error(None, false)).times(1));
    simulator.add_fault(Fault::new(error(Some(json!({"why": 1.50})), true)).times(1));
    simulator.add_fault(Fault::new(Action::ErrorAfterApply { word: "server_error".into() }).times(1));
    let refused = client.ask("payitems", sale("refused")).await;
    assert_eq!(refused["result"], json!({"error": "error_exec", "code": 0}));
    let carried_on = client.ask("payitems", sale("carried on")).await;
    assert_eq!(carried_on["result"]["code"], json!({"why": 1.50}));
    assert!(event("payitem")(&client.frame().await));
    assert_eq!(error_word(&client.ask("payitems", sale("after")).await), "server_error");
    let counts = simulator.counts();
    assert_eq!(["refused", "carried on", "after"].map(|key| counts.bookings(key)), [0, 1, 1]);
}

#[tokio::test]
async fn a_half_open_connection_answers_not_even_pings() {
    let (simulator, mut client) = start_with(Fault::new(Action::HalfOpen).on("getstatus")).await;
    client.send("getstatus", json!({})).await;
    wait_until(&simulator, |counts| counts.command("getstatus").received == 1).await;
    client.0.send(Message::Ping("hello?".into())).await.unwrap();
    client.send("version", json!({})).await;
    // Whatever had been answered would come before the reset.
    simulator.kill("exon").unwrap();
    client.expect_reset().await;
    assert_eq!(simulator.counts().command("version").received, 0);
}

#[tokio::test]
async fn a_frozen_shard_keeps_its_connections_and_takes_new_ones() {
    let (simulator, mut frozen) = start(Config::default()).await;
    frozen.ask("version", json!({})).await;
    simulator.freeze("exon").unwrap();
    frozen.send("version", json!({})).await;
    let mut fresh = Client::open(&simulator, "exon", "json").await;
    assert!(event("version")(&fresh.ask("version", json!({})).await));
    assert_eq!(simulator.counts().shard("exon").open, 2);
    simulator.kill("exon").unwrap();
    frozen.expect_reset().await;
}

#[tokio::test]
async fn a_half_open_connection_notices_that_its_client_went() {
    let (simulator, client) = start(Config::default()).await;
    wait_until(&simulator, |counts| counts.open() == 1).await;
    simulator.freeze("exon").unwrap();
    drop(client);
    wait_until(&simulator, |counts| counts.open() == 0).await;
}

#[tokio::test]
async fn a_close_frame_closes_properly() {
    let (simulator, mut client) = start_with(Fault::new(Action::CloseFrame { code: 1012 })).await;
    client.send("payitems", sale("a")).await;
    let Some(Ok(Message::Close(Some(frame)))) = client.next().await else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1012);
    assert!(client.next().await.is_none());
    assert_eq!(simulator.counts().bookings("a"), 0);
}

#[tokio::test]
async fn a_dead_shard_resets_everybody_and_the_others_live_on() {
    let (simulator, mut doomed) = start(Config::default()).await;
    let mut spared = Client::open(&simulator, "zeus", "json").await;
    doomed.ask("version", json!({})).await;
    simulator.kill("exon").unwrap();
    doomed.expect_reset().await;
    assert!(Client::try_open(&simulator, "exon", "demo", "json").await.is_err());
    assert!(event("version")(&spared.ask("version", json!({})).await));
    simulator.revive("exon").unwrap();
    let mut reborn = Client::open(&simulator, "exon", "json").await;
    assert!(event("version")(&reborn.ask("version", json!({})).await));
    let exon = simulator.counts().shard("exon");
    assert_eq!((exon.opened, exon.refused), (2, 1));
    assert!(simulator.kill("exxon").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_told_that_it_is_connected_is_reset_by_the_death_of_its_shard() {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    for _ in 0..2_000 {
        let mut client = Client::open(&simulator, "exon", "json").await;
        simulator.kill("exon").unwrap();
        simulator.revive("exon").unwrap();
        client.expect_reset().await;
    }
}

#[tokio::test]
async fn connections_can_be_refused_or_greeted_with_an_error() {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    simulator.add_fault(Fault::new(Action::RefuseConnect).at("exon").times(1));
    assert!(Client::try_open(&simulator, "exon", "demo", "json").await.is_err());
    simulator.add_fault(Fault::new(Action::ConnectError { word: "invalid_instance".into() }).times(1));
    let mut client = Client::open(&simulator, "exon", "json").await;
    assert_eq!(error_word(&client.frame().await), "invalid_instance");
    assert!(event("version")(&client.ask("version", json!({})).await));
}

#[tokio::test]
async fn a_connection_that_hangs_is_accepted_and_never_upgraded() {
    for killed in [false, true] {
        let simulator = Simulator::start(Config::default()).await.unwrap();
        simulator.add_fault(Fault::new(Action::HangConnect).times(1));
        let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
        let request = "GET /exon/?instance=demo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        wait_until(&simulator, |counts| counts.shard("exon").refused == 1).await;
        if killed {
            simulator.kill("exon").unwrap();
        } else {
            simulator.stop().await;
        }
        let mut answer = Vec::new();
        // The end may be a reset; what counts is that no byte came before it.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("its end comes");
        assert!(answer.is_empty());
    }
}

#[tokio::test]
async fn switched_off_and_on_it_knows_what_was_booked_and_nothing_else() {
    let limits = Limits { capacity: 1, ..Limits::new(Counting::PerCommand) };
    let config = Config { limits, ..Config::default() };
    let simulator = Simulator::start(config).await.unwrap();
    let mut client = Client::open(&simulator, "exon", "json").await;
    assert!(event("payitem")(&client.ask("payitems", sale("before")).await));
    simulator.add_fault(Fault::new(Action::Hang));
    let address = simulator.addr();
    let simulator = simulator.restarted(std::time::Duration::ZERO).await.unwrap();
    assert!(!matches!(client.next().await, Some(Ok(Message::Text(_)))), "its connection is gone");
    assert_eq!((simulator.addr(), simulator.counts().open()), (address, 0));
    let mut client = Client::open(&simulator, "exon", "json").await;
    assert!(event("payitem")(&client.ask("payitems", sale("after")).await), "points and faults are forgotten");
    let counts = simulator.counts();
    assert_eq!((counts.bookings("before"), counts.bookings("after"), counts.open()), (1, 1, 1));
}
