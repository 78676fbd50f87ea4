//! Opening the journal: on real files, and on what was never a sound journal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::disk::Failure;
use super::*;
use crate::journal::Create;
use crate::journal::attempts::{Change, Changes};
use crate::journal::config::InvalidConfig;
use crate::journal::embedded::directory::Directory;
use crate::journal::embedded::opening;
use crate::journal::embedded::tables;
use crate::journal::inspect;
use crate::journal::news::Contradictions;
use crate::journal::state_machine::Event;

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
async fn a_journal_of_a_later_format_is_refused_in_words_that_lose_nothing_and_left_untouched() {
    let directory = closed_journal().await;
    let file = directory.path().join(FILE);
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::META).unwrap().insert("format", tables::FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let bytes = fs::read(&file).unwrap();
    let refusal = refusal(directory.path());
    assert!(matches!(refusal, OpenError::Format { found, .. } if found == tables::FORMAT + 1));
    let words = refusal.to_string();
    for part in [file.to_str().unwrap(), "format 3", "up to format 2", "a later one", "Leave the file where it is"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    assert!(!words.contains("move it away"), "{words}");
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
    for lock in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("payments.redb.new"), vec![0; 5000]).unwrap();
        if lock {
            fs::write(directory.path().join("lock"), "").unwrap();
        }
        let journal = Journal::open(&config(directory.path())).unwrap();
        pay(&journal, "a", booked()).await;
        assert!(!directory.path().join("payments.redb.new").exists());
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What `validate` and a start refuse alike, making nothing.
fn refused_alike(config: &Config) -> OpenError {
    let before = names(config.directory());
    let inspected = inspect(config).expect_err("validate should refuse it");
    let refusal = Journal::open(config).expect_err("a start should refuse it");
    assert_eq!(inspected.to_string(), refusal.to_string());
    assert_eq!(names(config.directory()), before, "something was made or removed");
    refusal
}

#[test]
fn what_looks_like_a_journal_that_lost_its_file_is_refused_and_nothing_is_made() {
    let companions =
        [&["lock"][..], &["spent.jsonl"], &["lock", "spent.jsonl"], &["lock", "payments.redb.new", "spent.jsonl"]];
    for companions in companions {
        let directory = tempfile::tempdir().unwrap();
        for name in companions {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let refusal = refused_alike(&config(directory.path()));
        assert!(matches!(refusal, OpenError::Missing { .. }), "{companions:?}: {refusal:?}");
        for name in companions {
            assert!(refusal.to_string().contains(name), "{refusal}");
        }
    }
}

#[tokio::test]
async fn a_journal_that_lost_its_file_opens_again_once_it_is_put_back() {
    let directory = closed_journal().await;
    let (file, aside) = (directory.path().join(FILE), directory.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    assert!(matches!(refused_alike(&config(directory.path())), OpenError::Missing { .. }));
    fs::rename(&aside, &file).unwrap();
    inspect(&config(directory.path())).unwrap();
    Journal::open(&config(directory.path())).unwrap();
}

#[test]
fn a_link_without_a_target_is_refused_with_both_names_and_nothing_is_made_in_its_place() {
    let (place, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = disk.path().join("mounted/journal");
    let link = |name: &str| {
        let link = place.path().join(name);
        std::os::unix::fs::symlink(&target, &link).unwrap();
        link
    };
    let folder = place.path().join("with-linked-file");
    fs::create_dir(&folder).unwrap();
    link("with-linked-file/payments.redb");
    for directory in [link("folder"), link("parent").join("journal"), folder] {
        let refusal = refused_alike(&config(&directory));
        assert!(matches!(refusal, OpenError::DanglingLink { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains(target.to_str().unwrap()), "{refusal}");
    }
    assert!(names(disk.path()).is_empty());
    fs::create_dir_all(&target).unwrap();
    Journal::open(&config(&place.path().join("folder"))).unwrap();
    assert_eq!(names(&target), ["lock", FILE]);
}

#[tokio::test]
async fn never_makes_no_journal_and_opens_one_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    for absent in [directory.path().to_owned(), directory.path().join("journal")] {
        let refusal = refused_alike(&config(&absent).with_create(Create::Never));
        assert!(matches!(refusal, OpenError::Absent { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("payments.create"), "{refusal}");
    }
    assert!(names(directory.path()).is_empty());
    let there = closed_journal().await;
    let config = config(there.path()).with_create(Create::Never);
    inspect(&config).unwrap();
    Journal::open(&config).unwrap();
}

#[test]
fn the_empty_root_of_a_new_disk_gets_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    Journal::open(&config(directory.path())).unwrap();
}

#[tokio::test]
async fn whatever_the_disk_refuses_at_a_start_is_never_called_damage() {
    let bytes = filled(3).await.bytes();
    for (failure, step) in [(Failure::Read, 3), (Failure::Write, 1), (Failure::Full, 1), (Failure::Sync, 1)] {
        for point in (0..).step_by(step) {
            let disk = Disk::holding(bytes.clone());
            disk.without_cache();
            disk.fail_after(failure, point);
            let opened = open_on(disk.clone(), Arc::new(HandClock::default()));
            if !disk.has_failed() {
                opened.unwrap();
                break;
            }
            if let Err(refusal) = opened {
                assert!(matches!(refusal, OpenError::Io { .. }), "{failure:?} at {point}: {refusal:?}");
                // The thread of a journal that opened goes on with the disk, so only this one is looked at again.
                disk.heal();
                let journal = open(&disk, &Arc::default());
                assert_eq!(journal.counts().await.unwrap()[&State::Booked.into()], 3, "{failure:?} at {point}");
            }
        }
    }
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

/// A journal of one unknown payment, and the room that a thousand expired ones left.
async fn mostly_free() -> (Disk, Arc<HandClock>, Record) {
    let disk = Disk::default();
    let clock = Arc::new(HandClock::default());
    let journal = open(&disk, &clock);
    let lost = pay(&journal, "lost", Outcome::Unknown(None)).await;
    let names: Vec<_> = (0..1000).map(|number| format!("{number:0200}")).collect();
    for names in names.chunks(100) {
        futures_util::future::join_all(names.iter().map(|name| pay(&journal, name, booked()))).await;
    }
    clock.run(KEEP);
    while journal.counts().await.unwrap()[&State::Booked.into()] > 0 {
        settled_down(&journal).await.unwrap();
    }
    journal.close().await;
    (disk, clock, lost)
}

#[tokio::test]
async fn the_space_of_expired_records_is_given_back_at_start_and_nothing_else() {
    let (disk, clock, lost) = mostly_free().await;
    let before = disk.len();
    drop(opening::open_compact(&disk, u64::MAX).unwrap());
    assert_eq!(disk.backend().unwrap().len(), before, "a small file is left alone");
    drop(opening::open_compact(&disk, 1).unwrap());
    assert!(disk.len() < before / 2, "{} of {before} bytes", disk.len());
    let journal = open(&disk, &clock);
    let mut found = journal.get(lost.id).await.unwrap().unwrap();
    assert!(found.times.listened_until_ms.take().is_some(), "after a restart nobody listens for its reply");
    assert_eq!(found, lost);
    assert_eq!(disk.bytes().len(), disk.len());
}

#[tokio::test]
async fn a_disk_that_does_not_let_the_space_be_given_back_keeps_no_journal_from_starting() {
    let (sound, clock, lost) = mostly_free().await;
    let bytes = sound.bytes();
    for failure in [Failure::Full, Failure::Write, Failure::Sync] {
        for point in (0..).step_by(5) {
            let disk = Disk::holding(bytes.clone());
            disk.fail_after(failure, point);
            let opened = opening::open_compact(&disk, 1).map(drop);
            if !disk.has_failed() {
                assert!(point > 0 && disk.len() < bytes.len() / 2);
                break;
            }
            // A disk that stays full may refuse the start as well, for what it is.
            assert!(matches!(opened, Ok(()) | Err(OpenError::Io { .. })), "{failure:?} at {point}: {opened:?}");
            disk.heal();
            let journal = open(&disk, &clock);
            assert_eq!(state(&journal, lost.id).await, Some(State::Unknown), "{failure:?} at {point}");
        }
    }
}

#[tokio::test]
async fn a_failed_compaction_on_a_disk_that_recovers_is_gone_on_without() {
    let (disk, _, _) = mostly_free().await;
    // Beyond what opening writes: the room that compaction wants.
    let quiet = Disk::holding(disk.bytes());
    let opened = opening::open(&quiet).unwrap();
    disk.fail_once_after(Failure::Full, quiet.changes() + 3);
    drop(opened);
    drop(opening::open_compact(&disk, 1).unwrap());
    assert!(disk.has_failed());
}

#[tokio::test]
async fn a_start_does_not_read_a_large_journal_to_find_out_whether_most_of_it_is_free() {
    let disk = filled(4000).await;
    disk.unchecked();
    disk.without_cache();
    // In a build with its assertions redb itself reads all that it opens.
    disk.take_bytes_read();
    drop(opening::open(&disk).unwrap());
    let opened = disk.take_bytes_read();
    drop(opening::open_compact(&disk, 1).unwrap());
    let beyond = disk.take_bytes_read() - opened;
    assert!(beyond < disk.len() as u64 / 8, "{beyond} bytes of {}", disk.len());
}

/// A closed journal of so many booked payments, on a real disk.
fn written(payments: usize) -> TempDir {
    let directory = tempfile::tempdir_in(".").unwrap();
    drop(Journal::open(&config(directory.path())).unwrap());
    let path = directory.path().join(FILE);
    let database = loop {
        // The journal closes its file in a thread of its own.
        match Database::open(&path) {
            Ok(database) => break database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let mut left = payments;
    while left > 0 {
        let now = left.min(20_000);
        let filling = tables::commit(&database, &Contradictions::default(), |batch| {
            for number in left - now..left {
                let mut record = Record::reserved(RecordId::fresh(), key(&number.to_string()), sale(1), 0);
                for event in [Event::Dispatch, Event::Outcome(booked())] {
                    record.apply(&event, 0).unwrap();
                }
                let current = Some(record.id);
                let records = vec![Change { before: None, record, replaces_unreadable: false }];
                batch.write(&Changes { records, current, news: Vec::new() }, 0)?;
            }
            Ok(())
        });
        filling.unwrap();
        left -= now;
    }
    directory
}

/// `cargo test --release --lib -- --ignored --nocapture a_start_of_a_million`
#[test]
#[ignore = "writes a gigabyte; a measurement, told to whoever runs it"]
fn a_start_of_a_million_payments_takes_at_most_twice_that_of_a_thousand() {
    let median = |payments: usize| {
        let directory = written(payments);
        let mut took: Vec<_> = (0..9)
            .map(|_| {
                let begun = std::time::Instant::now();
                let place = Directory::claim(directory.path(), Create::Never).unwrap();
                let journal = open_on(place, Arc::new(SystemClock::default())).unwrap();
                let took = begun.elapsed();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(journal.close());
                took
            })
            .collect();
        took.sort();
        let file = fs::metadata(directory.path().join(FILE)).unwrap().len();
        println!("{payments} payments, {file} bytes: a start takes {:?} ({:?} to {:?})", took[4], took[0], took[8]);
        let begun = std::time::Instant::now();
        let found = crate::journal::verify(directory.path()).unwrap();
        println!(
            "verified: {} records, {} bytes, {:?}, {:?}",
            found.records,
            found.bytes,
            found.faults,
            begun.elapsed()
        );
        took[4]
    };
    let payments = rounds("JOURNAL_PAYMENTS", 1_000_000);
    let (small, large) = (median(1000), median(payments));
    assert!(large <= small * 2, "{large:?} to {small:?}");
}
