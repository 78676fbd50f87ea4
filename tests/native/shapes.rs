//! Every form of the URL, every command, either format.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use concertpos_simulator::{LOCKED_POS, LOCKED_POS_PASSWORD};
use serde_json::{Value, json};

use crate::client::{Till, event, sale, word};
use crate::support::World;

/// Questions that change nothing, with a field of their answers.
fn questions() -> [(&'static str, Value, &'static str); 11] {
    [
        ("getconfig", json!({}), "/Config/ticket_limit"),
        ("getdeposit", json!({}), "/Deposit/Price"),
        ("getlicense", json!({}), "/License/Active"),
        ("listpos", json!({}), "/POS/29/PointOfSale"),
        ("listpm", json!({"POSID": 1}), "/PaymentMethods/0/color"),
        ("listproducts", json!({"POSID": "1", "posPassword": null}), "/Products/5/CrewBlocked"),
        ("registerdevice", json!({"UUID": "x", "workplace": "1"}), "/Device/UUID"),
        ("verifyauth", json!({"password": LOCKED_POS_PASSWORD, "workplace": LOCKED_POS.to_string()}), "/password"),
        ("version", json!({}), "/Version"),
        ("getstatus", json!({}), "/message"),
        ("listtransactions", json!({"POSID": 1, "Limit": "1"}), "/Transactions/0/hash"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_answered_by_its_event_and_a_sale_in_the_singular() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    for (command, parameters, field) in questions() {
        let frame = till.ask(command, parameters).await;
        assert_eq!(event(&frame), command);
        assert!(frame["result"]["parameters"].pointer(field).is_some(), "{frame}");
    }
    let frame = till.ask("payitems", sale("a")).await;
    assert_eq!(frame, json!({"type": "event", "result": {"event": "payitem", "parameters": {"Items": 1}}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_url_leads_to_the_same_instance() {
    let world = World::start().await;
    for path in [
        "/?instance=demo&Content-Type=json",
        "/?instance=demo",
        "/gateway?instance=demo",
        "/zeus/?instance=demo&Content-Type=json",
        "/exon?instance=demo",
        "/demo",
        "/demo/",
    ] {
        let frame = Till::at(&world, path).await.ask("listpos", json!({})).await;
        assert_eq!(event(&frame), "listpos", "{path}");
    }
    for path in ["/?instance=demo&Content-Type=json5", "/cyton/?instance=demo&Content-Typejson5"] {
        let mut till = Till::at(&world, path).await;
        till.order("getdeposit", json!({})).await;
        let text = till.text().await;
        assert_eq!(text, "{type:'event',result:{event:'getdeposit',parameters:{Deposit:{Price:2.00}}}}", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_knows_only_the_slug_finds_its_instance() {
    let settings = [
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "elsewhere"),
        ("BRIDGE_INSTANCES__FEST__API_KEY", crate::support::KEY),
        ("BRIDGE_INSTANCES__FEST__SLUG", "demo2"),
    ];
    let world = World::with(
        concertpos_simulator::Config {
            instances: [("demo", "elsewhere"), ("demo2", crate::support::KEY)]
                .map(|(slug, api_key)| concertpos_simulator::Instance {
                    slug: slug.to_owned(),
                    api_key: api_key.to_owned(),
                })
                .into(),
            ..concertpos_simulator::Config::default()
        },
        &settings,
    )
    .await;
    for slug in ["demo2", "fest"] {
        let frame = Till::at(&world, &format!("/?instance={slug}")).await.ask("listpos", json!({})).await;
        assert_eq!(event(&frame), "listpos", "{slug}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json5_is_understood_in_either_mode_and_prices_keep_their_spelling() {
    let world = World::start().await;
    for format in ["json", "json5"] {
        let mut till = Till::at(&world, &format!("/?instance=demo&Content-Type={format}")).await;
        till.send("{command:'listproducts',parameters:{api_key:'demo-key',POSID:'1',}, more: +.5} // a till").await;
        let text = till.text().await;
        assert!(text.contains("4.50") && text.contains("25.00"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_frame_or_url_is_said_in_the_gateway_s_words() {
    let world = World::start().await;
    let mut till = Till::open(&world).await;
    for (text, error, code) in [
        ("hello", "invalid_json", json!(0)),
        ("{}", "missing_parameter_command", json!(3)),
        (r#"{"command":"listpos"}"#, "missing_parameter_api", json!(3)),
        (r#"{"command":"listpos","parameters":{"api_key":""}}"#, "missing_parameter_api", json!(3)),
        (r#"{"command":"listpos","parameters":{"api_key":"wrong"}}"#, "api_key_mismatch", json!(-1)),
    ] {
        till.send(text).await;
        assert_eq!(till.frame().await, json!({"type": "error", "result": {"error": error, "code": code}}), "{text}");
    }
    for (command, parameters, error) in [
        ("listproducts", json!({}), "missing_parameter_POSID"),
        ("listproducts", json!({"POSID": LOCKED_POS, "posPassword": "wrong"}), "invalid_password"),
        ("registerdevice", json!({}), "missing_parameter_UUID"),
        ("payitems", json!({"POSID": 1, "PaymentMethod": "1", "Products": []}), "missing_parameter_Products"),
        ("payitems", json!({"POSID": 1, "Products": [{"ID": 1, "Amount": 1}]}), "missing_parameter_PaymentMethod"),
    ] {
        assert_eq!(word(&till.ask(command, parameters).await), error, "{command}");
    }
    assert_eq!(world.gateway.counts().command("payitems").received, 0);
    let mut till = Till::at(&world, "/?instance=demo&Content-Type=json5").await;
    till.send("hello").await;
    assert_eq!(till.text().await, "{type:'error',result:{error:'invalid_json5',code:0}}");
    for (path, error) in
        [("/?instance=nowhere", "invalid_instance"), ("/?instance=demo&Content-Type=xml", "invalid_content_type")]
    {
        let mut till = Till::at(&world, path).await;
        assert_eq!(word(&till.frame().await), error, "unasked");
        assert_eq!(word(&till.ask("listpos", json!({})).await), error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upgrade_the_paths_are_as_they_were() {
    let world = World::start().await;
    let page = world.get_open("/").await;
    assert_eq!(
        (page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    for path in ["/gateway", "/exon/", "/demo", "/favicon.ico"] {
        let problem = crate::support::problem(world.get_open(path).await).await;
        assert_eq!((problem.status, problem.code.as_str()), (404, "not-found"), "{path}");
    }
    assert_eq!(world.get_open("/livez").await.status(), 200);
}

/// What the json5 package of npm answers to one question about each text.
fn library(question: &str, texts: &[String]) -> Vec<Option<String>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json5");
    let lock = std::fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("json5-npm.lock")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/json5/package.json").exists() {
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        let install = Command::new("npm").args(install).current_dir(&folder).output().unwrap();
        assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    }
    drop(lock);
    let mut node = Command::new("node");
    let node = node.arg("library.js").current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = node.spawn().expect("node is needed to compare with the json5 package: install Node");
    let asked: Vec<_> = texts.iter().map(|text| (question, text)).collect();
    node.stdin.take().unwrap().write_all(&serde_json::to_vec(&asked).unwrap()).unwrap();
    serde_json::from_slice(&node.wait_with_output().unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn json5_is_printed_as_the_library_prints_it() {
    let world = World::start().await;
    world.gateway.change_product("demo", 1, 4, r#"{ProductName: "it's \"large\"", 'key-1': null}"#).unwrap();
    let mut plain = Till::open(&world).await;
    let mut till = Till::at(&world, "/?instance=demo&Content-Type=json5").await;
    let (mut json, mut json5) = (Vec::new(), Vec::new());
    let other = [("listpm", json!({}), ""), ("verifyauth", json!({"password": "wrong", "workplace": 1}), "")];
    for (command, parameters, _) in questions().into_iter().chain(other) {
        // Its answer holds the moment it was given.
        if command != "registerdevice" {
            plain.order(command, parameters.clone()).await;
            till.order(command, parameters).await;
            json.push(plain.text().await);
            json5.push(till.text().await);
        }
    }
    assert_eq!(library("read5", &json5), library("read", &json), "it is the same value");
    let (mut alike, mut prices) = (0, 0);
    for (printed, theirs) in json5.iter().zip(library("print", &json)) {
        // A price of 4.50 is 4.5 to the library, and stays 4.50 here.
        if printed.contains(".50") || printed.contains(".00") {
            prices += 1;
        } else {
            assert_eq!(Some(printed), theirs.as_ref());
            alike += 1;
        }
    }
    assert!(alike >= 6 && prices >= 3, "{alike} alike, {prices} with prices");
}
