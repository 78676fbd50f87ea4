//! A journal that is moved, deleted or replaced while it is open: nothing is sent that no start would find, nothing is
//! made in its place, and put back it goes on.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

const FILE: &str = "payments.redb";

struct Running {
    directory: TempDir,
    journal: Journal,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&config(&directory.path().join("journal"))).unwrap();
        Self { directory, journal }
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    fn aside(&self) -> PathBuf {
        self.directory.path().join("aside")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    async fn refuses(&self, name: &str) {
        match self.journal.reserve(key(name), sale(1)).await {
            Reserve::Unavailable(JournalError::Unavailable) => {}
            Reserve::Fresh(reservation) => {
                let dispatched = self.journal.dispatch(reservation).await.map(|_| ());
                assert_eq!(dispatched, Err(JournalError::Unavailable), "{name} may be sent");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(!self.journal.is_available());
    }

    async fn recovers(&self) {
        until("the journal recovers", || self.journal.is_available()).await;
    }
}

fn config(directory: &Path) -> Config {
    Config::new(directory, KEEP).unwrap()
}

#[tokio::test]
async fn a_journal_that_is_moved_sends_nothing_and_goes_on_once_it_is_put_back() {
    let running = Running::start();
    pay(&running.journal, "before", booked()).await;
    let under_way = dispatch(&running.journal, "under way").await;
    for (path, what) in [(running.path(FILE), "the file"), (running.folder(), "the folder")] {
        fs::rename(&path, running.aside()).unwrap();
        running.refuses(what).await;
        running.refuses(what).await;
        assert!(!path.exists(), "something was made in place of {what}");
        fs::rename(running.aside(), &path).unwrap();
        running.recovers().await;
        pay(&running.journal, what, booked()).await;
    }
    running.journal.finish(under_way, booked()).await.unwrap();
    running.journal.close().await;
    let again = Journal::open(&config(&running.folder())).unwrap();
    for name in ["before", "under way", "the file", "the folder"] {
        assert!(matches!(again.reserve(key(name), sale(1)).await, Reserve::Replay(_)), "{name}");
    }
}

#[tokio::test]
async fn an_outcome_that_comes_while_the_journal_is_away_is_recorded_once_it_is_back() {
    let running = Running::start();
    let dispatched = dispatch(&running.journal, "a").await;
    fs::rename(running.path(FILE), running.aside()).unwrap();
    assert_eq!(running.journal.finish(dispatched, booked()).await, Err(JournalError::Unavailable));
    fs::rename(running.aside(), running.path(FILE)).unwrap();
    running.recovers().await;
    assert!(matches!(running.journal.reserve(key("a"), sale(1)).await, Reserve::Replay(_)));
}

#[tokio::test]
async fn a_journal_that_is_moved_during_a_commit_lets_nothing_of_it_be_sent_and_frees_the_key() {
    let (disk, journal) = on_new_disk();
    let reservation = reserve(&journal, "a").await;
    disk.move_after(1);
    assert_eq!(journal.dispatch(reservation).await.map(|_| ()), Err(JournalError::Unavailable));
    disk.put_back();
    until("the journal recovers", || journal.is_available()).await;
    pay(&journal, "a", booked()).await;
}

#[tokio::test]
async fn another_file_in_its_place_is_not_gone_on_with_before_a_restart() {
    let running = Running::start();
    pay(&running.journal, "a", booked()).await;
    // A copy of now is no better than an old one: nothing tells them apart.
    fs::copy(running.path(FILE), running.aside()).unwrap();
    fs::rename(running.path(FILE), running.directory.path().join("first")).unwrap();
    fs::rename(running.aside(), running.path(FILE)).unwrap();
    running.refuses("b").await;
    fs::rename(running.directory.path().join("first"), running.path(FILE)).unwrap();
    running.recovers().await;
    pay(&running.journal, "b", booked()).await;
}

#[tokio::test]
async fn an_empty_folder_in_place_of_the_journal_s_stays_empty_and_a_deleted_file_is_not_made_again() {
    let running = Running::start();
    fs::rename(running.folder(), running.aside()).unwrap();
    fs::create_dir(running.folder()).unwrap();
    running.refuses("a").await;
    assert_eq!(fs::read_dir(running.folder()).unwrap().count(), 0);
    fs::remove_dir(running.folder()).unwrap();
    fs::rename(running.aside(), running.folder()).unwrap();
    running.recovers().await;
    fs::remove_file(running.path(FILE)).unwrap();
    running.refuses("a").await;
    assert!(!running.path(FILE).exists());
}

#[tokio::test]
async fn an_idle_journal_notices_by_itself_that_it_was_moved() {
    let running = Running::start();
    fs::rename(running.path(FILE), running.aside()).unwrap();
    until("it is noticed", || !running.journal.is_available()).await;
    fs::rename(running.aside(), running.path(FILE)).unwrap();
    running.recovers().await;
}

#[tokio::test]
async fn without_its_lock_file_a_journal_takes_the_lock_anew_and_a_second_opener_is_refused_all_along() {
    let running = Running::start();
    fs::remove_file(running.path("lock")).unwrap();
    let second = || Journal::open(&config(&running.folder())).map(drop);
    assert!(matches!(second(), Err(OpenError::InUse { .. })));
    // The first one's lock is on a file that has no name: a payment notices, unless the journal did so by itself.
    if let Reserve::Fresh(reservation) = running.journal.reserve(key("first"), sale(1)).await {
        drop(running.journal.dispatch(reservation).await);
    }
    running.recovers().await;
    pay(&running.journal, "a", booked()).await;
    assert!(matches!(second(), Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn a_lock_that_another_process_holds_keeps_a_running_journal_from_writing() {
    let running = Running::start();
    fs::remove_file(running.path("lock")).unwrap();
    let other = fs::File::create(running.path("lock")).unwrap();
    other.try_lock().unwrap();
    running.refuses("a").await;
    running.refuses("a").await;
    drop(other);
    running.recovers().await;
    pay(&running.journal, "a", booked()).await;
}
