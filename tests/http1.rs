//! HTTP/1.1 in raw bytes, as nobody's library would send it: smuggling shapes, absurd heads, bodies that break off.
//!
//! Whatever comes is either served as what it says, or refused in words, or its connection is closed. One request never
//! gets two answers, nothing is booked out of a request that is not in order, and the program lives on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

#[path = "http1/ends.rs"]
mod ends;
#[path = "http1/malformed.rs"]
mod malformed;
#[path = "http1/odd.rs"]
mod odd;
#[path = "http1/routes.rs"]
mod routes;
#[path = "http1/talk.rs"]
mod talk;
