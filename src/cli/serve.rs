//! `serve`: the bridge, and SIGHUP, which rereads instances, tokens and certificates.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::common::{Failure, load, until_stopped};
use crate::app::App;
use crate::config::Config;
use crate::gateway;
use crate::reload::{self, Difference, Reload};
use crate::service_manager::{self, ServiceManager};
use crate::settings::{ConfigError, EffectiveConfig};
use crate::telemetry::{self, Floods, Traces};

pub(super) fn run(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let (config, printed) = load(file)?;
    App::check(&config).map_err(|why| Failure::Usage(format!("{why:#}")))?;
    let filter = telemetry::filter(&config.telemetry.log).context("telemetry.log")?;
    let traces = traces(&config)?;
    let floods = Floods::default();
    telemetry::start(filter, config.telemetry.log_format, Some(floods.clone()), traces.as_ref());
    warn_of(&printed);
    raise_open_files();
    let file = file.map(Path::to_owned);
    let ended = until_stopped(async |shutdown| {
        // Heeded before anything listens: unheeded, the signal would end the process.
        let hangups = signal(SignalKind::hangup())?;
        let telling = tokio::spawn(floods.clone().tell());
        let app = App::start(config, shutdown.clone()).await?;
        let manager = ServiceManager::from_environment();
        let reloading = tokio::spawn(reload_on(hangups, app.reload(), (file, printed), manager.clone()));
        let health = app.health();
        let tending = tokio::spawn(async move {
            health.started().await;
            service_manager::tend(manager, || health.progress(), || health.line(), shutdown).await;
        });
        let ended = app.run().await;
        reloading.abort();
        tending.abort();
        telling.abort();
        floods.tell_now();
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

/// Rereads the configuration at each hangup, for as long as it is polled. Hangups during a reload are one more reload after it.
/// `started` is the file and what was in force at the start.
async fn reload_on(
    mut hangups: Signal,
    reload: Reload,
    started: (Option<PathBuf>, EffectiveConfig),
    manager: ServiceManager,
) {
    let (file, at_start) = started;
    let mut in_force = at_start.clone();
    while hangups.recv().await.is_some() {
        manager.reloading().await;
        let path = file.clone();
        // Reads files: not on a thread that serves.
        let read = tokio::task::spawn_blocking(move || load(path.as_deref()).map_err(|failure| failure.to_string()));
        let read = read.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        let applied = match read {
            Ok((config, printed)) => reload.apply(&config).await.map(|difference| (difference, printed)),
            Err(why) => Err(why),
        };
        let is_refused = applied.is_err();
        match applied {
            Ok((difference, printed)) => {
                warn_of(&printed);
                tell(difference, &printed, (&in_force, &at_start));
                in_force = printed;
            }
            Err(why) => {
                // One line, however many faults there are.
                let why = why.trim().replace('\n', "; ");
                tracing::error!(%why, "the configuration in force stays as it was: the new one cannot be used");
            }
        }
        manager.reloaded(is_refused).await;
    }
}

/// Logs what a reload changed, and what waits.
fn tell(difference: Difference, printed: &EffectiveConfig, (in_force, at_start): (&EffectiveConfig, &EffectiveConfig)) {
    let Difference { added, removed, mut changed } = difference;
    let reread = printed.changed_since(in_force).into_iter().filter(|key| reload::is_reread(key));
    // Those of instances are in the difference, secrets included.
    changed.extend(reread.filter(|key| !key.starts_with("instances.")).map(str::to_owned));
    let waits = printed.changed_since(at_start).into_iter().filter(|key| !reload::is_reread(key));
    let waits_for_restart = waits.collect::<Vec<_>>().join(", ");
    let (added, removed, changed) = (added.join(", "), removed.join(", "), changed.join(", "));
    if waits_for_restart.is_empty() {
        tracing::info!(added, removed, changed, waits_for_restart, "configuration reread and in force");
    } else {
        tracing::warn!(
            added,
            removed,
            changed,
            waits_for_restart,
            "configuration reread and in force, but for settings that wait for a restart"
        );
    }
}
