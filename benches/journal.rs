//! What a long journal costs: its start and its listings, on 1,000,000 payments beside 1,000.
//!
//! The journals are made by the journal itself, payment by payment, many at a time, as they would come to be. Of the
//! payments every ten thousandth is of unknown outcome, since each wants a person, and every tenth another caller's. Medians
//! of some rounds, each beside the same on the small journal. A payment on the large one is timed while it is listed without
//! pause and while it is not, in turns. `JOURNAL_PAYMENTS` sets another number.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use concertpos_bridge::internals::journal::{
    Config, Filter, Journal, Key, Listed, Outcome, Page, RecordId, RecordState, Reserve, Sale, State,
};
use concertpos_bridge::internals::protocol::Body;
use futures_util::future::join_all;
use support::{Aim, Report, Row, median};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
/// Payments under way at the same time while a journal is made.
const AT_ONCE: usize = 2_000;
const ROUNDS: usize = 25;
const STARTS: usize = 5;
/// Payments of each round, one at a time.
const PAYMENTS: usize = 20;
/// Listings under way at the same time beside a payment.
const LISTERS: usize = 2;
/// As long as a listing may take at most, in milliseconds.
const LONGEST_LISTING_MS: f64 = 20.0;

fn key(number: usize) -> Key {
    let caller = if number.is_multiple_of(10) { "bar" } else { "shop" };
    // As scattered as the UUIDs that callers use.
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Key { instance: "demo".into(), caller: caller.into(), idempotency_key: format!("{scattered:016x}") }
}

async fn pay(journal: &Journal, number: usize) {
    let pos_id = i64::try_from(number % 20).unwrap();
    let sale = Sale { pos_id, payment_method: "1".into(), products: vec![(1, 2), (3, 1)] };
    let Reserve::Fresh(reservation) = journal.reserve(key(number), sale).await else { return };
    let dispatched = journal.dispatch(reservation).await.unwrap();
    let is_lost = number % 10_000 == 7;
    let outcome = if is_lost { Outcome::Unknown(None) } else { Outcome::Booked(Body::items(2)) };
    journal.finish(dispatched, outcome).await.unwrap();
}

async fn make(folder: &Path, payments: usize) -> Config {
    let config = Config::new(folder, Config::LEAST_KEEP * 60 * 24 * 30).unwrap();
    let journal = Journal::open(&config).unwrap();
    for first in (0..payments).step_by(AT_ONCE) {
        join_all((first..payments.min(first + AT_ONCE)).map(|number| pay(&journal, number))).await;
    }
    journal.close().await;
    config
}

/// A journal to be asked.
struct Asked {
    journal: Journal,
    start_ms: f64,
    middle: Option<RecordId>,
}

impl Asked {
    async fn open(config: &Config, payments: usize) -> Self {
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let begun = Instant::now();
            let journal = Journal::open(config).unwrap();
            starts.push(begun.elapsed().as_secs_f64() * 1e3);
            journal.close().await;
        }
        let journal = Journal::open(config).unwrap();
        let Key { instance, caller, idempotency_key } = key(payments / 2);
        let by_key = Filter {
            instance,
            caller: Some(caller),
            idempotency_key: Some(idempotency_key),
            limit: 1,
            ..Filter::default()
        };
        let middle = journal.list(by_key).await.unwrap().records.first().map(Listed::id);
        Self { journal, start_ms: median(starts), middle }
    }

    /// Milliseconds of one page, and what is in it.
    async fn list(&self, filter: &Filter) -> (f64, Page) {
        let mut times = Vec::new();
        let mut page = Page::default();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            page = self.journal.list(filter.clone()).await.unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        (median(times), page)
    }
}

/// Times payments that are made one at a time, with numbers that no other has.
struct Till<'a> {
    journal: &'a Journal,
    next: AtomicUsize,
}

impl Till<'_> {
    /// The median of some, in milliseconds.
    async fn pay(&self) -> f64 {
        let mut times = Vec::new();
        for _ in 0..PAYMENTS {
            // Never one whose outcome is lost.
            let number = self.next.fetch_add(10, Ordering::Relaxed);
            let begun = Instant::now();
            pay(self.journal, number).await;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        median(times)
    }

    /// The same while the journal is listed without pause.
    async fn pay_beside(&self, listings: &[Filter]) -> f64 {
        let list = async |first: usize| {
            for filter in listings.iter().cycle().skip(first) {
                self.journal.list(filter.clone()).await.unwrap();
            }
        };
        tokio::select! {
            took = self.pay() => took,
            _ = join_all((0..LISTERS).map(list)) => unreachable!("listing has no end"),
        }
    }
}

/// A payment on a journal that is listed meanwhile, and on the same while it is not.
async fn beside_listings(journal: &Journal, payments: usize, listings: &[Filter]) -> Row {
    let till = Till { journal, next: AtomicUsize::new(payments.next_multiple_of(10)) };
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (one, other) = (till.pay().await, till.pay_beside(listings).await);
        // The first round warms up.
        if round > 0 {
            alone.push(one);
            beside.push(other);
            ratios.push(other / one);
        }
    }
    let row =
        Row::new("journal-payment-listed", "recording a payment while the journal is listed", median(beside), "ms");
    row.beside("while it is not", median(alone)).ratio(median(ratios))
}

fn is_readable(page: &Page) -> bool {
    page.records.iter().all(|listed| matches!(listed, Listed::Record(_)))
}

#[tokio::main]
async fn main() {
    let many = std::env::var("JOURNAL_PAYMENTS").ok().map_or(MANY, |number| number.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (few_at, many_at) = (folder.path().join("few"), folder.path().join("many"));
    let (small, large) = (make(&few_at, FEW).await, make(&many_at, many).await);
    let size = std::fs::metadata(many_at.join("payments.redb")).unwrap().len();
    let (small, large) = (Asked::open(&small, FEW).await, Asked::open(&large, many).await);
    let mut report = Report::new();
    let row = Row::new("journal-start", format!("opening a journal of {many} payments"), large.start_ms, "ms");
    let row = row.beside(format!("one of {FEW}"), small.start_ms).ratio(large.start_ms / small.start_ms);
    report.add(row.aim(Aim::AtMost(2.0)));
    let base = Filter { instance: "demo".into(), limit: 100, ..Filter::default() };
    let unknown = Some(RecordState::from(State::Unknown));
    let under = |number: usize| Some(key(number).idempotency_key);
    let listings = |payments: usize, asked: &Asked| {
        [
            ("journal-list", "listing the newest 100", base.clone()),
            ("journal-list-state", "listing those of unknown outcome", Filter { state: unknown, ..base.clone() }),
            ("journal-list-key", "listing by key", Filter { idempotency_key: under(payments / 2), ..base.clone() }),
            ("journal-list-caller", "listing by caller", Filter { caller: Some("bar".into()), ..base.clone() }),
            ("journal-list-cursor", "listing from the middle on", Filter { before: asked.middle, ..base.clone() }),
            ("journal-list-pos", "listing by point of sale", Filter { pos_id: Some(3), ..base.clone() }),
            ("journal-list-none", "a page in which nothing is found", Filter { pos_id: Some(99), ..base.clone() }),
            ("journal-list-1000", "listing the newest 1000", Filter { limit: 1000, ..base.clone() }),
        ]
    };
    for ((name, figure, filter), (_, _, few)) in listings(many, &large).into_iter().zip(listings(FEW, &small)) {
        let ((large_ms, page), (small_ms, _)) = (large.list(&filter).await, small.list(&few).await);
        assert!(is_readable(&page), "{figure}");
        let row = Row::new(name, format!("{figure} ({} found)", page.records.len()), large_ms, "ms");
        report.add(row.beside(format!("of {FEW}"), small_ms).aim(Aim::AtMost(LONGEST_LISTING_MS)));
    }
    let asked = listings(many, &large).map(|(_, _, filter)| filter);
    report.add(beside_listings(&large.journal, many, &asked).await);
    #[expect(clippy::cast_precision_loss, reason = "a file of less than 2^52 bytes")]
    let bytes = size as f64 / f64::from(u32::try_from(many).unwrap());
    report.add(Row::new("journal-bytes", "room of a payment in the journal", bytes, "bytes"));
    report.tell();
}
