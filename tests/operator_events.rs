//! `events`: an instance's broadcasts, over as many connections as it takes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod running;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use concertpos_simulator::{Config, Simulator};
use running::{Running, free_address, run, text};
use serde_json::Value;
use support::program::Program;
use support::{World, eventually};

/// A line is waited for so long, and comes at once unless something has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that prints lines for as long as it runs.
struct Following {
    program: Running,
    lines: Receiver<String>,
    said: Receiver<String>,
}

impl Following {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut program = Running::start(&[&["events"], arguments].concat(), environment);
        let lines = lines_of(program.0.stdout.take().unwrap());
        let said = lines_of(program.0.stderr.take().unwrap());
        Self { program, lines, said }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// The next line, as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    /// The next line on standard error.
    #[track_caller]
    fn said(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("a line")
    }

    fn status(&mut self) -> Option<i32> {
        self.program.0.wait().unwrap().code()
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (out, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if out.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_are_printed_as_they_come_for_a_person_and_as_json() {
    let world = World::start().await;
    let environment = [("BRIDGE_URL", world.url.as_str()), ("BRIDGE_TOKEN", support::OPERATOR)];
    let json = Following::start(&["--json"], &environment);
    let ready = json.json();
    assert_eq!((&ready["event"], &ready["id"]), (&"ready".into(), &ready["data"]["id"]));
    let since = ready["id"].as_str().unwrap();
    world.gateway.broadcast("demo", "note", r#"{"price": 9.50, "text": "a\u001b[2Jb"}"#).unwrap();
    let line = json.next();
    assert!(line.contains("9.50"), "{line}");
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["event"], &told["data"]["message"]), (&"message".into(), &"note".into()));

    // Resumes before it, so it comes again.
    let person = Following::start(&["--since", since], &environment);
    let line = person.next();
    assert!(line.contains("  note  ") && line.contains("9.50") && !line.contains('\u{1b}'), "{line}");
    let filtered = Following::start(&["--since", since, "--message", "updatepos"], &environment);
    world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
    let line = filtered.next();
    assert!(line.contains("  updatepos  {}"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_restarts_is_followed_and_its_reset_is_printed() {
    let gateway = Simulator::start(Config::default()).await.unwrap();
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let journal = folder.path().join("journal");
    let (journal, url) = (journal.to_str().unwrap(), format!("http://{listen}"));
    let start = async || {
        let program = Program::start(&listen, &gateway.url(), journal);
        eventually("it is ready", async || run(&["healthcheck", "--address", &listen], &[]).status.success()).await;
        program
    };
    let bridge = start().await;
    let following = Following::start(&["--json", "--url", &url], &[("BRIDGE_TOKEN", support::KEY)]);
    assert_eq!(following.json()["event"], "ready");
    bridge.kill();
    let said = following.said();
    assert!(said.starts_with("the stream ended (") && said.contains("resuming after "), "{said}");
    let _bridge = start().await;
    let reset = std::iter::from_fn(|| Some(following.json())).find(|event| event["event"] == "reset");
    assert!(reset.is_some());
}

/// Reads a request; its head.
fn head(stream: &mut TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase()
}

#[test]
fn a_stream_goes_on_after_the_last_event_that_was_printed_however_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let arguments = ["--url", &url, "--instance", "demo", "--json", "--silence", "300ms"];
    let mut following = Following::start(&arguments, &[("BRIDGE_TOKEN", "token")]);
    let answer = |status: &str, kind: &str, body: &str| {
        let (mut stream, _) = listener.accept().unwrap();
        let head = head(&mut stream);
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}").unwrap();
        (head, stream)
    };
    let stream = |body: &str| answer("200 OK", "text/event-stream", body);
    let (first, _) = stream("retry: 100\nid: a-1\ndata: {\"n\":1}\n\nid: a-2\ndata: {\"half\"");
    assert!(first.contains("authorization: bearer token") && !first.contains("last-event-id"), "{first}");
    assert_eq!(following.next(), r#"{"event":"message","id":"a-1","data":{"n":1}}"#);
    // Ends in the middle of an event: that one comes again.
    let (second, silent) = stream("id: a-2\ndata: {\"n\":2}\n\n");
    assert!(second.contains("last-event-id: a-1"), "{second}");
    assert_eq!(following.json()["id"], "a-2");
    // Falls silent, with its connection open.
    let (third, _) = answer("503 Service Unavailable", "text/html", "a proxy's");
    assert!(third.contains("last-event-id: a-2"), "{third}");
    drop(silent);
    let (fourth, _) = stream("event: gap\nid: a-9\ndata: {\"reason\":\"history\"}\n\n");
    assert!(fourth.contains("last-event-id: a-2"), "{fourth}");
    assert_eq!(following.json()["event"], "gap");
    // No longer allowed: over, and told.
    let problem = r#"{"title":"Forbidden","detail":"no more","code":"forbidden"}"#;
    drop(answer("403 Forbidden", "application/problem+json", problem));
    assert_eq!(following.status(), Some(1));
    let said: Vec<_> = following.said.iter().collect();
    assert_eq!(said.last().unwrap(), problem);
    assert!(said.iter().any(|line| line.contains("resuming after a-9")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_never_open_fails_at_once() {
    let world = World::with(Config::default(), &[]).await;
    let events = |token: &'static str, more: &'static [&'static str]| {
        let url = world.url.clone();
        tokio::task::spawn_blocking(move || {
            run(&[&["events", "--url", &url], more].concat(), &[("BRIDGE_TOKEN", token)])
        })
    };
    let wrong = events("wrong", &[]).await.unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("401 unauthenticated"), "{}", text(&wrong.stderr));
    let unknown = events(support::OPERATOR, &["--instance", "nowhere"]).await.unwrap();
    assert!(text(&unknown.stderr).contains("403 forbidden"), "{}", text(&unknown.stderr));
    let away = format!("http://{}", free_address());
    let away = run(&["events", "--instance", "demo", "--url", &away], &[]);
    assert_eq!(away.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_once_nobody_reads_what_is_printed() {
    let world = World::start().await;
    let environment = [("BRIDGE_URL", world.url.as_str()), ("BRIDGE_TOKEN", support::OPERATOR)];
    let mut program = Running::start(&["events", "--json"], &environment);
    let mut out = BufReader::new(program.0.stdout.take().unwrap());
    let mut ready = String::new();
    out.read_line(&mut ready).unwrap();
    drop(out);
    eventually("it has ended", async || {
        world.gateway.broadcast("demo", "note", "{}").unwrap();
        program.0.try_wait().unwrap().is_some()
    })
    .await;
    assert_eq!(program.end(PATIENCE).0, Some(0));
}
