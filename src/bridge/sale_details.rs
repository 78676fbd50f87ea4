//! What cached replies say of a sale that is about to be dispatched: names, prices, and their sum.
//!
//! Nothing is asked of the gateway for it, and whatever is missing is left out: a payment neither waits for this nor fails by
//! it. A reply that a password of the point of sale opened is used for a sale with that same password alone, so that nobody
//! reads in a record what they could not have read before.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::{Cache, CachedReply, Freshness, Key, PasswordKey, PlainKey};
use crate::clock;
use crate::journal::{ProductDetails, Sale, SaleDetails, kept_name};
use crate::protocol::command::{LISTPM, LISTPOS, LISTPRODUCTS};
use crate::protocol::{Parameters, Spec};

/// Where the names of a sale are looked up.
#[derive(Debug)]
pub(super) struct Catalogue {
    cache: Arc<Cache>,
    /// What the cache calls the instance.
    slug: Arc<str>,
    passwords: PasswordKey,
}

/// One look at the cache.
struct Look<'c> {
    catalogue: &'c Catalogue,
    now: Instant,
    /// When the oldest reply that was used was asked for.
    oldest: Instant,
    outdated: bool,
}

impl Catalogue {
    pub(super) fn new(cache: Arc<Cache>, slug: Arc<str>, passwords: PasswordKey) -> Self {
        Self { cache, slug, passwords }
    }

    /// What is known of a sale with these parameters; none where no cached reply tells of it.
    pub(super) fn details(&self, sale: &Sale, parameters: &Parameters) -> Option<SaleDetails> {
        let now = Instant::now();
        let mut look = Look { catalogue: self, now, oldest: now, outdated: false };
        let mut details = SaleDetails::default();
        let password = parameters.get("posPassword");
        let password = password.and_then(|password| serde_json::from_str::<String>(password.get()).ok());
        let password = password.map(|password| self.passwords.hash(&password));
        if let Some(reply) = look.reply(&LISTPOS, None, None) {
            details.point_of_sale = name(&reply, "POS", sale.pos_id, "PointOfSale");
        }
        if let Some(reply) = look.reply(&LISTPM, Some(sale.pos_id), password) {
            let id = sale.payment_method.parse().ok();
            details.payment_method = id.and_then(|id| name(&reply, "PaymentMethods", id, "Payment"));
        }
        if let Some(reply) = look.reply(&LISTPRODUCTS, Some(sale.pos_id), password) {
            details.add_products(sale, |id| {
                let row = reply.row("Products", id)?;
                Some(ProductDetails::new(id, row.get("ProductName"), row.get("Price")))
            });
        }
        if details == SaleDetails::default() {
            return None;
        }
        let age = now.saturating_duration_since(look.oldest);
        let age_ms = i64::try_from(clock::whole_ms(age)).unwrap_or(i64::MAX);
        Some(SaleDetails { as_of_ms: clock::unix_ms().saturating_sub(age_ms), outdated: look.outdated, ..details })
    }
}

impl Look<'_> {
    /// The newest reply that may be used: one that no password opened, or exactly this one.
    fn reply(&mut self, spec: &'static Spec, pos_id: Option<i64>, password: Option<[u8; 32]>) -> Option<CachedReply> {
        let Catalogue { cache, slug, .. } = self.catalogue;
        let plain = PlainKey { instance: slug, command: spec.name, pos_id }.key();
        let opened = password.map(|password| Key { password: Some(password), ..plain.clone() });
        let found = [Some(plain), opened].into_iter().flatten().filter_map(|key| {
            let copy = cache.copy(&key)?;
            let freshness = cache.freshness(spec, &key, &copy, self.now);
            (freshness != Freshness::Expired).then_some((copy, freshness))
        });
        let (copy, freshness) = found.max_by_key(|(copy, _)| copy.written)?;
        self.oldest = self.oldest.min(copy.written);
        self.outdated |= matches!(freshness, Freshness::Invalidated { .. });
        Some(copy)
    }
}

fn name(reply: &CachedReply, list: &str, id: i64, member: &str) -> Option<String> {
    kept_name(reply.row(list, id)?.get(member)?)
}
