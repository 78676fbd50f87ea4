//! The broadcasts: one log of what an instance's gateway broadcast, and everybody who listens to it.
//!
//! The forces: a broadcast has no id and no second chance at the gateway, so here each becomes one entry with an offset
//! that a listener can resume after; thousands listen, so an entry is kept and encoded once and a listener is nothing
//! but a position in the log; and a listener that does not keep up must cost the others nothing, so there is no queue
//! of its own that could grow. What the log no longer holds is said, never skipped in silence.
//!
//! Which copies are one broadcast is decided by [`matcher`], which knows no log; the log takes what is decided. This
//! room knows neither sockets nor formats.

mod channel;
mod config;
mod corroboration;
pub mod coverage;
mod entry;
mod limit;
mod log;
pub mod matcher;
pub mod relay;
mod state;
mod subscription;
#[cfg(test)]
mod tests;

pub use channel::{Broadcasts, Refused, Since};
pub use config::{Config, Native};
pub use entry::{Broadcast, Entry, Epoch, Event, Form, Gap, Id, Reason};
pub use limit::SubscriberLimit;
pub use subscription::{End, Item, Subscription};
