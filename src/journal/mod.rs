//! Durable payment records, and at most one dispatch a key.
//!
//! The gateway books twice what is sent twice and has no memory that a caller could ask, so the bridge keeps one: a record
//! that a payment is on its way, durable before its first byte leaves, and its outcome, durable before any caller is
//! answered. From a key to its outcome: [`Journal::reserve`], [`Journal::dispatch`], [`Journal::finish`].
//!
//! What may follow what is in `state_machine` and `attempts`, both pure. Where records are kept is behind the trait in
//! `store`; `embedded` is the one in a file. The journal never frees a key that might have been booked, never lets an
//! unknown outcome expire, and never answers from what a restart would forget. It knows nothing of HTTP or of links.
//!
//! Cancellation: every future here may be dropped at any await. A [`Reservation`] dropped frees its key; a `dispatch`
//! dropped leaves a payment that is released once its commit is through, since no byte of it can have left; a
//! [`Dispatched`] dropped becomes unknown; a `finish`, `late` or `settle` dropped goes on.

mod apply;
mod attempts;
mod clock;
mod condition;
mod config;
mod embedded;
mod error;
mod handle;
mod id;
mod in_flight;
mod kept;
mod listing;
mod news;
mod payment;
mod postgres;
mod raw;
pub mod record;
mod sale;
mod sale_details;
pub mod state_machine;
mod store;
#[cfg(test)]
pub(crate) mod tests;

pub use condition::Condition;
pub use config::{Config, Create};
pub use embedded::directory::inspect;
pub use embedded::unused::records_in;
pub use embedded::verification::verify;
pub use error::{JournalError, OpenError};
pub use handle::{Journal, Late, Reserve};
pub use id::RecordId;
pub use in_flight::Attachment;
pub use listing::{Filter, Listed, Page, Unreadable};
pub use payment::{Dispatched, Reservation};
pub use postgres::config::PostgresConfig;
pub use postgres::import::{Contradicted, ImportError, Imported, import};
pub use record::{
    Candidate, Discrepancy, Finding, Lookup, Outcome, Record, RecordState, Release, Search, State, Verdict,
};
pub use sale::{Fingerprint, Key, Sale};
pub use sale_details::{ProductDetails, SaleDetails, kept_name, why_no_sum};
pub use state_machine::Rejection;
