//! What the journal promises while its disk fails: nothing is said to be on disk that is not, and nothing is lost that
//! was told.

use futures_util::future;

use super::disk::Failure::{self, Full, Read, Sync, Write};
use super::*;

const FAILURES: [Failure; 3] = [Write, Full, Sync];

#[tokio::test]
async fn while_the_disk_fails_nothing_may_be_sent_and_afterwards_the_key_is_free() {
    for failure in FAILURES {
        let (disk, journal) = on_new_disk();
        let reservation = reserve(&journal, "a").await;
        disk.fail_after(failure, 0);
        assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable), "{failure:?}");
        assert!(!journal.is_available());
        assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Unavailable(JournalError::Unavailable)));
        disk.heal();
        until("the journal recovers", || journal.is_available()).await;
        pay(&journal, "a", booked()).await;
    }
}

#[tokio::test]
async fn an_outcome_that_could_not_be_written_is_recorded_when_the_disk_recovers() {
    for failure in FAILURES {
        let (disk, journal) = on_new_disk();
        let dispatched = dispatch(&journal, "a").await;
        disk.fail_after(failure, 0);
        assert_eq!(journal.finish(dispatched, booked()).await, Err(JournalError::Unavailable), "{failure:?}");
        assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Unavailable(_)));
        disk.heal();
        until("the journal recovers", || journal.is_available()).await;
        assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
        let after = open(&disk.after_crash(0), &Arc::default());
        assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Replay(_)), "and it is on disk");
    }
}

#[tokio::test]
async fn an_outcome_handed_in_while_the_journal_is_out_of_order_is_not_lost_either() {
    let (disk, journal) = on_new_disk();
    let (first, second) = (dispatch(&journal, "a").await, dispatch(&journal, "b").await);
    let third = pay(&journal, "c", Outcome::Unknown(None)).await;
    disk.fail_after(Full, 0);
    journal.finish(first, booked()).await.unwrap_err();
    drop(second);
    journal.late(third.id, booked()).await.unwrap_err();
    disk.heal();
    until("the journal recovers", || journal.is_available()).await;
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
    assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Unknown(_)));
    assert!(matches!(journal.reserve(key("c"), sale(1)).await, Reserve::Replay(_)));
}

#[tokio::test]
async fn an_outcome_that_never_reached_the_disk_is_unknown_after_a_restart() {
    let (disk, journal) = on_new_disk();
    let dispatched = dispatch(&journal, "a").await;
    disk.fail_after(Full, 0);
    journal.finish(dispatched, booked()).await.unwrap_err();
    let after = open(&disk.after_crash(0), &Arc::default());
    assert!(matches!(after.reserve(key("a"), sale(1)).await, Reserve::Unknown(_)));
}

/// Fails at every point of the two commits of a payment in turn, then crashes: what was told must be true, and what
/// was not told must not free a key that was sent.
#[tokio::test]
async fn at_whatever_point_the_disk_fails_and_the_machine_crashes_what_was_told_is_true() {
    for failure in FAILURES {
        for point in 0.. {
            let (disk, journal) = on_new_disk();
            let reservation = reserve(&journal, "a").await;
            disk.fail_after(failure, point);
            let dispatched = journal.dispatch(reservation).await;
            let sent = dispatched.is_ok();
            let told = match dispatched {
                Ok(dispatched) => journal.finish(dispatched, booked()).await.is_ok(),
                Err(_) => false,
            };
            if !disk.has_failed() {
                assert!(point > 0 && told);
                break;
            }
            let after = open(&disk.after_crash(u64::from(point)), &Arc::default());
            let reserved = after.reserve(key("a"), sale(1)).await;
            let case = format!("{failure:?} at {point}, sent {sent}, told {told}: {reserved:?}");
            match (sent, told) {
                (true, true) => assert!(matches!(reserved, Reserve::Replay(_)), "{case}"),
                (true, false) => assert!(matches!(reserved, Reserve::Replay(_) | Reserve::Unknown(_)), "{case}"),
                (false, _) => assert!(matches!(reserved, Reserve::Fresh(_) | Reserve::Unknown(_)), "{case}"),
            }
        }
    }
}

#[tokio::test]
async fn at_whatever_point_the_disk_fails_the_journal_recovers_to_the_truth_without_a_restart() {
    for failure in FAILURES {
        for point in 0.. {
            let (disk, journal) = on_new_disk();
            let reservation = reserve(&journal, "a").await;
            disk.fail_after(failure, point);
            let dispatched = journal.dispatch(reservation).await;
            let sent = dispatched.is_ok();
            if let Ok(dispatched) = dispatched {
                drop(journal.finish(dispatched, booked()).await);
            }
            if !disk.has_failed() {
                break;
            }
            disk.heal();
            until("the journal recovers", || journal.is_available()).await;
            // The loss of pages whose sync failed shows only after the next crash.
            let after = open(&disk.after_crash(u64::from(point)), &Arc::default());
            for journal in [&journal, &after] {
                let reserved = journal.reserve(key("a"), sale(1)).await;
                let is_true =
                    if sent { matches!(reserved, Reserve::Replay(_)) } else { matches!(reserved, Reserve::Fresh(_)) };
                assert!(is_true, "{failure:?} at {point}, sent {sent}: {reserved:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_disk_that_hangs_is_not_waited_for_and_the_payment_is_released_once_it_moves() {
    let (disk, journal) = on_new_disk();
    let reservation = reserve(&journal, "a").await;
    let id = reservation.id();
    disk.hold_syncs();
    // Time runs ahead as soon as everybody waits.
    tokio::time::pause();
    assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable));
    tokio::time::resume();
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::InProgress(_)), "it may yet be recorded");
    drop(reserve(&journal, "b").await);
    disk.release_syncs();
    settled_down(&journal).await.unwrap();
    settled_down(&journal).await.unwrap();
    assert_eq!(state(&journal, id).await, Some(State::Released));
    // A moment after its record says so.
    let freed = tokio::time::timeout(Duration::from_secs(20), async {
        while matches!(journal.reserve(key("a"), sale(1)).await, Reserve::InProgress(_)) {
            task::yield_now().await;
        }
    });
    freed.await.expect("its key is free");
}

#[tokio::test]
async fn a_failed_read_answers_nothing_and_is_recovered_from_without_a_payment() {
    let disk = Disk::default();
    disk.without_cache();
    let journal = open(&disk, &Arc::default());
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    disk.fail_after(Read, 0);
    assert!(matches!(journal.reserve(key("0"), sale(1)).await, Reserve::Unavailable(JournalError::Unavailable)));
    disk.heal();
    let answered = tokio::time::timeout(Duration::from_secs(20), async {
        while !matches!(journal.reserve(key(&names[99]), sale(1)).await, Reserve::Replay(_)) {
            task::yield_now().await;
        }
    });
    answered.await.expect("the journal answers again");
    for name in &names {
        assert!(matches!(journal.reserve(key(name), sale(1)).await, Reserve::Replay(_)), "{name}");
    }
}

#[tokio::test]
async fn a_torn_last_write_costs_nothing_that_was_told() {
    let (disk, journal) = on_new_disk();
    let told = pay(&journal, "a", booked()).await;
    let dispatched = dispatch(&journal, "b").await;
    disk.hold_syncs();
    let mut finishing = Box::pin(journal.finish(dispatched, booked()));
    assert!(future::poll_immediate(&mut finishing).await.is_none());
    until("its commit is under way", || disk.has_hanging_sync()).await;
    for seed in 0..50 {
        let after = open(&disk.after_crash(seed), &Arc::default());
        assert_eq!(after.get(told.id).await, Ok(Some(told.clone())));
        assert!(matches!(after.reserve(key("b"), sale(1)).await, Reserve::Unknown(_) | Reserve::Replay(_)));
    }
    disk.release_syncs();
    // On a busy machine its caller has given up by now; the outcome is recorded all the same.
    let _ = finishing.await;
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Replay(_)));
}
