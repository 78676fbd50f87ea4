//! `validate`: every fault of a configuration at once, a payment journal that is not there, and on request what is in force and whether the shards answer.

use std::process::ExitCode;

use clap::Args;

use super::common::{ConfigFile, Failure, load, print};
use crate::config::Config;
use crate::gateway::{self, Dialer, dial_once};

/// Flags of `validate`.
#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    file: ConfigFile,
    /// Connect to each shard once
    #[arg(long)]
    dial: bool,
    /// Show what is in force and where each value came from, secrets redacted
    #[arg(long)]
    print: bool,
}

pub(super) fn run(flags: &Validate) -> Result<ExitCode, Failure> {
    let (config, printed) = load(flags.file.config.as_deref())?;
    for warning in printed.warnings() {
        eprintln!("warning: {warning}");
    }
    crate::journal::inspect(&config.payments).map_err(anyhow::Error::from)?;
    if flags.print {
        print(&printed.to_string()).map_err(anyhow::Error::from)?;
    }
    if flags.dial && !dial(&config)? {
        return Ok(ExitCode::FAILURE);
    }
    if !flags.print && !flags.dial {
        println!("the configuration is valid");
    }
    Ok(ExitCode::SUCCESS)
}

/// Connects to each shard for each instance; true where all answered.
fn dial(config: &Config) -> anyhow::Result<bool> {
    let tls = gateway::client_config(config.gateway.ca_file.as_deref()).map_err(|why| anyhow::anyhow!(why))?;
    let dialer = Dialer::tcp(tls);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all_answered = true;
    for (name, instance) in &config.instances {
        for shard in &config.gateway.shards {
            let dialled = dial_once(&config.gateway, &dialer, shard, &instance.slug);
            match runtime.block_on(dialled) {
                Ok(took) => println!("{name} on {shard}: open after {} ms", took.as_millis()),
                Err(why) => {
                    all_answered = false;
                    println!("{name} on {shard}: {why}");
                }
            }
        }
    }
    Ok(all_answered)
}
