//! What the journal promises to those who pay, while nothing fails.

use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;

use futures_util::future;

use super::*;
use crate::journal::in_flight::{Claim, InFlight, MAX_LIVE};
use crate::journal::state_machine::Rejection;
use crate::journal::{Filter, Late};

#[tokio::test]
async fn a_payment_is_on_disk_before_its_first_byte_may_leave() {
    let (disk, journal) = on_new_disk();
    let dispatched = dispatch(&journal, "a").await;
    let after = open(&disk.after_crash(0), &Arc::default());
    assert_eq!(state(&after, dispatched.id()).await, Some(State::Unknown));
    assert!(matches!(after.reserve(key("a"), sale(1)), Reserve::Unknown(record) if record.id == dispatched.id()));
}

#[tokio::test]
async fn an_outcome_is_on_disk_before_anybody_hears_of_it() {
    let (disk, journal) = on_new_disk();
    let record = pay(&journal, "a", booked()).await;
    let after = open(&disk.after_crash(0), &Arc::default());
    assert_eq!(after.get(record.id).await, Ok(Some(record)));
}

#[tokio::test]
async fn a_repeat_is_replayed_with_the_bytes_of_the_reply_and_another_sale_is_told_apart() {
    let (_, journal) = on_new_disk();
    pay(&journal, "a", booked()).await;
    let Reserve::Replay(record) = journal.reserve(key("a"), sale(1)) else { panic!("a replay") };
    assert_eq!(record.reply().map(Body::as_str), Some(r#"{"Items": 1.0}"#));
    assert!(matches!(journal.reserve(key("a"), sale(2)), Reserve::Reused));
}

#[tokio::test]
async fn a_key_under_way_is_in_progress_for_its_sale_and_reused_for_another() {
    let (_, journal) = on_new_disk();
    let reservation = reserve(&journal, "a");
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::InProgress));
    assert!(matches!(journal.reserve(key("a"), sale(2)), Reserve::Reused));
    let _dispatched = journal.dispatch(reservation).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::InProgress));
    assert!(matches!(journal.reserve(key("a"), sale(2)), Reserve::Reused));
}

#[test]
fn of_sixty_four_threads_with_one_key_exactly_one_may_pay() {
    let (_, journal) = on_new_disk();
    let barrier = Barrier::new(64);
    let reserved: Vec<Reserve> = thread::scope(|scope| {
        let asks = || {
            barrier.wait();
            journal.reserve(key("a"), sale(1))
        };
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(asks)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(reserved.iter().filter(|one| matches!(one, Reserve::Fresh(_))).count(), 1);
    assert_eq!(reserved.iter().filter(|one| matches!(one, Reserve::InProgress)).count(), 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_pay_whenever_the_key_looks_free_one_books_and_the_rest_replay() {
    let (_, journal) = on_new_disk();
    let payers = (0..64).map(|_| {
        let journal = journal.clone();
        tokio::spawn(async move {
            loop {
                match journal.reserve(key("a"), sale(1)) {
                    Reserve::Fresh(reservation) => {
                        let dispatched = journal.dispatch(reservation).await.unwrap();
                        journal.finish(dispatched, booked()).await.unwrap();
                        break 1;
                    }
                    Reserve::Replay(_) => break 0,
                    Reserve::InProgress => task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    let booked: u32 = future::join_all(payers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(booked, 1);
}

#[tokio::test]
async fn a_key_is_not_dispatched_twice_even_if_it_was_reserved_twice() {
    let (_, journal) = on_new_disk();
    let _first = dispatch(&journal, "a").await;
    // What the journal itself never gives out: the same key from another set of live keys.
    let other = Arc::new(InFlight::default());
    let record = Record::reserved(RecordId::fresh(), key("a"), sale(1), 0);
    let Claim::Taken(live) = other.claim(key("a"), record.fingerprint, |_| None::<()>) else { panic!("free") };
    let second = journal.dispatch(Reservation::new(Box::new(record), live)).await;
    assert_eq!(second.map(|_| ()), Err(JournalError::KeyTaken(State::Dispatching)));
}

#[tokio::test]
async fn a_dropped_reservation_frees_its_key_and_leaves_no_record() {
    let (_, journal) = on_new_disk();
    drop(reserve(&journal, "a"));
    drop(reserve(&journal, "a"));
    assert_eq!(journal.find(key("a")).await, Ok(None));
}

#[tokio::test]
async fn a_dispatched_payment_that_is_dropped_becomes_unknown() {
    let (_, journal) = on_new_disk();
    drop(dispatch(&journal, "a").await);
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Unknown(_)));
}

#[tokio::test]
async fn a_dispatched_payment_that_was_never_written_frees_its_key() {
    let (_, journal) = on_new_disk();
    dispatch(&journal, "a").await.never_written();
    settled_down(&journal).await.unwrap();
    let record = journal.find(key("a")).await.unwrap().unwrap();
    assert_eq!(record.state(), State::Released);
    drop(reserve(&journal, "a"));
}

#[tokio::test]
async fn a_dispatch_whose_caller_left_is_released_because_nobody_can_have_written_it() {
    let (disk, journal) = on_new_disk();
    disk.hold_syncs();
    let reservation = reserve(&journal, "a");
    let id = reservation.id();
    let mut dispatching = Box::pin(journal.dispatch(reservation));
    assert!(future::poll_immediate(&mut dispatching).await.is_none());
    until("its commit is under way", || disk.has_hanging_sync()).await;
    drop(dispatching);
    disk.release_syncs();
    settled_down(&journal).await.unwrap();
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Released));
    drop(reserve(&journal, "a"));
}

#[tokio::test]
async fn an_answer_to_a_dispatch_that_nobody_took_is_released_too() {
    let (disk, journal) = on_new_disk();
    let reservation = reserve(&journal, "a");
    let id = reservation.id();
    disk.hold_syncs();
    let mut dispatching = Box::pin(journal.dispatch(reservation));
    assert!(future::poll_immediate(&mut dispatching).await.is_none());
    disk.release_syncs();
    settled_down(&journal).await.unwrap();
    // The answer lies in the channel by now.
    drop(dispatching);
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Released));
}

#[tokio::test]
async fn an_outcome_is_recorded_even_if_nobody_waits_for_it() {
    let (_, journal) = on_new_disk();
    let dispatched = dispatch(&journal, "a").await;
    let id = dispatched.id();
    drop(journal.finish(dispatched, booked()));
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Booked));
}

#[tokio::test]
async fn payments_under_way_together_share_their_syncs() {
    let (disk, journal) = on_new_disk();
    disk.hold_syncs();
    let mut first = Box::pin(dispatch(&journal, "first"));
    assert!(future::poll_immediate(&mut first).await.is_none());
    until("the first commit is under way", || disk.has_hanging_sync()).await;
    let names: Vec<_> = (0..64).map(|number| number.to_string()).collect();
    let mut others = Box::pin(future::join_all(names.iter().map(|name| dispatch(&journal, name))));
    assert!(future::poll_fn(|context| Poll::Ready(others.as_mut().poll(context).is_pending())).await);
    let before = disk.syncs();
    disk.release_syncs();
    let _dispatched = (first.await, others.await);
    // Two commits of two syncs, and some more where the file grows; each for itself would take 130.
    let syncs = disk.syncs() - before;
    assert!(syncs < 10, "{syncs} syncs for 65 payments");
}

#[tokio::test]
async fn a_refused_payment_frees_its_key_and_its_attempts_stay_to_be_seen() {
    let (_, journal) = on_new_disk();
    let first = pay(&journal, "a", refused()).await;
    let second = pay(&journal, "a", refused()).await;
    let third = pay(&journal, "a", booked()).await;
    pay(&journal, "b", booked()).await;
    assert_eq!((second.previous, third.previous), (Some(first.id), Some(second.id)));
    assert_eq!(journal.find(key("a")).await, Ok(Some(third.clone())));
    let Key { instance, caller, idempotency_key } = key("a");
    let by_key = Filter { instance, idempotency_key: Some(idempotency_key), limit: 10, ..Filter::default() };
    let whole = Filter { caller: Some(caller), ..by_key.clone() };
    let attempts = vec![third, second, first];
    assert_eq!(journal.list(whole).await.unwrap().readable(), attempts);
    assert_eq!(journal.list(by_key).await.unwrap().readable(), attempts);
}

#[tokio::test]
async fn payments_are_counted_by_state() {
    let (disk, journal) = on_new_disk();
    pay(&journal, "a", booked()).await;
    pay(&journal, "b", refused()).await;
    let lost = pay(&journal, "c", Outcome::Unknown(None)).await;
    pay(&journal, "d", Outcome::Unknown(None)).await;
    journal.settle(lost.id, lost.revision, verdict(Finding::Booked)).await.unwrap();
    let _reserved = reserve(&journal, "e");
    let _dispatched = dispatch(&journal, "f").await;
    let counts = journal.counts().await.unwrap();
    assert!(State::ALL.iter().all(|state| counts[&(*state).into()] == 1), "{counts:?}");
    let after = open(&disk.after_crash(0), &Arc::default()).counts().await.unwrap();
    let after = [State::Reserved, State::Dispatching, State::Unknown].map(|state| after[&state.into()]);
    assert_eq!(after, [0, 0, 2]);
}

#[tokio::test]
async fn a_late_reply_resolves_an_unknown_payment() {
    let (_, journal) = on_new_disk();
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    assert!(matches!(journal.late(lost.id, booked()).await, Ok(Late::Changed(_))));
    assert!(matches!(journal.late(lost.id, booked()).await, Ok(Late::Unchanged(_))));
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)));
}

#[tokio::test]
async fn a_person_settles_what_was_seen_and_a_late_frame_against_it_is_reported() {
    let (_, journal) = on_new_disk();
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    let candidate =
        Candidate { transaction_id: 7, transaction: body(r#"{"ID":7,"AmountMoney":9.00}"#), other_payments: 1 };
    let look = Lookup { candidates: vec![candidate], complete: true };
    let seen = journal.attach_evidence(lost.id, look).await.unwrap();
    let stale = journal.settle(lost.id, lost.revision, verdict(Finding::NotBooked)).await;
    assert_eq!(stale, Err(JournalError::Rejected(Rejection::Stale(seen.revision))));
    journal.settle(lost.id, seen.revision, verdict(Finding::NotBooked)).await.unwrap();
    drop(reserve(&journal, "a"));
    let Ok(Late::Contradiction(record)) = journal.late(lost.id, booked()).await else { panic!("a contradiction") };
    assert_eq!((record.state(), record.contradictions.len()), (State::Settled, 1));
    drop(reserve(&journal, "a"));
}

#[tokio::test]
async fn a_reply_that_came_while_the_key_was_used_again_takes_the_key_once_that_one_was_not_booked() {
    for ends in [refused(), Outcome::Released(Release::NeverWritten), Outcome::Unknown(None)] {
        let (_, journal) = on_new_disk();
        let first = pay(&journal, "a", refused()).await;
        let second = dispatch(&journal, "a").await;
        assert!(matches!(journal.late(first.id, booked()).await, Ok(Late::Contradiction(_))));
        assert_eq!(journal.contradictions("demo"), 1);
        let second = journal.finish(second, ends.clone()).await.unwrap();
        if ends == Outcome::Unknown(None) {
            journal.settle(second.id, second.revision, verdict(Finding::NotBooked)).await.unwrap();
        }
        let Reserve::Replay(record) = journal.reserve(key("a"), sale(1)) else { panic!("it would be booked again") };
        assert_eq!(record.id, first.id, "{ends:?}");
        let filter = Filter {
            instance: "demo".into(),
            caller: Some("shop".into()),
            idempotency_key: Some("a".into()),
            limit: 9,
            ..Filter::default()
        };
        let attempts = journal.list(filter).await.unwrap().readable();
        assert_eq!(attempts.len(), 2, "none of the attempts is lost to who lists them: {attempts:?}");
    }
}

#[tokio::test]
async fn a_reply_after_a_refusal_is_kept_for_as_long_as_any_that_was_booked_then() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&Disk::default(), &clock);
    let record = pay(&journal, "a", refused()).await;
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.late(record.id, booked()).await, Ok(Late::Changed(_))));
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)), "not forgotten at its first end");
    clock.run(INSTANT);
    settled_down(&journal).await.unwrap();
    drop(reserve(&journal, "a"));
}

#[tokio::test]
async fn a_key_is_new_once_keep_has_passed_and_not_before() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&Disk::default(), &clock);
    pay(&journal, "a", booked()).await;
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)));
    clock.run(INSTANT);
    settled_down(&journal).await.unwrap();
    let fresh = reserve(&journal, "a");
    assert_eq!(journal.counts().await.unwrap()[&State::Booked.into()], 0);
    let again = journal.dispatch(fresh).await.unwrap();
    assert_eq!(journal.finish(again, booked()).await.unwrap().previous, None);
}

#[tokio::test]
async fn ids_grow_though_the_clock_was_set_back_and_the_newest_record_has_expired() {
    let (disk, clock) = (Disk::default(), Arc::new(HandClock::default()));
    clock.step_wall(1_000_000);
    let journal = open(&disk, &clock);
    let newest = pay(&journal, "a", booked()).await;
    clock.step_wall(-900_000);
    let later = pay(&journal, "b", booked()).await;
    assert!(later.id > newest.id && later.times.created_ms < newest.times.created_ms);
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    assert_eq!(journal.get(later.id).await, Ok(None), "it has expired");
    journal.close().await;
    let journal = open(&disk, &clock);
    assert!(pay(&journal, "c", booked()).await.id > later.id);
}

#[tokio::test]
async fn a_step_of_the_wall_clock_expires_nothing() {
    const CENTURY_MS: i64 = 100 * 365 * 86_400_000;
    let clock = Arc::new(HandClock::default());
    let disk = Disk::default();
    let journal = open(&disk, &clock);
    pay(&journal, "a", booked()).await;
    for step in [CENTURY_MS, -2 * CENTURY_MS] {
        clock.step_wall(step);
        settled_down(&journal).await.unwrap();
        assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)));
        let after = open(&disk.after_crash(0), &clock);
        settled_down(&after).await.unwrap();
        assert!(matches!(after.reserve(key("a"), sale(1)), Reserve::Replay(_)));
    }
}

#[tokio::test]
async fn the_journal_ages_over_its_lives_by_the_time_it_ran() {
    let clock = Arc::new(HandClock::default());
    let mut disk = Disk::default();
    pay(&open(&disk, &clock), "a", booked()).await;
    for _ in 0..2 {
        disk = disk.after_crash(0);
        // Time in which nothing ran.
        clock.run(10 * KEEP);
        let journal = open(&disk, &clock);
        assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)));
        clock.run(KEEP / 2);
        settled_down(&journal).await.unwrap();
    }
    drop(reserve(&open(&disk.after_crash(0), &clock), "a"));
}

#[tokio::test]
async fn an_unknown_outcome_never_expires_until_it_is_settled() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&Disk::default(), &clock);
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    clock.run(1000 * KEEP);
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Unknown(_)));
    journal.settle(lost.id, lost.revision, verdict(Finding::Booked)).await.unwrap();
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)), Reserve::Replay(_)), "kept from its end on");
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    drop(reserve(&journal, "a"));
}

#[tokio::test]
async fn a_closed_journal_has_written_what_waited_and_takes_nothing_more() {
    let (disk, journal) = on_new_disk();
    let dispatched = dispatch(&journal, "a").await;
    let finishing = journal.finish(dispatched, booked());
    let reservation = reserve(&journal, "b");
    journal.close().await;
    assert_eq!(finishing.await.unwrap().state(), State::Booked);
    assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable));
    assert!(matches!(journal.reserve(key("c"), sale(1)), Reserve::Unavailable(_)));
    assert!(!journal.is_available());
    let again = open(&disk, &Arc::default());
    assert!(matches!(again.reserve(key("a"), sale(1)), Reserve::Replay(_)));
    drop(reserve(&again, "b"));
}

#[test]
fn the_number_of_payments_under_way_is_bounded() {
    let (_, journal) = on_new_disk();
    let held: Vec<_> = (0..MAX_LIVE).map(|number| reserve(&journal, &number.to_string())).collect();
    assert!(matches!(journal.reserve(key("one more"), sale(1)), Reserve::Overloaded));
    drop(held);
    drop(reserve(&journal, "one more"));
}

#[tokio::test]
async fn payments_that_the_gateway_may_have_counted_are_told_with_the_ends_of_their_exchanges() {
    let clock = Arc::new(HandClock::default());
    let disk = Disk::default();
    let journal = open(&disk, &clock);
    let step = |ms| clock.step_wall(ms);
    let far = 2 * 600_000;
    pay(&journal, "long ago", booked()).await;
    step(far);
    pay(&journal, "booked", booked()).await;
    step(10);
    pay(&journal, "refused", refused()).await;
    step(10);
    pay(&journal, "unwritten", Outcome::Released(Release::NeverWritten)).await;
    step(10);
    let lost = pay(&journal, "lost", Outcome::Unknown(None)).await;
    step(10);
    journal.late(lost.id, booked()).await.unwrap();
    let flying = dispatch(&journal, "flying").await;
    drop(reserve(&journal, "reserved"));
    let sent = |journal: &Journal, since_ms| {
        let mut sent = journal.sent_since(since_ms).unwrap();
        assert!(sent.iter().all(|(instance, _)| instance == "demo"));
        sent.sort_unstable();
        sent.into_iter().map(|(_, at_ms)| at_ms - far).collect::<Vec<_>>()
    };
    assert_eq!(
        sent(&journal, far),
        [0, 10, 30],
        "one whose exchange has not ended is none, and a late reply dates nothing"
    );
    assert_eq!(sent(&journal, far + 10), [10, 30]);

    let killed = disk.after_crash(0);
    drop(flying);
    step(10);
    assert_eq!(
        sent(&open(&killed, &clock), far),
        [0, 10, 30, 50],
        "what was under way ended at the start at the latest"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_disk_that_hangs_while_a_key_is_looked_up_holds_up_no_thread_that_serves() {
    let disk = Disk::default();
    disk.without_cache();
    let journal = open(&disk, &Arc::default());
    // So many that looking at a record reads further pages than the first.
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    disk.hold_reads();
    let looking = tokio::spawn({
        let journal = journal.clone();
        async move { matches!(journal.reserve_soon(key("0"), sale(1)).await, Reserve::Replay(_)) }
    });
    until("the disk hangs", || disk.has_hanging_read()).await;
    let served = tokio::time::timeout(Duration::from_secs(4), tokio::spawn(async {})).await;
    disk.release_reads();
    assert!(served.is_ok(), "nobody else is served");
    assert!(looking.await.unwrap());
}
