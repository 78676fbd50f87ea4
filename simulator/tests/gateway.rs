//! The simulated gateway, driven by a bare WebSocket client that knows nothing of the bridge.
//!
//! What the rest of the tests believe about the other side of the wire is checked here: that replies overtake each other,
//! that limits are exact, that each fault does what it says and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "gateway/client.rs"]
mod client;
#[path = "gateway/control.rs"]
mod control;
#[path = "gateway/faults.rs"]
mod faults;
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/protocol.rs"]
mod protocol;
