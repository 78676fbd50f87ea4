//! The command line: one file a subcommand.
//!
//! Exit status 0 is success, 1 a failure or a refusal, 2 bad usage or a bad configuration. Errors go to standard error; what a
//! command was asked to print goes to standard output.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line does")]

mod client;
mod common;
mod demo;
mod event_decoder;
mod events;
mod healthcheck;
mod journal;
mod manual;
mod migrate;
mod node;
mod openapi;
mod payments;
mod refusal;
mod serve;
mod shards;
mod simulate;
mod status;
mod terminal;
mod token;
mod validate;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use common::{BAD_USAGE, ConfigFile, Failure, until_stopped};

/// HTTP for ConcertPOS: a bridge from REST to the gateway's WebSocket.
#[derive(Debug, Parser)]
#[command(name = "concertpos-bridge", version = env!("PROGRAM_VERSION"), about, arg_required_else_help = true)]
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
    /// Check a configuration and report every error with its place
    Validate(validate::Validate),
    /// Print the OpenAPI document
    Openapi(openapi::Openapi),
    /// Caller tokens
    #[command(subcommand)]
    Token(token::Token),
    /// The payment journal
    #[command(subcommand)]
    Journal(journal::Journal),
    /// Bring the database of several replicas up to date, and carry an embedded payment journal over into it
    Migrate(migrate::Migrate),
    /// Payments of a running bridge: list, show, settle
    #[command(subcommand)]
    Payments(payments::Payments),
    /// Show the state of a running bridge; needs scope `operate`
    Status(status::Status),
    /// Take a shard of the gateway out of a running bridge, or put it back
    #[command(subcommand)]
    Shards(shards::Shards),
    /// Print an instance's broadcasts as they come
    Events(events::Events),
    /// Print a script that completes commands and flags in a shell
    Completions(manual::Completions),
    /// Write the manual pages
    Man(manual::Man),
    /// Exit with 0 if a running bridge is ready, else with 1
    Healthcheck(healthcheck::Healthcheck),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("{failure}");
            match failure {
                Failure::Configuration(_) | Failure::Usage(_) => ExitCode::from(BAD_USAGE),
                Failure::Refused(_) | Failure::Other(_) => ExitCode::FAILURE,
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
        Command::Migrate(flags) => migrate::run(&flags),
        Command::Payments(command) => payments::run(&command),
        Command::Status(flags) => status::run(&flags),
        Command::Shards(command) => shards::run(&command),
        Command::Events(flags) => events::run(&flags),
        Command::Completions(flags) => Ok(manual::completions(Arguments::command(), &flags)?),
        Command::Man(flags) => Ok(manual::man(Arguments::command(), &flags)?),
        Command::Healthcheck(flags) => Ok(healthcheck::run(&flags)?),
    }
}
