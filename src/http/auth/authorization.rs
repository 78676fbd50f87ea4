//! What a caller was let do for longer than a moment, for as long as its token allows it.

use std::sync::Arc;

use super::{Auth, Caller, Scope};

/// Never counted.
const NEVER: u64 = u64::MAX;

/// A caller's leave to be at an instance, which ends with its token.
#[derive(Debug)]
pub struct Authorization {
    auth: Arc<Auth>,
    caller: Caller,
    instance: Arc<str>,
    scope: Option<Scope>,
    /// After how many reloads it was last looked at.
    seen: u64,
    ended: bool,
}

impl Authorization {
    /// The leave of `caller`, as long as its token opens `instance`, with `scope` if one is named.
    #[must_use]
    pub fn new(auth: Arc<Auth>, caller: Caller, instance: Arc<str>, scope: Option<Scope>) -> Self {
        // Looked at the first time too: tokens may have been replaced since the caller showed its own.
        Self { auth, caller, instance, scope, seen: NEVER, ended: false }
    }

    /// Whose it is.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether it lasts. Costs nothing as long as no tokens were replaced.
    pub fn is_valid(&mut self) -> bool {
        let reloads = *self.auth.reloads.borrow();
        if self.seen != reloads && !self.ended {
            self.seen = reloads;
            self.ended = !self.auth.still_permits(&self.caller, &self.instance, self.scope);
        }
        !self.ended
    }
}
