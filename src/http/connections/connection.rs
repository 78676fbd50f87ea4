//! The state of one connection: a few atomic words, since every request passes here.
//!
//! Three parties share it: the streams around the socket (`tracked_stream.rs`, `bounded.rs`), the requests that come on
//! it, and the register, which reads it to decide what to close. Times are seconds of the register's clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// No head has begun, or no write is blocked.
const NEVER: u32 = 0;

/// What a connection needs of the register that holds it.
pub(super) trait Register: Send + Sync {
    /// In seconds, from 1.
    fn now(&self) -> u32;

    /// Counts the connection as the caller's. Returns whether the caller may have one more.
    fn claim(&self, number: u64, caller: &str) -> bool;

    fn leave(&self, number: u64);
}

/// After how many seconds a connection is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a request's head to its end.
    pub(super) head: u32,
    /// Without a request.
    pub(super) idle: u32,
    /// Without the peer's reading of what is written.
    pub(super) write: u32,
    /// The same where another protocol than HTTP is spoken.
    pub(super) upgraded_write: u32,
}

/// One connection of a caller.
pub struct Connection {
    number: u64,
    register: Arc<dyn Register>,
    /// Requests whose answers have not ended.
    requests: AtomicU32,
    /// When the head began that is no request yet.
    head_since: AtomicU32,
    /// When it last had a request.
    busy_at: AtomicU32,
    /// Since when the peer has not read all that was written.
    blocked_since: AtomicU32,
    /// What was read of an upgraded connection has been handled, and more may be read.
    may_read: AtomicBool,
    /// What comes on an upgraded connection is no longer handled.
    discarding: AtomicBool,
    /// A request has come on it.
    used: AtomicBool,
    /// A caller has authenticated on it.
    authenticated: AtomicBool,
    /// It speaks another protocol than HTTP.
    upgraded: AtomicBool,
    /// Nothing more is read.
    closing: AtomicBool,
    /// Nothing more is read or written.
    aborted: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.load(Ordering::Relaxed);
        write!(formatter, "Connection({}, {requests} requests)", self.number)
    }
}

impl Connection {
    pub(super) fn new(number: u64, register: Arc<dyn Register>) -> Self {
        Self {
            number,
            requests: AtomicU32::new(0),
            head_since: AtomicU32::new(NEVER),
            busy_at: AtomicU32::new(register.now()),
            register,
            blocked_since: AtomicU32::new(NEVER),
            may_read: AtomicBool::new(false),
            discarding: AtomicBool::new(false),
            used: AtomicBool::new(false),
            authenticated: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// A request has come. It is in progress until the returned value is dropped.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> RequestInProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
        RequestInProgress(Arc::clone(self))
    }

    /// `caller` has authenticated on it. Returns whether that caller may have one more connection; if not, this one stays
    /// anonymous.
    #[must_use]
    pub fn claim(&self, caller: &str) -> bool {
        if self.is_authenticated() {
            return true;
        }
        if !self.register.claim(self.number, caller) {
            return false;
        }
        self.authenticated.store(true, Ordering::Release);
        self.reader.wake();
        true
    }

    /// It speaks another protocol from here on.
    pub fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// All that was read of an upgraded connection has been handled. While it is anonymous, nothing more is read before.
    pub fn allow_read(&self) {
        if !self.is_authenticated() && !self.may_read.swap(true, Ordering::AcqRel) {
            self.reader.wake();
        }
    }

    /// What comes on an upgraded connection is not handled from here on.
    pub fn discard(&self) {
        self.discarding.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Closes it without waiting for what is still to be written. Returns whether it was open.
    pub fn abort(&self) -> bool {
        self.aborted.store(true, Ordering::Release);
        let was_open = self.close();
        self.writer.wake();
        was_open
    }

    /// Whether an upgraded connection may be read; `reader` is woken when it may.
    pub(super) fn may_read(&self, reader: &Waker) -> bool {
        self.reader.register(reader);
        self.may_read.load(Ordering::Acquire)
    }

    /// An upgraded connection was read, and is not read again before that was handled.
    pub(super) fn was_read(&self) {
        self.may_read.store(false, Ordering::Release);
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.discarding.load(Ordering::Acquire)
    }

    /// Whether a caller is known on it.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Acquire)
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// No request has come on it yet.
    pub(super) fn is_unused(&self) -> bool {
        !self.used.load(Ordering::Relaxed)
    }

    /// Nothing more can be written for now; `writer` is woken if the connection is aborted.
    pub(super) fn write_blocked(&self, writer: &Waker) {
        if self.blocked_since.load(Ordering::Relaxed) == NEVER {
            self.blocked_since.store(self.register.now(), Ordering::Relaxed);
        }
        self.writer.register(writer);
    }

    /// All that there is was written.
    pub(super) fn write_done(&self) {
        if self.blocked_since.load(Ordering::Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Ordering::Relaxed);
            self.wake_anonymous_reader();
        }
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.blocked_since.load(Ordering::Relaxed) != NEVER
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Something was read. Unless a request is in progress, it begins a head.
    pub(super) fn received(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == NEVER {
            self.head_since.store(self.register.now(), Ordering::Relaxed);
        }
    }

    /// `reader` is woken when the connection is closed, or an anonymous one may be read again.
    pub(super) fn register_reader(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Reads nothing more, so that the server ends it. Returns whether it was open.
    pub(super) fn close(&self) -> bool {
        let was_open = !self.closing.swap(true, Ordering::Release);
        self.reader.wake();
        was_open
    }

    /// Its socket is closed.
    pub(super) fn leave(&self) {
        self.register.leave(self.number);
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn has_no_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether it has had no request for a second. One that had one just now may be about to send the next.
    pub(super) fn is_idle(&self, now: u32) -> bool {
        self.has_no_request() && now.saturating_sub(self.busy_at.load(Ordering::Relaxed)) > 1
    }

    /// Whether a head has been coming for too long, or nothing at all.
    pub(super) fn is_overdue(&self, now: u32, timeouts: &Timeouts) -> bool {
        if !self.has_no_request() {
            return false;
        }
        let is_slow = elapsed(&self.head_since, now) > timeouts.head;
        is_slow || now.saturating_sub(self.busy_at.load(Ordering::Relaxed)) > timeouts.idle
    }

    /// Whether the peer has not read what was written for too long.
    pub(super) fn is_write_overdue(&self, now: u32, timeouts: &Timeouts) -> bool {
        let most = if self.is_upgraded() { timeouts.upgraded_write } else { timeouts.write };
        elapsed(&self.blocked_since, now) > most
    }

    /// An anonymous connection is not read while a request is in progress or a write is blocked.
    fn wake_anonymous_reader(&self) {
        if !self.is_authenticated() {
            self.reader.wake();
        }
    }
}

/// Seconds since `begin`; 0 for [`NEVER`].
fn elapsed(begin: &AtomicU32, now: u32) -> u32 {
    match begin.load(Ordering::Relaxed) {
        NEVER => 0,
        begin => now.saturating_sub(begin),
    }
}

/// A request in progress on a connection, until it is dropped.
#[derive(Debug)]
pub struct RequestInProgress(Arc<Connection>);

impl RequestInProgress {
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.busy_at.store(self.0.register.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.wake_anonymous_reader();
    }
}
