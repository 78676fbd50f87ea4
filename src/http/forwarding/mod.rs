//! Several replicas: passes a request on to the replica that owns its instance, and takes what others pass on.
//!
//! A request for an instance that is not served here goes to its owner with the caller's own header fields and address, so that
//! the owner judges token, scopes, limits and blocked addresses itself, as if the caller had come to it. The answer passes back
//! as it is. Nothing here asks what a request means, but for what may be done where no answer comes (`concern.rs`).
//!
//! - `layer.rs` is asked by the outermost middleware: whether a request is passed on.
//! - `pass.rs` passes it on: to which replica, how often, and what is said where no answer comes.
//! - `client.rs` are the connections to other replicas; `body.rs`, `answer.rs`, `tunnel.rs` what passes on them.
//! - `entrance.rs` is the outermost layer of the cluster's own listener: nothing passes it without a proof.
//! - `everywhere.rs` asks all other replicas, where the answer is of all of them.
//! - `state.rs` what all share; `metrics.rs`; `tls.rs`. Pure: `proof.rs`, `fields.rs`, `concern.rs`.
//!
//! Invariants: the secret is never sent; a payment or a raw command of which a byte may have left is not sent again; a request
//! goes on only to a higher epoch, a bounded number of times; a request for an instance that is served here costs a look into
//! the map of served instances that it needs anyway.

mod answer;
mod body;
mod client;
mod concern;
pub mod entrance;
pub(super) mod everywhere;
mod fields;
pub(super) mod layer;
pub mod metrics;
mod pass;
mod proof;
mod state;
mod tls;
mod tunnel;

pub use client::Peers;
pub(super) use pass::Told;
pub use state::Forwarding;
