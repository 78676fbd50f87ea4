//! `validate`: every fault of a configuration at once, a payment journal that is not there, and on request what is in force,
//! whether the shards answer and whether the gateway accepts the keys.

use std::process::ExitCode;

use clap::Args;
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use super::common::{ConfigFile, Failure, load, print};
use super::terminal::one_line;
use crate::app::App;
use crate::config::{Config, Instance};
use crate::gateway::{self, Dialer, dial_once};
use crate::protocol::command::GETLICENSE;
use crate::protocol::{Command, GatewayError, Meaning, Parameters};

/// Flags of `validate`.
#[derive(Debug, Args)]
pub(super) struct Validate {
    #[command(flatten)]
    file: ConfigFile,
    /// Connect to each shard once
    #[arg(long)]
    dial: bool,
    /// Ask one cheap command (getlicense, 4 points) with the key of each instance
    #[arg(long)]
    key: bool,
    /// Show what is in force and where each value came from, secrets redacted
    #[arg(long)]
    print: bool,
}

pub(super) fn run(flags: &Validate) -> Result<ExitCode, Failure> {
    let (config, printed) = load(flags.file.config.as_deref())?;
    for warning in printed.warnings() {
        eprintln!("warning: {warning}");
    }
    match config.cluster {
        None => crate::journal::inspect(&config.payments).map_err(anyhow::Error::from)?,
        Some(_) => App::check(&config).map_err(|why| Failure::Usage(format!("{why:#}")))?,
    }
    if flags.print {
        print(&printed.to_string()).map_err(anyhow::Error::from)?;
    }
    // Both, so that one fault does not hide another.
    let all_open = !flags.dial || dial(&config)?;
    let all_accepted = !flags.key || try_keys(&config)?;
    if !all_open || !all_accepted {
        return Ok(ExitCode::FAILURE);
    }
    if !flags.print && !flags.dial && !flags.key {
        println!("the configuration is valid");
    }
    Ok(ExitCode::SUCCESS)
}

/// What dials, and on what it runs.
fn network(config: &Config) -> anyhow::Result<(Dialer, Runtime)> {
    let tls = gateway::client_config(config.gateway.ca_file.as_deref()).map_err(|why| anyhow::anyhow!(why))?;
    Ok((Dialer::tcp(tls), tokio::runtime::Builder::new_current_thread().enable_all().build()?))
}

/// Asks the gateway with each instance's key, on the first shard that answers; true where it accepted all of them.
fn try_keys(config: &Config) -> anyhow::Result<bool> {
    let (dialer, runtime) = network(config)?;
    let mut all_accepted = true;
    for (name, instance) in &config.instances {
        let verdict = runtime.block_on(try_key(config, &dialer, instance));
        all_accepted &= verdict.is_ok();
        let verdict = verdict.map_or_else(|why| why, |()| "the gateway accepts the key".to_owned());
        println!("{name}: {}", one_line(&verdict));
    }
    Ok(all_accepted)
}

/// An error says what the gateway answered instead, or that no shard did.
async fn try_key(config: &Config, dialer: &Dialer, instance: &Instance) -> Result<(), String> {
    let command = Command::known(&GETLICENSE, Parameters::default());
    let mut silence = "no shard is configured".to_owned();
    for shard in &config.gateway.shards {
        let asked = (&command, instance.api_key.expose_secret());
        match gateway::ask_once(&config.gateway, dialer, (shard, &instance.slug), asked).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => return Err(refused(&error)),
            Err(why) => silence = format!("the key could not be tried: {shard}: {why}"),
        }
    }
    Err(silence)
}

/// What a refusal says of the key.
fn refused(error: &GatewayError) -> String {
    let word = &error.error;
    match error.meaning() {
        Meaning::Credentials => format!("the gateway refuses the key: {word}"),
        Meaning::License => format!("the gateway accepts the key, but the licence is invalid: {word}"),
        Meaning::RateLimit { .. } => {
            format!("the key could not be tried, since the points of getlicense are spent: {word}")
        }
        _ => format!("the key could not be tried: the gateway answered {word}"),
    }
}

/// Connects to each shard for each instance; true where all answered.
fn dial(config: &Config) -> anyhow::Result<bool> {
    let (dialer, runtime) = network(config)?;
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
