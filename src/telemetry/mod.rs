//! What the bridge tells about itself: log lines on standard error, what rooms count for whoever scrapes it, and traces.

pub mod exposition;
pub mod meter;
mod post;
pub mod runtimes;
pub mod trace_context;
pub mod traces;

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use traces::Traces;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the web server tells of its own threads at the level `info`, which helps nobody who runs the bridge.
const CHATTER: &str = "actix_server=warn";

/// The target of the bridge's own lines.
const OWN_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Why a text is no filter of log lines.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Its grammar is wrong.
    #[error("is no filter: {0}")]
    Grammar(#[from] ParseError),
    /// A word stands alone and is no level.
    #[error("must hold levels (off, error, warn, info, debug, trace) and targets with levels (hyper=warn)")]
    NoLevel,
    /// No line of the bridge would pass.
    #[error("hides every line of the bridge: begin with a level, or name concertpos_bridge; \"off\" hides all lines")]
    Silent,
}

fn is_level(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok()
}

/// Whether a directive is about lines of the bridge, be it to hide them. One about spans may be.
fn reaches_the_bridge(directive: &str) -> bool {
    let target = directive.split_once('=').map_or("", |(target, _)| target);
    is_level(directive)
        || directive.contains('[')
        || (!target.is_empty() && (target.starts_with(OWN_TARGET) || OWN_TARGET.starts_with(target)))
}

/// A filter from its text: a level, or targets with levels, as `tracing` reads them. Whoever wants to hear the web server's
/// threads too asks for a level beyond `info`, or names `actix_server`.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let filter = EnvFilter::try_new(text)?;
    // `tracing` takes a misspelt level for the name of a target, and hides everything else.
    let directives = || text.split(',').map(str::trim);
    if directives().any(|directive| !directive.contains(['=', '[', ']', '{', '}']) && !is_level(directive)) {
        return Err(FilterError::NoLevel);
    }
    if !directives().any(reaches_the_bridge) {
        return Err(FilterError::Silent);
    }
    let hears_it = filter.max_level_hint() == Some(LevelFilter::INFO) && !text.contains("actix_server");
    Ok(if hears_it { filter.add_directive(CHATTER.parse()?) } else { filter })
}

/// Starts logging for the whole process, and traces where a collector is given. A second call changes nothing.
pub fn start(filter: EnvFilter, format: LogFormat, traces: Option<&Traces>) {
    let Some(traces) = traces else { return start_logging(filter, format) };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Only the bridge's own spans: what libraries trace may hold what passes through them.
    let spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(env!("CARGO_CRATE_NAME")));
    let exporter = tracing_opentelemetry::layer().with_tracer(traces.tracer()).with_location(false).with_threads(false);
    // Logging that was started before stays in force; nothing is lost.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(exporter.with_filter(spans)).try_init();
}

fn start_logging(filter: EnvFilter, format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_web_server_s_threads_are_quiet_at_info_unless_they_are_asked_for() {
        let quiet = |text: &str| filter(text).unwrap().to_string().contains(CHATTER);
        assert!(quiet("info") && quiet("info,concertpos_bridge::gateway=warn"));
        for heard in ["debug", "info,actix_server=info", "warn", "off"] {
            assert!(!quiet(heard), "{heard}");
        }
        assert!(filter("infoo==").is_err());
    }
}
