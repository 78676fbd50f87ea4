use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::{Ask, Class, Config, Permit, Scope};
use super::*;

fn ledgers_in(scope: Scope) -> BTreeMap<String, Ledger> {
    BTreeMap::from([("demo".to_owned(), Ledger::new(Config { scope, ..Config::default() }))])
}

fn ledgers() -> BTreeMap<String, Ledger> {
    ledgers_in(Scope::Command)
}

fn used(ledgers: &BTreeMap<String, Ledger>, command: &str) -> u64 {
    let status = ledgers["demo"].status();
    status.into_iter().find(|window| window.command == command).map_or(0, |window| window.used_points)
}

async fn permit(ledgers: &BTreeMap<String, Ledger>, command: &str) -> Permit {
    let ask = Ask { command, class: Class::Caller("shop"), deadline: Instant::now() };
    ledgers["demo"].acquire(ask).await.unwrap()
}

async fn spend(ledgers: &BTreeMap<String, Ledger>, command: &str) {
    let mut permit = permit(ledgers, command).await;
    permit.written();
    permit.ended();
}

async fn denied_for(ledgers: &BTreeMap<String, Ledger>, command: &str) -> Duration {
    let ask = Ask { command, class: Class::Payment, deadline: Instant::now() };
    ledgers["demo"].acquire(ask).await.unwrap_err().retry_after
}

/// What a process that is killed here leaves to the next one.
fn next(path: &Path) -> BTreeMap<String, Ledger> {
    let next = ledgers();
    assert_eq!(restore(path, &next), Found::Counted);
    next
}

#[tokio::test(start_paused = true)]
async fn whatever_is_about_to_be_written_is_known_to_a_later_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/spent.jsonl");
    let first = ledgers();
    let (found, mut keeper) = begin(path.clone(), first.clone());
    assert_eq!(found, Found::Absent);

    let unwritten = permit(&first, "getconfig").await;
    assert_eq!(used(&next(&path), "getconfig"), 0, "points that were not used were counted");
    let mut flying = permit(&first, "getconfig").await;
    flying.written();
    assert_eq!(used(&next(&path), "getconfig"), 25);
    spend(&first, "listpm").await;
    assert_eq!(used(&next(&path), "listpm"), 20);
    drop(unwritten);

    keeper.begin_anew().unwrap();
    assert_eq!((used(&next(&path), "getconfig"), used(&next(&path), "listpm")), (25, 20));
    spend(&first, "a_raw_one").await;
    assert_eq!(used(&next(&path), "a_raw_one"), 10);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_the_gateway_closed_stays_closed_for_a_later_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.jsonl");
    let first = ledgers();
    let (_, _keeper) = begin(path.clone(), first.clone());
    first["demo"].closed_by_gateway("payitems", Some(Duration::from_secs(7)));
    let left = denied_for(&next(&path), "payitems").await;
    assert!(left > Duration::from_secs(6) && left < Duration::from_secs(9), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_while_it_begins_anew_leaves_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.jsonl");
    let first = ledgers();
    let (_, keeper) = begin(path.clone(), first.clone());
    spend(&first, "getconfig").await;
    // It has turned to the new file, and got no further.
    keeper.trail.turn_to(File::options().append(true).create_new(true).open(begun(&path)).unwrap());
    spend(&first, "getconfig").await;
    assert_eq!(used(&next(&path), "getconfig"), 50);
}

#[tokio::test(start_paused = true)]
async fn the_time_away_counts_and_a_wall_clock_gone_back_frees_nothing() {
    let first = ledgers();
    spend(&first, "getconfig").await;
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    let spending = || BTreeMap::from([("demo".to_owned(), first["demo"].spent())]);
    let saved = Saved::new(spending(), at(100_000));
    for (read_at, expected) in [(100_000, 25), (130_499, 25), (130_500, 0), (0, 25)] {
        let second = ledgers();
        second["demo"].restore(&saved.instances()["demo"], saved.downtime(at(read_at)));
        assert_eq!(used(&second, "getconfig"), expected, "read at {read_at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_has_spent_nothing_and_an_unreadable_file_counts_as_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.jsonl");
    let ledgers = ledgers();
    assert_eq!(restore(&path, &ledgers), Found::Absent);
    spend(&ledgers, "getconfig").await;

    fs::write(&path, b"{\n").unwrap();
    assert!(matches!(restore(&path, &ledgers), Found::Unreadable(_)));
    for command in ["payitems", "a_raw_one"] {
        assert_eq!(denied_for(&ledgers, command).await, Duration::from_millis(30_500), "{command}");
    }
    tokio::time::advance(Duration::from_millis(30_500)).await;
    spend(&ledgers, "payitems").await;
    spend(&ledgers, "a_raw_one").await;
}

#[tokio::test]
async fn the_file_is_begun_anew_while_something_is_spent_and_a_last_time_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.jsonl");
    let first = ledgers();
    let (_, keeper) = begin(path.clone(), first.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let keeper = tokio::spawn(keeper.keep(async {
        let _ = stopped.await;
    }));
    spend(&first, "getconfig").await;
    let begun_anew = || fs::read_to_string(&path).unwrap().contains(r#""ended":[[25,"#);
    while !begun_anew() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    spend(&first, "listpm").await;
    stop.send(()).unwrap();
    keeper.await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1, "the last file is not finished");
    assert_eq!((used(&next(&path), "getconfig"), used(&next(&path), "listpm")), (25, 20));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside the file");
}

#[tokio::test]
async fn a_disk_that_fails_stops_nobody_and_is_used_again_when_it_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spent.jsonl");
    let first = ledgers();
    let (_, mut keeper) = begin(path.clone(), first.clone());
    fs::create_dir(begun(&path)).unwrap();
    spend(&first, "getconfig").await;
    assert!(keeper.begin_anew().is_err());
    fs::remove_dir(begun(&path)).unwrap();
    assert_eq!(used(&next(&path), "getconfig"), 25, "the old file is not added to");
    keeper.begin_anew().unwrap();
    assert_eq!(used(&next(&path), "getconfig"), 25);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_scope_closes_every_window_until_it_has_lapsed() {
    let first = ledgers();
    spend(&first, "getconfig").await;
    let second = ledgers_in(Scope::Instance);
    second["demo"].restore(&first["demo"].spent(), Duration::from_secs(10));
    assert_eq!(denied_for(&second, "payitems").await, Duration::from_millis(20_500));
}
