//! Running it: the control endpoint, the start, and the end.

use std::time::Duration;

use concertpos_simulator::{Action, Config, Fault, Simulator};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::client::{error_word, event, sale, start};

#[tokio::test]
async fn the_control_endpoint_does_what_the_library_does() {
    let control = Some("127.0.0.1:0".parse().unwrap());
    let (simulator, mut client) = start(Config { control, ..Config::default() }).await;
    let root = format!("http://{}", simulator.control_addr().unwrap());
    let http = reqwest::Client::new();
    client.ask("version", json!({})).await;

    let fault = json!({"command": "payitems", "times": 1, "action": {"error": {"word": "error_exec"}}});
    let added = http.post(format!("{root}/faults")).json(&fault).send().await.unwrap();
    assert_eq!(added.status(), 201);
    assert_eq!(error_word(&client.ask("payitems", sale("a")).await), "error_exec");
    http.post(format!("{root}/faults")).json(&json!({"action": "hang"})).send().await.unwrap();
    assert_eq!(http.delete(format!("{root}/faults")).send().await.unwrap().status(), 204);

    let price = http.patch(format!("{root}/products/1/1")).body(r#"{"Price": 5.00}"#).send().await.unwrap();
    assert_eq!(price.status(), 204);
    client.send("listproducts", json!({"POSID": 1})).await;
    assert!(client.text().await.contains(r#""Price":5.00,"#));
    assert!(event("payitem")(&client.ask("payitems", sale("b")).await));
    let listed = http.get(format!("{root}/transactions")).send().await.unwrap().text().await.unwrap();
    assert!(listed.starts_with(r#"[{"ID":65,"#) && listed.contains(r#""AmountMoney":10.00,"#), "{listed}");

    let broadcast = json!({"message": "hello", "parameters": {"x": 1}});
    let heard: Value =
        http.post(format!("{root}/broadcasts")).json(&broadcast).send().await.unwrap().json().await.unwrap();
    assert_eq!(heard, json!({"connections": 1}));
    assert_eq!(client.frame().await["result"], broadcast);

    let cut = r#"{"type":"broadcast","result":{"message":"Beer is out \ud83c"}}"#;
    http.post(format!("{root}/messages")).body(cut).send().await.unwrap();
    assert_eq!(client.text().await, cut, "any message, as it was given");

    let counts: Value = http.get(format!("{root}/counts")).send().await.unwrap().json().await.unwrap();
    assert_eq!(counts["commands"]["payitems"]["received"], 2);
    assert_eq!(counts["payments"][0]["reference"], "b");
    assert_eq!(http.post(format!("{root}/reset-counts")).send().await.unwrap().status(), 204);
    assert_eq!(simulator.counts().payments_booked, 0);

    http.post(format!("{root}/shards/exon")).json(&json!({"alive": false})).send().await.unwrap();
    client.expect_reset().await;
}

#[tokio::test]
async fn the_control_endpoint_says_what_is_wrong() {
    let control = Some("127.0.0.1:0".parse().unwrap());
    let (simulator, _client) = start(Config { control, ..Config::default() }).await;
    let root = format!("http://{}", simulator.control_addr().unwrap());
    let http = reqwest::Client::new();
    let wrong = [
        (http.post(format!("{root}/faults")).body(r#"{"action":"explode"}"#), 400, "explode"),
        (http.post(format!("{root}/faults")).body(r#"{"action":"hang","probability":2}"#), 400, "probability"),
        (http.post(format!("{root}/faults")).body(r#"{"action":"hang","shard":"exxon"}"#), 400, "exxon"),
        (http.delete(format!("{root}/faults/7")), 404, "7"),
        (http.post(format!("{root}/shards/exxon")).body(r#"{"alive":true}"#), 400, "exxon"),
        (http.post(format!("{root}/shards/exon")).body("nonsense"), 400, "body"),
        (http.post(format!("{root}/broadcasts")).body("{}"), 400, "message"),
        (http.patch(format!("{root}/products/1/99")).body("{}"), 400, "99"),
        (http.patch(format!("{root}/products/one/1")).body("{}"), 404, "one"),
        (http.get(format!("{root}/transactions?instance=elsewhere")), 400, "elsewhere"),
        (http.get(format!("{root}/nowhere")), 404, "nothing"),
    ];
    for (request, status, said) in wrong {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{said}");
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"].as_str().unwrap().contains(said), "{body}");
    }
}

#[tokio::test]
async fn stopping_ends_gateway_connections_and_control_endpoint() {
    let control = Some("127.0.0.1:0".parse().unwrap());
    let (simulator, mut client) = start(Config { control, ..Config::default() }).await;
    let (gateway, control) = (simulator.addr(), simulator.control_addr().unwrap());
    simulator.stop().await;
    assert!(!matches!(client.next().await, Some(Ok(_))));
    assert!(TcpStream::connect(gateway).await.is_err());
    assert!(TcpStream::connect(control).await.is_err());
}

#[tokio::test]
async fn a_dropped_simulator_ends_too() {
    let (simulator, mut client) = start(Config::default()).await;
    drop(simulator);
    assert!(!matches!(client.next().await, Some(Ok(_))));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_start() {
    let nonsense = [
        Config { shards: Vec::new(), ..Config::default() },
        Config { instances: Vec::new(), ..Config::default() },
        Config { latency: (Duration::from_secs(2), Duration::from_secs(1)), ..Config::default() },
        Config { faults: vec![Fault { probability: 1.5, ..Fault::new(Action::Hang) }], ..Config::default() },
    ];
    for config in nonsense {
        assert_eq!(Simulator::start(config).await.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
}
