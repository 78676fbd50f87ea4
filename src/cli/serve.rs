//! `serve`: the bridge, and SIGHUP, which rereads tokens, certificates and the instances' keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::common::{Failure, load, until_stopped};
use crate::app::App;
use crate::config::Config;
use crate::gateway;
use crate::reload::{self, Reload};
use crate::settings::{ConfigError, EffectiveConfig};
use crate::telemetry::{self, Traces};

pub(super) fn run(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let (config, printed) = load(file)?;
    let filter = telemetry::filter(&config.telemetry.log).context("telemetry.log")?;
    let traces = traces(&config)?;
    telemetry::start(filter, config.telemetry.log_format, traces.as_ref());
    warn_of(&printed);
    raise_open_files();
    let file = file.map(Path::to_owned);
    let ended = until_stopped(async |shutdown| {
        // Heeded before anything listens: unheeded, the signal would end the process.
        let hangups = signal(SignalKind::hangup())?;
        let app = App::build(config, shutdown)?;
        let reloading = tokio::spawn(reload_on(hangups, app.reload(), (file, printed)));
        let ended = app.run().await;
        reloading.abort();
        ended
    });
    if let Some(traces) = traces {
        traces.end();
    }
    Ok(ended?)
}

/// Traces, where a collector is configured.
fn traces(config: &Config) -> anyhow::Result<Option<Traces>> {
    let Some(endpoint) = &config.telemetry.otlp_endpoint else { return Ok(None) };
    let tls = gateway::client_config(config.gateway.ca_file.as_deref()).map_err(|why| anyhow!(why))?;
    Ok(Some(Traces::to(endpoint, tls).map_err(|why| anyhow!("telemetry.otlp_endpoint: {why}"))?))
}

fn warn_of(printed: &EffectiveConfig) {
    for ConfigError { origin, key, message } in printed.warnings() {
        tracing::warn!(setting = key, place = %origin, "{message}");
    }
}

/// Each connection is an open file, and the usual soft limit of 1024 is there only for programs older than this one.
fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(why) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%why, ?current, "the limit of open files, and so of connections, cannot be raised");
    }
}

/// Rereads the configuration at each hangup, for as long as it is polled. `started` is the file and what was in force at
/// the start.
async fn reload_on(mut hangups: Signal, reload: Reload, started: (Option<PathBuf>, EffectiveConfig)) {
    let started = Arc::new(started);
    while hangups.recv().await.is_some() {
        let (reload, started) = (reload.clone(), Arc::clone(&started));
        // Reads files: not on a thread that serves.
        let reread = tokio::task::spawn_blocking(move || {
            let (config, printed) = load(started.0.as_deref()).map_err(|failure| failure.to_string())?;
            reload.apply(&config)?;
            warn_of(&printed);
            let changed = printed.changed_since(&started.1).into_iter();
            Ok(changed.filter(|key| !reload::is_reread(key)).collect::<Vec<_>>().join(", "))
        });
        match reread.await.unwrap_or_else(|panicked| Err(panicked.to_string())) {
            Ok(waiting) => {
                tracing::info!("tokens, certificates and keys reread and in force");
                if !waiting.is_empty() {
                    tracing::warn!(settings = waiting, "changed, and in force only after the next start");
                }
            }
            Err(why) => {
                // One line, however many faults there are.
                let why = why.trim().replace('\n', "; ");
                tracing::error!(%why, "tokens, certificates and keys stay as they were: the configuration cannot be used");
            }
        }
    }
}
