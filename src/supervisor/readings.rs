//! A reading for all who want it at the same time. Each gets one that was begun after it asked.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// When the exchanges of payments ended, by instance, in the order in which they were read.
pub(super) type SentByInstance = HashMap<String, Vec<i64>>;

/// The last reading, and when it was begun.
#[derive(Debug)]
pub(super) struct Readings<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Readings<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Readings<T> {
    /// Reads once nobody else does, unless somebody has begun to in the meantime.
    pub(super) async fn begun_from_now<F: Future<Output = T>>(&self, read: impl FnOnce() -> F) -> Arc<T> {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((_, reading)) = last.as_ref().filter(|(begun, _)| *begun > asked) {
            return Arc::clone(reading);
        }
        let begun = Instant::now();
        let reading = Arc::new(read().await);
        *last = Some((begun, Arc::clone(&reading)));
        reading
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_one_reads_shares_the_next_reading_and_never_an_earlier_one() {
        let (readings, count) = (Readings::default(), AtomicU32::new(0));
        let ask = || {
            readings.begun_from_now(async || {
                let number = count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                number
            })
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let asked = std::iter::repeat_with(ask).take(1000);
            futures_util::future::join_all(asked).await
        };
        let (first, others) = tokio::join!(ask(), late);
        assert_eq!(*first, 0);
        assert!(others.iter().all(|reading| **reading == 1), "what began before they asked is not theirs");
        assert_eq!(*ask().await, 2);
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}
