//! The section `events`.

use std::time::Duration;

use crate::broadcasts::{Config, Native};
use crate::settings::{EnumSetting, Section};

/// Less would fill a quiet network with signs of life.
const LEAST_HEARTBEAT: Duration = Duration::from_secs(1);

/// Less is no time at all between two computers.
const LEAST_SKEW: Duration = Duration::from_millis(50);

impl EnumSetting for Native {
    const ALL: &'static [(&'static str, Self)] = &[("after-key", Self::AfterKey), ("open", Self::Open)];
}

pub(super) fn read(section: &mut Section<'_>) -> Config {
    let default = Config::default();
    Config {
        history: section.at_least("history", default.history, &1),
        heartbeat: section.at_least("heartbeat", default.heartbeat, &LEAST_HEARTBEAT),
        skew: section.at_least("skew", default.skew, &LEAST_SKEW),
        max_subscribers: section.get("max_subscribers", default.max_subscribers),
        max_listeners: section.at_least("max_listeners", default.max_listeners, &1),
        native: section.get("native", default.native),
    }
}
