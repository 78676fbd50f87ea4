//! Listeners of the event stream, which come back after the last id they heard, and what they heard is held against what
//! the gateway says it sent.
//!
//! Ids have no holes, come back or not; two listeners hear the same under the same id. Each broadcast is heard unmarked at
//! most as often as it was made, and at least as often marked or not, unless a `gap` or a `reset` covers its time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::stage::{Said, Sent};
use crate::support::KEY;

/// Three heartbeats: a stream that is silent for longer is broken.
const SILENCE: Duration = Duration::from_secs(3);

/// How much the times of both sides may differ: a broadcast is delivered up to its jitter later, and a busy machine may
/// stand still between a moment and the look at the clock.
const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// One thing heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Broadcast {
        said: Said,
        marked: bool,
    },
    /// No connection was sure to hear in this time.
    Gap {
        from: Timestamp,
        to: Timestamp,
    },
}

/// Everything that one listener heard.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// By epoch and offset.
    pub(crate) items: BTreeMap<(String, u64), Item>,
    /// Times of which nothing can be known: until the first stream, and around each reset.
    pub(crate) blind: Vec<(Timestamp, Timestamp)>,
    /// The last id, and when a stream that had begun was last heard.
    last: Option<(String, u64)>,
    has_begun: bool,
    last_alive: Option<Timestamp>,
}

pub(crate) type Shared = Arc<Mutex<Record>>;

/// A listener.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) base: String,
    pub(crate) record: Shared,
    /// The newest update heard of, for readers.
    pub(crate) heard: Arc<AtomicU64>,
    pub(crate) begun: Timestamp,
}

impl Listener {
    /// Listens, and comes back whenever its stream breaks, until there was enough.
    pub(crate) async fn listen(self, enough: CancellationToken) {
        let http = reqwest::Client::builder().connect_timeout(SILENCE).build().unwrap();
        loop {
            tokio::select! {
                () = enough.cancelled() => return,
                () = self.once(&http) => {}
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// One stream, to its end.
    async fn once(&self, http: &reqwest::Client) {
        let last = self.record.lock().unwrap().last.clone();
        let mut request = http.get(format!("{}/v1/instances/demo/events", self.base)).bearer_auth(KEY);
        if let Some((epoch, offset)) = &last {
            request = request.header("Last-Event-ID", format!("{epoch}-{offset}"));
        }
        let Ok(Ok(mut response)) = timeout(SILENCE, request.send()).await else { return };
        if response.status() != 200 {
            assert_eq!(response.status(), 503, "a listener is told to come later, or that the bridge stops");
            return;
        }
        self.record.lock().unwrap().has_begun = false;
        let mut unread = Vec::new();
        let mut block: Vec<String> = Vec::new();
        while let Ok(Ok(Some(chunk))) = timeout(SILENCE, response.chunk()).await {
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap().trim_end_matches('\n').to_owned();
                if !line.is_empty() {
                    block.push(line);
                } else if !self.take(&std::mem::take(&mut block)) {
                    return;
                }
            }
            let mut record = self.record.lock().unwrap();
            // One that only says to come later hears nothing of what is sent meanwhile.
            if record.has_begun {
                record.last_alive = Some(Timestamp::now());
            }
        }
    }

    /// Takes one block. Whether the stream goes on.
    fn take(&self, block: &[String]) -> bool {
        let field = |name: &str| {
            block.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default().to_owned()
        };
        let (event, id, data) = (field("event"), field("id"), field("data"));
        let id = id.rsplit_once('-').map(|(epoch, offset)| (epoch.to_owned(), offset.parse::<u64>().unwrap()));
        let data: Value = serde_json::from_str(&data).unwrap_or_default();
        let mut record = self.record.lock().unwrap();
        match event.as_str() {
            "ready" => record.begin(id.unwrap(), self.begun),
            // What comes between is told by `ready`.
            "reset" => {
                let since = record.last_alive.unwrap_or(self.begun);
                record.blind.push((since, Timestamp::now()));
                record.last = None;
            }
            "gap" => {
                assert_ne!(data["reason"], "history", "history is long enough for all there is");
                let time = |name: &str| data[name].as_str().unwrap().parse::<Timestamp>().unwrap();
                record.hear(id.unwrap(), Item::Gap { from: time("from"), to: time("to") });
            }
            "" if id.is_some() => {
                let version = data["parameters"]["version"].as_u64().unwrap();
                let said = (data["message"].as_str().unwrap().to_owned(), version);
                record.hear(id.unwrap(), Item::Broadcast { said, marked: data["maybe_duplicate"] == true });
                self.heard.fetch_max(version, Ordering::SeqCst);
            }
            "overloaded" => return false,
            "" | "cursor" => {}
            other => panic!("no event of the bridge: {other}"),
        }
        true
    }
}

impl Record {
    fn begin(&mut self, id: (String, u64), begun: Timestamp) {
        match &self.last {
            Some(last) => assert_eq!(*last, id, "a stream goes on where its listener was"),
            None if self.blind.is_empty() => self.blind.push((begun, Timestamp::now())),
            // Blind until now, not only until the reset was told.
            None => self.blind.last_mut().unwrap().1 = Timestamp::now(),
        }
        self.last = Some(id);
        self.has_begun = true;
    }

    fn hear(&mut self, id: (String, u64), item: Item) {
        let last = self.last.clone().unwrap();
        assert_eq!((last.0, last.1 + 1), id, "no hole and no repetition: {item:?}");
        self.last = Some(id.clone());
        self.items.insert(id, item);
    }

    /// What is wrong with what was heard, if anything: each broadcast made against each one heard.
    pub(crate) fn fault(&self, sent: &[Sent]) -> Option<String> {
        let mut covered = self.blind.clone();
        let mut heard: BTreeMap<&Said, (usize, usize)> = BTreeMap::new();
        for item in self.items.values() {
            match item {
                Item::Gap { from, to } => covered.push((*from, *to)),
                Item::Broadcast { said, marked } => {
                    let (all, unmarked) = heard.entry(said).or_default();
                    *all += 1;
                    *unmarked += usize::from(!marked);
                }
            }
        }
        let made = |said: &Said| sent.iter().filter(|one| one.said == *said).count();
        for (said, (_, unmarked)) in &heard {
            if *unmarked > made(said) {
                return Some(format!("{said:?} was made {} times and heard {unmarked} times unmarked", made(said)));
            }
        }
        let is_covered =
            |one: &Sent| covered.iter().any(|(from, to)| one.after + SLACK >= *from && one.before - SLACK <= *to);
        let lost = sent
            .iter()
            .find(|one| heard.get(&one.said).map_or(0, |heard| heard.0) < made(&one.said) && !is_covered(one));
        lost.map(|one| format!("{one:?} was not heard, and no gap says so: {covered:?}"))
    }

    /// How many were heard: unmarked, marked, and gaps.
    pub(crate) fn tally(&self) -> (usize, usize, usize) {
        let of = |wanted: fn(&Item) -> bool| self.items.values().filter(|item| wanted(item)).count();
        (
            of(|item| matches!(item, Item::Broadcast { marked: false, .. })),
            of(|item| matches!(item, Item::Broadcast { marked: true, .. })),
            of(|item| matches!(item, Item::Gap { .. })),
        )
    }
}
