//! What is read from a request: its body, its query, its header fields.

pub mod accept;
pub mod body;
pub mod cache_control;
pub mod idempotency_key;
pub mod integer;
pub mod params;
pub mod preconditions;
pub mod prefer;
pub mod query_names;
pub mod sale;
