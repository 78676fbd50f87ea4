//! A database that was restored from a backup: keys used since are new in it, so nothing is sent until an operator confirms.

use std::net::SocketAddr;
use std::process::Command;

use super::postgres::{claim, opened, server};
use super::*;
use crate::database::tests::config as database_config;
use crate::database::tests::server::{Pair, Postgres, database_of, programs};
use crate::database::{self, confirm_restore, migrate};
use crate::journal::postgres::config::PostgresConfig;
use crate::tenure::Tenures;

/// A replica's journal that owns the instance.
pub(super) async fn replica(url: &str, sql: impl FnOnce(&str) -> String) -> Journal {
    let tenures = Tenures::default();
    let (session, epoch) = claim(&tenures, sql);
    let journal = open_replica(&config(url), tenures);
    retried(|| journal.unknown_after_takeover("demo", session, epoch)).await;
    journal
}

fn open_replica(config: &database::Config, tenures: Tenures) -> Journal {
    let config = PostgresConfig::new(config.clone(), KEEP, tenures, Duration::ZERO).with_pace(Duration::ZERO);
    opened(Journal::open_postgres(config)).unwrap()
}

pub(super) fn config(url: &str) -> database::Config {
    database_config(url)
}

pub(super) async fn retried<T, E: fmt::Debug, F: Future<Output = Result<T, E>>>(mut attempt: impl FnMut() -> F) -> T {
    let begun = std::time::Instant::now();
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs one of PostgreSQL's programs on a database.
fn run(program: &str, address: SocketAddr, arguments: &[&str]) {
    let mut command = Command::new(programs().join(program));
    command.args(["--host=127.0.0.1", "--username=bridge", &format!("--port={}", address.port())]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn is_held(journal: &Journal) {
    until("it is held", || !journal.is_available()).await;
    assert!(matches!(journal.reserve(key("new"), sale(1)).await, Reserve::Unavailable(_)));
    let (_, told) = journal.condition().unwritable.expect("an operator is told");
    assert!(told.contains("restored") && told.contains("--confirm-restore"), "{told}");
}

/// Books under a new key, as soon as that is possible.
pub(super) async fn sells(journal: &Journal, name: &str) {
    until("payments are sent", || journal.is_available()).await;
    let dispatched = retried(|| async {
        match journal.reserve(key(name), sale(1)).await {
            Reserve::Fresh(reservation) => journal.dispatch(reservation).await,
            _ => Err(JournalError::Unavailable),
        }
    });
    let finished = journal.finish(dispatched.await, booked()).await.unwrap();
    assert_eq!(finished.state(), State::Booked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_was_restored_elsewhere_sends_nothing_until_that_is_confirmed() {
    let place = server();
    let from = place.new_database();
    migrate(&config(&from)).await.unwrap();
    let journal = replica(&from, |text| place.sql(database_of(&from), text)).await;
    sells(&journal, "before").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump").display().to_string();
    run("pg_dump", place.address(), &["--format=custom", "--file", &file, database_of(&from)]);
    sells(&journal, "since").await;
    let to = place.new_database();
    run("pg_restore", place.address(), &["--no-owner", "--dbname", database_of(&to), &file]);
    let restored = replica(&to, |text| place.sql(database_of(&to), text)).await;
    is_held(&restored).await;
    assert!(matches!(restored.reserve(key("before"), sale(1)).await, Reserve::Replay(_)), "it is answered from");
    // A start does not confirm it, nor does bringing the schema up.
    migrate(&config(&to)).await.unwrap();
    is_held(&replica(&to, |text| place.sql(database_of(&to), text)).await).await;
    let how = confirm_restore(&config(&to)).await.unwrap().expect("something to confirm");
    assert!(how.contains("dump"), "{how}");
    let restored = replica(&to, |text| place.sql(database_of(&to), text)).await;
    sells(&restored, "since").await;
    assert_eq!(confirm_restore(&config(&to)).await, Ok(None));
    sells(&journal, "the first is as it was").await;
}

/// Restored beneath running replicas, whose sessions and tenures are in the backup too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_restored_beneath_a_replica_takes_no_payment_that_was_already_reserved() {
    let place = server();
    for arguments in [&["--clean", "--if-exists"][..], &["--data-only", "--single-transaction"]] {
        let from = place.new_database();
        let name = database_of(&from);
        migrate(&config(&from)).await.unwrap();
        let journal = replica(&from, |text| place.sql(name, text)).await;
        sells(&journal, "before").await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dump").display().to_string();
        run("pg_dump", place.address(), &["--format=custom", "--file", &file, name]);
        sells(&journal, "since").await;
        let next = reserve(&journal, "next").await;
        if arguments[0] == "--data-only" {
            let tables = "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables WHERE schemaname = 'public'";
            place.sql(name, &format!("TRUNCATE {}", place.sql(name, tables)));
        }
        run("pg_restore", place.address(), &[&["--no-owner", "--dbname", name, &file], arguments].concat());
        assert_eq!(journal.dispatch(next).await.map(|_| ()), Err(JournalError::Unavailable), "{arguments:?}");
        is_held(&journal).await;
        let other = replica(&from, |text| place.sql(name, text)).await;
        is_held(&other).await;
        confirm_restore(&config(&from)).await.unwrap().expect("something to confirm");
        sells(&other, "since").await;
    }
}

/// Files of before, started as they are: only who lived through it can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_before_are_noticed_by_whoever_had_something_acknowledged_since() {
    let mut server = Postgres::start();
    let from = server.new_database();
    let name = database_of(&from).to_owned();
    migrate(&config(&from)).await.unwrap();
    let journal = replica(&from, |text| server.sql(&name, text)).await;
    sells(&journal, "before").await;
    server.server().stop();
    server.server().save_files();
    server.server().start();
    sells(&journal, "since").await;
    server.server().stop();
    server.server().put_files_back();
    server.server().start();
    // Until that is noticed, it reaches the server in one of these attempts.
    for attempt in 0.. {
        let is_known = server.sql(&name, "SELECT restored IS NOT NULL FROM database_mark") == "t";
        if let Reserve::Fresh(next) = journal.reserve(key(&attempt.to_string()), sale(1)).await {
            assert_eq!(journal.dispatch(next).await.map(|_| ()), Err(JournalError::Unavailable));
        }
        if is_known {
            break;
        }
    }
    is_held(&journal).await;
    let other = replica(&from, |text| server.sql(&name, text)).await;
    is_held(&other).await;
    confirm_restore(&config(&from)).await.unwrap().expect("something to confirm");
    sells(&other, "since").await;
    until("the first goes on too", || journal.is_available()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_nothing_is_no_restore_where_a_replica_lived_through_it() {
    let mut pair = Pair::start();
    let from = pair.new_database();
    let name = database_of(&from).to_owned();
    migrate(&config(&from)).await.unwrap();
    let journal = replica(&from, |text| pair.primary().sql(&name, text)).await;
    sells(&journal, "before").await;
    pair.kill_primary();
    pair.promote();
    sells(&journal, "after").await;
    let mark = "SELECT m.timeline FROM database_mark m WHERE m.restored IS NULL";
    until("the timeline is noted", || pair.primary().sql(&name, mark) == "2").await;
    let begun_after = replica(&pair.url(&name), |text| pair.primary().sql(&name, text)).await;
    sells(&begun_after, "after it").await;
    drop((journal, begun_after));
    // Nobody lived through this one.
    pair.rejoin();
    pair.kill_primary();
    pair.promote();
    let alone = replica(&pair.url(&name), |text| pair.primary().sql(&name, text)).await;
    is_held(&alone).await;
    let how = confirm_restore(&config(&pair.url(&name))).await.unwrap().expect("something to confirm");
    assert!(how.contains("promoted"), "{how}");
    sells(&alone, "confirmed").await;
}
