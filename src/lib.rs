//! ConcertPOS bridge: HTTP for a point-of-sale system whose only interface is a WebSocket gateway.

pub mod app;
pub mod bridge;
pub mod broadcasts;
pub mod budget;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod gateway;
pub mod http;
pub mod journal;
pub mod protocol;
pub mod reload;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
