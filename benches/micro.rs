//! How long the parts take that every request or broadcast passes through, each by itself (`parts` has them).
//!
//! Not in the report, since these have no ceiling and depend on the machine; they are for whoever changes one of the parts
//! and wants to see what it did: `cargo bench --bench micro -- --save-baseline before`, then `-- --baseline before`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench")]

mod parts;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(parts::products().len() as u64));
    group.bench_function("reply in JSON", |bench| bench.iter(parts::reply_in_json()));
    group.bench_function("JSON printed as JSON5", |bench| bench.iter(parts::json_as_json5()));
    group.throughput(Throughput::Bytes(parts::products_in_json5().len() as u64));
    group.bench_function("reply in JSON5", |bench| bench.iter(parts::reply_in_json5()));
    group.finish();
    criterion.bench_function("codec/command", |bench| bench.iter(parts::command()));
}

fn window(criterion: &mut Criterion) {
    criterion.bench_function("window/grant and end", |bench| bench.iter(parts::grant_and_end()));
    criterion.bench_function("window/refusal with its wait", |bench| bench.iter(parts::refusal()));
}

fn matcher(criterion: &mut Criterion) {
    criterion.bench_function("matcher/a broadcast over three connections", |bench| bench.iter(parts::broadcast()));
}

fn payment(criterion: &mut Criterion) {
    let reserved = parts::reserved();
    criterion.bench_function("payment/from reserved to booked", |bench| {
        bench.iter_batched(|| reserved.clone(), parts::booking(), BatchSize::SmallInput);
    });
    criterion.bench_function("payment/fingerprint", |bench| bench.iter(parts::fingerprint()));
}

fn event_stream(criterion: &mut Criterion) {
    criterion.bench_function("event stream/a block", |bench| bench.iter(parts::block()));
}

fn copies(criterion: &mut Criterion) {
    criterion.bench_function("cache/a fresh copy among 100", |bench| bench.iter(parts::fresh_copy()));
    criterion.bench_function("cache/hash of a password", |bench| bench.iter(parts::password()));
}

criterion_group!(benches, codec, window, matcher, payment, event_stream, copies);
criterion_main!(benches);
