//! A disk that loses what was not synced, tears what it was writing, and fails as told.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::journal::embedded::medium::{CACHE_BYTES, Medium};
use crate::journal::error::OpenError;

/// The smallest piece that is written whole.
const SECTOR: usize = 512;

/// How the disk fails, from some point on and until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Writes fail half done.
    Write,
    /// Nothing can be written for want of space.
    Full,
    /// Syncs fail and, as on Linux, what they should have written is never written by a later one.
    Sync,
    /// Reads fail.
    Read,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

/// What was asked of a disk, in its order.
#[derive(Debug, Clone)]
enum Operation {
    Change(Change),
    Sync,
}

/// Everything that was asked of a disk since some state of it.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    base: Vec<u8>,
    operations: Vec<Operation>,
}

impl Recording {
    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    /// The disk after a power cut that came after so many operations: what was synced until then, and of the rest
    /// whatever `seed` picks.
    pub(crate) fn cut(&self, after: usize, seed: u64) -> Disk {
        let operations = &self.operations[..after];
        let synced =
            operations.iter().rposition(|operation| matches!(operation, Operation::Sync)).map_or(0, |at| at + 1);
        let (mut durable, mut unsynced) = (self.base.clone(), Vec::new());
        for (at, operation) in operations.iter().enumerate() {
            match operation {
                Operation::Change(change) if at < synced => change.apply(&mut durable),
                Operation::Change(change) => unsynced.push(change.clone()),
                Operation::Sync => {}
            }
        }
        let disk = Disk::holding(durable);
        disk.lock().unsynced = unsynced;
        disk.after_crash(seed)
    }
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch for tests")]
struct Platter {
    /// What a crash leaves.
    durable: Vec<u8>,
    /// What a read shows.
    shown: Vec<u8>,
    unsynced: Vec<Change>,
    failure: Option<(Failure, u32)>,
    failures: u32,
    heals_at_once: bool,
    changes: u32,
    cache_bytes: Option<usize>,
    checked_bytes: Option<u64>,
    bytes_read: u64,
    recording: Option<Recording>,
    /// Looks at its path that still find it; none where it is never moved.
    moved_after: Option<u32>,
    syncs: u64,
    syncs_held: bool,
    waiting: bool,
    reads: u64,
    reads_held: bool,
    reading: bool,
}

/// A handle; clones share the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    changed: Arc<Condvar>,
}

impl Disk {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.lock().shown = bytes.clone();
        disk.lock().durable = bytes;
        disk
    }

    /// Fails after `operations` more that such a failure can hit.
    pub(crate) fn fail_after(&self, failure: Failure, operations: u32) {
        self.lock().failure = Some((failure, operations));
    }

    /// Fails once, after `operations` more.
    pub(crate) fn fail_once_after(&self, failure: Failure, operations: u32) {
        self.fail_after(failure, operations);
        self.lock().heals_at_once = true;
    }

    /// How often it was written to or changed its length.
    pub(crate) fn changes(&self) -> u32 {
        self.lock().changes
    }

    /// Every page that is asked for is read, so that reads can fail.
    pub(crate) fn without_cache(&self) {
        self.lock().cache_bytes = Some(0);
    }

    /// No page is checked at open, as with a large file.
    pub(crate) fn unchecked(&self) {
        self.lock().checked_bytes = Some(0);
    }

    /// Bytes read since the last time that this was asked.
    pub(crate) fn take_bytes_read(&self) -> u64 {
        std::mem::take(&mut self.lock().bytes_read)
    }

    /// Records what is asked of it from now on.
    pub(crate) fn record(&self) {
        let mut platter = self.lock();
        platter.recording = Some(Recording { base: platter.shown.clone(), operations: Vec::new() });
    }

    /// How much was recorded.
    pub(crate) fn recorded(&self) -> usize {
        self.lock().recording.as_ref().map_or(0, Recording::len)
    }

    pub(crate) fn take_recording(&self) -> Recording {
        self.lock().recording.take().expect("it was recording")
    }

    /// Flips bits of what it holds, as a disk does that loses them.
    pub(crate) fn flip(&self, at: usize, bits: u8) {
        let mut platter = self.lock();
        platter.shown[at] ^= bits;
        platter.durable[at] ^= bits;
    }

    /// Whoever looks for the file finds it so many times more, and then no longer.
    pub(crate) fn move_after(&self, looks: u32) {
        self.lock().moved_after = Some(looks);
    }

    pub(crate) fn put_back(&self) {
        self.lock().moved_after = None;
    }

    /// Whether a failure has shown.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failures > 0
    }

    /// How often a failure has shown.
    pub(crate) fn failures(&self) -> u32 {
        self.lock().failures
    }

    pub(crate) fn heal(&self) {
        self.lock().failure = None;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().shown.len()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().shown.clone()
    }

    /// Lets syncs hang until they are let go.
    pub(crate) fn hold_syncs(&self) {
        self.lock().syncs_held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.lock().syncs_held = false;
        self.changed.notify_all();
    }

    /// Lets reads hang until they are let go.
    pub(crate) fn hold_reads(&self) {
        self.lock().reads_held = true;
    }

    pub(crate) fn release_reads(&self) {
        self.lock().reads_held = false;
        self.changed.notify_all();
    }

    pub(crate) fn has_hanging_read(&self) -> bool {
        self.lock().reading
    }

    pub(crate) fn has_hanging_sync(&self) -> bool {
        self.lock().waiting
    }

    /// How often something was read.
    pub(crate) fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// The disk after a power cut now: what was synced for certain, and of the rest whatever `seed` picks, torn.
    pub(crate) fn after_crash(&self, seed: u64) -> Self {
        let platter = self.lock();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = platter.durable.clone();
        for change in &platter.unsynced {
            match change {
                Change::Write(at, data) => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if random.bool() {
                            Change::Write(at + number * SECTOR, sector.to_vec()).apply(&mut bytes);
                        }
                    }
                }
                Change::SetLen(_) if random.bool() => change.apply(&mut bytes),
                Change::SetLen(_) => {}
            }
        }
        Self::holding(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap()
    }
}

impl Platter {
    fn fails(&mut self, of: &[Failure]) -> Option<Failure> {
        let (failure, left) = self.failure.as_mut()?;
        if !of.contains(failure) {
            return None;
        }
        if *left > 0 {
            *left -= 1;
            return None;
        }
        let failure = *failure;
        self.failures += 1;
        if self.heals_at_once {
            self.failure = None;
        }
        Some(failure)
    }

    fn record(&mut self, operation: Operation) {
        if let Some(recording) = &mut self.recording {
            recording.operations.push(operation);
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.shown);
        self.changes += 1;
        self.record(Operation::Change(change.clone()));
        self.unsynced.push(change);
    }
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().shown.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.lock();
        while platter.reads_held {
            platter.reading = true;
            platter = self.changed.wait(platter).unwrap();
        }
        platter.reading = false;
        platter.reads += 1;
        let platter = &mut *platter;
        if platter.fails(&[Failure::Read]).is_some() {
            return Err(broken());
        }
        let at = usize::try_from(offset).unwrap();
        let shown = platter.shown.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(shown);
        platter.bytes_read += out.len() as u64;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.lock();
        if platter.fails(&[Failure::Full, Failure::Write]).is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.change(Change::SetLen(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        while platter.syncs_held {
            platter.waiting = true;
            platter = self.changed.wait(platter).unwrap();
        }
        platter.waiting = false;
        platter.syncs += 1;
        let unsynced = std::mem::take(&mut platter.unsynced);
        if platter.fails(&[Failure::Sync]).is_some() {
            return Err(broken());
        }
        for change in unsynced {
            change.apply(&mut platter.durable);
        }
        platter.record(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        let at = usize::try_from(offset).unwrap();
        match platter.fails(&[Failure::Full, Failure::Write]) {
            None => {
                platter.change(Change::Write(at, data.to_vec()));
                Ok(())
            }
            Some(Failure::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(_) => {
                platter.change(Change::Write(at, data[..data.len() / 2].to_vec()));
                Err(broken())
            }
        }
    }
}

impl Medium for Disk {
    type Backend = Self;

    fn backend(&self) -> Result<Self, OpenError> {
        Ok(self.clone())
    }

    fn path(&self) -> &Path {
        Path::new("a simulated disk")
    }

    fn check(&self) -> Result<(), OpenError> {
        match &mut self.lock().moved_after {
            Some(0) => Err(OpenError::Gone { path: self.path().to_owned() }),
            Some(looks) => {
                *looks -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn cache_bytes(&self) -> usize {
        self.lock().cache_bytes.unwrap_or(CACHE_BYTES)
    }

    fn checked_bytes(&self) -> u64 {
        self.lock().checked_bytes.unwrap_or(u64::MAX)
    }
}
