//! What the ledger of one owner leaves to the next owner of the instance, and how the next counts it.
//!
//! A command that was in flight at the old owner may reach the gateway as late as its exchange may last, and is not seen here:
//! its points are held for that long, and then for window and guard. What this ledger remembers of an earlier time as owner
//! is counted by the owner in between, so it is forgotten here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Ledger;
use crate::budget::gate::micros;
use crate::budget::spending::{Carried, SentPayments};
use crate::budget::window::Remaining;
use crate::protocol::command::PAYITEMS;

impl Ledger {
    /// What is spent and closed, for [`Self::take_over`] by the next owner.
    #[must_use]
    pub fn carried(&self) -> Carried {
        let mut windows = BTreeMap::new();
        self.each_used(|command, gate| {
            let remaining = gate.with(|admission, now| admission.window().remaining(now));
            if !remaining.is_nothing() {
                windows.insert(command.to_owned(), remaining);
            }
        });
        Carried { scope: self.shared.config.scope, windows }
    }

    /// Goes on with what the owner before has handed over. What was in flight there ends within `request_timeout`. Returns
    /// false, and counts nothing, where the two count in different scopes.
    #[must_use]
    pub fn take_over(&self, carried: &Carried, request_timeout: Duration) -> bool {
        if carried.scope != self.shared.config.scope {
            return false;
        }
        self.forget_ended();
        self.others().full_until = None;
        for (command, remaining) in &carried.windows {
            self.take_over_window(command, remaining, request_timeout);
        }
        true
    }

    /// The owner before is gone without a word: every window but the payments' counts as full for as long as its last command
    /// can matter, and payments are counted from the journal; where that cannot tell, as many as fit. `last` is what it
    /// last told: what the gateway had closed stays closed.
    pub fn assume_spent_by_former(
        &self,
        last: Option<&Carried>,
        payments: Option<&SentPayments>,
        request_timeout: Duration,
    ) {
        let config = &self.shared.config;
        self.begin_unspent(payments, request_timeout);
        self.assume_spent_for(self.hold().saturating_add(request_timeout));
        for (command, last) in last.filter(|last| last.scope == config.scope).iter().flat_map(|last| &last.windows) {
            let closing = Remaining { closed_for_ms: last.closed_for_ms, probe: last.probe, ..Remaining::default() };
            self.take_over_window(command, &closing, Duration::ZERO);
        }
    }

    /// Nobody has owned the instance before: only payments are spent, which the journal may have from elsewhere. Where it
    /// cannot tell, as many as fit.
    pub fn begin_unspent(&self, payments: Option<&SentPayments>, request_timeout: Duration) {
        let (hold, config) = (self.hold(), &self.shared.config);
        let most = hold.saturating_add(request_timeout);
        self.forget_ended();
        match payments {
            Some(SentPayments { ended, in_flight }) => {
                self.count_payments(Some(ended));
                let points = u64::from(config.cost_of(PAYITEMS.name)).saturating_mul(*in_flight);
                self.count(PAYITEMS.name, points, most);
            }
            None => self.count(PAYITEMS.name, u64::from(config.capacity), most),
        }
    }

    fn take_over_window(&self, command: &str, remaining: &Remaining, in_flight_for: Duration) {
        let gate = self.shared.whole.clone().or_else(|| self.gate(command).map(|(gate, _)| gate));
        if let Some(gate) = gate {
            gate.with(|admission, now| admission.take_over(now, remaining, micros(in_flight_for)));
        }
    }

    fn forget_ended(&self) {
        self.each_used(|_, gate| gate.with(|admission, _| admission.forget_ended()));
    }
}

#[cfg(test)]
mod tests;
