//! One connection as its register sees it: a few atomic words, since every request passes here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::{Connections, Patience};

/// No head has begun, or nothing waits to be taken.
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
    /// The second since which the peer has not taken all that is written.
    untaken_since: AtomicU32,
    /// What was read of an upgraded connection has been dealt with, and more may come.
    more: AtomicBool,
    /// Nothing that comes on an upgraded connection is looked at any more.
    unread: AtomicBool,
    /// A request has come on it.
    begun: AtomicBool,
    /// A request on it came from somebody known.
    known: AtomicBool,
    /// It speaks another protocol than HTTP.
    upgraded: AtomicBool,
    over: AtomicBool,
    /// It is over, and nothing more is written either.
    cut: AtomicBool,
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
    pub(super) fn new(number: u64, now: u32, register: Arc<Connections>) -> Self {
        Self {
            number,
            register,
            requests: AtomicU32::new(0),
            head_since: AtomicU32::new(NEVER),
            busy_at: AtomicU32::new(now),
            untaken_since: AtomicU32::new(NEVER),
            more: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            known: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            over: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// A request has come on it; until what is returned is dropped it is under way.
    #[must_use]
    pub fn request(self: &Arc<Self>) -> Request {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(NEVER, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        Request(Arc::clone(self))
    }

    /// Its request came from `caller`. Says whether that caller may have one more connection; where it may not, the
    /// connection stays a stranger's.
    #[must_use]
    pub fn is_of(&self, caller: &str) -> bool {
        if self.is_known() {
            return true;
        }
        if !self.register.has_become_known(self.number, caller) {
            return false;
        }
        self.known.store(true, Ordering::Release);
        self.reader.wake();
        true
    }

    /// It speaks another protocol from here on.
    pub fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// All that was read of an upgraded connection has been dealt with. Until a token was accepted, nothing more is read
    /// before that.
    pub fn asks_for_more(&self) {
        if !self.is_known() && !self.more.swap(true, Ordering::AcqRel) {
            self.reader.wake();
        }
    }

    /// Nothing that comes on an upgraded connection is looked at from here on.
    pub fn asks_for_nothing(&self) {
        self.unread.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// Ends it without waiting for what is still to be written.
    pub fn cut(&self) -> bool {
        self.cut.store(true, Ordering::Release);
        let news = self.end();
        self.writer.wake();
        news
    }

    /// Whether an upgraded connection is to be read; `reader` is woken when it is.
    pub(super) fn is_to_be_read(&self, reader: &Waker) -> bool {
        self.reader.register(reader);
        self.more.load(Ordering::Acquire)
    }

    /// An upgraded connection was read, and is not to be read again before that has been dealt with.
    pub(super) fn was_read(&self) {
        self.more.store(false, Ordering::Release);
    }

    /// Whether nobody looks at what comes on an upgraded connection.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// No request has come on it yet.
    pub(super) fn is_new(&self) -> bool {
        !self.begun.load(Ordering::Relaxed)
    }

    /// Nothing more can be written for now; `writer` is woken if it is cut.
    pub(super) fn is_not_taken(&self, writer: &Waker) {
        if self.untaken_since.load(Ordering::Relaxed) == NEVER {
            self.untaken_since.store(self.register.now(), Ordering::Relaxed);
        }
        self.writer.register(writer);
    }

    /// All that was written has been taken.
    pub(super) fn is_taken(&self) {
        if self.untaken_since.load(Ordering::Relaxed) != NEVER {
            self.untaken_since.store(NEVER, Ordering::Relaxed);
            if !self.is_known() {
                // Nothing was read meanwhile.
                self.reader.wake();
            }
        }
    }

    /// Whether something that was written waits to be taken.
    pub(super) fn waits_to_be_taken(&self) -> bool {
        self.untaken_since.load(Ordering::Relaxed) != NEVER
    }

    /// Whether it was cut.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
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

    /// Whether a head has been coming for too long, or nothing at all.
    pub(super) fn is_overdue(&self, now: u32, patience: &Patience) -> bool {
        if !self.is_without_request() {
            return false;
        }
        let slow = since(&self.head_since, now) > patience.head;
        slow || now.saturating_sub(self.busy_at.load(Ordering::Relaxed)) > patience.idle
    }

    /// Whether its peer has not taken what was written for too long.
    pub(super) fn is_not_taken_in_time(&self, now: u32, patience: &Patience) -> bool {
        let most = if self.is_upgraded() { patience.upgraded_untaken } else { patience.untaken };
        since(&self.untaken_since, now) > most
    }
}

/// For how many seconds something has lasted; 0 where it does not.
fn since(begin: &AtomicU32, now: u32) -> u32 {
    match begin.load(Ordering::Relaxed) {
        NEVER => 0,
        begin => now.saturating_sub(begin),
    }
}

/// One request under way on a connection, until it is dropped.
#[derive(Debug)]
pub struct Request(Arc<Connection>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.busy_at.store(self.0.register.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        if !self.0.is_known() {
            // Nothing was read meanwhile.
            self.0.reader.wake();
        }
    }
}
