//! What outlives an owner, beside payments: spending, the log of broadcasts, until when it is complete, and copies.
//!
//! The owner of an instance decides in memory; here its state is written behind it ([`States`]), and read again by the next
//! owner ([`Carried`]). Every write is conditional on the session and the epoch of the claim, so an owner of the past changes
//! nothing. What is written:
//!
//! - *Entries of the log* before anybody hears of them. While the database is away they wait, as many as the log holds.
//! - *Spending* each second, where something is spent; *copies* each second, where they changed. Both in one statement for all
//!   instances of the replica, so that instances at rest cost nothing.
//! - *Coverage*: one row a replica says until when all its instances have received everything; an instance has its own
//!   only while it has not.
//! - *What a handover carries*, in the transaction that gives the instance up. Its commit waits for the standby, and so for
//!   everything before it.
//!
//! All but the last is acknowledged by the primary alone, so a failover may lose it. So a log names the timeline of the
//! database on which it was written whole: an owner that lives through a failover writes it anew, and a new owner that finds
//! another timeline begins another log, whose listeners are told to begin anew.

mod carried;
mod load;
mod rows;
mod served;
mod writer;

pub use carried::{Begins, Carried, Former, HandedOver};
pub use rows::FORMAT;
pub use served::{Served, Serving};
pub use writer::States;

#[cfg(test)]
mod tests;
