use tokio::sync::oneshot;

use super::super::{Ask, Class, Config};
use super::*;

fn ledgers() -> BTreeMap<String, Ledger> {
    BTreeMap::from([("demo".to_owned(), Ledger::new(Config::default()))])
}

fn used(ledgers: &BTreeMap<String, Ledger>, command: &str) -> u64 {
    let status = ledgers["demo"].status();
    status.into_iter().find(|window| window.command == command).map_or(0, |window| window.used_points)
}

async fn spend(ledgers: &BTreeMap<String, Ledger>, command: &str) {
    let ask = Ask { command, class: Class::Caller("shop"), deadline: Instant::now() };
    ledgers["demo"].acquire(ask).await.unwrap().ended();
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_is_read_back_as_it_was_written() {
    let first = ledgers();
    spend(&first, "getconfig").await;
    tokio::time::advance(Duration::from_millis(1500)).await;
    spend(&first, "listpm").await;
    let saved = Saved::of(&first, at(10_000));
    let bytes = saved.encode().unwrap();
    assert_eq!(
        String::from_utf8(bytes.clone()).unwrap(),
        r#"{"version":1,"written_at_ms":10000,"instances":{"demo":{"scope":"command","windows":{"getconfig":{"in_flight":0,"ended":[[25,1500]],"closed_for_ms":0},"listpm":{"in_flight":0,"ended":[[20,0]],"closed_for_ms":0}}}}}"#
    );
    assert_eq!(Saved::decode(&bytes), Ok(saved));
}

#[tokio::test(start_paused = true)]
async fn the_time_away_counts_and_a_wall_clock_gone_back_frees_nothing() {
    let first = ledgers();
    spend(&first, "getconfig").await;
    let saved = Saved::of(&first, at(100_000));
    for (read_at, expected) in [(100_000, 25), (130_499, 25), (130_500, 0), (0, 25)] {
        let second = ledgers();
        saved.restore(&second, at(read_at));
        assert_eq!(used(&second, "getconfig"), expected, "read at {read_at}");
    }
}

#[test]
fn damaged_and_foreign_files_are_refused_in_words() {
    let good = Saved::of(&ledgers(), at(1)).encode().unwrap();
    for end in 0..good.len() {
        assert!(Saved::decode(&good[..end]).is_err(), "cut at {end}");
    }
    let later = String::from_utf8(good).unwrap().replace("\"version\":1", "\"version\":2");
    assert_eq!(Saved::decode(later.as_bytes()), Err("version 2 is not known".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_first_start_has_spent_nothing_and_an_unreadable_file_counts_as_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.json");
    let ledgers = ledgers();
    assert_eq!(restore(&path, &ledgers), Found::Absent);
    spend(&ledgers, "getconfig").await;

    fs::write(&path, b"{").unwrap();
    assert!(matches!(restore(&path, &ledgers), Found::Unreadable(_)));
    for command in ["payitems", "a_raw_one"] {
        let ask = Ask { command, class: Class::Payment, deadline: Instant::now() };
        let denied = ledgers["demo"].acquire(ask).await.unwrap_err();
        assert_eq!(denied.retry_after, Duration::from_millis(30_500), "{command}");
    }
    tokio::time::advance(Duration::from_millis(30_500)).await;
    spend(&ledgers, "payitems").await;
    spend(&ledgers, "a_raw_one").await;
}

#[tokio::test]
async fn the_file_is_written_at_once_and_a_last_time_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/budget.json");
    let first = ledgers();
    let (stop, stopped) = oneshot::channel::<()>();
    let wait_for_stop = async {
        let _ = stopped.await;
    };
    let keeper = tokio::spawn(keep(path.clone(), first.clone(), wait_for_stop));
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    spend(&first, "getconfig").await;
    stop.send(()).unwrap();
    keeper.await.unwrap();

    let second = ledgers();
    assert_eq!(restore(&path, &second), Found::Counted);
    assert_eq!(used(&second, "getconfig"), 25);
    let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "something was left beside the file");
}

#[tokio::test]
async fn the_file_is_written_again_while_something_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("budget.json");
    let first = ledgers();
    let keeper = tokio::spawn(keep(path.clone(), first.clone(), std::future::pending()));
    while !path.exists() {
        tokio::task::yield_now().await;
    }
    spend(&first, "getconfig").await;
    while !fs::read_to_string(&path).unwrap().contains("getconfig") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_scope_closes_every_window_until_it_has_lapsed() {
    let first = ledgers();
    spend(&first, "getconfig").await;
    let saved = Saved::of(&first, at(0));
    let whole = Config { scope: Scope::Instance, ..Config::default() };
    let second = BTreeMap::from([("demo".to_owned(), Ledger::new(whole))]);
    saved.restore(&second, at(10_000));
    let ask = Ask { command: "payitems", class: Class::Payment, deadline: Instant::now() };
    let denied = second["demo"].acquire(ask).await.unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_millis(20_500));
}
