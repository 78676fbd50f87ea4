//! Copies of replies: keys that cannot collide, freshness by age and by epoch, bounded in bytes.
//!
//! The forces: every command costs points, so a copy is worth keeping long after it was fresh, over a restart too
//! ([`store`]); prices change only with the broadcast `updatepos`, which ends the freshness of everything it concerns
//! at once, so each copy carries the epoch in which its command was written (`epochs`); and a point of sale may be
//! guarded by a password, so the password is part of the key, as a keyed hash that is worth nothing to whoever reads
//! the disk (`key`).
//!
//! This room keeps and judges copies. When to fetch, and who waits for whom, is decided above it.

mod changes;
mod config;
mod epochs;
mod key;
mod memory;
mod reply;
pub mod store;

pub use config::Config;
pub use epochs::Epoch;
pub use key::{Key, PasswordKey, PlainKey};
pub use memory::Cache;
pub use reply::{CachedReply, Freshness};
