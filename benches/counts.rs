//! How many instructions the parts take that every request or broadcast passes through, each by itself (`parts` has them),
//! counted by valgrind.
//!
//! A count hardly depends on what else the machine does, so that it shows changes of a hundredth where times differ by a
//! tenth from run to run; it knows nothing of waiting for memory, so it says what changed, not how fast it is.
//! `./scripts/bench --counts` builds with the names that this needs, runs it, and divides by the number of operations.
//!
//! Each part has run for a while before it is counted: what happens once, such as the first look at the clock or the first
//! growth of a buffer, is not its cost. Many operations are counted, so that what happens in some of them has its share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::exit, reason = "a bench")]
#![allow(non_snake_case, reason = "people read these names, as those of `micro`: `__` for a slash, `_` for a space")]

mod parts;

use std::hint::black_box;

use concertpos_bridge::internals::journal::record::Record;
use gungraun::{library_benchmark, library_benchmark_group, main};

/// So many operations are counted; `benches/report/counts.py` reads it here.
const OPERATIONS: usize = 1_000;

/// A part that has run for a while.
fn warm<O, F: FnMut() -> O>(mut part: F) -> F {
    for _ in 0..OPERATIONS {
        black_box(part());
    }
    part
}

/// As many records as will be booked, and what books them, which has run for a while.
fn to_book<F: FnMut(Record) -> Record>(mut book: F) -> (Vec<Record>, F) {
    let records = || vec![parts::reserved(); OPERATIONS];
    black_box(records().into_iter().map(&mut book).collect::<Vec<_>>());
    (records(), book)
}

// Gives the part back, since its end is not to be counted.
#[library_benchmark(setup = warm)]
#[bench::codec__reply_in_JSON(parts::reply_in_json())]
#[bench::codec__JSON_printed_as_JSON5(parts::json_as_json5())]
#[bench::codec__reply_in_JSON5(parts::reply_in_json5())]
#[bench::codec__command(parts::command())]
#[bench::window__grant_and_end(parts::grant_and_end())]
#[bench::window__refusal_with_its_wait(parts::refusal())]
#[bench::matcher__a_broadcast_over_three_connections(parts::broadcast())]
#[bench::payment__fingerprint(parts::fingerprint())]
#[bench::event_stream__a_block(parts::block())]
#[bench::cache__a_fresh_copy_among_100(parts::fresh_copy())]
#[bench::cache__hash_of_a_password(parts::password())]
fn part<O, F: FnMut() -> O>(mut part: F) -> F {
    for _ in 0..OPERATIONS {
        black_box(part());
    }
    part
}

// Gives the records back, for the same reason.
#[library_benchmark(setup = to_book)]
#[bench::payment__from_reserved_to_booked(parts::booking())]
fn payment<F: FnMut(Record) -> Record>((records, book): (Vec<Record>, F)) -> (Vec<Record>, F) {
    let mut book = book;
    (records.into_iter().map(&mut book).collect(), book)
}

library_benchmark_group!(name = counts, benchmarks = [part, payment]);

main!(library_benchmark_groups = counts);
