//! Problems: what a caller is told when a request is not answered as asked.
//!
//! One table ([`table`]) names every problem, one file ([`from_error`]) says which of them an outcome of the bridge is,
//! and one type ([`Problem`]) carries it to the edge, where it is written out as `application/problem+json`.

pub mod code;
pub mod document;
pub mod from_error;
pub mod table;

pub use document::{Document, FieldError, MEDIA_TYPE, Problem};
pub use table::Entry;
