//! Against a real PostgreSQL.

#[path = "../../tests/support/postgres.rs"]
pub(crate) mod server;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{self, Instant};

use super::*;
use server::{Pair, Postgres};

/// A configuration for a database of this machine.
pub(crate) fn config(url: &str) -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    Config::parse(url, || Ok(Arc::new(tls))).unwrap()
}

/// A new database of the server that all tests share, with the schema.
pub(crate) async fn migrated() -> Config {
    let config = config(&Postgres::shared().new_database());
    migrate(&config).await.unwrap();
    config
}

fn number(rows: &[Rows]) -> Option<i64> {
    rows.iter().flatten().next().map(|row| row.get(0))
}

async fn age(connection: &Connection) -> Result<Option<i64>, Error> {
    connection.read(&[Statement::new("SELECT age_ms FROM journal_age")]).await.map(|rows| number(&rows))
}

fn set_age(age_ms: i64) -> Statement {
    Statement::new("UPDATE journal_age SET age_ms = $1 RETURNING age_ms").bigint(age_ms)
}

#[tokio::test]
async fn the_schema_is_made_once_by_whoever_comes_first_and_a_newer_one_is_refused() {
    let config = config(&Postgres::shared().new_database());
    let connection = Connection::new(config.clone(), "test");
    assert_eq!(check_schema(&connection).await, Err(SchemaError::Missing));
    let (one, other) = tokio::join!(migrate(&config), migrate(&config));
    let mut begun_at = [one.unwrap().from, other.unwrap().from];
    begun_at.sort_unstable();
    assert_eq!(begun_at, [0, FORMAT]);
    assert_eq!(check_schema(&connection).await, Ok(()));
    let newer = Statement::new("UPDATE bridge_schema SET format = format + 1");
    connection.batch(Durability::On, &[newer]).await.done().unwrap();
    let found = FORMAT + 1;
    assert_eq!(check_schema(&connection).await, Err(SchemaError::Newer { found }));
    assert_eq!(migrate(&config).await, Err(SchemaError::Newer { found }));
    let older = Statement::new("UPDATE bridge_schema SET format = 0");
    connection.batch(Durability::On, &[older]).await.done().unwrap();
    assert_eq!(check_schema(&connection).await, Err(SchemaError::Older { found: 0 }));
}

#[tokio::test]
async fn what_was_done_is_read_and_a_refused_statement_undoes_those_beside_it() {
    let connection = Connection::new(migrated().await, "test");
    let rows = connection.batch(Durability::On, &[set_age(7), set_age(8)]).await.done().unwrap();
    assert_eq!(number(rows.get(1..).unwrap()), Some(8));
    let refused = Statement::new("INSERT INTO journal_age (age_ms) VALUES (1)");
    let ended = connection.batch(Durability::Local, &[set_age(9), refused, set_age(10)]).await;
    assert!(matches!(&ended, Ended::NotDone(error) if error.has_code("23505")), "{ended:?}");
    assert_eq!(age(&connection).await, Ok(Some(8)));

    let mut transaction = connection.begin(Durability::On).await.unwrap();
    transaction.run(&set_age(11)).await.unwrap();
    // Whatever is made of the refusal, nothing of it can be committed.
    transaction.run(&Statement::new("SELECT 1 / 0")).await.unwrap_err();
    let ended = transaction.commit().await;
    assert!(matches!(ended, Ended::NotDone(_)), "{ended:?}");
    assert_eq!(age(&connection).await, Ok(Some(8)));
}

#[tokio::test]
async fn the_settings_of_a_transaction_are_its_own() {
    let connection = Connection::new(migrated().await, "test");
    let show = || {
        Statement::new(
            "SELECT current_setting('synchronous_commit') || ' ' || current_setting('lock_timeout') || ' ' || \
             current_setting('idle_in_transaction_session_timeout')",
        )
    };
    let shown = |rows: Vec<Rows>| rows.iter().flatten().next().map(|row| row.get::<_, String>(0));
    let local = connection.batch(Durability::Local, &[show()]).await.done().unwrap();
    assert_eq!(shown(local).as_deref(), Some("local 1s 2s"));
    let on = connection.batch(Durability::On, &[show()]).await.done().unwrap();
    assert_eq!(shown(on).as_deref(), Some("on 1s 2s"));
    let after = connection.read(&[show()]).await.unwrap();
    assert_eq!(shown(after).as_deref(), Some("on 0 0"));
}

#[tokio::test]
async fn a_locked_row_is_waited_for_a_second_and_the_connection_goes_on() {
    let config = migrated().await;
    let (holder, other) = (Connection::new(config.clone(), "test"), Connection::new(config, "test"));
    let mut held = holder.begin(Durability::Local).await.unwrap();
    held.run(&set_age(1)).await.unwrap();
    let ended = other.batch(Durability::On, &[set_age(2)]).await;
    assert!(matches!(ended, Ended::NotDone(Error::Locked)), "{ended:?}");
    held.commit().await.done().unwrap();
    assert_eq!(other.batch(Durability::On, &[set_age(3)]).await.done().map(|rows| number(&rows)), Some(Some(3)));
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_undone_and_the_next_one_has_a_connection() {
    let connection = Connection::new(migrated().await, "test");
    let mut transaction = connection.begin(Durability::On).await.unwrap();
    transaction.run(&set_age(5)).await.unwrap();
    drop(transaction);
    assert_eq!(age(&connection).await, Ok(Some(0)));
}

#[tokio::test]
async fn the_timeline_tells_a_promotion_from_another_database() {
    let mut pair = Pair::start();
    let config = config(&pair.new_database());
    let connection = Connection::new(config, "test");
    let before = Timeline::read(&connection).await.unwrap();
    pair.kill_primary();
    pair.promote();
    let after = until(|| Timeline::read(&connection)).await;
    assert_eq!((after.system, after.timeline), (before.system.clone(), before.timeline + 1));
    let other = Connection::new(migrated().await, "test");
    assert_ne!(Timeline::read(&other).await.unwrap().system, before.system);
}

#[tokio::test]
async fn a_commit_whose_standby_is_away_is_ambiguous_also_where_the_wait_was_cancelled() {
    let mut pair = Pair::start();
    let url = pair.new_database();
    let config = config(&url);
    migrate(&config).await.unwrap();
    let connection = Connection::new(config.clone(), "test");
    assert!(connection.batch(Durability::On, &[set_age(1)]).await.done().is_some());
    pair.stop_standby();
    let begun = Instant::now();
    assert!(matches!(connection.batch(Durability::On, &[set_age(2)]).await, Ended::Ambiguous));
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());

    let cancelling = Connection::new(config, "cancelled");
    let waiting = Statement::new("INSERT INTO copy VALUES ('demo', '', 0, '')");
    let waiting = [waiting];
    let waiting = cancelling.batch(Durability::On, &waiting);
    let cancel = async {
        let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
            WHERE application_name LIKE '%cancelled' AND wait_event = 'SyncRep'";
        until(|| {
            let cancelled = pair.primary().sql("postgres", cancel) == "1";
            async move { cancelled.then_some(()).ok_or(()) }
        })
        .await;
    };
    let (ended, ()) = tokio::join!(waiting, cancel);
    assert!(matches!(ended, Ended::Ambiguous), "{ended:?}");

    pair.start_standby();
    let connection = &connection;
    until(|| async move { connection.batch(Durability::On, &[set_age(3)]).await.done().ok_or(()) }).await;
}

/// Tries again until it succeeds.
pub(crate) async fn until<T, E, F: Future<Output = Result<T, E>>>(mut attempt: impl FnMut() -> F) -> T {
    let tries = async {
        loop {
            if let Ok(done) = attempt().await {
                return done;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(30), tries).await.unwrap()
}
