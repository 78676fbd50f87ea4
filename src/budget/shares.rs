//! What each token was given in one window, and which points are kept for tokens that are expected to ask again. Pure.
//!
//! A caller that asks without pause has an ask waiting whenever points come free, and one that asks now and then has not: in
//! order of arrival the first would get everything. So the token that was given least in the window goes first, and points
//! are kept for a while, against tokens that were given more, for two:
//!
//! - a token that was denied, from the instant it was told to come back. That is told in whole seconds, so it may come a
//!   second late;
//! - a token that was given points, when these come free: it may ask once a window.
//!
//! Nothing is kept for longer than [`GRACE`], or against a token that was given less. Points that are kept in vain are idle
//! for that long, once a window and token.
//!
//! Against refreshes more is kept, since no caller waits for those: each ask that was denied is a [`Promise`]. One that is
//! repeated too early cannot be told from another one, so it is promised twice; that costs refreshes at most one grace. A token
//! that takes up one of its promises is working through the others, one after the other perhaps, and these last for one more
//! grace.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::window::{Price, Tick};

/// For how long points are kept for an expected token, in microseconds: 2 s, one for rounding and one for the network.
pub(super) const GRACE: u64 = 2_000_000;

/// Tokens that are remembered. What is given to others in the same window is not counted.
const MAX_TOKENS: usize = 1024;

/// Grants of one token that are told apart. Beyond it the oldest two lapse with the later of them.
const MAX_GRANTS: usize = 128;

/// Promises that are remembered. Beyond it only what else is promised keeps refreshes away.
const MAX_PROMISES: usize = 512;

/// Promises of one token that are remembered; of more the earliest are forgotten.
const MAX_PROMISES_PER_TOKEN: usize = 64;

/// Points that are kept for a token that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) price: Price,
    /// Not before.
    pub(super) from: Tick,
    /// No longer than.
    pub(super) until: Tick,
    /// The ask that was denied; none where it is only expected to ask again.
    pub(super) denied: Option<u64>,
}

impl Claim {
    /// Whether points are kept now.
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.from <= now && now < self.until
    }
}

/// Points that a denied ask was told of, kept from refreshes.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    token: Arc<str>,
    pub(super) price: Price,
    /// When the ask was told to come again.
    pub(super) from: Tick,
    /// No longer than.
    pub(super) until: Tick,
}

#[derive(Debug, Default)]
struct Share {
    /// When points lapse, and how many, in order.
    given: VecDeque<(Tick, u64)>,
    claim: Option<Claim>,
}

/// The shares of all tokens in one window.
#[derive(Debug)]
pub(super) struct Shares {
    /// For how long what was given counts.
    hold: u64,
    /// For how long points are kept: no longer than a window.
    grace: u64,
    tokens: HashMap<Arc<str>, Share>,
    /// In order of `from`.
    promises: Vec<Promise>,
}

impl Shares {
    pub(super) fn new(hold: u64) -> Self {
        Self { hold, grace: GRACE.min(hold), tokens: HashMap::new(), promises: Vec::new() }
    }

    /// Forgets what has lapsed.
    pub(super) fn advance(&mut self, now: Tick) {
        self.promises.retain(|promise| now < promise.until);
        self.tokens.retain(|_, share| {
            while share.given.pop_front_if(|(lapses, _)| *lapses <= now).is_some() {}
            share.claim = share.claim.filter(|claim| now < claim.until);
            !share.given.is_empty() || share.claim.is_some()
        });
    }

    /// Points that `token` was given in the window.
    pub(super) fn given(&self, token: &str) -> u64 {
        self.tokens.get(token).map_or(0, |share| share.given.iter().map(|(_, points)| points).sum())
    }

    /// Whether points are kept now for another than `token`.
    pub(super) fn are_kept_for_others(&self, now: Tick, token: Option<&str>) -> bool {
        self.claims().any(|(known, claim)| claim.is_due(now) && token != Some(known))
    }

    /// The tokens that are expected to ask again.
    pub(super) fn claims(&self) -> impl Iterator<Item = (&Arc<str>, Claim)> {
        self.tokens.iter().filter_map(|(token, share)| Some((token, share.claim?)))
    }

    /// What was promised, the earliest first.
    pub(super) fn promises(&self) -> &[Promise] {
        &self.promises
    }

    pub(super) fn granted(&mut self, now: Tick, token: &Arc<str>, price: Price) {
        self.take_up(now, token, price);
        let (from, grace) = (now.after(self.hold), self.grace);
        let Some(share) = self.share(token) else { return };
        share.given.push_back((from, price.points));
        if share.given.len() > MAX_GRANTS
            && let Some((_, oldest)) = share.given.pop_front()
            && let Some((_, next)) = share.given.front_mut()
        {
            *next = next.saturating_add(oldest);
        }
        share.claim = Some(Claim { price, from, until: from.after(grace), denied: None });
    }

    /// The points of a grant came back.
    pub(super) fn returned(&mut self, token: &str, points: u64) {
        let Some(share) = self.tokens.get_mut(token) else { return };
        if let Some(place) = share.given.iter().rposition(|(_, given)| *given == points) {
            share.given.remove(place);
        }
    }

    /// The ask numbered `arrival` was denied, and told to come again at `from`.
    pub(super) fn denied(&mut self, token: &Arc<str>, arrival: u64, price: Price, from: Tick) {
        let until = from.after(self.grace);
        self.promise(Promise { token: Arc::clone(token), price, from, until });
        if let Some(share) = self.share(token) {
            // A token that asks again too early keeps its place among those denied.
            let denied = share.claim.and_then(|claim| claim.denied).unwrap_or(arrival);
            share.claim = Some(Claim { price, from, until, denied: Some(denied) });
        }
    }

    fn promise(&mut self, promise: Promise) {
        let is_own = |known: &Promise| known.token == promise.token;
        if self.promises.iter().filter(|known| is_own(known)).count() >= MAX_PROMISES_PER_TOKEN
            && let Some(earliest) = self.promises.iter().position(is_own)
        {
            self.promises.remove(earliest);
        }
        if self.promises.len() < MAX_PROMISES {
            let place = self.promises.partition_point(|known| known.from <= promise.from);
            self.promises.insert(place, promise);
        }
    }

    /// Ends the promise that `token` was given points for, if one of that price has come.
    fn take_up(&mut self, now: Tick, token: &Arc<str>, price: Price) {
        let until = now.after(self.grace);
        let is_own = |promise: &Promise| promise.from <= now && promise.token == *token;
        let place = self.promises.iter().position(|promise| is_own(promise) && promise.price == price);
        let Some(place) = place else { return };
        self.promises.remove(place);
        for promise in self.promises.iter_mut().filter(|promise| is_own(promise)) {
            promise.until = promise.until.max(until);
        }
    }

    fn share(&mut self, token: &Arc<str>) -> Option<&mut Share> {
        let is_known = self.tokens.contains_key(token);
        (is_known || self.tokens.len() < MAX_TOKENS).then(|| self.tokens.entry(Arc::clone(token)).or_default())
    }
}
