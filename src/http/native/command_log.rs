//! One log line a command, like that of a request over HTTP. It never holds a key, a password or a parameter but the id of the
//! point of sale.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::error::ErrorReply;
use super::executor;
use super::frame::Request;
use crate::clock::whole_us;
use crate::http::auth::Caller;
use crate::protocol::command;

/// What is known of a command, more as it is judged.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    instance: Option<Arc<str>>,
    peer: IpAddr,
    at: Instant,
    command: Option<&'static str>,
    pos_id: Option<i64>,
    caller: Option<Caller>,
}

impl Asked {
    pub(super) fn new(instance: Option<Arc<str>>, peer: IpAddr) -> Self {
        Self { instance, peer, at: Instant::now(), command: None, pos_id: None, caller: None }
    }

    pub(super) fn note_request(&mut self, request: &Request) {
        // A name that is in no table may be anything.
        self.command = Some(command::find(&request.command).map_or("raw", |spec| spec.name));
        self.pos_id = executor::pos_id(&request.parameters).ok();
    }

    pub(super) fn note_caller(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
    }

    /// Logs that it was answered, with an error or without.
    pub(super) fn answered(&self, error: Option<&ErrorReply>) {
        let Self { instance, peer, at, command, pos_id, caller } = self;
        let (instance, caller) = (instance.as_deref(), caller.as_ref().map(Caller::name));
        let (code, duration_us) = (error.map(|error| &*error.error), whole_us(at.elapsed()));
        if error.is_some_and(ErrorReply::is_failure) {
            tracing::warn!(command, code, instance, pos_id, caller, %peer, duration_us, "answered");
        } else {
            tracing::info!(command, code, instance, pos_id, caller, %peer, duration_us, "answered");
        }
    }
}
