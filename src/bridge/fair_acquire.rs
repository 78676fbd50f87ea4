//! On whose behalf a fetch waits for points.
//!
//! Equal reads share one fetch, and their callers differ in what the budget owes them. Callers take turns by token. A caller
//! with an old copy to fall back on lets those without one go first, and of the old copies the longest stale is renewed first.
//! If a shared fetch waited only on behalf of the caller that began it, a token with many asks would make the others wait
//! behind all of them. So each caller that joins has the fetch ask on its own behalf too: the first ask that is granted
//! serves them all, and the others are withdrawn.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::{Ask, Class, Denied, Ledger, Permit};
use crate::clock::RETRY_SHORTLY;

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

/// A turn in which a fetch asks for points.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    requester: Requester,
    /// For how long it waits for points.
    patience: Duration,
    /// It waited for so long, and got none.
    denied: Option<Denied>,
}

impl Turn {
    pub(super) fn new(requester: Requester, patience: Duration) -> Self {
        let patience = if matches!(requester, Requester::Refresh { .. }) { Duration::ZERO } else { patience };
        Self { requester, patience, denied: None }
    }

    /// Whether this turn is `other`'s too: it asks for the same, for as long.
    fn is_as(&self, other: &Self) -> bool {
        let is_refresh = matches!(other.requester, Requester::Refresh { .. });
        self.requester.is_as(&other.requester) && (self.patience == other.patience || is_refresh)
    }
}

impl Requester {
    fn class(&self) -> Class<'_> {
        match self {
            Self::Caller(token) => Class::Caller(token),
            Self::Renewal { stale } | Self::Refresh { stale } => Class::Refresh { staleness: *stale },
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

/// Turns, and which of them are yet to be asked for, by their numbers.
#[derive(Debug, Default)]
struct Turns {
    all: Vec<Turn>,
    unasked: Vec<usize>,
}

/// The callers that one fetch asks for: each token once, and one or two of those with an old copy; one more for each other
/// time that they wait.
#[derive(Debug, Default)]
pub(super) struct FairAcquire {
    turns: Mutex<Turns>,
    joined: Notify,
    /// Some turn was denied while others wait on.
    denial: Notify,
}

impl FairAcquire {
    /// Begins with one turn.
    pub(super) fn of(turn: Turn) -> Self {
        let turns = Turns { all: vec![turn], unasked: Vec::new() };
        Self { turns: Mutex::new(turns), ..Self::default() }
    }

    /// The caller for whom it began; none where it renews an old copy.
    pub(super) fn first_caller(&self) -> Option<Arc<str>> {
        self.turns.lock().all.first().and_then(|turn| match &turn.requester {
            Requester::Caller(token) => Some(Arc::clone(token)),
            Requester::Renewal { .. } | Requester::Refresh { .. } => None,
        })
    }

    /// Has the fetch wait in this turn too.
    pub(super) fn join(&self, turn: Turn) {
        let mut turns = self.turns.lock();
        let number = turns.all.iter().position(|known| known.is_as(&turn)).unwrap_or(turns.all.len());
        match turns.all.get_mut(number) {
            Some(known) if known.denied.is_none() => return,
            Some(known) => known.denied = None,
            None => turns.all.push(turn),
        }
        turns.unasked.push(number);
        self.joined.notify_one();
    }

    /// What a caller is told that waits for so long, once every turn that waits no longer was denied: it is not to wait for
    /// those that have more time.
    pub(super) fn denial(&self, patience: Duration) -> Option<Denied> {
        let turns = self.turns.lock();
        let mut soonest = None;
        for turn in turns.all.iter().filter(|turn| turn.patience <= patience) {
            let denied = turn.denied?;
            soonest = soonest.filter(|soonest: &Denied| soonest.retry_after <= denied.retry_after).or(Some(denied));
        }
        soonest
    }

    /// Resolves with it.
    pub(super) async fn denied(&self, patience: Duration) -> Denied {
        loop {
            let mut denial = pin!(self.denial.notified());
            denial.as_mut().enable();
            if let Some(denied) = self.denial(patience) {
                return denied;
            }
            denial.await;
        }
    }

    /// Points for `command` in the first of the turns that comes, each of which waits at most as long as it said from when it
    /// joined, and none beyond `deadline`. Denied when all of them are. Cancel safe: what was granted is given back.
    pub(super) async fn acquire(&self, ledger: &Ledger, command: &str, deadline: Instant) -> Result<Permit, Denied> {
        if let Some(permit) = self.grant_now(ledger, command) {
            return Ok(permit);
        }
        let mut asks = FuturesUnordered::new();
        self.ask_for_all();
        loop {
            for (number, turn) in self.unasked() {
                let until = deadline.min(Instant::now() + turn.patience);
                asks.push(async move {
                    let ask = Ask { command, class: turn.requester.class(), deadline: until };
                    (number, ledger.acquire(ask).await)
                });
            }
            tokio::select! {
                answer = asks.next() => match answer {
                    Some((_, Ok(permit))) => return Ok(permit),
                    Some((number, Err(denied))) => self.deny(number, denied),
                    // All were denied. There is always at least one.
                    None => return Err(self.denial(Duration::MAX).unwrap_or(Denied { retry_after: RETRY_SHORTLY })),
                },
                () = self.joined.notified() => {}
            }
        }
    }

    fn deny(&self, number: usize, denied: Denied) {
        if let Some(turn) = self.turns.lock().all.get_mut(number) {
            turn.denied = Some(denied);
        }
        self.denial.notify_waiters();
    }

    /// What the first of them is granted at once, as it usually is.
    fn grant_now(&self, ledger: &Ledger, command: &str) -> Option<Permit> {
        let turns = self.turns.lock();
        ledger.grant_now(command, turns.all.first()?.requester.class())
    }

    /// Has every turn asked for, except those whose callers were denied.
    fn ask_for_all(&self) {
        let mut turns = self.turns.lock();
        let turns = &mut *turns;
        turns.unasked.clear();
        turns.unasked.extend((0..).zip(&turns.all).filter(|(_, turn)| turn.denied.is_none()).map(|(number, _)| number));
    }

    fn unasked(&self) -> Vec<(usize, Turn)> {
        let mut turns = self.turns.lock();
        let numbers = mem::take(&mut turns.unasked);
        numbers.into_iter().filter_map(|number| Some((number, turns.all.get(number)?.clone()))).collect()
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
        let turns = Arc::new(FairAcquire::of(Turn::new(Requester::Caller("loud".into()), LONG)));
        let (shared, of_fetch) = (Arc::clone(&turns), ledger.clone());
        let begun = Instant::now();
        let fetch = tokio::spawn(async move {
            let deadline = Instant::now() + LONG;
            shared.acquire(&of_fetch, "listproducts", deadline).await.unwrap().ended();
            Instant::now()
        });
        while waiting(&ledger) < 21 {
            tokio::task::yield_now().await;
        }
        turns.join(Turn::new(Requester::Caller("quiet".into()), LONG));
        let waited = fetch.await.unwrap() - begun;
        assert!(waited <= Duration::from_millis(30_500), "it waited {waited:?}, as if behind all that the other asked");
        assert!(waiting(&ledger) <= 20, "the asks that were not needed are withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_denied_only_when_every_turn_is() {
        let ledger = Ledger::new(Config::default());
        spend(&ledger, 4).await;
        let short = |requester| Turn::new(requester, Duration::from_secs(2));
        let turns = FairAcquire::of(short(Requester::Caller("a".into())));
        turns.join(short(Requester::Caller("b".into())));
        turns.join(short(Requester::Renewal { stale: Duration::from_secs(9) }));
        let denied = turns.acquire(&ledger, "listproducts", Instant::now() + LONG).await;
        assert_eq!(denied.unwrap_err().retry_after, Duration::from_millis(30_500));
        assert_eq!(waiting(&ledger), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_denied_by_its_own_patience_while_more_patient_ones_wait_on() {
        let ledger = Ledger::new(Config::default());
        spend(&ledger, 4).await;
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(40));
        let turn = |token: &str, patience| Turn::new(Requester::Caller(token.into()), patience);
        let turns = Arc::new(FairAcquire::of(turn("a", short)));
        turns.join(turn("a", long));
        let (shared, of_fetch, begun) = (Arc::clone(&turns), ledger.clone(), Instant::now());
        let fetch = tokio::spawn(async move {
            shared.acquire(&of_fetch, "listproducts", Instant::now() + LONG).await.unwrap().ended();
            Instant::now()
        });
        assert_eq!(turns.denied(short).await.retry_after, Duration::from_millis(30_500));
        assert!(begun.elapsed() <= short && turns.denial(long).is_none());
        // Whoever comes later is asked for anew, once, however many there are of them.
        for _ in 0..3 {
            turns.join(turn("a", short));
            assert!(turns.denial(short).is_none(), "not denied before it was asked for");
        }
        turns.denied(short).await;
        assert_eq!(turns.turns.lock().all.len(), 2);
        assert_eq!(fetch.await.unwrap() - begun, Duration::from_millis(30_500), "the patient one is served");
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
            let (of_task, served, turns) =
                (ledger.clone(), Arc::clone(&served), FairAcquire::of(Turn::new(turn, LONG)));
            tokio::spawn(async move {
                let permit = turns.acquire(&of_task, "listproducts", Instant::now() + LONG).await.unwrap();
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
