//! A client of event streams, to the letter of the WHATWG text, that tells more than a browser would.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{PATIENCE, World};

/// One dispatched event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    /// Empty for a broadcast.
    pub(crate) name: String,
    pub(crate) data: String,
    /// The `id` of this very block; empty where it has none.
    pub(crate) id: String,
    pub(crate) retry_ms: Option<u64>,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|_| panic!("the data is JSON: {self:?}"))
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("a broadcast: {self:?}")).to_owned()
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.json()["maybe_duplicate"] == true
    }
}

/// The ids of events.
pub(crate) fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| event.id.clone()).collect()
}

/// The messages of broadcasts.
pub(crate) fn messages(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::message).collect()
}

/// An open stream.
pub(crate) struct Stream {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// How many comment lines have come.
    pub(crate) comments: usize,
    response: reqwest::Response,
    unread: Vec<u8>,
}

impl Stream {
    pub(crate) async fn open(world: &World, query: &str) -> Self {
        Self::of(world.get(&format!("/events{query}")).await)
    }

    /// Opens a stream after this id, given in the query or in the header.
    pub(crate) async fn resume(world: &World, id: &str, by_query: bool) -> Self {
        if by_query {
            return Self::open(world, &format!("?last_event_id={id}")).await;
        }
        let request = world.request(reqwest::Method::GET, "/events").header("Last-Event-ID", id);
        Self::of(request.send().await.expect("an answer"))
    }

    pub(crate) fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, comments: 0, response, unread: Vec::new() }
    }

    /// The next event. Fails when none comes: signs of life are no events.
    pub(crate) async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(PATIENCE + Duration::from_secs(10), self.dispatched()).await;
        next.expect("an event comes")
    }

    async fn dispatched(&mut self) -> Event {
        let mut event = Event::default();
        while let Some(line) = self.line().await {
            if line.is_empty() {
                if event.data.pop().is_some() {
                    return event;
                }
                event = Event::default();
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => self.comments += 1,
                "event" => value.clone_into(&mut event.name),
                "data" => event.data.extend([value, "\n"]),
                "id" => value.clone_into(&mut event.id),
                "retry" => event.retry_ms = value.parse().ok(),
                _ => panic!("no field of an event stream: {line:?}"),
            }
        }
        panic!("the stream has ended");
    }

    /// Whether the stream ends without another event.
    pub(crate) async fn ended(&mut self) -> bool {
        while let Some(line) = self.line().await {
            if !line.is_empty() {
                return false;
            }
        }
        true
    }

    /// The bridge ends lines with a line feed; a carriage return in one would be a fault that tests should see.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8(line).expect("UTF-8");
                return Some(line.trim_end_matches('\n').to_owned());
            }
            let chunk = tokio::time::timeout(PATIENCE + Duration::from_secs(10), self.response.chunk()).await;
            match chunk.expect("something comes").expect("the stream is whole") {
                Some(chunk) => self.unread.extend_from_slice(&chunk),
                None => return None,
            }
        }
    }
}
