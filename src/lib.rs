//! ConcertPOS bridge: HTTP for a point-of-sale system whose only interface is a WebSocket gateway.

pub mod app;
pub mod bridge;
pub mod budget;
pub mod cache;
pub mod cli;
pub mod config;
pub mod drain;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod journal;
pub mod reload;
pub mod settings;
pub mod simulator;
pub mod telemetry;
pub mod wire;
