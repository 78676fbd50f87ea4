//! One cached reply, and how fresh it is.

use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::time::Instant;
use twox_hash::XxHash3_128;

use super::epochs::Epoch;
use crate::protocol::{Body, Parameters, Rows};

/// A reply as it was when its command was written. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CachedReply(Arc<Reply>);

#[derive(Debug)]
pub struct Reply {
    /// The reply's `parameters`.
    pub body: Body,
    /// A strong entity tag, quoted.
    pub etag: Box<str>,
    /// When its command was written: the copy is no newer than that.
    pub written: Instant,
    /// The epoch of its key when its command was written.
    pub epoch: Epoch,
    /// How many epochs had ended, of whatever, when this one was last seen to be in force.
    pub(super) current_at: AtomicU64,
    /// Where its rows are, once one was looked for.
    rows: OnceLock<Rows>,
}

impl Reply {
    /// The row of this id in `list`, which is the same at every call: what the command of this reply lists.
    #[must_use]
    pub fn row(&self, list: &str, id: i64) -> Option<Parameters> {
        let text = self.body.as_str();
        self.rows.get_or_init(|| Rows::of(text, list)).find(text, id)
    }
}

impl Deref for CachedReply {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.0
    }
}

/// How a copy may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As good as asking.
    Fresh {
        /// Until it ages out, if no broadcast ends it before.
        left: Duration,
    },
    /// Older than its rule: may be served, labelled, while a new one is fetched.
    Stale {
        /// For how long it has been stale.
        by: Duration,
    },
    /// By a broadcast, a payment, a time in which broadcasts may have been missed, or a restart: to be replaced before it is
    /// used, and served only where no new one can be had.
    Invalidated {
        /// For how long it has been stale: since it was ended, where that was before it aged. Where the instant is not
        /// known, since its command was written.
        by: Duration,
    },
    /// Too old for anything.
    Expired,
}

impl CachedReply {
    /// A copy of `body`, with its entity tag.
    #[must_use]
    pub fn new(body: Body, written: Instant, epoch: Epoch) -> Self {
        // It tells the bodies of one resource apart. They come from the gateway, and nobody gains by two that are alike.
        let tag = XxHash3_128::oneshot(body.as_str().as_bytes()).to_be_bytes();
        let mut etag = String::with_capacity(2 * tag.len() + 2);
        etag.push('"');
        HEXLOWER.encode_append(&tag, &mut etag);
        etag.push('"');
        let etag = etag.into_boxed_str();
        // Not judged yet: no number of ends is this high.
        Self(Arc::new(Reply {
            body,
            etag,
            written,
            epoch,
            current_at: AtomicU64::new(u64::MAX),
            rows: OnceLock::new(),
        }))
    }
}
