//! A record that cannot be read, because it is damaged or a later release wrote it, costs only itself.

use super::*;
use crate::journal::{Late, Listed, Page, RecordState, Rejection, Unreadable};

/// A record as a later release might write it: JSON, and in no state that this one knows.
fn later(stored: &[u8]) -> Vec<u8> {
    String::from_utf8(stored.to_vec())
        .unwrap()
        .replacen(r#""standing":{""#, r#""standing":{"later":{},""#, 1)
        .into_bytes()
}

const DAMAGED: &[u8] = b"{\"id\":\"01932b\0\0";

async fn list(journal: &Journal, state: Option<RecordState>) -> Vec<(RecordId, bool)> {
    let filter = Filter { instance: "demo".into(), state, limit: 100, ..Filter::default() };
    let page = journal.list(filter).await.unwrap();
    page.records.iter().map(|listed| (listed.id(), matches!(listed, Listed::Record(_)))).collect()
}

async fn look_up(journal: &Journal, id: RecordId) -> Unreadable {
    match journal.find("demo", id).await.unwrap() {
        Some(Listed::Unreadable(unreadable)) => *unreadable,
        other => panic!("it should be unreadable: {other:?}"),
    }
}

/// A journal with payments under these keys, of which each outcome is given, and then a change to their records.
async fn with(outcomes: &[(&str, Outcome)], change: impl Fn(&Disk, RecordId)) -> (Disk, Journal, Vec<Record>) {
    let (disk, journal) = on_new_disk();
    let mut records = Vec::new();
    for (name, outcome) in outcomes {
        records.push(pay(&journal, name, outcome.clone()).await);
    }
    journal.close().await;
    for record in &records {
        change(&disk, record.id);
    }
    let journal = open(&disk, &Arc::default());
    (disk, journal, records)
}

fn damage(disk: &Disk, id: RecordId) {
    overwrite(disk, id, Some(DAMAGED));
}

#[tokio::test]
async fn it_is_listed_as_unreadable_and_everything_else_goes_on() {
    for stored in [Some(DAMAGED), Some(b"".as_slice()), None] {
        let change = |disk: &Disk, id| overwrite(disk, id, stored);
        let (_, journal, records) = with(&[("b", booked()), ("u", Outcome::Unknown(None))], change).await;
        let (b, u) = (records[0].id, records[1].id);
        let sound = pay(&journal, "sound", booked()).await;
        let all = [(sound.id, true), (u, false), (b, false)];
        assert_eq!(list(&journal, None).await, all);
        // What the listing found is written down by now.
        settled_down(&journal).await.unwrap();
        assert_eq!(list(&journal, Some(State::Unknown.into())).await, [], "it is no longer listed by what it was");
        assert_eq!(list(&journal, Some(State::Booked.into())).await, all[..1]);
        assert_eq!(list(&journal, Some(RecordState::Unreadable)).await, all[1..]);
        let counts = journal.counts().await.unwrap();
        assert_eq!((counts[&RecordState::Unreadable], counts[&State::Booked.into()]), (2, 1));
        let seen = look_up(&journal, b).await;
        assert_eq!((&seen.key, seen.pos_id, seen.was), (&key("b"), 1, Some(State::Booked)));
        assert!(!seen.reason.is_empty());
        assert_eq!(seen.stored.unwrap(), String::from_utf8_lossy(stored.unwrap_or_default()));
        let by_key =
            Filter { instance: "demo".into(), idempotency_key: Some("u".into()), limit: 9, ..Filter::default() };
        let Page { records, next } = journal.list(by_key).await.unwrap();
        assert_eq!((records.len(), records[0].id(), next), (1, u, None));
    }
}

#[tokio::test]
async fn its_key_stays_taken_and_tells_the_same_sale_from_another() {
    let (_, journal, records) = with(&[("b", booked()), ("r", refused())], damage).await;
    for (name, record) in [("b", &records[0]), ("r", &records[1])] {
        assert!(
            matches!(journal.reserve(key(name), sale(1)).await, Reserve::Unreadable(id) if id == record.id),
            "{name}"
        );
        assert!(matches!(journal.reserve(key(name), sale(2)).await, Reserve::Reused), "{name}");
    }
    drop(reserve(&journal, "other").await);
}

#[tokio::test]
async fn a_person_settles_it_as_it_was_seen_and_its_bytes_are_kept() {
    let (disk, journal, records) = with(&[("b", booked()), ("n", booked())], damage).await;
    let (b, n) = (records[0].id, records[1].id);
    let stale = journal.settle(b, records[0].revision, verdict(Finding::Booked)).await;
    assert_eq!(stale, Err(JournalError::Rejected(Rejection::Stale(Unreadable::REVISION))));
    let settled = journal.settle(b, Unreadable::REVISION, verdict(Finding::Booked)).await.unwrap();
    assert_eq!((settled.state(), &settled.key, settled.revision), (State::Settled, &key("b"), 1));
    assert!(settled.recovered.is_some_and(|recovered| !recovered.sale_known && !recovered.reason.is_empty()));
    assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Replay(_)));
    assert!(matches!(journal.reserve(key("b"), sale(2)).await, Reserve::Reused));
    journal.settle(n, Unreadable::REVISION, verdict(Finding::NotBooked)).await.unwrap();
    pay(&journal, "n", booked()).await;
    let counts = journal.counts().await.unwrap();
    let counts = [RecordState::Unreadable, State::Settled.into(), State::Booked.into()].map(|state| counts[&state]);
    assert_eq!(counts, [0, 2, 1]);
    assert_eq!(list(&journal, Some(State::Settled.into())).await, [(n, true), (b, true)]);
    journal.close().await;
    assert_eq!(tables::kept_bytes(&disk, b), DAMAGED);
}

#[tokio::test]
async fn what_a_later_release_wrote_keeps_its_sale_when_it_is_settled_and_reads_again_after_an_upgrade() {
    let (disk, journal) = on_new_disk();
    let first = pay(&journal, "a", refused()).await;
    let (second, other) = (pay(&journal, "a", booked()).await, pay(&journal, "o", booked()).await);
    journal.close().await;
    let sound = stored(&disk, other.id);
    for record in [&second, &other] {
        let later = later(&stored(&disk, record.id));
        overwrite(&disk, record.id, Some(&later));
    }
    let journal = open(&disk, &Arc::default());
    let by_key = Filter { instance: "demo".into(), idempotency_key: Some("a".into()), limit: 9, ..Filter::default() };
    let attempts = journal.list(by_key).await.unwrap().records.iter().map(Listed::id).collect::<Vec<_>>();
    assert_eq!(attempts, [second.id, first.id], "the attempts before it are found");
    let by_state = list(&journal, Some(State::Booked.into())).await;
    assert!(by_state.contains(&(other.id, false)), "as long as nobody had found it: {by_state:?}");
    let settled = journal.settle(second.id, 0, verdict(Finding::Booked)).await.unwrap();
    assert_eq!((&settled.sale, settled.previous), (&second.sale, second.previous));
    assert!(settled.recovered.is_some_and(|recovered| recovered.sale_known));
    settled_down(&journal).await.unwrap();
    assert_eq!(journal.counts().await.unwrap()[&RecordState::Unreadable], 1);
    journal.close().await;
    overwrite(&disk, other.id, Some(&sound));
    let journal = open(&disk, &Arc::default());
    assert_eq!(journal.counts().await.unwrap()[&RecordState::Unreadable], 0);
    assert_eq!(list(&journal, Some(State::Booked.into())).await, [(other.id, true)]);
}

#[tokio::test]
async fn the_late_reply_decides_it_and_a_late_refusal_does_not() {
    let (_, journal, records) = with(&[("a", Outcome::Unknown(None)), ("b", booked())], damage).await;
    assert_eq!(journal.late(records[1].id, refused()).await.map(|_| ()), Err(JournalError::Damaged));
    assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Unreadable(_)), "a refusal frees nothing");
    assert!(matches!(journal.late(records[0].id, booked()).await, Ok(Late::Changed(_))));
    assert!(matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(record) if record.reply().is_some()));
}

#[tokio::test]
async fn what_was_on_its_way_and_cannot_be_read_stops_no_start() {
    let (disk, journal) = on_new_disk();
    let dispatched = dispatch(&journal, "a").await;
    let id = dispatched.id();
    std::mem::forget(dispatched);
    journal.close().await;
    damage(&disk, id);
    let journal = open(&disk, &Arc::default());
    assert_eq!(journal.counts().await.unwrap()[&RecordState::Unreadable], 1);
    assert_eq!(look_up(&journal, id).await.was, Some(State::Dispatching));
}

#[tokio::test]
async fn it_never_expires_and_once_settled_it_is_kept_from_then_on() {
    let (disk, journal) = on_new_disk();
    let record = pay(&journal, "a", booked()).await;
    journal.close().await;
    damage(&disk, record.id);
    let clock = Arc::new(HandClock::default());
    let journal = open(&disk, &clock);
    clock.run(KEEP / 2);
    journal.settle(record.id, 0, verdict(Finding::Booked)).await.unwrap();
    clock.run(KEEP.saturating_sub(INSTANT));
    settled_down(&journal).await.unwrap();
    assert!(
        matches!(journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)),
        "kept for so long after its settlement"
    );
    clock.run(INSTANT);
    settled_down(&journal).await.unwrap();
    drop(reserve(&journal, "a").await);
    let unsettled = pay(&journal, "b", booked()).await;
    journal.close().await;
    damage(&disk, unsettled.id);
    let journal = open(&disk, &clock);
    clock.run(10 * KEEP);
    settled_down(&journal).await.unwrap();
    assert!(matches!(journal.reserve(key("b"), sale(1)).await, Reserve::Unreadable(_)));
    assert_eq!(list(&journal, None).await, [(unsettled.id, false)]);
}
