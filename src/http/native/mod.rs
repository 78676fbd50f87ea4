//! The gateway's own protocol for callers: a till written for ConcertPOS works by changing its URL.
//!
//! A WebSocket upgrade at one of the forms of the gateway's URL opens a connection with the gateway's commands and replies,
//! over the same cache, budget, failover and journal as REST. Unlike at the gateway, a reply belongs to a command of this
//! connection, and a broadcast comes once.
//!
//! `upgrade.rs` answers the upgrade; `session.rs` is the task of one connection; `reader.rs` decodes messages;
//! `executor.rs` executes one command; `command_log.rs` logs it; `subscription.rs` sends broadcasts; `anonymous_limit.rs` bounds connections that
//! have not authenticated. Pure: `target.rs` (the URL), `frame.rs` (frames), `error.rs` (the table of error words).
//!
//! Invariants: no command is sent before its caller is authenticated; a slow or silent peer holds nothing but its own
//! task; a command in progress is not cancelled when its peer leaves.

mod anonymous_limit;
mod command_log;
mod config;
mod error;
mod executor;
mod frame;
mod reader;
mod session;
mod state;
mod subscription;
mod target;
mod upgrade;

#[cfg(test)]
mod tests;

use actix_web::guard;
use actix_web::web::{self, ServiceConfig};
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

pub use config::{NativeConfig, NativeLimits};
pub use state::NativeState;

use target::Target;
pub(crate) use upgrade::come_back;

use crate::http::upgrade::{PATTERNS, is_upgrade};
use crate::protocol::{Body, Format};

/// Adds the upgrade. To be added after all other routes, since its paths match any path of one segment. It takes only
/// upgrades, so a page may have the same path.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(web::resource(PATTERNS).guard(guard::fn_guard(is_upgrade)).to(upgrade::answer))
}

/// The instance that a URL names, if it has a form of the gateway's; see `target.rs`.
pub(super) fn slug_of(path: &str, query: &str, shards: &[String]) -> Option<String> {
    let segment = path.trim_start_matches('/').trim_end_matches('/');
    if segment.contains('/') {
        return None;
    }
    let segment = percent_decode_str(segment).decode_utf8().ok()?;
    Some(Target::of(&segment, query, shards).instance).filter(|slug| !slug.is_empty())
}

/// Parses a message and renders the frame that answers it with its own parameters. For the fuzzer.
#[doc(hidden)]
#[must_use]
pub fn rehearse(text: &str, format: Format) -> (Option<(String, String)>, String) {
    match frame::Request::read(text, format) {
        Ok(request) => {
            let parameters = serde_json::to_string(&request.parameters).unwrap_or_default();
            let body = serde_json::from_str::<&RawValue>(&parameters).map(Body::from);
            let answer = body.map_or_else(|_| String::new(), |body| frame::event(&request.command, &body, format));
            (Some((request.command, parameters)), answer)
        }
        Err(refusal) => (None, frame::error(&refusal, format)),
    }
}
