//! What the subcommands have in common.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::refusal::Refusal;
use super::terminal;
use crate::config::Config;
use crate::settings::{ConfigErrors, EffectiveConfig};
use crate::shutdown::Shutdown;
use crate::telemetry;

/// The exit status of bad usage and of a bad configuration.
pub(super) const BAD_USAGE: u8 = 2;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// TOML file; without one, settings come from the environment alone (`BRIDGE_SECTION__KEY`)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The configuration cannot be used.
    #[error("{0}")]
    Configuration(ConfigErrors),
    /// The command was used in a way that only shows once it runs.
    #[error("{0}")]
    Usage(String),
    /// The bridge said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Prints what was asked for. Whoever reads it may stop reading, as `head` does: that is no failure.
pub(super) fn print(text: &str) -> io::Result<()> {
    print_more(text).map(|_| ())
}

/// Prints what was asked for so far; false once nobody reads it any more.
pub(super) fn print_more(text: &str) -> io::Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// CSV of the bridge, as it came but for what could steer the terminal that it is shown on.
pub(super) fn as_csv(body: &str) -> String {
    if io::stdout().is_terminal() { terminal::lines(body) } else { body.to_owned() }
}

/// JSON of the bridge, as it came but for what could steer the terminal that it is shown on.
pub(super) fn as_json(body: &str) -> String {
    let body = body.trim_end();
    if io::stdout().is_terminal() { format!("{}\n", terminal::json(body)) } else { format!("{body}\n") }
}

/// The configuration of `file` with the process's environment over it.
pub(super) fn load(file: Option<&Path>) -> Result<(Config, EffectiveConfig), Failure> {
    Config::load(file, std::env::vars_os()).map_err(Failure::Configuration)
}

/// How long the end waits for threads that read or write files.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Runs a service until SIGINT or SIGTERM, and until it has stopped in order.
pub(super) fn until_stopped<F: Future<Output = anyhow::Result<()>>>(
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
pub(super) fn log_to_standard_error(filter: &str) {
    if let Ok(filter) = telemetry::filter(filter) {
        telemetry::start(filter, telemetry::LogFormat::Text, None, None);
    }
}
