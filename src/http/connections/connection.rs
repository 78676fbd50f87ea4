//! One connection as its register sees it: a few atomic words, since every request passes here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::Connections;

/// No head has begun.
const NEVER: u32 = 0;

/// One connection: what it carries, since when it waits, and whether it has to end.
pub struct Connection {
    number: u64,
    register: Arc<Connections>,
    /// Requests whose answers have not ended.
    requests: AtomicU32,
    /// The second in which a head began that is no request yet.
    head_since: AtomicU32,
    /// The second in which it last had something to do.
    busy_at: AtomicU32,
    /// A request on it came from somebody known.
    known: AtomicBool,
    /// It speaks HTTP/2, where what is read without a request may be a ping.
    framed: AtomicBool,
    over: AtomicBool,
    reader: AtomicWaker,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests.load(Ordering::Relaxed);
        write!(formatter, "Connection({}, {requests} requests)", self.number)
    }
}

impl Connection {
    pub(super) fn new(number: u64, now: u32, register: Arc<Connections>) -> Self {
        Self {
            number,
            register,
            requests: AtomicU32::new(0),
            head_since: AtomicU32::new(NEVER),
            busy_at: AtomicU32::new(now),
            known: AtomicBool::new(false),
            framed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    /// A request has come on it; until what is returned is dropped it is under way.
    #[must_use]
    pub fn request(self: &Arc<Self>, framed: bool) -> Request {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        if framed && !self.framed.load(Ordering::Relaxed) {
            self.framed.store(true, Ordering::Relaxed);
        }
        Request(Arc::clone(self))
    }

    /// Something was read from it. Without a request under way a head has begun.
    pub(super) fn heard(&self) {
        if self.requests.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == NEVER {
            self.head_since.store(self.register.now(), Ordering::Relaxed);
        }
    }

    /// Whoever reads from it wants to know when it has to end.
    pub(super) fn awaits(&self, reader: &Waker) {
        self.reader.register(reader);
    }

    /// Whether it has to end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// It has to end now. Says whether that is news.
    pub(super) fn end(&self) -> bool {
        let news = !self.over.swap(true, Ordering::Release);
        self.reader.wake();
        news
    }

    /// Its socket is closed.
    pub(super) fn closed(&self) {
        self.register.leave(self.number);
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_without_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether it has had nothing to do for a second.
    pub(super) fn is_idle(&self, now: u32) -> bool {
        self.is_without_request() && now.saturating_sub(self.busy_at.load(Ordering::Relaxed)) > 1
    }

    /// Whether a head has been coming for more than `head` seconds, or nothing for more than `idle`.
    pub(super) fn is_overdue(&self, now: u32, head: u32, idle: u32) -> bool {
        if !self.is_without_request() || self.framed.load(Ordering::Relaxed) {
            return false;
        }
        let head_since = self.head_since.load(Ordering::Relaxed);
        let slow = head_since != NEVER && now.saturating_sub(head_since) > head;
        slow || now.saturating_sub(self.busy_at.load(Ordering::Relaxed)) > idle
    }
}

/// One request under way on a connection, until it is dropped.
#[derive(Debug)]
pub struct Request(Arc<Connection>);

impl Request {
    /// It comes from somebody known.
    pub fn is_of_somebody_known(&self) {
        if !self.0.known.load(Ordering::Relaxed) && !self.0.known.swap(true, Ordering::Relaxed) {
            self.0.register.has_become_known(self.0.number);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.busy_at.store(self.0.register.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
