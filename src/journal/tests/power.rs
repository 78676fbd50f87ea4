//! Power cuts: everything that a journal asks of its disk is recorded, and the journal is opened on what any moment could
//! have left, whole sectors of what was not synced at random. `JOURNAL_POWER_CUTS` says how many of them.

use super::disk::Recording;
use super::*;

/// What somebody was told, by the time that so much was recorded.
struct Told {
    by: usize,
    name: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// It was sent.
    Sent,
    Booked,
    Released,
    Settled,
}

/// Payments of every fate, some at once, over two lives of a journal; and what was told of them.
async fn lives() -> (Recording, Vec<Told>) {
    let (disk, clock) = (Disk::default(), Arc::new(HandClock::default()));
    open(&disk, &clock).close().await;
    disk.record();
    let mut told = Vec::new();
    for life in 0..2 {
        let journal = open(&disk, &clock);
        for round in 0..4 {
            let names: Vec<_> = (0..6).map(|number| format!("{life}-{round}-{number}")).collect();
            let sent = futures_util::future::join_all(names.iter().map(|name| dispatch(&journal, name))).await;
            told.extend(names.iter().map(|name| Told { by: disk.recorded(), name: name.clone(), what: What::Sent }));
            for (number, (name, dispatched)) in names.into_iter().zip(sent).enumerate() {
                let id = dispatched.id();
                let (outcome, what) = match number {
                    0 => continue,
                    1 => (refused(), What::Released),
                    2 => (Outcome::Unknown(None), What::Sent),
                    3 => (Outcome::Released(Release::NeverWritten), What::Released),
                    _ => (booked(), What::Booked),
                };
                journal.finish(dispatched, outcome).await.unwrap();
                told.push(Told { by: disk.recorded(), name: name.clone(), what });
                if number == 2 && round % 2 == 0 {
                    let seen = journal.get(id).await.unwrap().unwrap();
                    journal.settle(id, seen.revision, verdict(Finding::Booked)).await.unwrap();
                    told.push(Told { by: disk.recorded(), name, what: What::Settled });
                }
            }
        }
        journal.close().await;
    }
    (disk.take_recording(), told)
}

#[tokio::test]
async fn whenever_the_power_fails_what_was_told_is_true() {
    let (recording, told) = lives().await;
    let cuts = rounds("JOURNAL_POWER_CUTS", 100);
    for cut in 0..cuts {
        // Every moment in turn, again and again with other sectors where there are more cuts than moments.
        let after = (cut * (recording.len() + 1) / cuts.min(recording.len() + 1)) % (recording.len() + 1);
        let journal = open(&recording.cut(after, cut as u64), &Arc::default());
        let told = told.iter().filter(|told| told.by <= after);
        // Of each payment the last that was told.
        let last: std::collections::BTreeMap<_, _> = told.map(|told| (&told.name, told.what)).collect();
        for (name, what) in last {
            let reserved = journal.reserve(key(name), sale(1)).await;
            let is_true = match what {
                // It may have been recorded, and then nobody was told yet.
                What::Sent => {
                    !matches!(reserved, Reserve::Fresh(_) | Reserve::Unavailable(_)) || name.ends_with(['1', '3'])
                }
                What::Booked | What::Settled => matches!(reserved, Reserve::Replay(_)),
                What::Released => matches!(reserved, Reserve::Fresh(_)),
            };
            assert!(is_true, "cut {cut}, after {after} of {}: {name} was {what:?}, now {reserved:?}", recording.len());
        }
    }
    println!("{cuts} power cuts over {} operations of the disk", recording.len());
}
