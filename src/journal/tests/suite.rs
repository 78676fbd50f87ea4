//! What every store promises to those who pay. Each test runs on the embedded store, on one in memory and on a real PostgreSQL.

use std::sync::Arc;

use futures_util::future;

use super::*;
use crate::journal::Late;
use crate::journal::in_flight::{Attachment, Claim, InFlight, MAX_LIVE};
use crate::journal::state_machine::Rejection;

/// Runs every test of the suite on a store.
macro_rules! on_store {
    ($store:ident: $place:ty; $($test:ident,)*) => {
        mod $store {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test::<$place>().await;
                }
            )*
        }
    };
}

macro_rules! on_every_store {
    ($($test:ident,)*) => {
        on_store!(embedded: Disk; $($test,)*);
        on_store!(memory: Memory; $($test,)*);
        on_store!(postgres: Database; $($test,)*);
    };
}

on_every_store! {
    a_payment_is_on_disk_before_its_first_byte_may_leave,
    an_outcome_is_on_disk_before_anybody_hears_of_it,
    what_was_known_of_a_sale_stays_with_its_record_and_is_no_part_of_its_fingerprint,
    a_repeat_is_replayed_with_the_bytes_of_the_reply_and_another_sale_is_told_apart,
    a_key_under_way_is_in_progress_for_its_sale_and_reused_for_another,
    of_sixty_four_tasks_with_one_key_exactly_one_may_pay,
    of_many_who_pay_whenever_the_key_looks_free_one_books_and_the_rest_replay,
    a_key_is_not_dispatched_twice_even_if_it_was_reserved_twice,
    a_dropped_reservation_frees_its_key_and_leaves_no_record,
    a_dispatched_payment_that_is_dropped_becomes_unknown,
    a_dispatch_whose_caller_left_is_released_because_nobody_can_have_written_it,
    an_answer_to_a_dispatch_that_nobody_took_is_released_too,
    an_outcome_is_recorded_even_if_nobody_waits_for_it,
    a_refused_payment_frees_its_key_and_its_attempts_stay_to_be_seen,
    payments_are_counted_by_state,
    a_late_reply_resolves_an_unknown_payment,
    a_person_settles_what_was_seen_and_a_late_frame_against_it_is_reported,
    a_reply_that_came_while_the_key_was_used_again_takes_the_key_once_that_one_was_not_booked,
    a_reply_after_a_refusal_is_kept_for_as_long_as_any_that_was_booked_then,
    a_key_is_new_once_keep_has_passed_and_not_before,
    ids_grow_though_the_clock_was_set_back_and_the_newest_record_has_expired,
    a_step_of_the_wall_clock_expires_nothing,
    the_journal_ages_over_its_lives_by_the_time_it_ran,
    an_unknown_outcome_never_expires_until_it_is_settled,
    a_closed_journal_has_written_what_waited_and_takes_nothing_more,
    the_number_of_payments_under_way_is_bounded,
    payments_that_the_gateway_may_have_counted_are_told_with_the_ends_of_their_exchanges,
}

async fn a_payment_is_on_disk_before_its_first_byte_may_leave<P: Place>() {
    let (place, journal) = on_new::<P>();
    let dispatched = dispatch(&journal, "a").await;
    let after = open(&place.after_crash(0), &Arc::default());
    assert_eq!(state(&after, dispatched.id()).await, Some(State::Unknown));
    assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Unknown(record) if record.id == dispatched.id()));
}

async fn an_outcome_is_on_disk_before_anybody_hears_of_it<P: Place>() {
    let (place, journal) = on_new::<P>();
    let record = pay(&journal, "a", booked()).await;
    let after = open(&place.after_crash(0), &Arc::default());
    assert_eq!(after.get(record.id).await, Ok(Some(record)));
}

async fn what_was_known_of_a_sale_stays_with_its_record_and_is_no_part_of_its_fingerprint<P: Place>() {
    let (place, journal) = on_new::<P>();
    let Reserve::Fresh(mut reservation) = journal.reserve(key("a"), sale(2)).await else { panic!("a fresh key") };
    reservation.note_details(details(2));
    let dispatched = journal.dispatch(reservation).await.unwrap();
    let record = journal.finish(dispatched, booked()).await.unwrap();
    let known = record.details.as_deref().unwrap();
    assert_eq!((known.sum.as_deref(), known.products[0].price.as_deref()), (Some("9.00"), Some("4.50")));
    assert_eq!(record.fingerprint, sale(2).fingerprint());
    let after = open(&place.after_crash(0), &Arc::default());
    assert_eq!(after.get(record.id).await, Ok(Some(record)));
    assert!(matches!(after.reserve(key("a"), sale(2)).await, Reserve::Replay(_)));
}

async fn a_repeat_is_replayed_with_the_bytes_of_the_reply_and_another_sale_is_told_apart<P: Place>() {
    let (_, journal) = on_new::<P>();
    pay(&journal, "a", booked()).await;
    let Reserve::Replay(record) = journal.reserve(key("a"), sale(1)).await else { panic!("a replay") };
    assert_eq!(record.reply().map(Body::as_str), Some(r#"{"Items": 1.0}"#));
    assert!(matches!(journal.reserve(key("a"), sale(2)).await, Reserve::Reused));
}

async fn a_key_under_way_is_in_progress_for_its_sale_and_reused_for_another<P: Place>() {
    let (_, journal) = on_new::<P>();
    let reservation = reserve(&journal, "a").await;
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::InProgress(_)));
    assert!(matches!(journal.reserve(key("a"), sale(2)).await, Reserve::Reused));
    let _dispatched = journal.dispatch(reservation).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::InProgress(_)));
    assert!(matches!(journal.reserve(key("a"), sale(2)).await, Reserve::Reused));
}

async fn of_sixty_four_tasks_with_one_key_exactly_one_may_pay<P: Place>() {
    let (_, journal) = on_new::<P>();
    let asks = (0..64).map(|_| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.reserve(key("a"), sale(1)).await })
    });
    let reserved: Vec<Reserve> = future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(reserved.iter().filter(|one| matches!(one, Reserve::Fresh(_))).count(), 1);
    assert_eq!(reserved.iter().filter(|one| matches!(one, Reserve::InProgress(_))).count(), 63);
}

async fn of_many_who_pay_whenever_the_key_looks_free_one_books_and_the_rest_replay<P: Place>() {
    let (_, journal) = on_new::<P>();
    let payers = (0..64).map(|_| {
        let journal = journal.clone();
        tokio::spawn(async move {
            loop {
                match journal.reserve(key("a"), sale(1)).await {
                    Reserve::Fresh(reservation) => {
                        let dispatched = journal.dispatch(reservation).await.unwrap();
                        journal.finish(dispatched, booked()).await.unwrap();
                        break 1;
                    }
                    Reserve::Replay(_) => break 0,
                    Reserve::InProgress(_) => task::yield_now().await,
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    let booked: u32 = future::join_all(payers).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(booked, 1);
}

async fn a_key_is_not_dispatched_twice_even_if_it_was_reserved_twice<P: Place>() {
    let (_, journal) = on_new::<P>();
    let _first = dispatch(&journal, "a").await;
    for is_first in [false, true] {
        // What the journal itself never gives out: the same key from another set of held keys.
        let other = Arc::new(InFlight::default());
        let record = Record::reserved(RecordId::fresh(), key("a"), sale(1), 0);
        let Claim::Taken(held) = other.claim(key("a"), record.fingerprint, Attachment::new(())) else { panic!("free") };
        let second = journal.dispatch(Reservation::new(Box::new(record), held, is_first)).await;
        assert_eq!(second.map(|_| ()), Err(JournalError::KeyTaken(State::Dispatching)));
    }
}

async fn a_dropped_reservation_frees_its_key_and_leaves_no_record<P: Place>() {
    let (_, journal) = on_new::<P>();
    drop(reserve(&journal, "a").await);
    drop(reserve(&journal, "a").await);
    assert_eq!(current(&journal, "a").await, Ok(None));
}

async fn a_dispatched_payment_that_is_dropped_becomes_unknown<P: Place>() {
    let (_, journal) = on_new::<P>();
    drop(dispatch(&journal, "a").await);
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Unknown(_)));
}

async fn a_dispatch_whose_caller_left_is_released_because_nobody_can_have_written_it<P: Place>() {
    let (place, journal) = on_new::<P>();
    place.hold_commits();
    let reservation = reserve(&journal, "a").await;
    let id = reservation.id();
    let mut dispatching = Box::pin(journal.dispatch(reservation));
    assert!(future::poll_immediate(&mut dispatching).await.is_none());
    until("its commit is under way", || place.has_held_commit()).await;
    drop(dispatching);
    place.release_commits();
    settled_down(&journal).await.unwrap();
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Released));
    drop(reserve(&journal, "a").await);
}

async fn an_answer_to_a_dispatch_that_nobody_took_is_released_too<P: Place>() {
    let (place, journal) = on_new::<P>();
    let reservation = reserve(&journal, "a").await;
    let id = reservation.id();
    place.hold_commits();
    let mut dispatching = Box::pin(journal.dispatch(reservation));
    assert!(future::poll_immediate(&mut dispatching).await.is_none());
    place.release_commits();
    settled_down(&journal).await.unwrap();
    // The answer lies in the channel by now.
    drop(dispatching);
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Released));
}

async fn an_outcome_is_recorded_even_if_nobody_waits_for_it<P: Place>() {
    let (_, journal) = on_new::<P>();
    let dispatched = dispatch(&journal, "a").await;
    let id = dispatched.id();
    drop(journal.finish(dispatched, booked()));
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Booked));
}

async fn a_refused_payment_frees_its_key_and_its_attempts_stay_to_be_seen<P: Place>() {
    let (_, journal) = on_new::<P>();
    let first = pay(&journal, "a", refused()).await;
    let second = pay(&journal, "a", refused()).await;
    let third = pay(&journal, "a", booked()).await;
    pay(&journal, "b", booked()).await;
    assert_eq!((second.previous, third.previous), (Some(first.id), Some(second.id)));
    assert_eq!(current(&journal, "a").await, Ok(Some(third.clone())));
    let Key { instance, caller, idempotency_key } = key("a");
    let by_key = Filter { instance, idempotency_key: Some(idempotency_key), limit: 10, ..Filter::default() };
    let whole = Filter { caller: Some(caller), ..by_key.clone() };
    let attempts = vec![third, second, first];
    assert_eq!(journal.list(whole).await.unwrap().readable(), attempts);
    assert_eq!(journal.list(by_key).await.unwrap().readable(), attempts);
}

async fn payments_are_counted_by_state<P: Place>() {
    let (place, journal) = on_new::<P>();
    pay(&journal, "a", booked()).await;
    pay(&journal, "b", refused()).await;
    let lost = pay(&journal, "c", Outcome::Unknown(None)).await;
    pay(&journal, "d", Outcome::Unknown(None)).await;
    journal.settle(lost.id, lost.revision, verdict(Finding::Booked)).await.unwrap();
    let _reserved = reserve(&journal, "e").await;
    let _dispatched = dispatch(&journal, "f").await;
    let counts = journal.counts().await.unwrap();
    assert!(State::ALL.iter().all(|state| counts[&(*state).into()] == 1), "{counts:?}");
    let by_instance = journal.counts_by_instance().await.unwrap();
    let of_demo =
        counts.iter().filter(|(_, count)| **count > 0).map(|(state, count)| (("demo".to_owned(), *state), *count));
    assert_eq!(by_instance, of_demo.collect());
    let after = open(&place.after_crash(0), &Arc::default()).counts().await.unwrap();
    let after = [State::Reserved, State::Dispatching, State::Unknown].map(|state| after[&state.into()]);
    assert_eq!(after, [0, 0, 2]);
}

async fn a_late_reply_resolves_an_unknown_payment<P: Place>() {
    let (_, journal) = on_new::<P>();
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    assert!(matches!(journal.late(lost.id, booked()).await, Ok(Late::Changed(_))));
    assert!(matches!(journal.late(lost.id, booked()).await, Ok(Late::Unchanged(_))));
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
}

async fn a_person_settles_what_was_seen_and_a_late_frame_against_it_is_reported<P: Place>() {
    let (_, journal) = on_new::<P>();
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    let candidate =
        Candidate { transaction_id: 7, transaction: body(r#"{"ID":7,"AmountMoney":9.00}"#), other_payments: 1 };
    let look = Lookup { candidates: vec![candidate], complete: true };
    let seen = journal.attach_evidence(lost.id, look).await.unwrap();
    let stale = journal.settle(lost.id, lost.revision, verdict(Finding::NotBooked)).await;
    assert_eq!(stale, Err(JournalError::Rejected(Rejection::Stale(seen.revision))));
    journal.settle(lost.id, seen.revision, verdict(Finding::NotBooked)).await.unwrap();
    drop(reserve(&journal, "a").await);
    let Ok(Late::Contradiction(record)) = journal.late(lost.id, booked()).await else { panic!("a contradiction") };
    assert_eq!((record.state(), record.contradictions.len()), (State::Settled, 1));
    drop(reserve(&journal, "a").await);
}

async fn a_reply_that_came_while_the_key_was_used_again_takes_the_key_once_that_one_was_not_booked<P: Place>() {
    for ends in [refused(), Outcome::Released(Release::NeverWritten), Outcome::Unknown(None)] {
        let (_, journal) = on_new::<P>();
        let first = pay(&journal, "a", refused()).await;
        let second = dispatch(&journal, "a").await;
        assert!(matches!(journal.late(first.id, booked()).await, Ok(Late::Contradiction(_))));
        assert_eq!(journal.contradictions("demo"), 1);
        let second = journal.finish(second, ends.clone()).await.unwrap();
        if ends == Outcome::Unknown(None) {
            journal.settle(second.id, second.revision, verdict(Finding::NotBooked)).await.unwrap();
        }
        let Reserve::Replay(record) = journal.reserve(key("a"), sale(1)).await else {
            panic!("it would be booked again")
        };
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

async fn a_reply_after_a_refusal_is_kept_for_as_long_as_any_that_was_booked_then<P: Place>() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&P::default(), &clock);
    let record = pay(&journal, "a", refused()).await;
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.late(record.id, booked()).await, Ok(Late::Changed(_))));
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)), "not forgotten at its first end");
    clock.run(INSTANT);
    settled_down(&journal).await.unwrap();
    drop(reserve(&journal, "a").await);
}

async fn a_key_is_new_once_keep_has_passed_and_not_before<P: Place>() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&P::default(), &clock);
    pay(&journal, "a", booked()).await;
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
    clock.run(INSTANT);
    settled_down(&journal).await.unwrap();
    let fresh = reserve(&journal, "a").await;
    assert_eq!(journal.counts().await.unwrap()[&State::Booked.into()], 0);
    let again = journal.dispatch(fresh).await.unwrap();
    assert_eq!(journal.finish(again, booked()).await.unwrap().previous, None);
}

async fn ids_grow_though_the_clock_was_set_back_and_the_newest_record_has_expired<P: Place>() {
    let (place, clock) = (P::default(), Arc::new(HandClock::default()));
    clock.step_wall(1_000_000);
    let journal = open(&place, &clock);
    let newest = pay(&journal, "a", booked()).await;
    clock.step_wall(-900_000);
    let later = pay(&journal, "b", booked()).await;
    assert!(later.id > newest.id && later.times.created_ms < newest.times.created_ms);
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    assert_eq!(journal.get(later.id).await, Ok(None), "it has expired");
    journal.close().await;
    let journal = open(&place, &clock);
    assert!(pay(&journal, "c", booked()).await.id > later.id);
}

async fn a_step_of_the_wall_clock_expires_nothing<P: Place>() {
    const CENTURY_MS: i64 = 100 * 365 * 86_400_000;
    let clock = Arc::new(HandClock::default());
    let place = P::default();
    let journal = open(&place, &clock);
    pay(&journal, "a", booked()).await;
    for step in [CENTURY_MS, -2 * CENTURY_MS] {
        clock.step_wall(step);
        settled_down(&journal).await.unwrap();
        assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
        let after = open(&place.after_crash(0), &clock);
        settled_down(&after).await.unwrap();
        assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
    }
}

async fn the_journal_ages_over_its_lives_by_the_time_it_ran<P: Place>() {
    let clock = Arc::new(HandClock::default());
    let mut place = P::default();
    pay(&open(&place, &clock), "a", booked()).await;
    for _ in 0..2 {
        place = place.after_crash(0);
        // Time in which nothing ran.
        clock.run(10 * KEEP);
        let journal = open(&place, &clock);
        assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
        clock.run(KEEP / 2);
        settled_down(&journal).await.unwrap();
    }
    drop(reserve(&open(&place.after_crash(0), &clock), "a").await);
}

async fn an_unknown_outcome_never_expires_until_it_is_settled<P: Place>() {
    let clock = Arc::new(HandClock::default());
    let journal = open(&P::default(), &clock);
    let lost = pay(&journal, "a", Outcome::Unknown(None)).await;
    clock.run(1000 * KEEP);
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Unknown(_)));
    journal.settle(lost.id, lost.revision, verdict(Finding::Booked)).await.unwrap();
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)), "kept from its end on");
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    drop(reserve(&journal, "a").await);
}

async fn a_closed_journal_has_written_what_waited_and_takes_nothing_more<P: Place>() {
    let (place, journal) = on_new::<P>();
    let dispatched = dispatch(&journal, "a").await;
    let finishing = journal.finish(dispatched, booked());
    let reservation = reserve(&journal, "b").await;
    journal.close().await;
    assert_eq!(finishing.await.unwrap().state(), State::Booked);
    assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable));
    assert!(matches!(journal.reserve(key("c"), sale(1)).await, Reserve::Unavailable(_)));
    assert!(!journal.is_available());
    let again = open(&place, &Arc::default());
    assert!(matches!(again.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
    drop(reserve(&again, "b").await);
}

async fn the_number_of_payments_under_way_is_bounded<P: Place>() {
    let (_, journal) = on_new::<P>();
    let names: Vec<_> = (0..MAX_LIVE).map(|number| number.to_string()).collect();
    let held = future::join_all(names.iter().map(|name| reserve(&journal, name))).await;
    assert!(matches!(journal.reserve(key("one more"), sale(1)).await, Reserve::Overloaded));
    drop(held);
    drop(reserve(&journal, "one more").await);
}

async fn payments_that_the_gateway_may_have_counted_are_told_with_the_ends_of_their_exchanges<P: Place>() {
    let clock = Arc::new(HandClock::default());
    let place = P::default();
    let journal = open(&place, &clock);
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
    drop(reserve(&journal, "reserved").await);
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

    let killed = place.after_crash(0);
    drop(flying);
    step(10);
    assert_eq!(
        sent(&open(&killed, &clock), far),
        [0, 10, 30, 50],
        "what was under way ended at the start at the latest"
    );
}
