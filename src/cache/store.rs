//! Copies on disk, so that a restart begins with them: one small file a copy, written soon after it changed.
//!
//! A bridge that begins with nothing has to buy every copy anew, and a festival's catalogue costs more points than the
//! gateway gives in minutes; with old copies, labelled stale, every read that had an answer before has one after. What
//! shapes the room:
//!
//! - A killed process must lose little: a file is written within moments of its copy, and replaced by renaming, so
//!   there is the whole old one or the whole new one. Nothing is synced; losing power may lose copies, which is what
//!   having no copy means, and a file that was cut short is told by its length.
//! - Copies hold what callers show a password for: folder and files are their owner's alone, and passwords are in them
//!   only as hashes whose key is not there.
//! - Selling goes on whatever happens to this folder: what cannot be written is logged once, what cannot be read is
//!   left out.
//!
//! A file is one line of JSON, which says what it is a copy of, when its command was written by the wall clock and how
//! long the reply is, and then the reply as it came. One process has the folder at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::key::Key;
use super::memory::Cache;
use super::reply::CachedReply;
use crate::clock;
use crate::protocol::Body;

/// The one version of the files there is.
const VERSION: u32 = 1;

/// How a copy's file is named, behind the digest of its key.
const SUFFIX: &str = "copy";

/// Held while a process uses the folder.
const LOCK: &str = "lock";

/// How long changes are gathered before they are written: a refreshed catalogue is one write and not twenty.
const GATHER: Duration = Duration::from_millis(100);

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made, read or locked.
    #[error("the copies in {} cannot be used", path.display())]
    Io {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the copies in {} are in use by another process", path.display())]
    InUse { path: PathBuf },
}

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    key: Key,
    /// Milliseconds since 1970 by the wall clock.
    written_at_ms: u64,
    /// Of the reply.
    bytes: usize,
}

/// The folder of copies, held against other processes until dropped.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes the folder, making it where there is none.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(folder.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse { path: folder.to_owned() },
            TryLockError::Error(source) => failed(source),
        })?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Gives `cache` the copies of an earlier run, and removes the files that are of no more use. Returns how many
    /// copies there were. Blocks for reading them; call it before anything is asked.
    pub fn load(&self, cache: &Cache) -> usize {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let (mut loaded, mut unreadable) = (0, 0);
        for path in files.filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX)) {
            match fs::read(&path).ok().and_then(|bytes| decode(&bytes, SystemTime::now())) {
                Some((key, body, age)) if cache.begin_with(&key, &body, age) => {
                    loaded += 1;
                    // An earlier release may have spelled the key, and so named the file, otherwise.
                    if let Ok(name) = self.path(&key) {
                        let _ = fs::rename(&path, name);
                    }
                }
                known => {
                    unreadable += usize::from(known.is_none());
                    // Whatever cannot be removed is only read again at the next start.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        if unreadable > 0 {
            tracing::warn!(folder = %self.folder.display(), unreadable, "copies that could not be read were removed");
        }
        loaded
    }

    /// Writes what changes in `cache` until `stop`, and the last of it then.
    pub async fn keep(self, cache: Arc<Cache>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let store = Arc::new(self);
        loop {
            let stopped = tokio::select! {
                () = &mut stop => true,
                () = async { cache.changes.noted.notified().await; sleep(GATHER).await } => false,
            };
            let (writer, copies) = (Arc::clone(&store), Arc::clone(&cache));
            let written = tokio::task::spawn_blocking(move || writer.write(&copies)).await;
            let fault = written.map_err(io::Error::other).flatten().err().map(|fault| fault.to_string());
            let had_failed = cache.changes.written(fault.clone());
            let folder = store.folder.display();
            match fault {
                Some(fault) if !had_failed => tracing::warn!(%folder, fault, "copies cannot be kept on disk"),
                None if had_failed => tracing::info!(%folder, "copies are kept on disk again"),
                _ => {}
            }
            if stopped {
                return;
            }
        }
    }

    /// Brings the files of changed copies up to date. One that fails does not keep the others from being written; it
    /// is tried again when its copy next changes.
    fn write(&self, cache: &Cache) -> io::Result<()> {
        let mut outcome = Ok(());
        for key in cache.changes.take() {
            let done = match cache.copy(&key) {
                Some(copy) => self.replace(&key, &copy),
                None => match fs::remove_file(self.path(&key)?) {
                    Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
                    _ => Ok(()),
                },
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    fn replace(&self, key: &Key, copy: &CachedReply) -> io::Result<()> {
        let path = self.path(key)?;
        let beside = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&encode(key, copy, SystemTime::now())?)?;
        fs::rename(&beside, &path)
    }

    fn path(&self, key: &Key) -> serde_json::Result<PathBuf> {
        let digest = Sha256::digest(serde_json::to_vec(key)?);
        let (name, _) = digest.split_at(digest.len() / 2);
        Ok(self.folder.join(format!("{}.{SUFFIX}", HEXLOWER.encode(name))))
    }
}

fn encode(key: &Key, copy: &CachedReply, now: SystemTime) -> serde_json::Result<Vec<u8>> {
    let age = Instant::now().saturating_duration_since(copy.written);
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
    let head = Head {
        version: VERSION,
        key: key.clone(),
        written_at_ms: clock::whole_ms(since_1970),
        bytes: copy.body.as_str().len(),
    };
    let mut file = serde_json::to_vec(&head)?;
    file.push(b'\n');
    file.extend_from_slice(copy.body.as_str().as_bytes());
    Ok(file)
}

/// The copy in a file, and how old it is; nothing where that is no whole copy of a version that is known. A wall clock
/// that went back makes it young, which matters little: it is stale in any case.
fn decode(file: &[u8], now: SystemTime) -> Option<(Key, Body, Duration)> {
    let end = file.iter().position(|byte| *byte == b'\n')?;
    let (head, body) = file.split_at_checked(end)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let body = std::str::from_utf8(body.get(1..)?).ok()?;
    if head.version != VERSION || head.bytes != body.len() {
        return None;
    }
    let body = Body::from(serde_json::from_str::<&RawValue>(body).ok()?);
    let written = UNIX_EPOCH.checked_add(Duration::from_millis(head.written_at_ms))?;
    body.is_object().then(|| (head.key, body, now.duration_since(written).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
