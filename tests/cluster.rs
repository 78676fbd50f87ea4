//! Several replicas as processes of their own, over a real PostgreSQL pair and a simulated gateway, while one thing after the
//! other goes away.
//!
//! One test at a time: each has up to eight processes, and what is measured is how long they take. The most telling ones run
//! with all other tests; `scripts/cluster` runs the others too, `scripts/cluster short` without the long rounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod support;

#[path = "support/cluster.rs"]
mod replicas;

#[path = "support/postgres.rs"]
mod postgres;

#[path = "cluster/away.rs"]
mod away;

#[path = "cluster/festival.rs"]
mod festival;

#[path = "cluster/handover.rs"]
mod handover;

#[path = "cluster/killed.rs"]
mod killed;

#[path = "cluster/measured.rs"]
mod measured;

#[path = "cluster/paused.rs"]
mod paused;

#[path = "cluster/selling.rs"]
mod selling;

#[path = "cluster/serving.rs"]
mod serving;

use tokio::sync::{Mutex, MutexGuard};

/// Held by each test while it runs.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}
