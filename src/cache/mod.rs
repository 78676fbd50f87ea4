//! Copies of replies: keys that cannot collide, freshness by age and by epoch, bounded in bytes.
//!
//! Every command costs points, so a copy is kept long after it was fresh, also over a restart ([`store`]). Prices change only
//! with the broadcast `updatepos`, which invalidates everything that it concerns at once, so each copy carries the epoch in
//! which its command was written (`epochs`). A point of sale may be guarded by a password, so the password is part of the
//! key, as a keyed hash that cannot be tried against the files on disk (`key`).
//!
//! This room keeps copies and says how fresh they are. When to fetch is decided in `bridge`.

mod carried;
mod changes;
mod config;
mod epochs;
mod key;
mod memory;
mod reply;
pub mod store;

pub use carried::{CarriedCopy, Ended};
pub use config::Config;
pub use epochs::Epoch;
pub use key::{Key, PasswordKey, PlainKey};
pub use memory::Cache;
pub use reply::{CachedReply, Freshness};
