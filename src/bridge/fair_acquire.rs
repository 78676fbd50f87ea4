//! On whose behalf a fetch waits for points.
//!
//! Equal reads share one fetch, and their callers differ in what the budget owes them. Callers take turns by token. A caller
//! with an old copy to fall back on lets those without one go first, and of the old copies the longest stale is renewed first.
//! If a shared fetch waited only on behalf of the caller that began it, a token with many asks would make the others wait
//! behind all of them. So each caller that joins has the fetch ask on its own behalf too: the first ask that is granted
//! serves them all, and the others are withdrawn.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::{Ask, Class, Denied, Ledger, Permit};

/// On whose behalf a fetch asks for points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requester {
    /// A caller of this token, without a copy to fall back on.
    Caller(Arc<str>),
    /// A caller that is answered with the old copy if points do not come soon.
    Renewal {
        /// For how long the copy has been out of date.
        stale: Duration,
    },
    /// No caller waits: without points now, nothing is sent.
    Refresh {
        /// For how long the copy has been out of date.
        stale: Duration,
    },
}

impl Requester {
    fn class(&self) -> Class<'_> {
        match self {
            Self::Caller(token) => Class::Caller(token),
            Self::Renewal { stale } | Self::Refresh { stale } => Class::Refresh { staleness: *stale },
        }
    }

    fn patience(&self, max_wait: Duration) -> Duration {
        match self {
            Self::Caller(_) | Self::Renewal { .. } => max_wait,
            Self::Refresh { .. } => Duration::ZERO,
        }
    }

    /// Whether another turn of this kind would ask for the same.
    fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Caller(token), Self::Caller(other)) => token == other,
            (Self::Caller(_), _) | (_, Self::Caller(_)) => false,
            (known, Self::Refresh { .. }) => matches!(known, Self::Renewal { .. } | Self::Refresh { .. }),
            (known, _) => matches!(known, Self::Renewal { .. }),
        }
    }
}

/// The callers that one fetch asks for: each token once, and one or two of those with an old copy.
#[derive(Debug, Default)]
pub(super) struct FairAcquire {
    turns: Mutex<Vec<Requester>>,
    joined: Notify,
}

impl FairAcquire {
    /// Begins with one turn.
    pub(super) fn of(turn: Requester) -> Self {
        Self { turns: Mutex::new(vec![turn]), joined: Notify::new() }
    }

    /// The caller for whom it began; none where it renews an old copy.
    pub(super) fn first_caller(&self) -> Option<Arc<str>> {
        self.turns.lock().first().and_then(|turn| match turn {
            Requester::Caller(token) => Some(Arc::clone(token)),
            Requester::Renewal { .. } | Requester::Refresh { .. } => None,
        })
    }

    /// Has the fetch wait in this turn too.
    pub(super) fn join(&self, turn: Requester) {
        let mut turns = self.turns.lock();
        if !turns.iter().any(|known| known.is_as(&turn)) {
            turns.push(turn);
            self.joined.notify_one();
        }
    }

    /// Points for `command` in the first of the turns that comes, each of which waits at most `max_wait` from when it
    /// joined, and none beyond `deadline`. Denied when all of them are. Cancel safe: what was granted is given back.
    pub(super) async fn acquire(
        &self,
        ledger: &Ledger,
        command: &str,
        max_wait: Duration,
        deadline: Instant,
    ) -> Result<Permit, Denied> {
        if let Some(permit) = self.grant_now(ledger, command) {
            return Ok(permit);
        }
        let mut asks = FuturesUnordered::new();
        let mut begun = 0;
        let mut denied: Option<Denied> = None;
        loop {
            for turn in self.after(begun) {
                begun += 1;
                let until = deadline.min(Instant::now() + turn.patience(max_wait));
                asks.push(async move { ledger.acquire(Ask { command, class: turn.class(), deadline: until }).await });
            }
            tokio::select! {
                answer = asks.next() => match (answer, denied) {
                    (Some(Ok(permit)), _) => return Ok(permit),
                    (Some(Err(later)), Some(known)) if known.retry_after < later.retry_after => {}
                    (Some(Err(later)), _) => denied = Some(later),
                    // All were denied. There is always at least one.
                    (None, denied) => return Err(denied.unwrap_or(Denied { retry_after: max_wait })),
                },
                () = self.joined.notified() => {}
            }
        }
    }

    /// What the first of them is granted at once, as it usually is.
    fn grant_now(&self, ledger: &Ledger, command: &str) -> Option<Permit> {
        let turns = self.turns.lock();
        ledger.grant_now(command, turns.first()?.class())
    }

    fn after(&self, begun: usize) -> Vec<Requester> {
        let turns = self.turns.lock();
        turns.iter().skip(begun).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Config;

    const LONG: Duration = Duration::from_mins(5);

    async fn spend(ledger: &Ledger, times: usize) {
        for _ in 0..times {
            let ask = Ask { command: "listproducts", class: Class::Caller("x"), deadline: Instant::now() };
            ledger.acquire(ask).await.unwrap().ended();
        }
    }

    fn waiting(ledger: &Ledger) -> usize {
        ledger.status().iter().map(|window| window.waiting_callers + window.waiting_refreshes).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_another_token_joins_is_served_in_that_token_s_turn() {
        let ledger = Ledger::new(Config::default());
        spend(&ledger, 4).await;
        // Twenty asks of one token go before its ask for what both want.
        for _ in 0..20 {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let ask =
                    Ask { command: "listproducts", class: Class::Caller("loud"), deadline: Instant::now() + LONG };
                ledger.acquire(ask).await.unwrap().ended();
            });
        }
        while waiting(&ledger) < 20 {
            tokio::task::yield_now().await;
        }
        let turns = Arc::new(FairAcquire::of(Requester::Caller("loud".into())));
        let (shared, of_fetch) = (Arc::clone(&turns), ledger.clone());
        let begun = Instant::now();
        let fetch = tokio::spawn(async move {
            let deadline = Instant::now() + LONG;
            shared.acquire(&of_fetch, "listproducts", LONG, deadline).await.unwrap().ended();
            Instant::now()
        });
        while waiting(&ledger) < 21 {
            tokio::task::yield_now().await;
        }
        turns.join(Requester::Caller("quiet".into()));
        let waited = fetch.await.unwrap() - begun;
        assert!(waited <= Duration::from_millis(30_500), "it waited {waited:?}, as if behind all that the other asked");
        assert!(waiting(&ledger) <= 20, "the asks that were not needed are withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_denied_only_when_every_turn_is() {
        let ledger = Ledger::new(Config::default());
        spend(&ledger, 4).await;
        let turns = FairAcquire::of(Requester::Caller("a".into()));
        turns.join(Requester::Caller("b".into()));
        turns.join(Requester::Renewal { stale: Duration::from_secs(9) });
        let denied = turns.acquire(&ledger, "listproducts", Duration::from_secs(2), Instant::now() + LONG).await;
        assert_eq!(denied.unwrap_err().retry_after, Duration::from_millis(30_500));
        assert_eq!(waiting(&ledger), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_an_old_copy_lets_those_go_first_who_have_nothing_and_the_longest_stale_goes_next() {
        let ledger = Ledger::new(Config::default());
        // Points come free one command after the other.
        for _ in 0..4 {
            spend(&ledger, 1).await;
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        let served = Arc::new(Mutex::new(Vec::new()));
        let stale = |seconds| Requester::Renewal { stale: Duration::from_secs(seconds) };
        let asks = [("young", stale(1)), ("old", stale(9)), ("nothing", Requester::Caller("shop".into()))];
        for (count, (name, turn)) in asks.into_iter().enumerate() {
            let (of_task, served, turns) = (ledger.clone(), Arc::clone(&served), FairAcquire::of(turn));
            tokio::spawn(async move {
                let permit = turns.acquire(&of_task, "listproducts", LONG, Instant::now() + LONG).await.unwrap();
                served.lock().push(name);
                permit.ended();
            });
            while waiting(&ledger) <= count {
                tokio::task::yield_now().await;
            }
        }
        while served.lock().len() < 3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(*served.lock(), ["nothing", "old", "young"]);
    }
}
