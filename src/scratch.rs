//! Folders for tests that hand what they open to something that outlives them.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

/// One folder a process. The next process that asks removes those of processes that have ended.
static OF_THIS_PROCESS: LazyLock<PathBuf> = LazyLock::new(|| {
    let all = env::temp_dir().join("concertpos-bridge-tests");
    for old in fs::read_dir(&all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(old.file_name()).exists() {
            // Another process may be removing it too.
            let _ = fs::remove_dir_all(old.path());
        }
    }
    all.join(process::id().to_string())
});

/// A folder of its own, which does not exist yet.
pub(crate) fn folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = OF_THIS_PROCESS.join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir_all(&*OF_THIS_PROCESS).unwrap();
    folder
}
