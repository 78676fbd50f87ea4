//! Whether the gateway takes an instance's key and its licence, as its words say. PURE over given instants.
//!
//! A refusal lasts until a reply proves otherwise: any reply, for a key goes into every command; for a licence one to the
//! command that was refused or to `getlicense`, since it is not known which commands need one.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::protocol::{Body, GatewayError, Meaning, command};

/// What the gateway does not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    Key,
    License,
}

/// A key or licence that the gateway does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDenied {
    pub denial: Denial,
    /// The gateway's word, or `inactive` where it says so in the licence itself.
    pub word: String,
    /// The command that was refused.
    pub command: String,
    pub since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Access {
    denied: Mutex<Option<AccessDenied>>,
    /// Whether there is one: a reply looks at this only.
    is_denied: AtomicBool,
    /// Something was refused that was accepted until then.
    pub(super) refused: Notify,
}

/// The part of a licence that says whether it is in force.
#[derive(Deserialize)]
struct LicenseReply {
    #[serde(rename = "License")]
    license: License,
}

#[derive(Deserialize)]
struct License {
    #[serde(rename = "Active")]
    active: Value,
}

impl Access {
    pub(super) fn denied(&self) -> Option<AccessDenied> {
        self.denied.lock().clone()
    }

    pub(super) fn is_denied(&self) -> bool {
        self.is_denied.load(Ordering::Acquire)
    }

    /// Another key is in force.
    pub(super) fn key_replaced(&self) {
        self.set(None);
    }

    /// The gateway answered `command` with an error.
    pub(super) fn refused(&self, command: &str, error: &GatewayError, now: Instant) {
        match error.meaning() {
            Meaning::Credentials => self.deny(Denial::Key, &error.error, command, now),
            Meaning::License => self.deny(Denial::License, &error.error, command, now),
            _ => {}
        }
    }

    /// The gateway replied to `command`. The clock is read only where that matters.
    pub(super) fn replied(&self, command: &str, reply: &Body, now: impl FnOnce() -> Instant) {
        let of_license = command == command::GETLICENSE.name;
        if of_license && is_inactive(reply) {
            return self.deny(Denial::License, "inactive", command, now());
        }
        if !self.is_denied() {
            return;
        }
        let mut denied = self.denied.lock();
        let over = |one: &AccessDenied| one.denial == Denial::Key || of_license || one.command == command;
        if denied.as_ref().is_some_and(over) {
            *denied = None;
            self.is_denied.store(false, Ordering::Release);
        }
    }

    fn deny(&self, denial: Denial, word: &str, command: &str, now: Instant) {
        let mut denied = self.denied.lock();
        if denied.as_ref().is_some_and(|known| known.denial == denial) {
            return;
        }
        *denied = Some(AccessDenied { denial, word: word.to_owned(), command: command.to_owned(), since: now });
        self.is_denied.store(true, Ordering::Release);
        self.refused.notify_one();
    }

    fn set(&self, to: Option<AccessDenied>) {
        let mut denied = self.denied.lock();
        self.is_denied.store(to.is_some(), Ordering::Release);
        *denied = to;
    }
}

fn is_inactive(reply: &Body) -> bool {
    let Ok(LicenseReply { license }) = serde_json::from_str(reply.as_str()) else { return false };
    match license.active {
        Value::Bool(active) => !active,
        Value::Number(active) => active.as_f64() == Some(0.0),
        Value::String(active) => active.trim() == "0",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        Body::from(serde_json::from_str::<&serde_json::value::RawValue>(text).unwrap())
    }

    fn denial(access: &Access) -> Option<(Denial, String)> {
        access.denied().map(|one| (one.denial, one.word))
    }

    #[test]
    fn a_refused_key_is_denied_until_any_reply_and_keeps_its_first_instant() {
        let (access, now) = (Access::default(), Instant::now());
        access.refused("listpos", &GatewayError::word("api_key_mismatch"), now);
        access.refused("getconfig", &GatewayError::word("no_api_key"), now + std::time::Duration::from_secs(9));
        assert_eq!(access.denied().unwrap().since, now);
        assert_eq!(denial(&access), Some((Denial::Key, "api_key_mismatch".into())));
        access.replied("getdeposit", &body("{}"), || now);
        assert_eq!((denial(&access), access.is_denied()), (None, false));
    }

    #[test]
    fn a_refused_licence_is_denied_until_that_command_or_the_licence_is_answered() {
        let (access, now) = (Access::default(), Instant::now());
        let refuse = || access.refused("payitems", &GatewayError::word("getlicense"), now);
        refuse();
        access.replied("listpos", &body("{}"), || now);
        assert_eq!(denial(&access), Some((Denial::License, "getlicense".into())));
        access.replied("payitems", &body("{}"), || now);
        assert_eq!(denial(&access), None);
        refuse();
        access.replied("getlicense", &body(r#"{"License":{"Active":"1"}}"#), || now);
        assert_eq!(denial(&access), None);
    }

    #[test]
    fn a_licence_that_says_itself_that_it_is_not_active_is_denied_however_that_is_spelled() {
        let (access, now) = (Access::default(), Instant::now());
        for (active, denied) in [(r#""0""#, true), ("0", true), ("false", true), (r#""1""#, false), ("null", false)] {
            access.replied("getlicense", &body(&format!(r#"{{"License":{{"Active":{active}}}}}"#)), || now);
            assert_eq!(denial(&access).is_some(), denied, "{active}");
        }
        access.replied("getlicense", &body("{}"), || now);
        assert_eq!(denial(&access), None);
    }

    #[test]
    fn other_errors_say_nothing_of_key_or_licence() {
        let access = Access::default();
        for word in ["ratelimit", "invalid_password", "error_exec", "invalid_instance", "missing_parameter_POSID"] {
            access.refused("payitems", &GatewayError::word(word), Instant::now());
        }
        assert_eq!(denial(&access), None);
    }
}
