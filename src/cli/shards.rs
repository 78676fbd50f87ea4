//! `shards`: takes a shard of the gateway out by hand, and puts it back.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{Client, Connection, HELP};
use super::common::Failure;
use super::terminal::one_line;

/// The gateway's shards; needs scope `operate`.
#[derive(Debug, Subcommand)]
pub(super) enum Shards {
    /// Take a shard out: it gets no new connections, for all instances that the token may use, until it is put back or the
    /// bridge restarts
    #[command(after_help = HELP)]
    Cordon(Shard),
    /// Put a shard back
    #[command(after_help = HELP)]
    Uncordon(Shard),
}

/// Which shard.
#[derive(Debug, Args)]
pub(super) struct Shard {
    /// Name of the shard, as `status` lists it
    shard: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) fn run(command: &Shards) -> Result<ExitCode, Failure> {
    let (Shard { shard, connection }, cordoned) = match command {
        Shards::Cordon(shard) => (shard, true),
        Shards::Uncordon(shard) => (shard, false),
    };
    let client = Client::new(connection)?;
    let wanted = serde_json::json!({ "cordoned": cordoned }).to_string();
    let answer = client.put(&["v1", "bridge", "shards", shard], None, &wanted)?;
    client.show(&answer, |shard| {
        let state = if shard.is_true("cordoned") { "taken out" } else { "in use" };
        format!("shard {} is {state}\n", one_line(shard.shown("shard")))
    })?;
    Ok(ExitCode::SUCCESS)
}
