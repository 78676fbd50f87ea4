//! The log of the built program, as an operator reads it: each line names what it is about, and none is lost in a flood.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod running;

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::{Arc, Mutex};

use running::{Running, free_address, text, wait_until};

const KEY: &str = "demo-key";

/// A bridge on a simulated gateway, and its log as it comes.
struct Service {
    bridge: Running,
    log: Arc<Mutex<Vec<String>>>,
    reading: std::thread::JoinHandle<()>,
    _gateway: Running,
    listen: String,
    control: String,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(more: &[(&str, &str)]) -> Self {
        let ([listen, shards, control], folder) = ([(); 3].map(|()| free_address()), tempfile::tempdir().unwrap());
        let gateway = Running::start(&["simulate", "--listen", &shards, "--control", &control, "--limits", "off"], &[]);
        wait_until("the gateway listens", || std::net::TcpStream::connect(&control).is_ok());
        let journal = folder.path().join("journal").display().to_string();
        let url = format!("ws://{shards}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
        let environment = [
            ("BRIDGE_SERVER__LISTEN", listen.as_str()),
            ("BRIDGE_GATEWAY__URL", &url),
            ("BRIDGE_PAYMENTS__JOURNAL", &journal),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_LIMITS__CAPACITY", "1000000"),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", KEY),
        ];
        let mut bridge = Running::start(&["serve"], &[&environment, more].concat());
        let (lines, log) = (BufReader::new(bridge.0.stderr.take().unwrap()).lines(), Arc::<Mutex<Vec<_>>>::default());
        let kept = Arc::clone(&log);
        let reading = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        let service = Self { bridge, log, reading, _gateway: gateway, listen, control, _folder: folder };
        wait_until("it has a link", || service.get("/readyz?require=gateway", &[]).starts_with("HTTP/1.1 200"));
        service
    }

    fn get(&self, path: &str, more: &[&str]) -> String {
        let url = format!("http://{}{path}", self.listen);
        text(&Command::new("curl").args(["-s", "-i", &url]).args(more).output().unwrap().stdout)
    }

    fn get_as(&self, key: &str, path: &str, more: &[&str]) -> String {
        let header = format!("Authorization: Bearer {key}");
        self.get(path, &[&["-H", &header], more].concat())
    }

    fn set_shards(&self, alive: bool) {
        for shard in ["exon", "cyton", "zeus"] {
            let (url, body) = (format!("http://{}/shards/{shard}", self.control), format!("{{\"alive\":{alive}}}"));
            assert!(
                Command::new("curl")
                    .args(["-s", "-f", "-o", "/dev/null", "-d", &body, &url])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }

    /// The lines that hold all of these.
    fn lines(&self, parts: &[&str]) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| parts.iter().all(|part| line.contains(part))).cloned().collect()
    }

    /// The only line that holds all of these, once it has come.
    fn line(&self, parts: &[&str]) -> String {
        wait_until(&format!("a line with {parts:?}"), || !self.lines(parts).is_empty());
        let lines = self.lines(parts);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    /// Ends it in order; the whole log.
    fn end(self) -> String {
        self.bridge.signal("-TERM");
        self.reading.join().unwrap();
        self.log.lock().unwrap().join("\n")
    }
}

/// The value of a field in a line.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let name = format!("{name}=");
    line.split(' ').find_map(|word| word.strip_prefix(name.as_str()))
}

#[test]
fn the_line_of_a_request_names_instance_point_of_sale_payment_problem_and_peer() {
    let service = Service::start(&[("BRIDGE_SERVER__TRUSTED_PROXIES", "127.0.0.1")]);
    let products = "/v1/instances/demo/points-of-sale/1/products";
    // The second is from the cache, on the fast path.
    for id in ["read-1", "read-2"] {
        let header = format!("X-Request-Id: {id}");
        let forwarded = ["-H", &header, "-H", "X-Forwarded-For: 198.51.100.7"];
        assert!(service.get_as(KEY, products, &forwarded).starts_with("HTTP/1.1 200"));
        let line = service.line(&["answered", id]);
        for (name, value) in [
            ("method", "GET"),
            ("route", "/v1/instances/{instance}/points-of-sale/{pos_id}/products"),
            ("status", "200"),
            ("instance", "demo"),
            ("pos_id", "1"),
            ("caller", "gateway-key"),
            ("peer", "198.51.100.7"),
        ] {
            assert_eq!(field(&line, name), Some(value), "{line}");
        }
        assert_eq!((field(&line, "code"), field(&line, "payment")), (None, None), "{line}");
    }

    let sale =
        "{\"PaymentMethod\":1,\"Products\":[{\"ID\":1,\"Amount\":2}],\"posPassword\":\"a-password-of-this-test\"}";
    let headers = ["-H", "Idempotency-Key: k1", "-H", "Content-Type: application/json", "-d", sale];
    let answer = service.get_as(KEY, "/v1/instances/demo/points-of-sale/1/payments", &headers);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let made = service.line(&["answered", "status=201"]);
    let payment = field(&made, "payment").expect(&made).to_owned();
    assert_eq!((field(&made, "instance"), field(&made, "pos_id")), (Some("demo"), Some("1")), "{made}");
    assert!(answer.contains(&format!("/payments/{payment}")), "{answer}");

    let record = service.get_as(KEY, &format!("/v1/instances/demo/payments/{payment}"), &[]);
    let shown = service.line(&["answered", "status=200", &format!("payment={payment}")]);
    assert_eq!(field(&shown, "instance"), Some("demo"), "{shown}");
    let booked = service.line(&[&format!("payment={payment}"), "to=booked"]);
    for (name, value) in [("instance", "demo"), ("caller", "gateway-key"), ("pos_id", "1"), ("products", "2")] {
        assert_eq!(field(&booked, name), Some(value), "{booked}");
    }
    let sum = field(&booked, "sum").expect(&booked);
    assert!(record.contains(&format!("\"sum\":\"{sum}\"")), "{booked}\n{record}");

    // What is wrong is named by its code, on the fast path and beyond; what stands in a path is not believed.
    service.get_as("a-wrong-key-of-this-test", products, &["-H", "X-Request-Id: wrong-1"]);
    let line = service.line(&["answered", "wrong-1"]);
    assert_eq!((field(&line, "code"), field(&line, "instance")), (Some("unauthenticated"), Some("demo")), "{line}");
    service.get_as(KEY, "/v1/instances/demo/points-of-sale/1/nowhere", &["-H", "X-Request-Id: wrong-2"]);
    let line = service.line(&["answered", "wrong-2"]);
    assert_eq!((field(&line, "code"), field(&line, "pos_id")), (Some("not-found"), Some("1")), "{line}");
    service.get_as(KEY, "/v1/instances/a-key-of-this-test/points-of-sale/x/products", &["-H", "X-Request-Id: wrong-3"]);
    let line = service.line(&["answered", "wrong-3"]);
    assert_eq!((field(&line, "instance"), field(&line, "pos_id")), (None, None), "{line}");

    let log = service.end();
    assert!(!log.contains("of-this-test") && !log.contains(KEY), "a secret is in the log: {log}");
    assert!(!log.contains("may have been missed"), "nothing was missed in a start and a drain in order: {log}");
    assert!(log.contains("link open") && log.contains(" instance=demo "), "{log}");
}

#[test]
fn an_instance_without_a_link_is_one_error_and_its_next_link_one_line_that_tells_how_long_it_had_none() {
    let service = Service::start(&[]);
    service.set_shards(false);
    let error = service.line(&["ERROR", "no link to the gateway: nothing can be sold"]);
    assert_eq!(field(&error, "instance"), Some("demo"), "{error}");
    assert!(error.contains("why=\"") && error.contains("exon: ") && error.contains("zeus: "), "{error}");
    service.set_shards(true);
    let again = service.line(&["INFO", "linked to the gateway again"]);
    assert_eq!(field(&again, "instance"), Some("demo"), "{again}");
    assert!(field(&again, "without_for").is_some_and(|how_long| how_long.ends_with('s')), "{again}");
    let missed = ["broadcasts may have been missed", "instance=demo"];
    wait_until("what may have been missed is told", || !service.lines(&missed).is_empty());
    let log = service.end();
    for once in ["no link to the gateway", "linked to the gateway again"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
}

#[test]
fn of_a_flood_of_refusals_the_first_are_logged_and_the_rest_are_counted_while_payments_are_all_logged() {
    const REFUSED: usize = 60;
    const SOLD: usize = 15;
    let service = Service::start(&[]);
    for _ in 0..REFUSED {
        service.get_as(KEY, "/v1/instances/demo/payments/00000000-0000-7000-8000-000000000000/nowhere", &[]);
    }
    for sale in 0..SOLD {
        let (body, key) =
            ("{\"PaymentMethod\":1,\"Products\":[{\"ID\":1,\"Amount\":1}]}", format!("Idempotency-Key: k{sale}"));
        let headers = ["-H", &key, "-H", "Content-Type: application/json", "-d", body];
        service.get_as(KEY, "/v1/instances/demo/points-of-sale/1/payments", &headers);
    }
    let refused = ["answered method=", "code=not-found", "status=404"];
    let told = |service: &Service| -> usize {
        let summaries = service.lines(&["similar lines were left out", "line=answered", "code=not-found"]);
        let left_out: usize =
            summaries.iter().map(|line| field(line, "left_out").unwrap().parse::<usize>().unwrap()).sum();
        service.lines(&refused).len() + left_out
    };
    wait_until("every refusal is logged or counted", || told(&service) == REFUSED);
    let logged = service.lines(&refused).len();
    assert!((10..REFUSED).contains(&logged), "{logged}");
    let summary = &service.lines(&["similar lines were left out"])[0];
    assert_eq!(field(summary, "instance"), Some("demo"), "{summary}");
    wait_until("every sale is logged", || service.lines(&["to=booked", "instance=demo"]).len() == SOLD);
    assert_eq!(service.lines(&["answered method=POST", "status=201", "payment="]).len(), SOLD);
    service.end();
}

#[test]
fn what_a_flood_left_out_is_told_at_the_end_too() {
    let service = Service::start(&[]);
    for _ in 0..20 {
        service.get_as(KEY, "/v1/instances/demo/nowhere", &[]);
    }
    wait_until("some were logged", || !service.lines(&["answered", "code=not-found"]).is_empty());
    let log = service.end();
    let logged =
        log.lines().filter(|line| line.contains("answered method=") && line.contains("code=not-found")).count();
    let summaries = log.lines().filter(|line| line.contains("similar lines were left out"));
    let left_out: usize = summaries.map(|line| field(line, "left_out").unwrap().parse::<usize>().unwrap()).sum();
    assert_eq!(logged + left_out, 20, "{log}");
}

#[test]
fn as_json_each_field_has_its_own_name_and_a_cached_read_is_logged_whole() {
    let service = Service::start(&[("BRIDGE_TELEMETRY__LOG_FORMAT", "json")]);
    for _ in 0..30 {
        service.get_as(KEY, "/v1/instances/demo/config", &[]);
    }
    let lines = || service.lines(&["\"answered\"", "\"instance\":\"demo\"", "\"peer\":\"127.0.0.1\""]);
    // None of a request that succeeded is left out.
    wait_until("every read is logged", || lines().len() == 30);
    for line in lines() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["caller"], "gateway-key");
    }
    service.end();
}

#[test]
fn where_the_access_log_is_off_no_request_is_in_it_and_faults_are() {
    let service = Service::start(&[("BRIDGE_TELEMETRY__LOG", "error")]);
    service.get_as(KEY, "/v1/instances/demo/nowhere", &[]);
    service.get_as(KEY, "/v1/instances/demo/config", &[]);
    service.set_shards(false);
    service.line(&["no link to the gateway"]);
    let log = service.end();
    assert_eq!(log.lines().count(), 1, "{log}");
}
