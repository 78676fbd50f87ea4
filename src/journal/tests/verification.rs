//! Damage is found wherever it lies, by a walk of the pages that agrees with redb's own judgement, and on a journal that
//! runs it ends new payments and nothing else. `JOURNAL_FLIPPED_BITS` says how many bits are flipped.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::journal::embedded::pages::{Header, Progress, Verifier};
use crate::journal::embedded::verification::verify_on;
use crate::journal::embedded::write_queue::{Job, Pin};
use crate::journal::embedded::{opening, tables};

/// The first page is the header's.
const HEADER: usize = 4096;

fn walk(disk: &Disk) -> Verifier {
    let mut verifier = Verifier::default();
    let header = Header::read(disk).unwrap().unwrap();
    verifier.verify_beside_data(disk, &header, |_| false).unwrap();
    assert_eq!(verifier.verify_data(disk, &header, tables::keys(), u64::MAX).unwrap(), Progress::Done);
    verifier
}

#[tokio::test]
async fn a_sound_journal_is_read_whole_and_found_sound() {
    let disk = filled(500).await;
    let found = verify_on(&disk).unwrap();
    assert_eq!((found.records, found.faults), (500, Vec::new()));
    assert!(found.bytes > disk.len() as u64 / 4, "{} of {} bytes", found.bytes, disk.len());
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_found_where_redb_finds_it_and_nowhere_else() {
    let sound = filled(2500).await.bytes();
    assert!(sound.len() > 2 << 20);
    let mut random = fastrand::Rng::with_seed(7);
    let (flips, mut damaged) = (rounds("JOURNAL_FLIPPED_BITS", 16), 0);
    for _ in 0..flips {
        let (at, bit) = (random.usize(HEADER..sound.len()), random.u8(0..8));
        let disk = Disk::holding(sound.clone());
        disk.flip(at, 1 << bit);
        let found = !walk(&disk).damages.is_empty();
        let judged = opening::rehearse(&disk, true, |_| Ok(()));
        assert!(matches!(judged, Ok(()) | Err(OpenError::Damaged { .. })), "{judged:?}");
        assert_eq!(found, judged.is_err(), "bit {bit} of byte {at}: {judged:?}");
        damaged += usize::from(found);
    }
    assert!(damaged > flips / 16, "much of the file is in use");
    println!("{damaged} of {flips} flipped bits were in pages in use, and each was found");
}

#[tokio::test]
async fn a_flipped_bit_in_a_record_or_a_key_is_told_with_its_table() {
    let sound = filled(300).await.bytes();
    for (text, table) in [(&br#""idempotency_key":"117""#[..], "records"), (b"demo117shop", "records by key")] {
        let places: Vec<_> = sound.windows(text.len()).enumerate().filter(|(_, at)| *at == text).collect();
        let disk = Disk::holding(sound.clone());
        for (at, _) in places {
            disk.flip(at + text.len() - 3, 4);
        }
        let faults = verify_on(&disk).unwrap().faults;
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.starts_with(table)), "{table}: {faults:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_to_be_read_at_the_start_is_refused_where_its_tables_cannot_be_found() {
    let disk = filled(50).await;
    disk.unchecked();
    drop(opening::open(&disk).unwrap());
    let bytes = disk.bytes();
    let text = b"concertpos-bridge/journal";
    let places = bytes.windows(text.len()).enumerate().filter(|(_, at)| at == text).map(|(at, _)| at);
    places.for_each(|at| disk.flip(at, 1));
    let refusal = opening::open(&disk).expect_err("the list of tables is damaged");
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal:?}");
}

#[tokio::test]
async fn damage_found_while_it_runs_ends_new_payments_and_nothing_else() {
    let disk = filled(1000).await;
    disk.unchecked();
    let (store, journal) = open_embedded(&disk);
    let under_way = dispatch(&journal, "under way").await;
    let bytes = disk.bytes();
    let text = br#""idempotency_key":"117""#;
    let places = bytes.windows(text.len()).enumerate().filter(|(_, at)| at == text).map(|(at, _)| at);
    places.for_each(|at| disk.flip(at, 1));
    store.verify_in_background(PathBuf::from("a simulated disk")).unwrap();
    until("the damage is found", || !journal.is_available()).await;
    assert!(matches!(journal.reserve(key("new"), sale(1)).await, Reserve::Unavailable(JournalError::Unavailable)));
    assert!(matches!(journal.reserve(key("900"), sale(1)).await, Reserve::Replay(_)));
    journal.finish(under_way, booked()).await.unwrap();
    assert!(matches!(journal.reserve(key("under way"), sale(1)).await, Reserve::Replay(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_under_way_never_look_like_damage() {
    let disk = filled(100).await;
    let (store, journal) = open_embedded(&disk);
    let (queue, ended) = (store.queue(), Arc::new(AtomicBool::new(false)));
    let paying = Arc::clone(&ended);
    let walks = task::spawn_blocking(move || {
        let (mut walks, mut verifier) = (0, Verifier::default());
        while walks < 2 || !ended.load(Ordering::SeqCst) {
            let (reply, pin) = tokio::sync::oneshot::channel();
            queue.hand_in(Job::Pin(reply)).unwrap();
            let Pin { header, backend, _held } = pin.blocking_recv().unwrap();
            let progress = verifier.verify_data(&*backend, &header, tables::keys(), 32 << 10).unwrap();
            assert!(verifier.damages.is_empty(), "{:?}", verifier.damages);
            if progress == Progress::Done {
                walks += 1;
                verifier = Verifier::default();
            }
        }
        walks
    });
    for number in 0..40 {
        pay(&journal, &format!("new {number}"), booked()).await;
    }
    paying.store(true, Ordering::SeqCst);
    assert!(walks.await.unwrap() >= 2);
}
