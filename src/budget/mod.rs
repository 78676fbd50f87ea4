//! The gateway's budget of one instance: which commands may be sent, and when.
//!
//! The gateway lets each command add its cost to a counter that may not pass 100 within 30 seconds, and answers
//! `ratelimit` beyond that: a read has then waited for a round trip for nothing, and a payment is refused at the till. So
//! the bridge counts for itself and sends only what the gateway will accept.
//!
//! - The gateway counts at arrival, on its own clock, and that moment is not seen here: points are held for as long as they
//!   can matter ([`window`]).
//! - Points are scarce (four `getconfig` in half a minute), so waiting commands are served in an order that is fair to
//!   callers, and one that cannot be served by its deadline is denied at once, with the time to come back ([`Ledger`]).
//! - Others spend from the same counter: a `ratelimit` of the gateway overrules the count kept here
//!   ([`Ledger::closed_by_gateway`]).
//!
//! [`ledger`] finds a command's gate, a gate adds a lock and a clock to an admission, an admission is a [`window`] and its
//! queue; [`Ledgers`] has the ledgers of all instances; [`snapshot`] carries what was spent over a restart, however the process ended.

mod admission;
mod config;
mod gate;
pub mod ledger;
mod ledgers;
pub mod metrics;
mod queue;
mod shares;
pub mod snapshot;
pub mod spending;
mod status;
pub mod window;

pub use config::{Config, CounterScope, Payments};
pub use gate::{Denied, Permit};
pub use ledger::{Ask, Ledger, Quota};
pub use ledgers::Ledgers;
pub use queue::Class;
pub use spending::{Carried, Sent, SentPayments};
pub use status::WindowStatus;
