//! The section `limits`.

use crate::budget::{Config, CounterScope, Payments};
use crate::protocol::command;
use crate::settings::{EnumSetting, Section};

impl EnumSetting for CounterScope {
    const ALL: &'static [(&'static str, Self)] = &[("command", Self::Command), ("instance", Self::Instance)];
}

impl EnumSetting for Payments {
    const ALL: &'static [(&'static str, Self)] = &[("count", Self::Count), ("ask", Self::Ask)];
}

pub(super) fn read(section: &mut Section<'_>) -> Config {
    let default = Config::default();
    let mut config = Config {
        capacity: section.get("capacity", default.capacity),
        window: section.get("window", default.window),
        guard: section.get("guard", default.guard),
        scope: section.get("scope", default.scope),
        pay_reserve: section.get("pay_reserve", default.pay_reserve),
        max_wait: section.get("max_wait", default.max_wait),
        pay_max_wait: section.get("pay_max_wait", default.pay_max_wait),
        payments: section.get("payments", default.payments),
        cost: default.cost,
    };
    let mut costs = section.section("cost");
    config.cost = command::TABLE.iter().map(|spec| (spec.name.to_owned(), costs.get(spec.name, spec.cost))).collect();
    for fault in config.faults() {
        section.error(&fault.key, fault.message);
    }
    config
}
