//! Opening the journal: on real files, and on what was never a sound journal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::journal::place::{self, Medium};
use crate::journal::store;
use crate::journal::{InvalidConfig, OpenError};

const FILE: &str = "payments.redb";

fn config(directory: &Path) -> Config {
    Config::new(directory, KEEP).unwrap()
}

fn refusal(directory: &Path) -> OpenError {
    Journal::open(&config(directory)).expect_err("it should be refused")
}

/// A closed journal with some payments in it.
async fn closed_journal() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&config(directory.path())).unwrap();
    for number in 0..50 {
        pay(&journal, &number.to_string(), booked()).await;
    }
    journal.close().await;
    directory
}

#[tokio::test]
async fn a_journal_is_made_where_there_is_none_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory.path().join("data/journal"));
    let journal = Journal::open(&config).unwrap();
    let record = pay(&journal, "a", booked()).await;
    let lost = dispatch(&journal, "b").await.id();
    journal.close().await;
    let journal = Journal::open(&config).unwrap();
    assert_eq!(journal.get(record.id).await, Ok(Some(record)));
    assert_eq!(state(&journal, lost).await, Some(State::Unknown));
}

#[tokio::test]
async fn the_directory_and_its_files_are_their_owner_s_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("journal");
    let _journal = Journal::open(&config(&directory)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_with_the_path_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let first = Journal::open(&config(directory.path())).unwrap();
    let refusal = refusal(directory.path());
    assert!(matches!(refusal, OpenError::InUse { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains(directory.path().to_str().unwrap()), "{refusal}");
    first.close().await;
    Journal::open(&config(directory.path())).unwrap();
}

#[test]
fn nobody_makes_a_journal_where_another_is_just_making_one() {
    let directory = tempfile::tempdir().unwrap();
    let other = fs::File::create(directory.path().join("lock")).unwrap();
    other.try_lock().unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::InUse { .. }));
    assert!(!directory.path().join(FILE).exists());
}

#[tokio::test]
async fn redb_s_own_lock_refuses_who_goes_past_the_directory_s() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Journal::open(&config(directory.path())).unwrap();
    fs::remove_file(directory.path().join("lock")).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::InUse { .. }));
}

#[test]
fn a_file_that_is_no_journal_is_refused_and_left_untouched() {
    let other = tempfile::NamedTempFile::new().unwrap();
    let database = Database::create(other.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let files = [b"a diary".to_vec(), Vec::new(), vec![0; 100_000], fs::read(other.path()).unwrap()];
    for bytes in files {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, &bytes).unwrap();
        let refusal = refusal(directory.path());
        assert!(matches!(refusal, OpenError::Foreign { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains(file.to_str().unwrap()), "{refusal}");
        assert!(fs::read(&file).unwrap() == bytes, "it was changed");
    }
}

#[tokio::test]
async fn a_journal_of_another_format_is_refused_and_left_untouched() {
    let directory = closed_journal().await;
    let file = directory.path().join(FILE);
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(store::META).unwrap().insert("format", store::FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let bytes = fs::read(&file).unwrap();
    assert!(matches!(refusal(directory.path()), OpenError::Format { found, .. } if found == store::FORMAT + 1));
    assert!(fs::read(&file).unwrap() == bytes, "it was changed");
}

#[tokio::test]
async fn a_damaged_journal_is_refused_and_left_untouched() {
    let directory = closed_journal().await;
    let file = directory.path().join(FILE);
    let sound = fs::read(&file).unwrap();
    let records: Vec<_> = sound.windows(8).enumerate().filter(|(_, at)| at == b"payment_").map(|(at, _)| at).collect();
    let flipped = {
        let mut bytes = sound.clone();
        for at in records {
            bytes[at] ^= 1;
        }
        bytes
    };
    let truncated = sound[..sound.len() / 2].to_vec();
    for bytes in [flipped, truncated] {
        fs::write(&file, &bytes).unwrap();
        let refusal = refusal(directory.path());
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal:?}");
        assert!(fs::read(&file).unwrap() == bytes, "it was changed");
    }
    fs::write(&file, &sound).unwrap();
    Journal::open(&config(directory.path())).unwrap();
}

#[tokio::test]
async fn a_journal_whose_making_was_cut_off_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("payments.redb.new"), vec![0; 5000]).unwrap();
    let journal = Journal::open(&config(directory.path())).unwrap();
    pay(&journal, "a", booked()).await;
}

#[test]
fn a_directory_that_cannot_be_made_is_said_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refusal = refusal(&file.path().join("journal"));
    assert!(matches!(refusal, OpenError::Io { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("journal"), "{refusal}");
}

#[test]
fn a_configuration_that_forgets_too_soon_or_names_no_place_cannot_be_made() {
    assert_eq!(Config::new("", KEEP), Err(InvalidConfig::NoDirectory));
    assert_eq!(Config::new("x", KEEP.saturating_sub(INSTANT)), Err(InvalidConfig::KeepTooShort));
}

#[tokio::test]
async fn the_space_of_expired_records_is_given_back_at_start_and_nothing_else() {
    let disk = Disk::default();
    let clock = Arc::new(HandClock::default());
    let journal = open(&disk, &clock);
    let lost = pay(&journal, "lost", Outcome::Unknown(None)).await;
    let names: Vec<_> = (0..1000).map(|number| format!("{number:0200}")).collect();
    futures_util::future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    clock.run(KEEP);
    while journal.counts().await.unwrap()[&State::Booked] > 0 {
        settled_down(&journal).await.unwrap();
    }
    journal.close().await;
    let before = disk.len();
    drop(place::open_compact(&disk, u64::MAX).unwrap());
    assert_eq!(disk.backend().unwrap().len(), before, "a small file is left alone");
    drop(place::open_compact(&disk, 1).unwrap());
    assert!(disk.len() < before / 2, "{} of {before} bytes", disk.len());
    let journal = open(&disk, &clock);
    assert_eq!(journal.get(lost.id).await, Ok(Some(lost)));
    assert_eq!(disk.bytes().len(), disk.len());
}
