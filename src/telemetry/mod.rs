//! Log lines on standard error, metrics for Prometheus, and traces for a collector.
//!
//! Entry points: [`filter`] and [`start`] for log lines, [`metrics`], [`traces`].

pub mod aggregate;
mod floods;
mod lines;
pub mod metrics;
mod post;
pub mod process;
pub mod recent;
pub mod runtimes;
pub mod traces;

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use floods::Floods;
pub use traces::Traces;

use floods::Guarded;
use lines::Fields;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Silences what the web server logs of its threads at the level `info`.
const CHATTER: &str = "actix_server=warn";

/// The target of the bridge's own lines.
const OWN_TARGET: &str = env!("CARGO_CRATE_NAME");

/// Why a text is not a filter of log lines.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("is no filter: {0}")]
    Grammar(#[from] ParseError),
    /// A word without `=` is not a level.
    #[error("must hold levels (off, error, warn, info, debug, trace) and targets with levels (hyper=warn)")]
    NoLevel,
    /// No line of the bridge would pass.
    #[error("hides every line of the bridge: begin with a level, or name concertpos_bridge; \"off\" hides all lines")]
    Silent,
}

fn is_level(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok()
}

/// Whether a directive shows or hides lines of the bridge. One with a span may.
fn reaches_the_bridge(directive: &str) -> bool {
    let target = directive.split_once('=').map_or("", |(target, _)| target);
    is_level(directive)
        || directive.contains('[')
        || (!target.is_empty() && (target.starts_with(OWN_TARGET) || OWN_TARGET.starts_with(target)))
}

/// A filter from its text: a level, or targets with levels, as `tracing` reads them. The web server's threads are logged
/// only at levels beyond `info`, or where the text names `actix_server`.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    let filter = EnvFilter::try_new(text)?;
    // `tracing` reads a misspelt level as the name of a target, and hides everything else.
    let directives = || text.split(',').map(str::trim);
    if directives().any(|directive| !directive.contains(['=', '[', ']', '{', '}']) && !is_level(directive)) {
        return Err(FilterError::NoLevel);
    }
    if !directives().any(reaches_the_bridge) {
        return Err(FilterError::Silent);
    }
    let is_chatty = filter.max_level_hint() == Some(LevelFilter::INFO) && !text.contains("actix_server");
    Ok(if is_chatty { filter.add_directive(CHATTER.parse()?) } else { filter })
}

/// Starts logging for the whole process, and traces where there is a collector. A second call changes nothing. Lines that
/// `floods` leaves out have to be told by it.
pub fn start(filter: EnvFilter, format: LogFormat, floods: Option<Floods>, traces: Option<&Traces>) {
    // Fails where logging was started before, which then stays in force.
    let _ = match traces {
        // A filter of everything is cheaper than one of each layer.
        None => tracing_subscriber::registry().with(layer(format, floods)).with(filter).try_init(),
        Some(traces) => {
            // Only the bridge's own spans: those of libraries may hold secrets.
            let spans = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(OWN_TARGET));
            let exporter = tracing_opentelemetry::layer().with_tracer(traces.tracer());
            let exporter = exporter.with_location(false).with_threads(false).with_filter(spans);
            tracing_subscriber::registry().with(layer(format, floods).with_filter(filter)).with(exporter).try_init()
        }
    };
}

fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(
    format: LogFormat,
    floods: Option<Floods>,
) -> Box<dyn Layer<S> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = layer.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => layer.fmt_fields(Fields).map_event_format(|format| Guarded { format, floods }).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).map_event_format(|format| Guarded { format, floods }).boxed()
        }
    }
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
