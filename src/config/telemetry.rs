//! The section `telemetry`.

use crate::settings::{Choice, Section};
use crate::telemetry;

pub use telemetry::LogFormat;

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// What the bridge tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The filter of log lines: a level, or targets with levels.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// The collector that is told traces over OTLP.
    pub otlp_endpoint: Option<String>,
}

impl Telemetry {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let log: String = section.get("log", "info".to_owned());
        if let Err(why) = telemetry::filter(&log) {
            section.fault("log", format_args!("is no filter: {why}"));
        }
        let log_format = section.get("log_format", LogFormat::Text);
        let otlp_endpoint: Option<String> = section.optional("otlp_endpoint");
        if otlp_endpoint.as_ref().is_some_and(|url| !(url.starts_with("http://") || url.starts_with("https://"))) {
            section.fault("otlp_endpoint", "must begin with http:// or https://");
        }
        Self { log, log_format, otlp_endpoint }
    }
}
