//! The protocol as it is when nothing goes wrong: commands, spelling, order, broadcasts.

use std::time::Duration;

use concertpos_simulator::{Config, LOCKED_POS, LOCKED_POS_PASSWORD, Simulator};
use serde_json::json;
use tokio::time::timeout;

use crate::client::{Client, PATIENCE, error_word, event, sale, start, wait_until};

#[tokio::test]
async fn every_command_is_answered_by_its_event_and_a_sale_in_the_singular() {
    let (simulator, mut client) = start(Config::default()).await;
    let questions = [
        ("getconfig", json!({}), "/Config/ticket_limit"),
        ("getdeposit", json!({}), "/Deposit/Price"),
        ("getlicense", json!({}), "/License/Active"),
        ("listpos", json!({}), "/POS/29/PointOfSale"),
        ("listpm", json!({"POSID": 1}), "/PaymentMethods/0/color"),
        ("listproducts", json!({"POSID": "1"}), "/Products/5/CrewBlocked"),
        ("registerdevice", json!({"UUID": "x"}), "/Device/UUID"),
        ("verifyauth", json!({"password": LOCKED_POS_PASSWORD, "workplace": LOCKED_POS}), "/password"),
        ("version", json!({}), "/Version"),
        ("getstatus", json!({}), "/message"),
        ("listtransactions", json!({"POSID": 1}), "/Transactions/0/hash"),
    ];
    for (command, parameters, field) in questions {
        let frame = client.ask(command, parameters).await;
        assert!(event(command)(&frame), "{frame}");
        assert!(frame["result"]["parameters"].pointer(field).is_some(), "{frame}");
        assert_eq!(simulator.counts().command(command).answered, 1, "{command}");
    }
    let frame = client.ask("payitems", sale("a")).await;
    assert_eq!(frame, json!({"type": "event", "result": {"event": "payitem", "parameters": {"Items": 1}}}));
    assert_eq!(simulator.counts().bookings("a"), 1);
}

#[tokio::test]
async fn prices_reach_the_wire_as_they_are_spelled() {
    let (simulator, mut client) = start(Config::default()).await;
    simulator.set_product_price("demo", 1, 2, "3.10").unwrap();
    client.send("listproducts", json!({"POSID": 1})).await;
    let text = client.text().await;
    assert!(text.contains(r#""ProductName":"Beer 0.5 l","Price":4.50,"#), "{text}");
    assert!(text.contains(r#""ProductName":"Lemonade 0.3 l","Price":3.10,"#), "{text}");
    client.ask("payitems", sale("a")).await;
    client.send("listtransactions", json!({"POSID": 1, "Limit": 1})).await;
    let text = client.text().await;
    assert!(text.contains(r#""AmountMoney":9.00,"#), "{text}");
}

#[tokio::test]
async fn json5_looks_like_npm_s_stringify() {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    let mut client = Client::open(&simulator, "zeus", "json5").await;
    client.send_text("{command:'getdeposit',parameters:{api_key:'demo-key',}} // till").await;
    assert_eq!(client.text().await, "{type:'event',result:{event:'getdeposit',parameters:{Deposit:{Price:2.00}}}}");
    simulator.change_product("demo", 1, 4, "{Price: Infinity, 'it-is': \"it's\"}").unwrap();
    client.send("listproducts", json!({"POSID": 1})).await;
    let text = client.text().await;
    assert!(
        text.contains(
            "{ID:4,ProductName:'Fries \"large\"',Price:Infinity,Amount:0,Deposit:0,CrewBlocked:0,'it-is':\"it's\"}"
        ),
        "{text}"
    );
    client.send_text("{nope").await;
    assert_eq!(client.text().await, "{type:'error',result:{error:'invalid_json5',code:0}}");
}

#[tokio::test]
async fn refusals_use_the_gateway_s_words() {
    let (simulator, mut client) = start(Config::default()).await;
    client.send_text("{command:'version'}").await;
    assert_eq!(error_word(&client.frame().await), "invalid_json");
    client.send_text(r#"{"command":"version","parameters":{}}"#).await;
    assert_eq!(client.frame().await["result"], json!({"error": "missing_parameter_api", "code": 3}));
    client.send_text(r#"{"command":"version","parameters":{"api_key":"wrong"}}"#).await;
    assert_eq!(error_word(&client.frame().await), "api_key_mismatch");
    assert_eq!(error_word(&client.ask("listpm", json!({})).await), "missing_parameter_POSID");
    assert_eq!(error_word(&client.ask("listpm", json!({"POSID": LOCKED_POS})).await), "invalid_password");
    assert_eq!(error_word(&client.ask("dance", json!({})).await), "invalid_command");
    assert_eq!(simulator.counts().unreadable, 1);
    assert_eq!(simulator.counts().command("version").points, 0);

    let mut stranger = Client::try_open(&simulator, "exon", "elsewhere", "json").await.unwrap();
    assert_eq!(error_word(&stranger.frame().await), "invalid_instance");
    assert_eq!(error_word(&stranger.ask("version", json!({})).await), "invalid_instance");
}

#[tokio::test]
async fn replies_overtake_each_other_and_are_seen_in_progress_together() {
    let latency = (Duration::ZERO, Duration::from_millis(100));
    let (simulator, mut client) = start(Config { latency, seed: 7, ..Config::default() }).await;
    for number in 0..20 {
        client.send("registerdevice", json!({"UUID": number})).await;
    }
    let mut order = Vec::new();
    for _ in 0..20 {
        order.push(client.frame().await["result"]["parameters"]["Device"]["UUID"].as_i64().unwrap());
    }
    assert!(!order.is_sorted(), "{order:?}");
    order.sort_unstable();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    assert!(simulator.counts().max_in_progress > 1);
}

#[tokio::test]
async fn one_command_after_the_other_is_never_two_in_progress() {
    let latency = (Duration::from_millis(1), Duration::from_millis(3));
    let (simulator, mut client) = start(Config { latency, ..Config::default() }).await;
    for _ in 0..50 {
        client.ask("version", json!({})).await;
    }
    assert_eq!(simulator.counts().max_in_progress, 1);
}

#[tokio::test]
async fn a_broadcast_reaches_every_connection_on_every_shard_once_and_in_order() {
    let broadcast_jitter = Duration::from_millis(30);
    let simulator = Simulator::start(Config { broadcast_jitter, ..Config::default() }).await.unwrap();
    let mut clients = Vec::new();
    for (shard, format) in [("exon", "json"), ("cyton", "json"), ("zeus", "json5"), ("zeus", "json")] {
        clients.push(Client::open(&simulator, shard, format).await);
    }
    wait_until(&simulator, |counts| counts.open() == 4).await;
    for number in 0..10 {
        assert_eq!(simulator.broadcast("demo", "updatepos", &format!("{{n: {number}.0}}")).unwrap(), 4);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for number in 0..10 {
            let expected = if index == 2 {
                format!("{{type:'broadcast',result:{{message:'updatepos',parameters:{{n:{number}.0}}}}}}")
            } else {
                format!(r#"{{"type":"broadcast","result":{{"message":"updatepos","parameters":{{"n":{number}.0}}}}}}"#)
            };
            assert_eq!(client.text().await, expected);
        }
    }
    let counts = simulator.counts();
    assert_eq!((counts.broadcasts, counts.broadcast_copies), (10, 40));
}

#[tokio::test]
async fn a_jittered_broadcast_comes_in_its_own_time_and_holds_nothing_up() {
    let hours = Config { broadcast_jitter: Duration::from_hours(1_000), ..Config::default() };
    let (simulator, mut client) = start(hours).await;
    client.ask("version", json!({})).await;
    assert_eq!(simulator.broadcast("demo", "updatepos", "{}").unwrap(), 1);
    assert!(event("version")(&client.ask("version", json!({})).await));
}

#[tokio::test]
async fn broadcasts_come_by_themselves_where_asked_for() {
    let (_simulator, mut client) =
        start(Config { broadcast_every: Some(Duration::from_millis(10)), ..Config::default() }).await;
    for _ in 0..2 {
        assert_eq!(client.frame().await["result"], json!({"message": "updatepos", "parameters": {}}));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_connections_are_served_at_once() {
    let simulator = Simulator::start(Config::default()).await.unwrap();
    let mut clients = Vec::new();
    for number in 0..300 {
        clients.push(Client::open(&simulator, ["exon", "cyton", "zeus"][number % 3], "json").await);
    }
    let asking = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            for _ in 0..10 {
                assert!(event("payitem")(&client.ask("payitems", sale("crowd")).await));
            }
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        timeout(PATIENCE, asked).await.unwrap().unwrap();
    }
    let counts = simulator.counts();
    assert_eq!((counts.bookings("crowd"), counts.max_in_progress), (3_000, 1));
    wait_until(&simulator, |counts| counts.open() == 0).await;
}
