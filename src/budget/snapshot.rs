//! What was spent, carried over a restart: a small file, written each second by a thread of its own and at the end, and
//! counted at start.
//!
//! Without it a restarted bridge would take its windows for empty while the gateway still counts what the earlier process
//! sent. No command waits for this disk, and a disk that hangs holds up this thread alone. So after an end that was not in
//! order the last second is missing, and the file is read on the safe side:
//!
//! - *Written at an orderly end*, and the system says whether it has started again since: counted as it says.
//! - *Anything else* (an end that was not in order, a file that cannot be read, no boot id): every window but the
//!   payments' counts as full for one window. Reads are answered from copies meanwhile. Payments are counted from the
//!   journal, which has each of them before its first byte leaves.
//! - *Absent*: the first start here, so only the journal's payments were spent.
//!
//! The start writes the file once, synced, before anything is sent, so that an earlier orderly end is never taken for this
//! process's. Later files replace it by renaming, in the folder as it was opened at the start: if that is moved, the file is
//! written at its new place, and nothing is created at the old one.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ledger::Ledger;
use super::ledgers::Ledgers;
use super::spending::{Dating, Drift, Moment, Sent, Snapshot};
use crate::clock::unix_ms;

/// How often the file is written while anything is spent. Also how soon a disk that failed is tried again.
pub const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How long the end waits for the last file. Without it the next start counts windows as full.
const LAST_FILE: Duration = Duration::from_secs(2);

/// A setting of the wall clock by more than this many milliseconds is written down though nothing is spent.
const NOTEWORTHY_MS: u64 = 100;

/// The file's name, in the journal's folder: there is always a journal, and one process at a time has it.
const NAME: &str = "spent.jsonl";

/// The file that is not finished yet.
const UNFINISHED: &str = "spent.jsonl.new";

/// Names this start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The state of the file at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There was none: nothing is spent but the payments of the journal.
    Absent,
    Counted,
    /// The last end was not in order, or it was written for other windows: all but payments counts as spent just now.
    Incomplete,
    /// The system does not say whether it started again since: all but payments counts as spent just now.
    WithoutBootId,
    /// It could not be read, for this reason: all but payments counts as spent just now.
    Unreadable(String),
}

/// The machine's clocks.
#[derive(Clone)]
pub struct Clocks {
    now: Arc<dyn Fn() -> Moment + Send + Sync>,
}

impl Clocks {
    /// Asks the system for its boot id.
    #[must_use]
    pub fn of_the_machine() -> Self {
        let boot_id = fs::read_to_string(BOOT_ID).ok().map(|id| Arc::from(id.trim()));
        let boot_id = boot_id.filter(|id: &Arc<str>| !id.is_empty());
        Self { now: Arc::new(move || moment(boot_id.clone())) }
    }
}

impl fmt::Debug for Clocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clocks")
    }
}

fn moment(boot_id: Option<Arc<str>>) -> Moment {
    let boot = clock_gettime(ClockId::Boottime);
    let boot_ms = boot.tv_sec.saturating_mul(1000).saturating_add(boot.tv_nsec / 1_000_000);
    Moment { boot_id, boot_ms: u64::try_from(boot_ms).unwrap_or_default(), wall_ms: unix_ms() }
}

/// Counts in `ledgers` what the file in `folder` says was spent and what `sent_since` a date tells of payments, and writes there from
/// now on what is spent. `sent_since` gives none where payments cannot be read. Blocks for small files; call it before
/// anything is asked, and [`SnapshotHandle::keep`] what it gives.
pub fn begin(
    folder: &Path,
    ledgers: Ledgers,
    clocks: Clocks,
    sent_since: impl FnOnce(i64) -> Option<Vec<Sent>>,
) -> io::Result<(Found, SnapshotHandle)> {
    let file = SnapshotFile::open(folder)?;
    let now = (clocks.now)();
    let (found, saved) = count(file.read(), &ledgers, &now, sent_since);
    let drift = Drift::begin(&now, saved.as_ref());
    let mut writer = Writer { file, ledgers, clocks, drift, last: None, failing: false };
    writer.begin();
    let ((stop, stopped), (done, ended)) = (mpsc::channel(), oneshot::channel());
    thread::Builder::new().name("spending".into()).spawn(move || {
        writer.run(&stopped);
        drop(done);
    })?;
    Ok((found, SnapshotHandle { stop, ended }))
}

/// Counts in `ledgers` what was spent, also of instances that are not served now and may be added soon; gives the file too,
/// where it could be read.
fn count(
    read: io::Result<Option<Vec<u8>>>,
    ledgers: &Ledgers,
    now: &Moment,
    sent_since: impl FnOnce(i64) -> Option<Vec<Sent>>,
) -> (Found, Option<Snapshot>) {
    let read = read.map_err(|fault| fault.to_string());
    let read = read.and_then(|bytes| bytes.map(|bytes| Snapshot::decode(&bytes)).transpose());
    ledgers.add_former(read.iter().flatten().flat_map(|saved| saved.instances().keys()).map(String::as_str));
    let (found, saved) = match read {
        Ok(None) => (Found::Absent, None),
        Ok(Some(saved)) => (judge(&saved, &ledgers.by_instance(), now), Some(saved)),
        Err(reason) => (Found::Unreadable(reason), None),
    };
    let of = |instance: &str| saved.as_ref().and_then(|saved| saved.instances().get(instance));
    let away = saved.as_ref().and_then(|saved| saved.away(now)).unwrap_or_default();
    if found == Found::Counted {
        for (instance, ledger) in &ledgers.by_instance() {
            if let Some(spending) = of(instance) {
                ledger.restore(spending, away);
            }
        }
        return (found, saved);
    }
    let dating = Dating::new(now, saved.as_ref());
    let sent = sent_since(dating.date_ms(ledgers.hold()));
    ledgers.add_former(sent.iter().flatten().map(|payment| payment.instance.as_str()));
    if found != Found::Absent {
        ledgers.assume_spent_by_others();
    }
    for (instance, ledger) in &ledgers.by_instance() {
        let ages = |sent: &Vec<Sent>| {
            let own = sent.iter().filter(|payment| payment.instance == *instance);
            own.map(|payment| dating.age(payment.at_ms)).collect::<Vec<_>>()
        };
        ledger.count_payments(sent.as_ref().map(ages).as_deref());
        if found != Found::Absent {
            ledger.assume_spent();
        }
        if let Some(spending) = of(instance) {
            ledger.restore_closings(spending, away);
        }
    }
    (found, saved)
}

fn judge(saved: &Snapshot, ledgers: &[(String, Ledger)], now: &Moment) -> Found {
    let fits = |(instance, ledger): &(String, Ledger)| {
        saved.instances().get(instance).is_none_or(|spending| ledger.counts_like(spending))
    };
    if saved.away(now).is_none() {
        Found::WithoutBootId
    } else if saved.is_clean() && ledgers.iter().all(fits) {
        Found::Counted
    } else {
        Found::Incomplete
    }
}

/// The folder, held open, so that it is the same whatever its path comes to name.
#[derive(Debug)]
struct SnapshotFile {
    folder: OwnedFd,
    path: PathBuf,
}

impl SnapshotFile {
    fn open(folder: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: rustix::fs::open(folder, flags, Mode::empty())?, path: folder.join(NAME) })
    }

    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match self.file(NAME, OFlags::RDONLY) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// `synced` survives losing power.
    fn replace(&self, bytes: &[u8], synced: bool) -> io::Result<()> {
        let mut file = self.file(UNFINISHED, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_all(bytes)?;
        if synced {
            file.sync_all()?;
        }
        rustix::fs::renameat(&self.folder, UNFINISHED, &self.folder, NAME)?;
        if synced {
            rustix::fs::fsync(&self.folder)?;
        }
        Ok(())
    }

    /// Makes the file one that cannot be read, which takes no room on a full disk.
    fn spoil(&self) -> io::Result<()> {
        self.file(NAME, OFlags::WRONLY | OFlags::TRUNC)?.sync_all()
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags | OFlags::CLOEXEC, mode)?))
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Writer {
    file: SnapshotFile,
    ledgers: Ledgers,
    clocks: Clocks,
    drift: Drift,
    /// What the file said last, while it says that nothing is spent.
    last: Option<Empty>,
    failing: bool,
}

/// A file that says that nothing is spent, which stays true by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Empty {
    clean: bool,
    wall_ahead_ms: i64,
}

impl Writer {
    /// From here on the file does not say any more that the last end was in order.
    fn begin(&mut self) {
        let written = self.save(false, true);
        if written.is_err()
            && let Err(fault) = self.file.spoil()
            && fault.kind() != ErrorKind::NotFound
        {
            tracing::error!(path = %self.file.path.display(), %fault,
                "an old count of what was spent cannot be replaced: remove it before the next start");
        }
        self.say(written);
    }

    fn run(mut self, stop: &mpsc::Receiver<()>) {
        loop {
            let clean = match stop.recv_timeout(SAVE_EVERY) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) => true,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let written = self.save(clean, false);
            self.say(written);
            if clean {
                return;
            }
        }
    }

    fn save(&mut self, clean: bool, synced: bool) -> io::Result<()> {
        let now = (self.clocks.now)();
        self.drift.note(&now);
        let wall_ahead_ms = self.drift.least().unwrap_or_default();
        let spent = self.ledgers.spent();
        let empty = spent.values().all(|spending| spending.windows.is_empty());
        let says_so = |last: Empty| last.clean == clean && last.wall_ahead_ms.abs_diff(wall_ahead_ms) < NOTEWORTHY_MS;
        if empty && self.last.is_some_and(says_so) {
            return Ok(());
        }
        self.last = None;
        self.file.replace(&Snapshot::new(clean, &now, &self.drift, spent).encode()?, synced)?;
        self.last = empty.then_some(Empty { clean, wall_ahead_ms });
        Ok(())
    }

    /// A file that cannot be written does not stop sales: the fault is logged once, and writing is tried again each second.
    fn say(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(fault) if !self.failing => {
                tracing::warn!(path = %self.file.path.display(), %fault, "what was spent cannot be saved");
                self.failing = true;
            }
            Err(_) => {}
        }
    }
}

/// Ends the thread that writes.
#[derive(Debug)]
#[must_use = "dropped, it leaves the next start without a count of what was spent"]
pub struct SnapshotHandle {
    stop: mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl SnapshotHandle {
    /// Waits for `stop` and has the last file written then. Let it come after the last exchange, so that nothing is in
    /// flight any more. A disk that hangs is not waited for.
    pub async fn keep(self, stop: impl Future<Output = ()>) {
        stop.await;
        // A thread that is gone has said why.
        let _ = self.stop.send(());
        if timeout(LAST_FILE, self.ended).await.is_err() {
            tracing::warn!("what was spent could not be saved in time: the next start counts it as a whole window");
        }
    }
}

#[cfg(test)]
mod tests;
