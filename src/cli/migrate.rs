//! `migrate`: the schema of the database of several replicas, and what an embedded payment journal holds.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::common::{ConfigFile, Failure, log_to_standard_error};
use super::terminal::one_line;
use crate::config::Config;
use crate::database::{self, Migrated};
use crate::journal::{self, Contradicted, ImportError, Imported};

/// Flags of `migrate`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    file: ConfigFile,
    /// Also carry the payments of the embedded journal in this folder over into the database; no bridge may run on it
    #[arg(long, value_name = "DIR")]
    import: Option<PathBuf>,
    /// Confirm that the database was restored from a backup and what was sold since was looked after: replicas sell again
    #[arg(long, conflicts_with = "import")]
    confirm_restore: bool,
}

pub(super) fn run(flags: &Migrate) -> Result<ExitCode, Failure> {
    let loaded = Config::load(flags.file.config.as_deref(), std::env::vars_os());
    let (config, printed) = loaded.map_err(Failure::Configuration)?;
    for warning in printed.warnings() {
        eprintln!("warning: {warning}");
    }
    let Some(cluster) = config.cluster else {
        return Err(Failure::Usage("[cluster] is missing: a bridge without it has no database".into()));
    };
    log_to_standard_error("warn");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        bring_up(&cluster.database).await?;
        if flags.confirm_restore {
            confirm(&cluster.database).await?;
        }
        match &flags.import {
            Some(directory) => import(&cluster.database, directory).await,
            None => Ok(ExitCode::SUCCESS),
        }
    })
}

async fn bring_up(database: &database::Config) -> anyhow::Result<()> {
    let Migrated { from, to } =
        database::migrate(database).await.context("the schema of the database cannot be brought up to date")?;
    match from {
        0 => println!("the schema of the database was made, with format {to}"),
        from if from == to => println!("the schema of the database is up to date, with format {to}"),
        from => println!("the schema of the database was brought from format {from} to {to}"),
    }
    Ok(())
}

async fn confirm(database: &database::Config) -> anyhow::Result<()> {
    let how = database::confirm_restore(database).await.context("the restore could not be confirmed")?;
    match how {
        Some(how) => println!("confirmed, so that replicas send payments again: {how}"),
        None => println!("there is nothing to confirm: the database is not known to have been restored"),
    }
    Ok(())
}

async fn import(database: &database::Config, directory: &Path) -> Result<ExitCode, Failure> {
    match journal::import(database, directory.to_owned()).await {
        Ok(imported) => {
            println!("{}", told(&imported));
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ ImportError::NoJournal { .. }) => Err(Failure::Usage(error.to_string())),
        Err(error) => {
            if let ImportError::Contradictions { count, told } = &error {
                tell(told, *count);
            }
            Err(anyhow::Error::from(error).into())
        }
    }
}

/// What an import did, in a few lines.
fn told(imported: &Imported) -> String {
    let Imported { path, carried, present, bytes_only, was_done } = imported;
    let path = path.display();
    if *was_done {
        return format!("{path} had been carried over before");
    }
    let by_state: Vec<_> = carried.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let by_state = if by_state.is_empty() { String::new() } else { format!(": {}", by_state.join(", ")) };
    let mut lines = vec![format!("{} records carried over{by_state}", carried.values().sum::<u64>())];
    if *present > 0 {
        lines.push(format!("{present} records were there already"));
    }
    if *bytes_only > 0 {
        lines.push(format!("{bytes_only} records that cannot be read and belong to no key kept in payment_replaced"));
    }
    lines.push(format!("the journal is {path} now: keep it as a copy, nothing reads it"));
    lines.join("\n")
}

fn tell(told: &[Contradicted], count: u64) {
    for Contradicted { key, ours, theirs } in told {
        let (instance, caller, key) = (&key.instance, &key.caller, &key.idempotency_key);
        let line = format!(
            "instance {instance}, caller {caller}, key {key}: the journal has payment {} ({}), the database payment {} ({})",
            ours.0, ours.1, theirs.0, theirs.1
        );
        eprintln!("{}", one_line(&line));
    }
    if let Some(more) =
        usize::try_from(count).ok().and_then(|count| count.checked_sub(told.len())).filter(|more| *more > 0)
    {
        eprintln!("… and {more} more");
    }
}
