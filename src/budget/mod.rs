//! The gateway's budget of one instance: who may send a command, and when.
//!
//! The gateway lets each command add its cost to a counter that may not pass 100 within 30 seconds, and answers
//! `ratelimit` beyond that. A caller who meets that error has waited for a round trip and learnt nothing, and a payment
//! is refused at the till; so the bridge counts for itself, and sends what the gateway will take. Three forces shape
//! the room:
//!
//! - The gateway counts at arrival, on its own clock, and nobody sees that moment: points are held for as long as they
//!   can matter ([`window`]).
//! - Points are scarce (four `getconfig` in half a minute), so who gets them is a matter of order and turns, and who
//!   cannot get them in time is told at once when to come back ([`Ledger`]).
//! - Others spend from the same counter: a `ratelimit` is the truth, whatever is counted here
//!   ([`Ledger::closed_by_gateway`]).
//!
//! What it refuses to do: know links, HTTP or callers' rights; guess that points are free; make anybody wait who could
//! know already that it is in vain. Reading downwards: [`ledger`] finds a command's gate, a gate puts lock and clock
//! around a admission, a admission is a [`window`] and its queue; [`saved`] carries what was spent over a restart,
//! however the process ended.

mod admission;
mod config;
mod gate;
pub mod ledger;
pub mod metrics;
mod queue;
mod shares;
pub mod snapshot;
pub mod spending;
mod status;
pub mod window;

pub use config::{Config, CounterScope, InvalidSetting, Payments};
pub use gate::{Denied, Permit};
pub use ledger::{Ask, Ledger, Quota};
pub use queue::Class;
pub use spending::{Sent, Spending};
pub use status::WindowStatus;
