//! Callers who read. None of them may be given an old price as a fresh one once `updatepos` was heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Asking};
use crate::stage::{PRICE_OF_NONE, PRICED};
use crate::support::KEY;

/// What is read: a path, its operation, and which part of all reads it is.
pub(crate) const PAGES: [(&str, &str); 8] = [
    ("/points-of-sale/1/products", "listProducts"),
    ("/points-of-sale/2/products", "listProducts"),
    ("/points-of-sale/1/payment-methods", "listPm"),
    ("/config", "getConfig"),
    ("/deposit", "getDeposit"),
    ("/points-of-sale", "listPos"),
    ("/status", "getStatus"),
    ("/points-of-sale/1/transactions?limit=2", "listTransactions"),
];

/// The update of which the price is, in a reply to the first page.
fn version(body: &str) -> u64 {
    let body: Value = serde_json::from_str(body).unwrap();
    let products = body["Products"].as_array().unwrap();
    let priced = products.iter().find(|product| product["ID"] == PRICED.1).unwrap();
    // Before the first update it is what the sample says: a few coins.
    let euros = priced["Price"].to_string().split('.').next().unwrap().parse::<u64>().unwrap();
    euros.saturating_sub(PRICE_OF_NONE)
}

/// Whether an answer says that it is as good as asking the gateway.
pub(crate) fn is_fresh(answer: &Answer) -> bool {
    answer.status == 200 && !answer.headers["cache-status"].to_str().unwrap().contains("ttl=-")
}

/// A reader.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) asking: Asking,
    /// The newest update of which a listener has heard, anywhere.
    pub(crate) heard: Arc<AtomicU64>,
}

impl Reader {
    /// Asks for a page. What is told as fresh has to be.
    pub(crate) async fn ask(&self, page: usize, wish: &str) -> Option<Answer> {
        let (path, operation) = PAGES[page];
        let heard = self.heard.load(Ordering::SeqCst);
        let mut request = self.asking.http.get(self.asking.url(path)).bearer_auth(KEY);
        if !wish.is_empty() {
            request = request.header("Cache-Control", wish);
        }
        let answer = self.asking.send(request, operation).await?;
        if page == 0 && is_fresh(&answer) {
            let (shown, status) = (version(&answer.body), &answer.headers["cache-status"]);
            assert!(shown >= heard, "update {heard} was heard, and the price of {shown} is told as fresh: {status:?}");
        }
        Some(answer)
    }

    /// Reads one page after the other until there was enough.
    pub(crate) async fn read(self, seed: u64, enough: CancellationToken) {
        let mut dice = Rng::with_seed(seed);
        while !enough.is_cancelled() {
            // Half of all reads are of the page that is watched.
            let page = if dice.bool() { 0 } else { dice.usize(0..PAGES.len()) };
            let wish = *dice.choice(&["", "", "", "no-cache", "max-stale=0", "max-age=1", "only-if-cached"]).unwrap();
            self.ask(page, wish).await;
            sleep(Duration::from_millis(dice.u64(5..60))).await;
        }
    }
}
