//! HTTP: the room callers meet first. REST under `/v1`, problems, health, and the document that describes them.
//!
//! It turns requests into commands for [`crate::bridge::Bridge`] and outcomes into answers, and decides nothing about
//! money itself. What it refuses to do: send anything before caller, scope and body are known to be good; tell a
//! caller a secret; or let an error leave in any other form than a problem document.

pub mod auth;
pub mod client;
pub mod config;
pub mod connections;
pub mod dashboard;
pub mod extract;
pub mod fast_path;
pub mod listener;
pub mod metrics;
pub mod middleware;
pub mod native;
pub mod openapi;
pub mod problem;
pub mod request;
pub mod response;
pub mod route_patterns;
pub mod routes;
pub mod server;
pub mod state;
pub mod upgrade;
pub mod views;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use server::{run, workers};
