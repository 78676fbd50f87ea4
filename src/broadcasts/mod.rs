//! The broadcasts: one log of what an instance's gateway broadcast, and its subscriptions.
//!
//! The gateway sends a broadcast once, without an id. Here each becomes one entry with an offset to resume after. With
//! thousands of subscribers, an entry is kept and encoded once, and a subscription is a position in the log: it has no queue
//! that could grow, and one that does not keep up costs the others nothing. A subscription is told about entries that the log
//! no longer holds.
//!
//! [`matcher`] decides which frames are copies of one broadcast, [`relay`] takes connection events to the matcher, the cache
//! and the log, [`Broadcasts`] is the log as others use it.

mod carried;
mod channel;
mod config;
mod corroboration;
pub mod coverage;
mod entry;
mod kept;
mod limit;
mod log;
pub mod matcher;
mod payload;
pub mod relay;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod timestamp;
mod unwritten;

pub use carried::{Away, Carried, CarriedLog, Left};
pub use channel::{Broadcasts, Refused, Since};
pub use config::{Config, Native};
pub use entry::{Broadcast, Entry, Epoch, Event, Form, Gap, Id, Reason};
pub use limit::SubscriberLimit;
pub use state::OnUnwritten;
pub use subscription::{End, Item, Subscription};
