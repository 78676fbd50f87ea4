//! The gateway's protocol, free of IO: commands, frames, error words.
//!
//! Everything here is total: no bytes from outside can panic it, and nothing in it waits. What the gateway sent is
//! kept as the bytes that came, because prices must never pass through binary floating point, and fields unknown to
//! the bridge are passed on to the caller.

mod body;
pub mod command;
pub mod fault;
pub mod frame;
pub mod json5;
mod number;
pub mod parameters;
mod rows;
mod text;

pub use body::Body;
pub use command::{Command, Kind, Retention, Spec};
pub use fault::{GatewayError, Meaning};
pub use frame::{Format, Frame, Undecodable};
pub use number::{Decimal, whole};
pub use parameters::Parameters;
pub use rows::Rows;
