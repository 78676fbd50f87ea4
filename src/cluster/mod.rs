//! Several replicas: which of them owns an instance.
//!
//! Each instance has one owner, a running replica's session, which decides everything about it in memory like a single bridge.
//! The database says who that is, and refuses whoever no longer is. [`Directory`] is what was last read of it; the right to act
//! is a [`Tenure`](crate::tenure::Tenure), which the owner gets with a claim and loses with its lease.

pub mod config;
pub mod directory;
pub mod host;
mod hosting;
pub mod ownership;
pub mod session;
pub mod standing;
pub mod state;
pub mod statements;
pub mod status;

pub use self::config::Config;
pub use self::directory::{Directory, Member, Owner, Peer, Route};
pub use self::host::{Host, Listed};
pub use self::session::{Parts, Replica};
