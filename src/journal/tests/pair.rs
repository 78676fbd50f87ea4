//! A journal over a primary and its synchronous standby: a commit counts once both have it.

use super::restored::{config, replica, retried, sells};
use super::*;
use crate::database::migrate;
use crate::database::tests::server::{Pair, database_of};

/// The journal of the only replica, and the name of its database.
async fn begin(pair: &mut Pair) -> (Journal, String) {
    let url = pair.new_database();
    migrate(&config(&url)).await.unwrap();
    let name = database_of(&url).to_owned();
    let journal = replica(&url, |text| pair.primary().sql(&name, text)).await;
    (journal, name)
}

/// A payment whose record waits for the standby: it is not sent.
async fn not_acknowledged(journal: &Journal, name: &str) -> RecordId {
    let reservation = reserve(journal, name).await;
    let id = reservation.id();
    assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable));
    id
}

/// What is not sent leaves its key taken until the standby has it as released.
async fn is_taken(journal: &Journal, name: &str) {
    let asked = journal.reserve(key(name), sale(1)).await;
    assert!(matches!(asked, Reserve::InProgress(_) | Reserve::Unavailable(_)), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_standby_is_away_nothing_is_sent_and_what_was_heard_is_kept() {
    let mut pair = Pair::start();
    let (journal, _) = begin(&mut pair).await;
    let sent = dispatch(&journal, "sent").await;
    let sent_id = sent.id();
    pair.stop_standby();
    assert_eq!(journal.finish(sent, booked()).await, Err(JournalError::Unavailable));
    is_taken(&journal, "sent").await;
    until("it is known", || !journal.is_available()).await;
    assert!(matches!(journal.reserve(key("new"), sale(1)).await, Reserve::Unavailable(_)));
    pair.start_standby();
    until("it is available", || journal.is_available()).await;
    assert_eq!(state(&journal, sent_id).await, Some(State::Booked));
    sells(&journal, "new").await;
}

/// The insert of a payment still waits for its standby when the release of it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_whose_record_waits_for_the_standby_is_released_once_that_is_back() {
    let mut pair = Pair::start();
    let (journal, name) = begin(&mut pair).await;
    pair.stop_standby();
    let id = not_acknowledged(&journal, "a").await;
    is_taken(&journal, "a").await;
    let seen = pair.primary().sql(&name, "SELECT count(*) FROM payment");
    assert_eq!(seen, "0", "it waits, so nobody sees it yet");
    // It holds the owner's row until then: nobody takes the instance over meanwhile.
    let claim = "SET lock_timeout = '300ms'; UPDATE instance_owner SET epoch = epoch + 1";
    let refused = pair.primary().try_sql(&name, claim).unwrap_err();
    assert!(refused.contains("lock timeout"), "{refused}");
    pair.start_standby();
    until("it is available", || journal.is_available()).await;
    assert_eq!(state(&journal, id).await, Some(State::Released));
    sells(&journal, "a").await;
}

/// The same, but the primary is lost with the record before the standby had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_whose_record_is_lost_with_the_primary_is_released_on_the_next_one() {
    let mut pair = Pair::start();
    let (journal, name) = begin(&mut pair).await;
    sells(&journal, "before").await;
    pair.stop_standby();
    let id = not_acknowledged(&journal, "a").await;
    pair.kill_primary();
    pair.standby().start();
    pair.promote();
    until("it is available", || journal.is_available()).await;
    assert_eq!(state(&journal, id).await, Some(State::Released));
    sells(&journal, "a").await;
    assert!(matches!(journal.reserve(key("before"), sale(1)).await, Reserve::Replay(_)));
    assert_eq!(pair.primary().sql(&name, "SELECT count(*) FROM payment WHERE key = 'a' AND state = 2"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_primary_and_what_is_heard_meanwhile_is_recorded() {
    let mut pair = Pair::start();
    let (journal, _) = begin(&mut pair).await;
    let booked_before = pay(&journal, "booked", booked()).await;
    let sent = dispatch(&journal, "sent").await;
    let sent_id = sent.id();
    pair.kill_primary();
    // Kept where it cannot be written, and written once it can.
    let _ = journal.finish(sent, booked()).await;
    pair.promote();
    until("it is available", || journal.is_available()).await;
    let found = retried(|| async {
        let found = state(&journal, sent_id).await;
        if found == Some(State::Booked) { Ok(()) } else { Err(found) }
    });
    found.await;
    let Reserve::Replay(record) = journal.reserve(key("booked"), sale(1)).await else { panic!("it was booked") };
    assert_eq!(record.reply(), booked_before.reply());
}

/// What can be read may not be on the standby yet, and so may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_another_process_recorded_is_given_once_the_standby_has_it() {
    let mut pair = Pair::start();
    let (journal, name) = begin(&mut pair).await;
    pay(&journal, "a", booked()).await;
    let url = pair.url(&name);
    let next = replica(&url, |text| pair.primary().sql(&name, text)).await;
    pair.stop_standby();
    let asked = next.reserve(key("a"), sale(1)).await;
    assert!(matches!(asked, Reserve::Unavailable(_)), "{asked:?}");
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)), "it was acknowledged to this one");
    pair.start_standby();
    until("it is available", || next.is_available()).await;
    assert!(matches!(next.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
}
