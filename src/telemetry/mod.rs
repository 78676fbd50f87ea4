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

/// A filter from its text: a level, or targets with levels, as `tracing` reads them. Whoever wants to hear the web server's
/// threads too asks for a level beyond `info`, or names `actix_server`.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let filter = EnvFilter::try_new(text)?;
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
