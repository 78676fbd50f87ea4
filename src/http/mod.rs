//! HTTP: REST under `/v1`, problem documents, probes, metrics, and the OpenAPI document. The only room that knows actix
//! and utoipa.
//!
//! It turns requests into commands for [`crate::bridge::Bridge`] and outcomes into answers, and decides nothing about
//! money itself. Nothing is sent before caller, scope and body were checked; no answer holds a secret; and every error is
//! a problem document.
//!
//! [`server::run`] assembles and serves. A request passes [`listener`], [`connections`], [`middleware`], then
//! [`fast_path`] or a handler of [`routes`], which takes an [`extract::Call`] and asks the bridge.

pub mod auth;
pub mod client;
pub mod config;
pub mod connections;
pub mod dashboard;
pub mod extract;
pub mod fast_path;
pub mod forwarding;
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
