//! What answers are made of: bodies, and the header fields that describe them.

pub mod cached;
pub mod csv;
pub mod event_stream;
pub mod page_headers;
pub mod preference_applied;
pub mod rate_limit_fields;
pub mod reply;
pub mod sse;
pub mod static_text;
