//! `events`: an instance's broadcasts as they come.
//!
//! A stream that ends or falls silent is resumed after the last event that was printed, so none is missed without a word: where
//! the bridge cannot go on from there it says `gap` or `reset`, which are printed.

use std::io::{self, Read};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::client::{CallError, Client, Connection, HELP, InInstance};
use super::common::{Failure, as_json, print_more};
use super::event_decoder::{Decoder, Item, MESSAGE};
use super::node::{Node, local_time};
use super::terminal::one_line;
use crate::protocol::Parameters;

/// When a stream that never said is resumed.
const USUAL_RETRY: Duration = Duration::from_secs(3);

/// No sooner, whatever the stream says.
const LEAST_RETRY: Duration = Duration::from_millis(100);

/// While the bridge is away the pause doubles up to this.
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// Answers after which a stream that was there may come back: a proxy's while the bridge restarts, and the bridge's own.
const PASSING: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// Flags of `events`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Events {
    /// Only broadcasts with exactly this message, such as updatepos
    #[arg(long, value_name = "MESSAGE")]
    message: Option<String>,
    /// Begin after the event with this id
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// Connect again when nothing came for so long; must exceed `events.heartbeat`
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    silence: Duration,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    instance: InInstance,
}

pub(super) fn run(flags: &Events) -> Result<ExitCode, Failure> {
    let client = Client::new(&flags.connection)?;
    let instance = client.instance(&flags.instance)?;
    let mut follower = Follower {
        client: &client,
        path: &["v1", "instances", &instance, "events"],
        flags,
        last_id: flags.since.clone(),
        retry: USUAL_RETRY,
        failures: 0,
        was_open: false,
    };
    follower.follow()?;
    Ok(ExitCode::SUCCESS)
}

/// One stream, over as many connections as it takes.
struct Follower<'a> {
    client: &'a Client,
    path: &'a [&'a str],
    flags: &'a Events,
    /// Of the last event that was printed.
    last_id: Option<String>,
    retry: Duration,
    /// Connections and attempts in a row that brought no event.
    failures: u32,
    /// Whether a stream has been open at all: before that, what fails is a mistake in the command.
    was_open: bool,
}

/// How a connection ended.
enum End {
    /// The stream is to be resumed.
    Lost(String),
    /// Nobody reads what is printed.
    Unread,
}

impl Follower<'_> {
    /// Until nobody reads what is printed, or the bridge refuses.
    fn follow(&mut self) -> Result<(), Failure> {
        loop {
            let why = match self.open() {
                Ok(stream) => match self.read(stream)? {
                    End::Unread => return Ok(()),
                    End::Lost(why) => why,
                },
                Err(error) if !self.was_open || !is_passing(&error) => return Err(error.into()),
                Err(error) => error.to_string(),
            };
            let pause = self.pause();
            let from = self.last_id.as_ref().map(|id| format!(" after {}", one_line(id))).unwrap_or_default();
            let (why, shown) = (why.lines().next().unwrap_or_default(), humantime::format_duration(pause));
            eprintln!("the stream ended ({why}): resuming{from} in {shown}");
            thread::sleep(pause);
        }
    }

    fn open(&mut self) -> Result<impl Read + use<>, CallError> {
        let query: Vec<_> = self.flags.message.iter().map(|message| ("message", message.clone())).collect();
        let stream = self.client.stream(self.path, &query, self.last_id.as_deref(), self.flags.silence)?;
        self.was_open = true;
        Ok(stream)
    }

    /// Prints a stream until it ends.
    fn read(&mut self, mut stream: impl Read) -> Result<End, Failure> {
        let (mut decoder, mut buffer) = (Decoder::default(), [0; 8192]);
        loop {
            let length = match stream.read(&mut buffer) {
                Ok(0) => return Ok(End::Lost("closed by the bridge".to_owned())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(End::Lost(one_line(&error.to_string()))),
            };
            for item in decoder.push(buffer.get(..length).unwrap_or_default()).map_err(anyhow::Error::from)? {
                match item {
                    Item::Retry(retry) => self.retry = retry.max(LEAST_RETRY),
                    Item::Event { name, id, data } => {
                        if !self.print(&name, &id, &data)? {
                            return Ok(End::Unread);
                        }
                        self.failures = 0;
                        if !id.is_empty() {
                            self.last_id = Some(id);
                        }
                    }
                }
            }
        }
    }

    /// False once nobody reads it.
    fn print(&self, name: &str, id: &str, data: &str) -> anyhow::Result<bool> {
        let line = if self.flags.connection.json { Some(line_of_json(name, id, data)?) } else { line(name, data) };
        line.map_or(Ok(true), |line| print_more(&line)).context("standard output")
    }

    /// How long to wait before the next connection.
    fn pause(&mut self) -> Duration {
        let doubled = self.retry.saturating_mul(1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.retry.max(MOST_PAUSE))
    }
}

fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Refused(refusal) => PASSING.contains(&refusal.status),
        CallError::Failed(_) => true,
    }
}

/// An event with its data as it came.
fn line_of_json(event: &str, id: &str, data: &str) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        event: &'a str,
        id: &'a str,
        data: &'a RawValue,
    }
    // Line breaks of the gateway's own, which in JSON are white space.
    let data = data.replace(['\r', '\n'], " ");
    let data = serde_json::from_str(&data).context("an event's data is no JSON")?;
    Ok(as_json(&serde_json::to_string(&Line { event, id, data })?))
}

/// An event as a person reads it; nothing where it only says how far the stream has got.
fn line(name: &str, data: &str) -> Option<String> {
    let node = Node::parse(data).unwrap_or(Node::Null);
    let text = |name: &str| one_line(node.shown(name));
    match name {
        MESSAGE => {
            let doubt = if node.is_true("maybe_duplicate") { "  (may be a duplicate)" } else { "" };
            let at = one_line(&local_time(node.shown("received_at")));
            let members = Parameters::parse(data.as_bytes()).unwrap_or_default();
            let parameters = members.get("parameters").map(|raw| one_line(raw.get())).unwrap_or_default();
            Some(format!("{at}  {}  {parameters}{doubt}\n", text("message")))
        }
        "gap" => {
            let (from, to) = (one_line(&local_time(node.shown("from"))), one_line(&local_time(node.shown("to"))));
            let why = match node.shown("reason") {
                "no-connection" => "the bridge had no link to the gateway".to_owned(),
                "unreadable" => "a message of the gateway could not be read".to_owned(),
                "not-stored" => "more came than could wait while the database was away".to_owned(),
                "history" => "the bridge's history no longer holds them".to_owned(),
                other => one_line(other),
            };
            Some(format!("gap: broadcasts may be missing from {from} to {to}: {why}\n"))
        }
        "reset" => Some("reset: the stream begins anew, and broadcasts before this may be missing\n".to_owned()),
        "overloaded" => Some(format!("overloaded: the bridge cannot serve the stream now: {}\n", text("reason"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_cannot_steer_a_terminal_and_keeps_its_numbers() {
        let data = r#"{"message":"a\u001b[2J\nb","parameters":{"p":9.50,"t":"\u009b"},"received_at":"x","maybe_duplicate":true}"#;
        let data = data.replace("\\u009b", "\u{9b}");
        assert_eq!(
            line(MESSAGE, &data).unwrap(),
            "x  a\\u{1b}[2J\\nb  {\"p\":9.50,\"t\":\"\\u{9b}\"}  (may be a duplicate)\n"
        );
        assert_eq!(
            line("gap", r#"{"id":"a-9","reason":"history","from":"a-1","to":"a-9"}"#).unwrap(),
            "gap: broadcasts may be missing from a-1 to a-9: the bridge's history no longer holds them\n"
        );
        assert!(line("reset", "{}").unwrap().starts_with("reset: "));
        assert!(line("ready", "{}").is_none() && line("cursor", "{}").is_none());
        assert_eq!(
            line_of_json("gap", "a-9", r#"{"n":1.10}"#).unwrap(),
            "{\"event\":\"gap\",\"id\":\"a-9\",\"data\":{\"n\":1.10}}\n"
        );
    }
}
