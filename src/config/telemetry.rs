//! The section `telemetry`.

use std::fmt;

use crate::settings::{EnumSetting, Section, url};
use crate::telemetry;

pub use telemetry::LogFormat;

impl EnumSetting for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// Log lines and traces.
#[derive(Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// The filter of log lines: a level, or targets with levels.
    pub log: String,
    pub log_format: LogFormat,
    /// Whether metrics tell instances apart.
    pub instance_label: bool,
    /// The collector that gets traces over OTLP.
    pub otlp_endpoint: Option<String>,
}

/// The endpoint may hold credentials.
impl fmt::Debug for Telemetry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.otlp_endpoint.as_deref().map(url::redacted);
        formatter
            .debug_struct("Telemetry")
            .field("log", &self.log)
            .field("otlp_endpoint", &endpoint)
            .finish_non_exhaustive()
    }
}

impl Telemetry {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let log: String = section.get("log", "info".to_owned());
        if let Err(why) = telemetry::filter(&log) {
            section.error("log", why);
        }
        let log_format = section.get("log_format", LogFormat::Text);
        let otlp_endpoint: Option<String> = section.optional("otlp_endpoint");
        if let Some(Err(why)) = otlp_endpoint.as_ref().map(|endpoint| url::check(endpoint, &["http", "https"])) {
            section.error("otlp_endpoint", why);
        }
        if otlp_endpoint.as_deref().is_some_and(url::names_a_user) {
            section.warn("otlp_endpoint", "holds a name and a password, which are not sent");
        }
        let instance_label = section.get("instance_label", true);
        Self { log, log_format, instance_label, otlp_endpoint }
    }
}
