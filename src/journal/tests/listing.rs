//! Listings against a model that walks everything, and what bounds them.

use futures_util::future;
use proptest::prelude::*;
use tokio::runtime::Builder as Runtime;

use super::*;
use crate::journal::RecordState;

#[derive(Debug, Clone)]
struct Payment {
    instance: &'static str,
    caller: &'static str,
    name: &'static str,
    pos_id: i64,
    outcome: usize,
    /// By how much the clock steps before it.
    step_ms: i64,
}

fn outcome(number: usize) -> Outcome {
    [booked(), refused(), Outcome::Unknown(None)][number].clone()
}

fn payments() -> impl Strategy<Value = Vec<Payment>> {
    let instances = prop::sample::select(vec!["demo", "demo2"]);
    let callers = prop::sample::select(vec!["bar", "shop"]);
    let names = prop::sample::select(vec!["a", "b", "c", "d"]);
    let payment = (instances, callers, names, 1..3i64, 0..3usize, -20_000..60_000i64);
    let payment = payment.prop_map(|(instance, caller, name, pos_id, outcome, step_ms)| Payment {
        instance,
        caller,
        name,
        pos_id,
        outcome,
        step_ms,
    });
    prop::collection::vec(payment, 0..20)
}

fn filters() -> impl Strategy<Value = Filter> {
    let state = prop::option::of(prop::sample::select(RecordState::ALL.to_vec()));
    let caller = prop::option::of(prop::sample::select(vec!["bar", "shop", "nobody"]));
    let name = prop::option::of(prop::sample::select(vec!["a", "b", "none"]));
    let time = prop::option::of(-100_000..500_000i64);
    (state, caller, name, prop::option::of(1..3i64), time.clone(), time, 1..5usize).prop_map(
        |(state, caller, name, pos_id, from_ms, to_ms, limit)| Filter {
            instance: "demo".into(),
            caller: caller.map(Into::into),
            idempotency_key: name.map(Into::into),
            state,
            pos_id,
            from_ms,
            to_ms,
            before: None,
            limit,
        },
    )
}

pub(super) fn is_wanted(filter: &Filter, record: &Record) -> bool {
    let created_ms = record.times.created_ms;
    record.key.instance == filter.instance
        && filter.caller.as_ref().is_none_or(|caller| *caller == record.key.caller)
        && filter.idempotency_key.as_ref().is_none_or(|name| *name == record.key.idempotency_key)
        && filter.state.is_none_or(|state| state == record.state().into())
        && filter.pos_id.is_none_or(|pos_id| pos_id == record.sale.pos_id)
        && filter.from_ms.is_none_or(|from_ms| from_ms <= created_ms)
        && filter.to_ms.is_none_or(|to_ms| created_ms < to_ms)
}

async fn make(journal: &Journal, payment: &Payment) -> Option<Record> {
    let key =
        Key { instance: payment.instance.into(), caller: payment.caller.into(), idempotency_key: payment.name.into() };
    let sale = Sale { pos_id: payment.pos_id, ..sale(1) };
    let Reserve::Fresh(reservation) = journal.reserve(key, sale).await else { return None };
    let dispatched = journal.dispatch(reservation).await.unwrap();
    Some(journal.finish(dispatched, outcome(payment.outcome)).await.unwrap())
}

async fn all_pages(journal: &Journal, mut filter: Filter) -> Vec<Record> {
    let mut listed = Vec::new();
    loop {
        let page = journal.list(filter.clone()).await.unwrap();
        assert!(page.records.len() <= filter.limit);
        filter.before = page.next;
        let is_last = page.next.is_none();
        listed.extend(page.readable());
        if is_last {
            return listed;
        }
    }
}

async fn compare<P: Place>(payments: &[Payment], filters: &[Filter], restarts: bool) {
    let (place, clock) = (P::default(), Arc::new(HandClock::default()));
    let mut journal = open(&place, &clock);
    let mut made = Vec::new();
    for (number, payment) in payments.iter().enumerate() {
        clock.step_wall(payment.step_ms);
        made.splice(0..0, make(&journal, payment).await);
        if restarts && number == 5 {
            journal.close().await;
            journal = open(&place, &clock);
        }
    }
    assert!(made.is_sorted_by(|newer, older| newer.id > older.id), "ids grow");
    for filter in filters {
        let wanted: Vec<_> = made.iter().filter(|record| is_wanted(filter, record)).map(|one| one.id).collect();
        let listed = all_pages(&journal, filter.clone()).await;
        assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), wanted, "{filter:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn page_by_page_a_listing_has_exactly_what_is_wanted(
        payments in payments(),
        filters in prop::collection::vec(filters(), 1..12),
        restarts in any::<bool>(),
    ) {
        let runtime = Runtime::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare::<Disk>(&payments, &filters, restarts));
        runtime.block_on(compare::<Memory>(&payments, &filters, restarts));
    }
}

/// Many payments of which few are wanted, on a disk that is read for each page.
async fn many(disk: &Disk) -> Journal {
    let journal = open(disk, &Arc::default());
    pay(&journal, "lost", Outcome::Unknown(None)).await;
    let names: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    for names in names.chunks(100) {
        future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    }
    journal.close().await;
    disk.without_cache();
    open(disk, &Arc::default())
}

#[tokio::test]
async fn a_listing_by_state_or_key_reads_little_however_many_records_there_are() {
    let disk = Disk::default();
    let journal = many(&disk).await;
    let wanted = [
        Filter { state: Some(State::Unknown.into()), ..Filter::default() },
        Filter { state: Some(State::Unknown.into()), caller: Some("shop".into()), ..Filter::default() },
        Filter { idempotency_key: Some("lost".into()), ..Filter::default() },
        Filter { caller: Some("nobody".into()), ..Filter::default() },
        Filter { to_ms: Some(0), ..Filter::default() },
    ];
    for (filter, count) in wanted.into_iter().zip([1, 1, 1, 0, 0]) {
        let before = disk.reads();
        let filter = Filter { instance: "demo".into(), limit: 100, ..filter };
        let page = journal.list(filter.clone()).await.unwrap();
        let reads = disk.reads() - before;
        assert_eq!((page.records.len(), page.next), (count, None), "{filter:?}");
        assert!(reads < 60, "{reads} reads for {filter:?}");
    }
}

#[tokio::test]
async fn a_listing_that_nobody_waits_for_ends() {
    let disk = Disk::default();
    many(&disk).await.close().await;
    let (store, journal) = open_embedded(&disk);
    disk.hold_reads();
    let filter = Filter { instance: "demo".into(), limit: 3000, ..Filter::default() };
    {
        let mut listing = Box::pin(journal.list(filter.clone()));
        assert!(future::poll_immediate(&mut listing).await.is_none());
        until("it reads", || disk.has_hanging_read()).await;
    }
    let before = disk.reads();
    disk.release_reads();
    until("it gives its place back", || store.scans.are_idle()).await;
    let reads = disk.reads() - before;
    assert!(reads < 60, "{reads} reads after its caller had gone");
    assert_eq!(all_pages(&journal, filter).await.len(), 2001);
}

#[tokio::test]
async fn so_many_listings_run_and_wait_and_further_ones_are_refused_at_once() {
    let disk = Disk::default();
    disk.without_cache();
    let journal = open(&disk, &Arc::default());
    pay(&journal, "a", booked()).await;
    disk.hold_reads();
    let filter = || Filter { instance: "demo".into(), limit: 10, ..Filter::default() };
    let mut listings: Vec<_> = (0..64).map(|_| Box::pin(journal.list(filter()))).collect();
    for listing in &mut listings {
        assert!(future::poll_immediate(listing).await.is_none());
    }
    assert_eq!(journal.list(filter()).await, Err(JournalError::Overloaded));
    disk.release_reads();
    for listing in listings {
        assert_eq!(listing.await.unwrap().records.len(), 1);
    }
    assert_eq!(journal.list(filter()).await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_too() {
    let (_, journal) = on_new_disk();
    let text = format!("{{\"note\":\"{}\"}}", "x".repeat(16_000));
    let candidate = |id| Candidate { transaction_id: id, transaction: body(&text), other_payments: 0 };
    for number in 0..12 {
        let lost = pay(&journal, &number.to_string(), Outcome::Unknown(None)).await;
        let look = Lookup { candidates: (0..40).map(candidate).collect(), complete: true };
        journal.attach_evidence(lost.id, look).await.unwrap();
    }
    let filter = Filter { instance: "demo".into(), limit: 100, ..Filter::default() };
    let first = journal.list(filter.clone()).await.unwrap();
    assert!(first.records.len() < 12 && first.next.is_some());
    assert_eq!(all_pages(&journal, filter).await.len(), 12);
}
