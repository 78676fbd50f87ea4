//! The settings of the section `limits`, and the rules they must keep.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::command::{self, ASSUMED_COST};
use crate::protocol::{Kind, Spec};

/// What shares one counter at the gateway. Which of the two is true is not documented; the vendor's own till could not
/// start if all commands shared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CounterScope {
    /// Each command of an instance has a counter of its own.
    #[default]
    Command,
    /// All commands of an instance share one, and some of it is kept for payments.
    Instance,
}

/// What a payment does when the bridge's own count says that its points are spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Payments {
    /// It waits, as everything does.
    #[default]
    Count,
    /// It is sent all the same, until the gateway says `ratelimit`: a payment refused that way booked nothing. Its
    /// points are counted, so that other commands leave room for them, but never refused by that count.
    Ask,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Points that may be counted in one window.
    pub capacity: u32,
    /// The gateway's window.
    pub window: Duration,
    /// Added to the window, since the gateway counts on its own clock.
    pub guard: Duration,
    /// What shares one counter.
    pub scope: CounterScope,
    /// Points that only payments may use, where all commands share one counter.
    pub pay_reserve: u32,
    /// How long a read may wait for points. The caller of `Ledger::acquire` makes a deadline of it.
    pub max_wait: Duration,
    /// How long a payment may wait for points. The caller of `Ledger::acquire` makes a deadline of it.
    pub pay_max_wait: Duration,
    /// What a payment does when its points are spent.
    pub payments: Payments,
    /// Points by command. A command that is not listed costs [`ASSUMED_COST`].
    pub cost: BTreeMap<String, u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 100,
            window: Duration::from_secs(30),
            guard: Duration::from_millis(500),
            scope: CounterScope::default(),
            pay_reserve: 20,
            max_wait: Duration::from_secs(2),
            pay_max_wait: Duration::from_secs(5),
            payments: Payments::default(),
            cost: command::TABLE.iter().map(|spec| (spec.name.to_owned(), spec.cost)).collect(),
        }
    }
}

/// A rule that a setting breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct InvalidSetting {
    /// The key under `[limits]`, dotted where it lies deeper.
    pub key: String,
    /// What is wrong with it, in a sentence.
    pub message: String,
}

impl Config {
    /// Every rule that these settings break; none means that every listed command can be sent.
    #[must_use]
    pub fn faults(&self) -> Vec<InvalidSetting> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push(InvalidSetting { key: key.to_owned(), message });
        if self.capacity == 0 {
            fault("capacity", "must be at least 1".to_owned());
        }
        if self.window.is_zero() {
            fault("window", "must be longer than nothing".to_owned());
        }
        if self.scope == CounterScope::Instance && self.pay_reserve >= self.capacity {
            fault("pay_reserve", format!("leaves nothing of {} points for other commands", self.capacity));
        }
        for (command, &cost) in &self.cost {
            let limit = self.limit(is_payment(command));
            if cost == 0 {
                fault(&format!("cost.{command}"), "must be at least 1".to_owned());
            } else if cost > limit {
                fault(
                    &format!("cost.{command}"),
                    format!("{cost} points can never be granted: no more than {limit} may be used by this command"),
                );
            }
        }
        faults
    }

    /// Points of `command`.
    #[must_use]
    pub fn cost_of(&self, command: &str) -> u32 {
        self.cost.get(command).copied().unwrap_or(ASSUMED_COST)
    }

    /// For how long points are held after the end of their command.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.window.saturating_add(self.guard)
    }

    /// The level to which payments, or all other commands, may fill their window.
    #[must_use]
    pub fn limit(&self, payment: bool) -> u32 {
        match self.scope {
            CounterScope::Instance if !payment => self.capacity.saturating_sub(self.pay_reserve),
            CounterScope::Instance | CounterScope::Command => self.capacity,
        }
    }
}

pub(super) fn is_payment(command: &str) -> bool {
    matches!(command::find(command), Some(Spec { kind: Kind::Payment, .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_break_no_rule_in_either_scope() {
        assert_eq!(Config::default().faults(), []);
        assert_eq!(Config { scope: CounterScope::Instance, ..Config::default() }.faults(), []);
        assert_eq!(Config::default().cost_of("getconfig"), 25);
        assert_eq!(Config::default().cost_of("newthing"), ASSUMED_COST);
    }

    #[test]
    fn a_cost_that_can_never_be_granted_is_a_fault_at_its_key() {
        let keys = |config: &Config| config.faults().into_iter().map(|fault| fault.key).collect::<Vec<_>>();
        let mut config = Config { capacity: 40, ..Config::default() };
        assert_eq!(keys(&config), ["cost.version"]);
        config.scope = CounterScope::Instance;
        config.cost.insert("payitems".to_owned(), 40);
        assert_eq!(keys(&config), ["cost.getconfig", "cost.listproducts", "cost.version"]);
        config.cost.insert("payitems".to_owned(), 0);
        config.pay_reserve = 40;
        assert!(keys(&config).contains(&"pay_reserve".to_owned()));
        assert!(keys(&config).contains(&"cost.payitems".to_owned()));
    }
}
