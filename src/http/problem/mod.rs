//! Problem documents (RFC 9457): every error that callers see.
//!
//! One table ([`table`]) names every problem, one file ([`from_error`]) says which of them an outcome of the bridge is,
//! and one type ([`Problem`]) carries it to the middleware that writes it out as `application/problem+json`.

pub mod code;
pub mod document;
pub mod from_error;
pub mod proxy_error;
pub mod proxy_status;
pub mod table;

pub(crate) use document::is_not_begun;
pub use document::{Document, FieldError, MEDIA_TYPE, Problem};
pub use proxy_error::ProxyError;
pub use table::Entry;
