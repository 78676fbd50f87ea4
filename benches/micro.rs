//! How long the parts take that every request or broadcast passes through, each by itself: the codec, the window of the
//! budget, the matcher of broadcasts, a payment's rules, the writer of event streams, the look into the cache.
//!
//! Not in the report, since these have no ceiling and depend on the machine; they are for whoever changes one of the parts
//! and wants to see what it did: `cargo bench --bench micro -- --save-baseline before`, then `-- --baseline before`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a bench")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use concertpos_bridge::budget::window::{Price, Tick, Window};
use concertpos_bridge::cache::{self, Cache, Copy, PasswordKey, PlainKey, Rule};
use concertpos_bridge::http::sse::Block;
use concertpos_bridge::hub::matcher::Matcher;
use concertpos_bridge::hub::{self, Id};
use concertpos_bridge::journal::record::Record;
use concertpos_bridge::journal::rules::Event;
use concertpos_bridge::journal::{self, Outcome, RecordId, Sale};
use concertpos_bridge::wire::{Body, Command, Format, Parameters, command, frame, json5};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::time::Instant;

/// As many products as a busy point of sale has.
const PRODUCTS: usize = 100;

/// A gateway's reply with a list of products.
fn products() -> String {
    let product = |id: usize| format!(r#"{{"ID":{id},"Name":"Bier {id} \"groß\"","Price":4.50,"Color":"{id:06x}"}}"#);
    let list: Vec<_> = (1..=PRODUCTS).map(product).collect();
    format!(
        r#"{{"type":"event","result":{{"event":"listproducts","parameters":{{"Products":[{}]}}}}}}"#,
        list.join(",")
    )
}

fn codec(criterion: &mut Criterion) {
    let json = products();
    let json5 = json5::from_json(&json).unwrap();
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(json.len() as u64));
    group.bench_function("reply in JSON", |bench| bench.iter(|| frame::decode(black_box(&json), Format::Json)));
    group.bench_function("JSON printed as JSON5", |bench| bench.iter(|| json5::from_json(black_box(&json))));
    group.throughput(Throughput::Bytes(json5.len() as u64));
    group.bench_function("reply in JSON5", |bench| bench.iter(|| frame::decode(black_box(&json5), Format::Json5)));
    group.finish();
    let parameters = Parameters::parse(br#"{"POSID":7,"Limit":10}"#).unwrap();
    let command = Command::known(command::find("listtransactions").unwrap(), parameters);
    criterion.bench_function("codec/command", |bench| bench.iter(|| frame::encode(black_box(&command), "demo-key")));
}

/// A window of 100 points that is always full: each command waits until the oldest one's points come back.
fn window(criterion: &mut Criterion) {
    const HOLD: u64 = 30_500_000;
    let price = Price { points: 1, limit: 100 };
    let full = || {
        let mut window = Window::new(HOLD);
        for at in 0..100 {
            let at = Tick(at * HOLD / 100);
            let grant = window.try_grant(at, price).unwrap();
            window.ended(grant, at);
        }
        window
    };
    let (mut used, mut now) = (full(), HOLD);
    criterion.bench_function("window/grant and end", |bench| {
        bench.iter(|| {
            now += HOLD / 100 + 1;
            let grant = used.try_grant(Tick(now), price).unwrap();
            used.ended(grant, Tick(now));
        });
    });
    let mut refusing = full();
    criterion.bench_function("window/refusal with its wait", |bench| {
        bench.iter(|| refusing.try_grant(black_box(Tick(HOLD - 1)), price).unwrap_err());
    });
}

/// One broadcast, brought by three connections.
fn matcher(criterion: &mut Criterion) {
    let (begun, nothing) = (Instant::now(), Body::items(0));
    let mut matcher = Matcher::new(Duration::from_secs(2), Duration::from_secs(30), begun);
    for link in 1..=3 {
        matcher.opened(link, begun);
    }
    let (mut now, received_at) = (begun + Duration::from_mins(1), jiff::Timestamp::UNIX_EPOCH);
    criterion.bench_function("matcher/a broadcast over three connections", |bench| {
        bench.iter(|| {
            now += Duration::from_secs(3);
            for link in 1..=3 {
                black_box(matcher.heard(link, now, "updatepos", &nothing, received_at));
            }
        });
    });
}

fn payment(criterion: &mut Criterion) {
    let key = journal::Key { instance: "demo".into(), caller: "till".into(), idempotency_key: "42".into() };
    let sale = Sale { pos_id: 1, payment_method: "1".into(), products: (1..=5).map(|id| (id, 2)).collect() };
    let reserved = Record::reserved(RecordId::fresh(), key, sale.clone(), 0);
    let booked = Event::Outcome(Outcome::Booked(Body::items(1)));
    criterion.bench_function("payment/from reserved to booked", |bench| {
        bench.iter_batched(
            || reserved.clone(),
            |mut record| {
                record.apply(&Event::Dispatch, 1).unwrap();
                record.apply(&booked, 2).unwrap();
                record
            },
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("payment/fingerprint", |bench| bench.iter(|| black_box(&sale).fingerprint()));
}

fn event_stream(criterion: &mut Criterion) {
    let id = Id { epoch: hub::Epoch::new(7), offset: 41 };
    let data = r#"{"message":"updatepos","parameters":{},"received_at":"2026-06-08T02:47:58.120Z"}"#;
    let block = Block { id: Some(id), data: data.to_owned(), ..Block::default() };
    criterion.bench_function("event stream/a block", |bench| bench.iter(|| black_box(&block).bytes()));
}

fn copies(criterion: &mut Criterion) {
    let instance: Arc<str> = "demo".into();
    let spec = command::find("listproducts").unwrap();
    let rule = Rule { fresh: Duration::from_hours(1), stale: Duration::ZERO };
    let cache = Cache::new(cache::Config {
        max_size: 64 << 20,
        min_age: Duration::from_secs(5),
        rules: BTreeMap::from([(spec.name.to_owned(), rule)]),
        store: None,
    });
    let key = |pos_id| PlainKey { instance: &instance, command: spec.name, pos_id: Some(pos_id) };
    for pos_id in 1..=100 {
        let key = key(pos_id).key();
        cache.keep(&key, Copy::new(Body::items(1), Instant::now(), cache.epoch(spec, &key)));
    }
    let now = Instant::now();
    criterion.bench_function("cache/a fresh copy among 100", |bench| {
        bench.iter(|| cache.fresh(spec, black_box(&key(42)), now).unwrap());
    });
    let passwords = PasswordKey::derived(&"demo-key".into());
    criterion.bench_function("cache/hash of a password", |bench| bench.iter(|| passwords.hash(black_box("backstage"))));
}

criterion_group!(benches, codec, window, matcher, payment, event_stream, copies);
criterion_main!(benches);
