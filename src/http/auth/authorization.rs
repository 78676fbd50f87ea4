//! The right of a long connection or stream, which ends when its credential is revoked or expires.

use std::sync::Arc;

use tokio::time::Instant;

use super::Auth;
use super::caller::{Caller, Scope};

/// A caller's right to stay at an instance.
#[derive(Debug)]
pub struct Authorization {
    auth: Arc<Auth>,
    caller: Caller,
    instance: Arc<str>,
    scope: Option<Scope>,
    /// The reload after which it was last checked.
    checked: Option<u64>,
    ended: bool,
}

impl Authorization {
    /// Valid as long as the caller's credential gives it `instance`, and `scope` if there is one. Unchecked at first: the
    /// credential may have been revoked since it was verified.
    #[must_use]
    pub fn new(auth: Arc<Auth>, caller: Caller, instance: Arc<str>, scope: Option<Scope>) -> Self {
        Self { auth, caller, instance, scope, checked: None, ended: false }
    }

    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// When its credential expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        self.caller.expires_at()
    }

    /// Checks only after a reload, beside the clock, so that it can be asked before each event. Once false, it stays false.
    pub fn is_valid(&mut self) -> bool {
        let reloads = Some(*self.auth.reloads.borrow());
        if self.checked != reloads && !self.ended {
            self.checked = reloads;
            self.ended = !self.auth.still_permits(&self.caller, &self.instance, self.scope);
        }
        self.ended |= self.caller.is_expired();
        !self.ended
    }
}
