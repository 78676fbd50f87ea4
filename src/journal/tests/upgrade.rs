//! A journal of the first format, as the release before wrote it: it was killed with a payment on its way.

use std::io::Read;

use flate2::read::GzDecoder;
use redb::TableDefinition;

use super::*;
use crate::journal::RecordState;
use crate::journal::tests::disk::Failure;

fn first_format() -> Disk {
    let mut bytes = Vec::new();
    GzDecoder::new(include_bytes!("format-1.redb.gz").as_slice()).read_to_end(&mut bytes).unwrap();
    Disk::holding(bytes)
}

/// The key that the release before gave to callers with the gateway's own key.
fn key_of_till(name: &str) -> Key {
    Key { instance: "demo".into(), caller: "gateway-key".into(), idempotency_key: name.into() }
}

fn of_one(amount: u64) -> Sale {
    Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, amount)] }
}

async fn found(journal: &Journal, filter: Filter) -> Vec<(String, String)> {
    let filter = Filter { instance: "demo".into(), limit: 100, ..filter };
    let found = journal.list(filter).await.unwrap().readable();
    found.into_iter().map(|record| (record.state().to_string(), record.key.idempotency_key)).collect()
}

#[tokio::test]
async fn its_records_keep_their_keys_and_are_listed_by_everything() {
    let journal = open(&first_format(), &Arc::default());
    let all: Vec<_> = [
        ("unknown", "way"),
        ("settled", "settled"),
        ("unknown", "unknown"),
        ("booked", "again"),
        ("released", "again"),
        ("booked", "booked"),
    ]
    .map(|(state, name)| (state.to_owned(), name.to_owned()))
    .into();
    assert_eq!(found(&journal, Filter::default()).await, all);
    let caller = Some("gateway-key".to_owned());
    assert_eq!(found(&journal, Filter { caller: caller.clone(), ..Filter::default() }).await, all);
    let booked = [all[3].clone(), all[5].clone()];
    let state = Some(State::Booked.into());
    assert_eq!(found(&journal, Filter { state, ..Filter::default() }).await, booked);
    assert_eq!(found(&journal, Filter { caller, state, ..Filter::default() }).await, booked);
    let idempotency_key = Some("again".to_owned());
    assert_eq!(found(&journal, Filter { idempotency_key, ..Filter::default() }).await, all[3..5]);
    let counts = journal.counts().await.unwrap();
    let counts = RecordState::ALL.map(|state| counts[&state]);
    assert_eq!(counts, [0, 0, 2, 1, 2, 1, 0]);
    assert!(matches!(journal.reserve(key_of_till("booked"), of_one(2)).await, Reserve::Replay(_)));
    assert!(matches!(journal.reserve(key_of_till("booked"), of_one(1)).await, Reserve::Reused));
    assert!(matches!(journal.reserve(key_of_till("again"), of_one(1)).await, Reserve::Replay(_)));
    assert!(matches!(journal.reserve(key_of_till("unknown"), of_one(1)).await, Reserve::Unknown(_)));
    assert!(matches!(journal.reserve(key_of_till("way"), of_one(1)).await, Reserve::Unknown(_)));
    assert!(matches!(journal.reserve(key_of_till("settled"), of_one(1)).await, Reserve::Fresh(_)));
}

/// At every operation of the disk in turn: the start is refused, or the journal is whole; and so it is after a power cut.
#[tokio::test]
async fn wherever_it_is_cut_off_the_next_start_finds_every_key() {
    for failure in [Failure::Write, Failure::Full, Failure::Sync] {
        for point in 0.. {
            let disk = first_format();
            disk.fail_after(failure, point);
            let opened = open_on(disk.clone(), Arc::new(HandClock::default()));
            let has_failed = disk.has_failed();
            drop(opened);
            let after = open(&disk.after_crash(u64::from(point)), &Arc::default());
            assert_eq!(found(&after, Filter::default()).await.len(), 6, "{failure:?} at {point}");
            for (name, amount) in [("booked", 2), ("again", 1)] {
                let reserved = after.reserve(key_of_till(name), of_one(amount)).await;
                assert!(matches!(reserved, Reserve::Replay(_)), "{failure:?} at {point}: {name}: {reserved:?}");
            }
            if !has_failed {
                assert!(point > 3);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_its_key_there_too() {
    let disk = first_format();
    let ids = {
        let database = Builder::new().create_with_backend(disk.clone()).unwrap();
        let keys: TableDefinition<'_, (&str, &str, &str), u128> = TableDefinition::new("keys");
        let keys = database.begin_read().unwrap().open_table(keys).unwrap();
        ["booked", "unknown"].map(|name| {
            let id = keys.get(("demo", "gateway-key", name)).unwrap().expect(name).value();
            RecordId::from(id)
        })
    };
    overwrite(&disk, ids[0], Some(b"damaged"));
    overwrite(&disk, ids[1], None);
    let journal = open(&disk, &Arc::default());
    for (name, id, amount) in [("booked", ids[0], 2), ("unknown", ids[1], 1)] {
        let reserved = journal.reserve(key_of_till(name), of_one(amount)).await;
        assert!(matches!(reserved, Reserve::Unreadable(found) if found == id), "{name}: {reserved:?}");
    }
    assert_eq!(journal.counts().await.unwrap()[&RecordState::Unreadable], 2);
    let unreadable = Filter { state: Some(RecordState::Unreadable), ..Filter::default() };
    assert_eq!(found(&journal, unreadable).await, [], "none of them can be read");
    journal.settle(ids[0], 0, verdict(Finding::Booked)).await.unwrap();
    let reserved = journal.reserve(key_of_till("booked"), of_one(2)).await;
    assert!(matches!(reserved, Reserve::Replay(_)), "nothing says which sale it was: {reserved:?}");
}

/// A release before counted no instances by themselves, and its payments since are in the counts of all alone.
#[tokio::test]
async fn counts_by_instance_that_do_not_add_up_are_made_anew_at_the_start() {
    const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("journal"), Config::LEAST_KEEP).unwrap();
    let journal = Journal::open(&config).unwrap();
    for key in ["a", "b"] {
        pay(&journal, key, booked()).await;
    }
    pay(&journal, "c", refused()).await;
    let counted = journal.counts_by_instance().await.unwrap();
    assert_eq!(counted[&("demo".to_owned(), State::Booked.into())], 2);
    journal.close().await;
    drop(journal);
    for forgotten in ["booked demo", "released demo"] {
        let database = redb::Database::open(config.directory().join("payments.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        assert!(transaction.open_table(COUNTS).unwrap().remove(forgotten).unwrap().is_some());
        transaction.commit().unwrap();
        drop(database);
        let journal = Journal::open(&config).unwrap();
        assert_eq!(journal.counts_by_instance().await.unwrap(), counted, "without {forgotten}");
        journal.close().await;
    }
}
