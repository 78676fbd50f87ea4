//! The gateway's own protocol, spoken downstream: a till that changes its URL notices nothing but that it works.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

#[path = "native/broadcasts.rs"]
mod broadcasts;
#[path = "native/callers.rs"]
mod callers;
#[path = "native/client.rs"]
mod client;
#[path = "native/ends.rs"]
mod ends;
#[path = "native/payments.rs"]
mod payments;
#[path = "native/shapes.rs"]
mod shapes;
