//! The command line: one file a subcommand.
//!
//! Exit status 0 is success, 1 a failure, 2 bad usage or a bad configuration. Errors go to standard error; what a
//! command was asked to print goes to standard output.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod demo;
mod healthcheck;
mod journal;
mod openapi;
mod serve;
mod simulate;
mod token;
mod validate;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::settings::{Faults, Printed};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Bad usage or a bad configuration.
const BAD_USAGE: u8 = 2;

/// HTTP for ConcertPOS: a bridge from REST to the gateway's WebSocket.
#[derive(Debug, Parser)]
#[command(name = "concertpos-bridge", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge
    Serve(ConfigFile),
    /// Run a simulated gateway and the bridge in one process, with nothing to configure and nothing kept
    Demo(demo::Demo),
    /// Run the simulated gateway alone
    Simulate(simulate::Simulate),
    /// Check a configuration and say every fault with its place
    Validate(validate::Validate),
    /// Print the OpenAPI document
    Openapi(openapi::Openapi),
    /// Caller tokens
    #[command(subcommand)]
    Token(token::Token),
    /// The payment journal
    #[command(subcommand)]
    Journal(journal::Journal),
    /// Exit with 0 if a running bridge is ready, else with 1
    Healthcheck(healthcheck::Healthcheck),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// TOML file; without one, settings come from the environment alone (`BRIDGE_SECTION__KEY`)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The configuration cannot be used.
    #[error("{0}")]
    Configuration(Faults),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("{failure}");
            match failure {
                Failure::Configuration(_) => ExitCode::from(BAD_USAGE),
                Failure::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(file) => serve::run(file.config.as_deref()),
        Command::Demo(flags) => Ok(until_stopped(|shutdown| demo::run(flags, shutdown))?),
        Command::Simulate(flags) => Ok(until_stopped(|shutdown| simulate::run(flags, shutdown))?),
        Command::Validate(flags) => validate::run(&flags),
        Command::Openapi(flags) => Ok(openapi::run(&flags)?),
        Command::Token(token) => Ok(token::run(token)?),
        Command::Journal(command) => journal::run(&command),
        Command::Healthcheck(flags) => Ok(healthcheck::run(&flags)?),
    }
}

/// Prints what was asked for. Whoever reads it may stop reading, as `head` does: that is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The configuration of `file` with the process's environment over it.
fn load(file: Option<&Path>) -> Result<(Config, Printed), Failure> {
    Config::load(file, std::env::vars_os()).map_err(Failure::Configuration)
}

/// How long the end waits for threads that read or write files.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Runs a service until SIGINT or SIGTERM, and until it has stopped in order.
fn until_stopped<F: Future<Output = anyhow::Result<()>>>(
    service: impl FnOnce(Shutdown) -> F,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signals = tokio::spawn(shutdown.clone().on_signals());
        let ended = service(shutdown).await;
        signals.abort();
        ended.map(|()| ExitCode::SUCCESS)
    });
    // A disk that hangs holds threads that nothing can end, and the process must end all the same.
    runtime.shutdown_timeout(LEFT_BEHIND);
    ended
}

/// Starts logging where no configuration says how.
fn log_to_standard_error(filter: &str) {
    if let Ok(filter) = telemetry::filter(filter) {
        telemetry::start(filter, telemetry::LogFormat::Text, None);
    }
}
