//! What a replica passes on to the owner of an instance is answered as if the caller had come to the owner.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod support;

#[path = "forwarding/failures.rs"]
mod failures;
#[path = "forwarding/gate.rs"]
mod gate;
#[path = "forwarding/long.rs"]
mod long;
#[path = "forwarding/owners.rs"]
mod owners;
#[path = "forwarding/proofs.rs"]
mod proofs;
#[path = "forwarding/routes.rs"]
mod routes;
