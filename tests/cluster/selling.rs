//! Callers that sell through all replicas in turn, repeat each key until it has its answer, and hold every answer against those
//! before it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::replicas::{Answer, Caller, Cluster};

/// Longer than any key may be without its answer: a lease, what the cluster takes to notice, and the deadline of an answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two tries of one key.
const PAUSE: Duration = Duration::from_millis(10);

/// What a key was told.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The body of its 201.
    booked: Option<String>,
    unknown: bool,
}

#[derive(Default)]
struct Ledger {
    keys: Mutex<BTreeMap<String, Seen>>,
    /// Keys that have their answer.
    answered: AtomicU64,
    /// Answers by what they were: a status with its code, or that there was none.
    answers: Mutex<BTreeMap<String, u64>>,
}

/// Callers at work.
pub(super) struct Tills {
    ledger: Arc<Ledger>,
    enough: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// What they were told, once they have stopped.
pub(super) struct Sold {
    keys: BTreeMap<String, Seen>,
    answers: BTreeMap<String, u64>,
}

impl Tills {
    /// So many callers begin to sell.
    pub(super) fn open(cluster: &Cluster, instance: &str, count: usize) -> Self {
        let (ledger, enough) = (Arc::new(Ledger::default()), CancellationToken::new());
        let tasks = (0..count).map(|till| {
            let till = Till {
                caller: cluster.caller(),
                instance: instance.to_owned(),
                name: format!("{instance}-{till}"),
                ledger: Arc::clone(&ledger),
            };
            tokio::spawn(till.sell(enough.clone()))
        });
        let tasks = tasks.collect();
        Self { ledger, enough, tasks }
    }

    /// Waits until so many more keys have their answer.
    pub(super) async fn until_sold(&self, more: u64) {
        let answered = || self.ledger.answered.load(Ordering::SeqCst);
        let (goal, began) = (answered() + more, Instant::now());
        while answered() < goal {
            let answers = self.ledger.answers.lock().unwrap().clone();
            assert!(began.elapsed() < PATIENCE, "nothing is sold any more: {answers:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until each key has its answer, and no new one is begun.
    pub(super) async fn close(self) -> Sold {
        self.enough.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        let keys = self.ledger.keys.lock().unwrap().clone();
        let answers = self.ledger.answers.lock().unwrap().clone();
        Sold { keys, answers }
    }
}

struct Till {
    caller: Caller,
    instance: String,
    name: String,
    ledger: Arc<Ledger>,
}

impl Till {
    async fn sell(self, enough: CancellationToken) {
        for number in 0.. {
            if enough.is_cancelled() {
                return;
            }
            let key = format!("{}-{number}", self.name);
            let began = Instant::now();
            while !self.ask(&key).await {
                assert!(began.elapsed() < PATIENCE, "{key} never has its answer");
                sleep(PAUSE).await;
            }
            self.ledger.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Asks once. Whether the key has its answer.
    async fn ask(&self, key: &str) -> bool {
        let answer = self.caller.pay(&self.instance, key).await;
        let mut answers = self.ledger.answers.lock().unwrap();
        *answers.entry(name_of(&answer)).or_default() += 1;
        drop(answers);
        let mut keys = self.ledger.keys.lock().unwrap();
        keys.entry(key.to_owned()).or_default().hear(key, answer)
    }
}

/// How an answer is counted.
fn name_of(answer: &Answer) -> String {
    match answer {
        Answer::Whole(status, code, _) => format!("{status} {}", code.as_deref().unwrap_or("")).trim_end().to_owned(),
        none => format!("{none:?}"),
    }
}

impl Seen {
    /// Whether it is the answer, or one for now.
    fn hear(&mut self, key: &str, answer: Answer) -> bool {
        match answer {
            Answer::Whole(201, _, body) => {
                let first = self.booked.get_or_insert_with(|| body.clone());
                assert_eq!(*first, body, "{key}: a 201 is given again as it was");
                true
            }
            Answer::Whole(504, Some(code), body) if code == "payment-outcome-unknown" => {
                assert!(self.booked.is_none(), "{key} was booked, and is now said to be unknown: {body}");
                self.unknown = true;
                // Where a way between replicas was cut, the key may be free or booked; the record says which.
                true
            }
            Answer::Whole(status, code, body) => {
                assert!(self.booked.is_none(), "{key} was booked, and is now told {status}: {body}");
                let may_repeat = [409, 429, 503, 504].contains(&status);
                assert!(may_repeat, "{key}: {status} {code:?} {body}");
                false
            }
            Answer::NotConnected | Answer::CutOff => false,
        }
    }
}

impl Sold {
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn booked(&self) -> usize {
        self.keys.values().filter(|seen| seen.booked.is_some()).count()
    }

    /// The callers' word against the gateway's: each key once more through every replica, at most one booking and one command a
    /// key, and each 201 again.
    pub(super) async fn check(&self, cluster: &Cluster, instance: &str) {
        let (caller, counts) = (cluster.caller(), cluster.gateway.counts());
        for (key, seen) in &self.keys {
            let received = counts.payitems_received.get(key).copied().unwrap_or(0);
            let bookings = counts.bookings(key);
            assert!(bookings <= 1 && received <= 1, "{key}: {bookings} bookings, {received} commands");
            if let Some(body) = &seen.booked {
                assert_eq!(bookings, 1, "{key} was told 201 and is not booked");
                let again = caller.pay(instance, key).await;
                assert_eq!(again, Answer::Whole(201, None, body.clone()), "{key}: its 201 is given again");
            }
        }
        let repeated = cluster.gateway.counts();
        for (key, seen) in self.keys.iter().filter(|(_, seen)| seen.booked.is_some()) {
            assert_eq!(repeated.bookings(key), 1, "{key} is booked again: {seen:?}");
        }
    }
}

impl fmt::Display for Sold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = self.keys.values().filter(|seen| seen.unknown).count();
        write!(
            formatter,
            "{} keys: {} booked, {unknown} unknown; answers {:?}",
            self.keys(),
            self.booked(),
            self.answers
        )
    }
}
