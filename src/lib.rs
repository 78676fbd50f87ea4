//! ConcertPOS bridge: HTTP for a point-of-sale system whose only interface is a WebSocket gateway.

mod app;
mod bridge;
mod broadcasts;
mod budget;
mod cache;
pub mod cli;
mod clock;
mod cluster;
mod config;
mod database;
mod gateway;
mod http;
#[doc(hidden)]
pub mod internals;
mod journal;
mod protocol;
mod reload;
#[cfg(test)]
mod scratch;
mod service_manager;
mod settings;
mod shutdown;
mod supervisor;
mod telemetry;
mod tenure;
