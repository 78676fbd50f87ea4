//! Carrying an embedded journal over into a database: afterwards every key is answered as before.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::database::tests::server::Then;
use crate::journal::embedded::tables::RECORDS;
use crate::journal::{ImportError, Imported, Listed, RecordState, import};

const FILE: &str = "payments.redb";

fn embedded(directory: &Path) -> Result<Journal, OpenError> {
    Journal::open(&Config::new(directory, KEEP).unwrap())
}

async fn carry(directory: &TempDir, place: &Database) -> Result<Imported, ImportError> {
    import(&place.config(), directory.path().to_owned()).await
}

/// The names of the journal's file: one.
fn file_in(directory: &TempDir) -> String {
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(FILE)).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.remove(0)
}

/// What a request with this key gets, as far as stores may be compared by it.
async fn answer(journal: &Journal, name: &str, amount: u64) -> String {
    match journal.reserve(key(name), sale(amount)).await {
        Reserve::Fresh(_) => "fresh".into(),
        Reserve::Replay(record) => format!("replay {} {:?}", record.id, record.reply()),
        Reserve::Unknown(record) => format!("unknown {}", record.id),
        Reserve::Unreadable(id) => format!("unreadable {id}"),
        other => format!("{other:?}"),
    }
}

/// All records, newest first, without the ages at their ends, which the two journals count each for itself.
async fn all(journal: &Journal) -> Vec<Listed> {
    let filter = Filter { instance: "demo".into(), limit: 1000, ..Filter::default() };
    let mut records = journal.list(filter).await.unwrap().records;
    for listed in &mut records {
        match listed {
            Listed::Record(record) => record.ended_age_ms = None,
            Listed::Unreadable(unreadable) => (unreadable.was, unreadable.is_marked) = (None, true),
        }
    }
    records
}

fn as_text(records: &[Listed]) -> Vec<String> {
    records.iter().map(|listed| format!("{listed:?}")).collect()
}

/// A closed journal of payments that became everything that a payment can become, each under a key of its own or, after a
/// refusal, another's.
async fn history(seed: u64) -> (TempDir, Vec<String>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    let names: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    let mut ids = Vec::new();
    for _ in 0..120 {
        let name = &names[random.usize(..names.len())];
        match random.u8(..4) {
            0 if !ids.is_empty() => {
                let id: RecordId = ids[random.usize(..ids.len())];
                let record = journal.get(id).await.unwrap().unwrap();
                let _ = match random.u8(..5) {
                    0 => journal.late(id, booked()).await.map(drop),
                    1 => journal.late(id, refused()).await.map(drop),
                    2 => journal.not_heard_any_more(id).await,
                    3 => journal.settle(id, record.revision, verdict(Finding::NotBooked)).await.map(drop),
                    _ => journal.settle(id, record.revision, verdict(Finding::Booked)).await.map(drop),
                };
            }
            _ => {
                let Reserve::Fresh(reservation) = journal.reserve(key(name), sale(1)).await else { continue };
                let dispatched = journal.dispatch(reservation).await.unwrap();
                ids.push(dispatched.id());
                let outcome = match random.u8(..4) {
                    0 => booked(),
                    1 => refused(),
                    2 => Outcome::Unknown(None),
                    // On its way when the journal is closed.
                    _ => {
                        std::mem::forget(dispatched);
                        continue;
                    }
                };
                journal.finish(dispatched, outcome).await.unwrap();
            }
        }
    }
    journal.close().await;
    (directory, names)
}

fn change(file: &Path, change: impl FnOnce(&mut redb::Table<'_, u128, &'static [u8]>)) {
    let database = Builder::new().open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(RECORDS).unwrap());
    transaction.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_is_answered_as_before_and_nothing_of_a_record_is_lost() {
    for seed in 0..u64::try_from(rounds("IMPORT_ROUNDS", 3)).unwrap() {
        let (directory, names) = history(seed).await;
        // As a start without a database has it, which takes what was on its way for unknown.
        let journal = embedded(directory.path()).unwrap();
        let before = as_text(&all(&journal).await);
        let mut answers = Vec::new();
        for name in &names {
            answers.push((answer(&journal, name, 1).await, answer(&journal, name, 2).await));
        }
        journal.close().await;
        drop(journal);
        let place = Database::default();
        let imported = carry(&directory, &place).await.unwrap();
        assert_eq!(imported.carried.values().sum::<u64>(), before.len() as u64, "seed {seed}");
        assert!(!imported.was_done && imported.present == 0);
        assert_eq!(imported.path, directory.path().join(file_in(&directory)));
        let journal = open(&place, &Arc::default());
        assert_eq!(as_text(&all(&journal).await), before, "seed {seed}");
        for (name, (same, other)) in names.iter().zip(answers) {
            assert_eq!(answer(&journal, name, 1).await, same, "seed {seed}, key {name}");
            assert_eq!(answer(&journal, name, 2).await, other, "seed {seed}, key {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_was_carried_over_is_served_from_no_more_and_carrying_it_again_changes_nothing() {
    let (directory, _) = history(1).await;
    let place = Database::default();
    carry(&directory, &place).await.unwrap();
    let name = file_in(&directory);
    assert!(name.starts_with("payments.redb.imported-"), "{name}");
    let refusal = embedded(directory.path()).unwrap_err();
    assert!(matches!(refusal, OpenError::Imported { .. }), "{refusal}");
    let journal = open(&place, &Arc::default());
    let settled = pay(&journal, "since", booked()).await;
    let before = as_text(&all(&journal).await);
    let again = carry(&directory, &place).await.unwrap();
    assert!(again.was_done && again.carried.is_empty(), "{again:?}");
    assert_eq!((as_text(&all(&journal).await), file_in(&directory)), (before, name));
    assert_eq!(state(&journal, settled.id).await, Some(State::Booked));
}

/// Of records that cannot be read, or are gone, the key stays taken, and the bytes are kept as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_keeps_its_key_and_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    let outcomes = [("later", booked()), ("zeros", booked()), ("gone", Outcome::Unknown(None)), ("freed", refused())];
    let mut ids = Vec::new();
    for (name, outcome) in outcomes {
        ids.push(pay(&journal, name, outcome).await.id);
    }
    let used_again = pay(&journal, "freed", booked()).await;
    journal.close().await;
    drop(journal);
    change(&directory.path().join(FILE), |records| {
        records.insert(ids[0].as_u128(), br#"{"of":"a later release"}"#.as_slice()).unwrap();
        records.insert(ids[1].as_u128(), b"\0\xff".as_slice()).unwrap();
        records.remove(ids[2].as_u128()).unwrap();
        records.insert(ids[3].as_u128(), b"damaged".as_slice()).unwrap();
        // No index names it.
        records.insert(7, b"nobody's".as_slice()).unwrap();
    });
    let place = Database::default();
    let imported = carry(&directory, &place).await.unwrap();
    assert_eq!((imported.carried[&RecordState::Unreadable], imported.bytes_only), (4, 1), "{imported:?}");
    let journal = open(&place, &Arc::default());
    for (name, id) in ["later", "zeros", "gone"].into_iter().zip(&ids) {
        assert_eq!(answer(&journal, name, 1).await, format!("unreadable {id}"), "{name}");
    }
    assert!(answer(&journal, "freed", 1).await.starts_with(&format!("replay {}", used_again.id)));
    let stored = |id: RecordId| place.sql(&format!("SELECT record FROM payment WHERE id = '{id}'"));
    assert_eq!((stored(ids[0]).as_str(), stored(ids[1]).as_str()), (r#"{"of":"a later release"}"#, r"\x00ff"));
    assert_eq!(place.sql("SELECT record FROM payment_replaced"), "nobody's");
    let Some(Listed::Unreadable(listed)) = journal.find("demo", ids[0]).await.unwrap() else { panic!("readable") };
    let settled = journal.settle(listed.id, crate::journal::Unreadable::REVISION, verdict(Finding::NotBooked)).await;
    assert_eq!(settled.unwrap().state(), State::Settled);
    assert_eq!(answer(&journal, "later", 1).await, "fresh");
}

/// Two payments under one key, or one with two outcomes: nobody but a person knows which is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contradiction_is_told_by_its_key_and_nothing_is_carried_over() {
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    let ours = pay(&journal, "both", booked()).await;
    let free = pay(&journal, "free", refused()).await;
    journal.close().await;
    drop(journal);
    let place = Database::default();
    let journal = open(&place, &Arc::default());
    let theirs = pay(&journal, "both", Outcome::Unknown(None)).await;
    pay(&journal, "free", booked()).await;
    let refused = carry(&directory, &place).await.unwrap_err();
    let ImportError::Contradictions { count, told } = refused else { panic!("{refused}") };
    assert_eq!((count, told.len()), (1, 1), "{told:?}");
    assert_eq!(told[0].key, key("both"));
    assert_eq!((told[0].ours.0, told[0].theirs.0), (ours.id, theirs.id));
    assert_eq!((state(&journal, free.id).await, file_in(&directory).as_str()), (None, FILE));
    embedded(directory.path()).unwrap().close().await;
    // Once a person has settled it in the database, the rest goes over.
    journal.settle(theirs.id, theirs.revision, verdict(Finding::NotBooked)).await.unwrap();
    carry(&directory, &place).await.unwrap();
    assert!(answer(&journal, "both", 1).await.starts_with(&format!("replay {}", ours.id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_journal_adds_nothing_and_takes_back_no_decision() {
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    let unknown = pay(&journal, "a", Outcome::Unknown(None)).await;
    pay(&journal, "b", booked()).await;
    journal.close().await;
    drop(journal);
    let copy = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join(FILE), copy.path().join(FILE)).unwrap();
    let place = Database::default();
    carry(&directory, &place).await.unwrap();
    let journal = open(&place, &Arc::default());
    let record = journal.get(unknown.id).await.unwrap().unwrap();
    journal.settle(record.id, record.revision, verdict(Finding::Booked)).await.unwrap();
    let again = carry(&copy, &place).await.unwrap();
    assert_eq!((again.present, again.carried.len()), (2, 0), "{again:?}");
    assert_eq!(state(&journal, unknown.id).await, Some(State::Settled));
}

/// The commit is the only moment at which both may have the payments, and then neither is served from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_commit_of_unknown_outcome_nobody_serves_from_the_journal_until_the_same_command_found_out() {
    for is_done in [true, false] {
        let (directory, _) = history(2).await;
        let place = Database::default();
        let needle = "INSERT INTO journal_import";
        if is_done {
            place.proxy().swallow(needle, Then::Cut);
        } else {
            place.proxy().lose(needle, Then::Cut);
        }
        let unknown = carry(&directory, &place).await.unwrap_err();
        assert!(matches!(unknown, ImportError::Ambiguous { .. }), "{is_done}: {unknown}");
        assert_eq!(place.proxy().struck(), 1);
        assert!(file_in(&directory).starts_with("payments.redb.importing-"));
        let refusal = embedded(directory.path()).unwrap_err();
        assert!(matches!(refusal, OpenError::ImportUnfinished { .. }), "{refusal}");
        let again = carry(&directory, &place).await.unwrap();
        assert_eq!(again.was_done, is_done);
        assert!(file_in(&directory).starts_with("payments.redb.imported-"));
        let journal = open(&place, &Arc::default());
        assert!(!all(&journal).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_another_process_has_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    pay(&journal, "a", booked()).await;
    let place = Database::default();
    let refused = carry(&directory, &place).await.unwrap_err();
    assert!(matches!(refused, ImportError::Journal(OpenError::InUse { .. })), "{refused}");
    pay(&journal, "b", booked()).await;
    assert_eq!(place.sql("SELECT count(*) FROM payment"), "0");
    let nowhere = import(&place.config(), PathBuf::from("/nowhere/at/all")).await.unwrap_err();
    assert!(matches!(nowhere, ImportError::NoJournal { .. }), "{nowhere}");
}

/// A key is kept for as long as it would have been, and never for less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_carried_over_is_new_again_once_it_was_kept_for_long_enough() {
    let directory = tempfile::tempdir().unwrap();
    let journal = embedded(directory.path()).unwrap();
    pay(&journal, "a", booked()).await;
    journal.close().await;
    drop(journal);
    let place = Database::default();
    carry(&directory, &place).await.unwrap();
    let clock = Arc::new(HandClock::default());
    let journal = open(&place, &clock);
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    assert!(answer(&journal, "a", 1).await.starts_with("replay"));
    clock.run(KEEP);
    settled_down(&journal).await.unwrap();
    assert_eq!(answer(&journal, "a", 1).await, "fresh");
}
