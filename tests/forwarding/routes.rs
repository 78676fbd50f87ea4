//! Every route answers through another replica as at the owner.

use reqwest::{Method, Response};
use serde_json::json;

use crate::support::replicas::{Plan, Replica, Replicas};
use crate::support::{KEY, OPERATOR, eventually};

/// What must be the same of two answers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: u16,
    fields: Vec<(String, String)>,
    body: String,
}

/// Fields whose value is of the moment; that they are there must be the same.
const OF_THE_MOMENT: [&str; 4] = ["age", "date", "ratelimit", "cache-status"];

async fn seen(response: Response) -> Seen {
    let status = response.status().as_u16();
    let mut fields: Vec<_> = response
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let moment = OF_THE_MOMENT.contains(&name.as_str());
            let mut list: Vec<_> = value.split(", ").collect();
            if name == "access-control-expose-headers" {
                // In no order.
                list.sort_unstable();
            }
            (name.to_string(), if moment { String::new() } else { list.join(", ") })
        })
        .collect();
    fields.sort();
    let body = response.bytes().await.unwrap();
    Seen { status, fields, body: format!("{} {}", body.len(), without_instants(&String::from_utf8_lossy(&body))) }
}

/// The text without the gateway's clock: a command that is executed twice is answered twice.
fn without_instants(text: &str) -> String {
    let mut words: Vec<&str> = text.split('"').collect();
    for word in &mut words {
        if word.len() == "2026-11-29T11:05:01.960Z".len() && word.starts_with("20") && word.ends_with('Z') {
            *word = "an instant";
        }
    }
    words.join("\"")
}

struct Ask {
    method: Method,
    path: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    body: Option<String>,
}

fn ask(method: Method, path: &'static str) -> Ask {
    Ask { method, path, fields: Vec::new(), body: None }
}

fn get(path: &'static str) -> Ask {
    ask(Method::GET, path)
}

impl Ask {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = Some(body.to_string());
        self.with("content-type", "application/json")
    }

    async fn of(&self, replica: &Replica) -> Seen {
        let mut request = reqwest::Client::new().request(self.method.clone(), format!("{}{}", replica.url, self.path));
        if !self.fields.iter().any(|(name, _)| *name == "authorization") {
            request = request.bearer_auth(OPERATOR);
        }
        for (name, value) in &self.fields {
            request = request.header(*name, *value);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let request = request.header("x-request-id", "one-and-the-same");
        seen(request.send().await.unwrap()).await
    }
}

fn everything() -> Vec<Ask> {
    let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 2}]});
    let pay = || ask(Method::POST, "/v1/instances/demo/points-of-sale/1/payments");
    let products = "/v1/instances/demo/points-of-sale/1/products";
    vec![
        get("/v1/instances/demo/config"),
        get("/v1/instances/demo/deposit"),
        get("/v1/instances/demo/license"),
        get("/v1/instances/demo/version"),
        get("/v1/instances/demo/status"),
        get("/v1/instances/demo/points-of-sale"),
        get(products),
        get("/v1/instances/demo/points-of-sale/1/payment-methods"),
        get("/v1/instances/demo/points-of-sale/1/transactions?limit=1"),
        get("/v1/instances/d%65mo/points-of-sale/1/products"),
        // Forms of the answer.
        get(products).with("accept-encoding", "gzip"),
        get(products).with("accept-encoding", "br, gzip;q=0.5"),
        get(products).with("accept", "text/html"),
        get(products).with("if-none-match", "*"),
        get(products).with("origin", "https://shop.example"),
        get(products).with("origin", "https://other.example"),
        get(products).with("cache-control", "only-if-cached"),
        get(products).with("connection", "keep-alive, x-own").with("x-own", "1"),
        get(products).with("upgrade", "h2c").with("connection", "upgrade"),
        ask(Method::HEAD, products),
        ask(Method::HEAD, products).with("accept-encoding", "gzip"),
        ask(Method::HEAD, products).with("if-none-match", "*"),
        ask(Method::HEAD, "/v1/instances/demo/events"),
        // Callers.
        get(products).with("authorization", "Bearer nobody-s"),
        get(products).with("authorization", "Basic eDp5"),
        get("/v1/instances/demo/config").with("authorization", "Bearer demo-key"),
        ask(Method::PUT, "/v1/instances/demo/budget/payitems")
            .json(&json!({"open": true}))
            .with("authorization", "Bearer demo-key"),
        // Requests with a fault.
        get("/v1/instances/demo/points-of-sale/1/products?nonsense=1"),
        get("/v1/instances/demo/points-of-sale/one/products"),
        get("/v1/instances/demo/nothing"),
        get("/v1/instances/demo/"),
        ask(Method::DELETE, products),
        ask(Method::OPTIONS, products),
        get("/v1/instances/nobody-s/config"),
        pay().json(&sale),
        pay().with("idempotency-key", "bad").json(&json!({"PaymentMethod": "one"})),
        pay().with("idempotency-key", "bad").with("content-type", "text/plain"),
        // Payments and what is kept of them.
        pay().with("idempotency-key", "k-1").json(&sale),
        pay().with("idempotency-key", "k-1").json(&json!({"PaymentMethod": 2, "Products": [{"ID": 1, "Amount": 2}]})),
        get("/v1/instances/demo/payments?idempotency_key=k-1"),
        get("/v1/instances/demo/payments").with("accept", "text/csv"),
        get("/v1/instances/demo/payments/nothing"),
        ask(Method::PUT, "/v1/instances/demo/payments/nothing/outcome")
            .json(&json!({"outcome": "booked", "reason": "seen"})),
        // Other commands.
        ask(Method::POST, "/v1/instances/demo/points-of-sale/1/password-check").json(&json!({"password": "x"})),
        ask(Method::PUT, "/v1/instances/demo/devices/0f0e").json(&json!({})),
        ask(Method::POST, "/v1/instances/demo/commands/getstatus").json(&json!({})),
        ask(Method::POST, "/v1/instances/demo/commands/payitems").json(&json!({})),
        ask(Method::PUT, "/v1/instances/demo/budget/payitems").json(&json!({"open": true})),
        ask(Method::PUT, "/v1/instances/demo/budget/nothing").json(&json!({"open": true})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_byte_for_byte_as_at_the_owner() {
    let settings = [("BRIDGE_SERVER__CORS_ORIGINS", "https://shop.example")];
    let plans = vec![Plan::owner().with(&settings), Plan::other().with(&settings)];
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), plans).await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    for ask in everything() {
        // The first answer makes a copy or a booking, of which the others tell.
        let first = ask.of(replicas.other()).await;
        let (direct, passed) = (ask.of(replicas.owner()).await, ask.of(replicas.other()).await);
        let what = format!("{} {} {:?}", ask.method, ask.path, ask.fields);
        assert_eq!(passed, direct, "{what}");
        assert_eq!(first.status, direct.status, "{what}");
    }
    assert_eq!(replicas.gateway.counts().command("payitems").received, 1, "one booking for one key");
    let forwarded =
        replicas.other().metric("forwarded_requests_total{replica=\"bridge 0\",outcome=\"answered\"}").await;
    assert!(forwarded > 80, "they were passed on: {forwarded}");
    assert_eq!(replicas.other().metric("forwarded_in_flight{replica=\"bridge 0\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_passes_whole_whatever_its_length() {
    let replicas = Replicas::pair().await;
    eventually("the owner has a link", async || replicas.owner().get("/version").await.status() == 200).await;
    for (number, padding) in [0_usize, 100, 16 * 1024, 100_000, 900_000].into_iter().enumerate() {
        let sale = json!({"PaymentMethod": 1, "Products": [{"ID": 1, "Amount": 1}], "note": "x".repeat(padding)});
        let pay = |key: String| {
            let request = replicas.other().request(Method::POST, "/points-of-sale/1/payments");
            request.header("idempotency-key", key)
        };
        let answer = pay(format!("sized-{number}")).json(&sale).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{padding}");
        let text = sale.to_string().into_bytes();
        let pieces: Vec<_> = text.chunks(30_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
        let answer = pay(format!("chunked-{number}")).header("content-type", "application/json").body(chunked);
        assert_eq!(answer.send().await.unwrap().status(), 201, "{padding} in chunks");
    }
    let large = vec![b' '; 1_100_000];
    for replica in &replicas.all {
        let request = replica.request(Method::POST, "/points-of-sale/1/payments").header("idempotency-key", "large");
        let answer = request.header("content-type", "application/json").body(large.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 413);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_judges_the_caller_s_own_address_and_limits() {
    let settings =
        [("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.1"), ("BRIDGE_AUTH__TOKENS__OPERATOR__PER_SECOND", "1000")];
    let plans = vec![Plan::owner().with(&settings), Plan::other().with(&settings)];
    let replicas = Replicas::begin(concertpos_simulator::Config::default(), plans).await;
    let guess = |number: usize, address: &'static str| {
        let request = replicas.other().request(Method::GET, "/config").header("x-forwarded-for", address);
        // A header that is given twice is none, so this one replaces the key.
        let mut request = request.build().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer guess-{number}").parse().unwrap());
        reqwest::Client::new().execute(request)
    };
    let mut number = 0;
    eventually("the address that guesses is blocked", async || {
        number += 1;
        guess(number, "198.51.100.7").await.unwrap().status() == 429
    })
    .await;
    assert_eq!(guess(0, "198.51.100.8").await.unwrap().status(), 401, "another address is not");
    let at_owner = replicas.owner().request(Method::GET, "/config").header("x-forwarded-for", "198.51.100.7");
    let mut at_owner = at_owner.build().unwrap();
    at_owner.headers_mut().insert("authorization", "Bearer guess-x".parse().unwrap());
    assert_eq!(reqwest::Client::new().execute(at_owner).await.unwrap().status(), 429, "the owner blocked it");
    assert_ne!(KEY, OPERATOR);
}
