//! Every path with every method, and paths that mean to be others.

use concertpos_bridge::internals::http::openapi::document;
use serde_json::Value;

use crate::support::KEY;
use crate::talk::{Answer, Door};

/// What the document does not list: pages and probes.
const PAGES: [&str; 10] = [
    "/",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/openapi-3.2.json",
    "/asyncapi.json",
    "/docs/",
    "/problems",
    "/problems/rate-limited",
    "/problems/nothing",
];

fn ask(method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {KEY}\r\nX-Request-Id: asked\r\n\
         Connection: close\r\n\r\n"
    )
}

/// Every path of the document that answers this method, with names in it.
fn paths(method: &str) -> Vec<String> {
    let document = serde_json::to_value(document()).unwrap();
    let items = document["paths"].as_object().unwrap().iter();
    let named = |path: &str| {
        let named = path.replace("{instance}", "demo").replace("{pos_id}", "1").replace("{command}", "getstatus");
        let named = named.replace("{shard}", "exon").replace("{uuid}", "till-1");
        named.replace("{payment_id}", "01932b1c-7a1c-7c3e-8b6d-2f4a5c6e7d80")
    };
    items.filter(|(_, item)| item.get(method).is_some_and(Value::is_object)).map(|(path, _)| named(path)).collect()
}

fn one(what: &str, mut answers: Vec<Answer>) -> Answer {
    assert_eq!(answers.len(), 1, "{what}: {answers:?}");
    answers.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_answered_as_get_is_without_the_body() {
    let door = Door::open().await;
    let listed = paths("get");
    assert!(listed.len() >= 14, "{listed:?}");
    for path in listed.iter().map(String::as_str).chain(PAGES) {
        let head = one(path, door.talk_of_heads(ask("HEAD", path).as_bytes()));
        if path.ends_with("/events") {
            assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
            continue;
        }
        let get = one(path, door.talk(ask("GET", path).as_bytes()));
        let told = |answer: &Answer| {
            (answer.status, ["content-type", "content-length", "etag"].map(|name| answer.header(name).to_owned()))
        };
        assert_eq!(told(&head), told(&get), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_tells_the_methods_of_a_path_and_any_other_is_refused_with_them() {
    let door = Door::open().await;
    let all = ["get", "put", "post"].into_iter().flat_map(paths);
    for path in all.chain(PAGES.map(str::to_owned)).chain(["/metrics".to_owned()]) {
        let told = one(&path, door.talk(ask("OPTIONS", &path).as_bytes()));
        assert_eq!(told.status, 204, "{path}");
        let allowed = told.header("allow").to_owned();
        assert!(allowed.contains("OPTIONS"), "{path}: {allowed}");
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get", "M-SEARCH"] {
            if allowed.split(", ").any(|known| known == method) {
                continue;
            }
            let bytes = ask(method, &path).into_bytes();
            let answers = if method == "HEAD" { door.talk_of_heads(&bytes) } else { door.talk(&bytes) };
            let refused = one(&path, answers);
            assert_eq!((refused.status, refused.header("allow")), (405, allowed.as_str()), "{method} {path}");
        }
    }
    assert_eq!(one("*", door.talk(ask("OPTIONS", "*").as_bytes())).status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_one_letter_for_letter_is_none() {
    let door = Door::open().await;
    let before = door.gateway.counts().commands.values().map(|command| command.received).sum::<u64>();
    let instances = "/v1/instances";
    let none = [
        format!("{instances}/demo/../demo/config"),
        format!("{instances}/demo/./config"),
        format!("{instances}/demo/%2e%2e/demo/config"),
        format!("{instances}/demo/%2E/config"),
        format!("{instances}/demo//config"),
        format!("{instances}//demo/config"),
        format!("/{instances}/demo/config"),
        format!("{instances}/demo/config/"),
        format!("{instances}/demo/config%2f"),
        format!("{instances}/demo%2fconfig"),
        format!("{instances}/demo/config%00"),
        format!("{instances}/demo/config%20"),
        format!("{instances}/demo/config;a=b"),
        format!("{instances}/demo/config%0d%0aX:%20y"),
        format!("{instances}/demo/Config"),
        format!("{instances}/demo/points-of-sale/1%2f2/products"),
        format!("{instances}/demo/points-of-sale/1/../2/products"),
        format!("{instances}/demo/points-of-sale/%31%00/products"),
        format!("{instances}/demo/points-of-sale/-1/products"),
        format!("{instances}/demo/points-of-sale/+1/products"),
        format!("{instances}/demo/points-of-sale/1e0/products"),
        format!("{instances}/demo/points-of-sale/99999999999999999999/products"),
        format!("{instances}/demo/points-of-sale/%ff/products"),
        format!("{instances}/demo/points-of-sale/%/products"),
        format!("{instances}/demo/points-of-sale/%zz/products"),
        format!("{instances}/demo/payments/../config"),
        format!("{instances}/%64emo%00/config"),
        format!("{instances}/%ff/config"),
        format!("{instances}/DEMO/config"),
        format!("{instances}/demo%20/config"),
        "/..".into(),
        "/../etc/passwd".into(),
        "/docs/../v1/instances".into(),
        "/docs/..%2f..%2fetc%2fpasswd".into(),
        "/docs/%2e%2e/%2e%2e/etc/passwd".into(),
        "/dashboard/..%2f..%2fCargo.toml".into(),
        "/problems/../livez".into(),
        "/livez/".into(),
        "/%6civez%00".into(),
        "//".into(),
        "//livez".into(),
        "/v1".into(),
    ];
    for path in none {
        let answer = one(&path, door.talk(ask("GET", &path).as_bytes()));
        assert!(matches!(answer.status, 400 | 403 | 404), "{path}: {answer:?}");
        let code = answer.code();
        assert!(
            ["invalid-request", "not-found", "unknown-instance", "forbidden"].contains(&code.as_str()),
            "{path}: {code}"
        );
    }
    let after = door.gateway.counts().commands.values().map(|command| command.received).sum::<u64>();
    assert_eq!(after, before, "nothing of it went to the gateway");
    door.lives();
}
