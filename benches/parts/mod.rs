//! The parts that every request or broadcast passes through, each with what it works on, ready to be run by itself: the
//! codec, the window of the budget, the matcher of broadcasts, a payment's rules, the writer of event streams, the look
//! into the cache.
//!
//! Two benches run the same bodies, so that a time and a count are of the same thing: `micro` times them, `counts` counts
//! their instructions. Each body can be run as often as one likes, and costs the same each time.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use concertpos_bridge::internals::broadcasts::matcher::Matcher;
use concertpos_bridge::internals::broadcasts::{self, Id};
use concertpos_bridge::internals::budget::window::{Price, Tick, Wait, Window};
use concertpos_bridge::internals::cache::{self, Cache, CachedReply, PasswordKey, PlainKey};
use concertpos_bridge::internals::http::response::sse::Block;
use concertpos_bridge::internals::journal::record::Record;
use concertpos_bridge::internals::journal::state_machine::Event;
use concertpos_bridge::internals::journal::{self, Fingerprint, Outcome, RecordId, Sale};
use concertpos_bridge::internals::protocol::Retention;
use concertpos_bridge::internals::protocol::frame::{Frame, Undecodable};
use concertpos_bridge::internals::protocol::{Body, Command, Format, Parameters, command, frame, json5};
use tokio::time::Instant;

/// As many products as a busy point of sale has.
const PRODUCTS: usize = 100;

/// How long a point is held, in microseconds.
const HOLD: u64 = 30_500_000;

/// One point of a hundred.
const PRICE: Price = Price { points: 1, limit: 100 };

/// A gateway's reply with a list of products, in JSON.
pub(crate) fn products() -> String {
    let product = |id: usize| format!(r#"{{"ID":{id},"Name":"Bier {id} \"groß\"","Price":4.50,"Color":"{id:06x}"}}"#);
    let list: Vec<_> = (1..=PRODUCTS).map(product).collect();
    format!(
        r#"{{"type":"event","result":{{"event":"listproducts","parameters":{{"Products":[{}]}}}}}}"#,
        list.join(",")
    )
}

/// The same in JSON5.
pub(crate) fn products_in_json5() -> String {
    json5::from_json(&products()).unwrap()
}

/// Reads that reply.
pub(crate) fn reply_in_json() -> impl FnMut() -> Result<Frame, Undecodable> {
    let json = products();
    move || frame::decode(black_box(&json), Format::Json)
}

/// Reads that reply in JSON5.
pub(crate) fn reply_in_json5() -> impl FnMut() -> Result<Frame, Undecodable> {
    let json5 = products_in_json5();
    move || frame::decode(black_box(&json5), Format::Json5)
}

/// Prints that reply as JSON5, as a caller may ask for it.
pub(crate) fn json_as_json5() -> impl FnMut() -> String {
    let json = products();
    move || json5::from_json(black_box(&json)).unwrap()
}

/// Writes a command.
pub(crate) fn command() -> impl FnMut() -> String {
    let parameters = Parameters::parse(br#"{"POSID":7,"Limit":10}"#).unwrap();
    let command = Command::known(command::find("listtransactions").unwrap(), parameters);
    move || frame::encode(black_box(&command), "demo-key")
}

/// A window of 100 points that is full: each command waits until the oldest one's points come back.
fn full_window() -> Window {
    let mut window = Window::new(HOLD);
    for at in 0..100 {
        let at = Tick(at * HOLD / 100);
        let grant = window.try_grant(at, PRICE).unwrap();
        window.ended(grant, at, true);
    }
    window
}

/// A command that has waited as long as it had to, and its end.
pub(crate) fn grant_and_end() -> impl FnMut() {
    let (mut window, mut now) = (full_window(), HOLD);
    move || {
        now += HOLD / 100 + 1;
        let grant = window.try_grant(Tick(now), PRICE).unwrap();
        window.ended(grant, Tick(now), true);
    }
}

/// A command that comes too early, and is told how long to wait.
pub(crate) fn refusal() -> impl FnMut() -> Wait {
    let mut window = full_window();
    move || window.try_grant(black_box(Tick(HOLD - 1)), PRICE).unwrap_err()
}

/// One broadcast, brought by three connections.
pub(crate) fn broadcast() -> impl FnMut() {
    let (begun, nothing) = (Instant::now(), Body::items(0));
    let mut matcher = Matcher::new(Duration::from_secs(2), Duration::from_secs(30), begun);
    for link in 1..=3 {
        matcher.opened(link, begun);
    }
    let (mut now, received_at) = (begun + Duration::from_mins(1), jiff::Timestamp::UNIX_EPOCH);
    move || {
        now += Duration::from_secs(3);
        for link in 1..=3 {
            black_box(matcher.heard(link, now, "updatepos", &nothing, received_at));
        }
    }
}

/// A sale of five products.
fn sale() -> Sale {
    Sale { pos_id: 1, payment_method: "1".into(), products: (1..=5).map(|id| (id, 2)).collect() }
}

/// Its record before anything was sent.
pub(crate) fn reserved() -> Record {
    let key = journal::Key { instance: "demo".into(), caller: "till".into(), idempotency_key: "42".into() };
    Record::reserved(RecordId::fresh(), key, sale(), 0)
}

/// What a record goes through when all goes well.
pub(crate) fn booking() -> impl FnMut(Record) -> Record {
    let booked = Event::Outcome(Outcome::Booked(Body::items(1)));
    move |mut record| {
        record.apply(&Event::Dispatch, 1).unwrap();
        record.apply(&booked, 2).unwrap();
        record
    }
}

/// What tells whether a repeated payment is the same.
pub(crate) fn fingerprint() -> impl FnMut() -> Fingerprint {
    let sale = sale();
    move || black_box(&sale).fingerprint()
}

/// Writes a broadcast for the event streams.
pub(crate) fn block() -> impl FnMut() -> Bytes {
    let id = Id { epoch: broadcasts::Epoch::new(7), offset: 41 };
    let data = r#"{"message":"updatepos","parameters":{},"received_at":"2026-06-08T02:47:58.120Z"}"#;
    let block = Block { id: Some(id), data: data.to_owned(), ..Block::default() };
    move || black_box(&block).bytes()
}

/// Finds a copy that may be served without asking the gateway.
pub(crate) fn fresh_copy() -> impl FnMut() -> (CachedReply, Duration) {
    let instance: Arc<str> = "demo".into();
    let spec = command::find("listproducts").unwrap();
    let rule = Retention { fresh: Duration::from_hours(1), stale: Duration::ZERO };
    let cache = Cache::new(cache::Config {
        max_size: 64 << 20,
        min_age: Duration::from_secs(5),
        rules: BTreeMap::from([(spec.name.to_owned(), rule)]),
        store: None,
    });
    for pos_id in 1..=100 {
        let key = PlainKey { instance: &instance, command: spec.name, pos_id: Some(pos_id) }.key();
        cache.keep(&key, CachedReply::new(Body::items(1), Instant::now(), cache.epoch(spec, &key)));
    }
    let now = Instant::now();
    move || {
        let key = PlainKey { instance: &instance, command: spec.name, pos_id: Some(42) };
        cache.fresh(spec, black_box(&key), now).unwrap()
    }
}

/// What a password is known by in a copy's key.
pub(crate) fn password() -> impl FnMut() -> [u8; 32] {
    let passwords = PasswordKey::derived(&"demo-key".into());
    move || passwords.hash(black_box("backstage"))
}
