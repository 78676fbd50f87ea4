//! Callers of a pool, and what each of them is told.
//!
//! Every command asks for something that no other around it asks for, so that each reply says whose it is. What a caller
//! can see for itself to be wrong is noted at once: a reply of another command, an end that comes too late, a payment that
//! timed out without being listened to any further. What only the gateway knows is held against it at the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use concertpos_bridge::internals::gateway::{
    Cause, Config, Ending, Failure, LateFrames, Lost, Pool, Priority, Refusal,
};
use concertpos_bridge::internals::protocol::{Body, Command, Parameters, command};
use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::stage::URL;

/// The clock of the simulation ticks in milliseconds.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// How long a link may take to say goodbye, with everything it was doing given up.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// The links of the bridge, with short waits: so much fits into a minute.
pub(crate) fn config() -> Config {
    Config {
        url: URL.to_owned(),
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        late_patience: Duration::from_secs(8),
        ping_interval: Duration::from_secs(3),
        max_links: 6,
        ..Config::default()
    }
}

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// Nothing was sent.
    NotSent(String),
    /// The gateway's word, which means no.
    Refused(String),
    Replied,
    /// It may have been sent, and nothing more is known.
    Unknown(&'static str),
    /// The caller went away before it had a link.
    LeftTheQueue,
    /// The caller went away while its command may have been under way.
    Left,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Transactions,
    Device,
    Payment,
    /// A sale that the bridge does not know for one.
    RawSale,
}

impl Ask {
    /// Whether it must not be sent twice.
    pub(crate) fn books(self) -> bool {
        matches!(self, Self::Payment | Self::RawSale)
    }
}

/// One call from beginning to end. Times are since the beginning of the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) ask: Ask,
    pub(crate) begun: Duration,
    /// How long it was ready to wait for a link.
    pub(crate) patience: Duration,
    pub(crate) ended: Duration,
    pub(crate) told: Told,
    /// What came of a payment that timed out, where its late reply was listened to until the end.
    pub(crate) late: Option<bool>,
}

impl Call {
    /// The name under which the gateway counts a sale.
    pub(crate) fn reference(&self) -> String {
        reference(self.number)
    }
}

fn reference(number: u64) -> String {
    format!("sale-{number}")
}

/// What is written down of a run.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// In the order in which they ended.
    pub(crate) calls: Vec<Call>,
    /// What was not as it has to be.
    pub(crate) wrong: Vec<String>,
    numbers: u64,
}

pub(crate) type Shared = Arc<Mutex<Book>>;

/// Notes what is not as it has to be.
pub(crate) fn wrong(book: &Shared, what: String) {
    book.lock().unwrap().wrong.push(what);
}

/// One who calls again and again.
pub(crate) struct Caller {
    pub(crate) pool: Pool,
    pub(crate) book: Shared,
    pub(crate) dice: Rng,
    pub(crate) begun: Instant,
}

impl Caller {
    /// Calls until there was enough.
    pub(crate) async fn call_until(mut self, enough: CancellationToken) {
        let mut avoid = None;
        while !enough.is_cancelled() {
            sleep(Duration::from_millis(self.dice.u64(..300))).await;
            let mut call = self.call();
            let late = self.make(&mut call, &mut avoid).await;
            call.ended = self.begun.elapsed();
            if let Some(late) = late {
                call.late = self.listen(&call, late).await;
            }
            self.book.lock().unwrap().calls.push(call);
        }
    }

    fn call(&mut self) -> Call {
        let number = {
            let mut book = self.book.lock().unwrap();
            book.numbers += 1;
            book.numbers
        };
        let ask = [Ask::Transactions, Ask::Device, Ask::Payment, Ask::Payment, Ask::RawSale][self.dice.usize(..5)];
        let patience = Duration::from_millis(self.dice.u64(50..5_000));
        let begun = self.begun.elapsed();
        Call { number, ask, begun, patience, ended: begun, told: Told::LeftTheQueue, late: None }
    }

    /// Makes one call. Returns where its late reply may come.
    async fn make(&mut self, call: &mut Call, avoid: &mut Option<usize>) -> Option<LateFrames> {
        let begun = Instant::now();
        let priority = if call.ask.books() { Priority::Payment } else { Priority::Ordinary };
        let checkout = self.pool.checkout(priority, begun + call.patience, *avoid);
        let leaves = Duration::from_millis(self.dice.u64(..2_500));
        // One in eight goes away at some moment: before, while or after its command is written.
        let stays = self.dice.u8(..8) != 0;
        let leased = if stays { checkout.await } else { timeout(leaves, checkout).await.ok()? };
        self.in_time("a link", call, begun, call.patience);
        let lease = match leased {
            Ok(lease) => lease,
            Err(why) => {
                call.told = Told::NotSent(why.to_string());
                return None;
            }
        };
        call.told = Told::Left;
        *avoid = lease.shard().filter(|_| self.dice.bool());
        // A payment's record is made durable between the two.
        sleep(Duration::from_millis(self.dice.u64(..20))).await;
        let begun = Instant::now();
        let exchange = lease.exchange(&command_of(call), "demo-key");
        let outcome = if stays { exchange.await } else { timeout(leaves, exchange).await.ok()? };
        self.in_time("an exchange", call, begun, config().request_timeout * 2);
        self.told(call, outcome)
    }

    fn told(&self, call: &mut Call, outcome: Result<Body, Failure>) -> Option<LateFrames> {
        let (told, late) = match outcome {
            Ok(body) => {
                self.is_its_own(call, &body);
                (Told::Replied, None)
            }
            Err(Failure::NotSent(why)) => (Told::NotSent(why.to_string()), None),
            Err(Failure::Refused(Refusal { error, late })) => {
                if (call.ask == Ask::Payment) != late.is_some() {
                    wrong(&self.book, format!("a late reply can come: {}, of {call:?}", late.is_some()));
                }
                (Told::Refused(error.error), late)
            }
            Err(Failure::Unknown(Lost { cause: Cause::Word(_), late })) => (Told::Unknown("word"), late),
            Err(Failure::Unknown(Lost { cause: Cause::NotUnderstood, late })) => {
                (Told::Unknown("not understood"), late)
            }
            Err(Failure::Unknown(Lost { cause: Cause::Disconnected, late })) => (Told::Unknown("disconnected"), late),
            Err(Failure::Unknown(Lost { cause: Cause::Timeout, late })) => {
                if (call.ask == Ask::Payment) != late.is_some() {
                    wrong(&self.book, format!("a late reply can come: {}, of {call:?}", late.is_some()));
                }
                (Told::Unknown("timeout"), late)
            }
        };
        call.told = told;
        late
    }

    /// Listens for a late reply. Some lose interest, as where a payment was settled by hand.
    async fn listen(&mut self, call: &Call, mut late: LateFrames) -> Option<bool> {
        if self.dice.u8(..4) == 0 {
            drop(timeout(Duration::from_millis(self.dice.u64(..2_000)), late.next()).await);
            return None;
        }
        let begun = Instant::now();
        let mut replied = false;
        while let Some(ending) = late.next().await {
            if let Ending::Reply(body) = ending {
                self.is_its_own(call, &body);
                replied = true;
            }
        }
        self.in_time("a late reply", call, begun, config().late_patience + GOODBYE);
        Some(replied)
    }

    fn in_time(&self, what: &str, call: &Call, begun: Instant, limit: Duration) {
        if begun.elapsed() > limit + TICK {
            wrong(&self.book, format!("{what} took {:?} instead of {limit:?}: {call:?}", begun.elapsed()));
        }
    }

    fn is_its_own(&self, call: &Call, body: &Body) {
        let reply: Value = serde_json::from_str(body.as_str()).unwrap();
        let own = match call.ask {
            Ask::Payment | Ask::RawSale => reply["Items"] == products_of(call.number),
            Ask::Device => reply["Device"]["UUID"] == reference(call.number),
            Ask::Transactions => {
                let listed = reply["Transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
                !listed.is_empty() && listed.iter().all(|one| one["PointOfSaleID"] == point_of_sale(call.number))
            }
        };
        if !own {
            wrong(&self.book, format!("the reply of another: {call:?} was told {}", body.as_str()));
        }
    }
}

/// How many products are sold, which is all that a reply says. Sales near each other differ.
fn products_of(number: u64) -> u64 {
    1 + number % 31
}

/// Each has some past transactions.
fn point_of_sale(number: u64) -> u64 {
    1 + number % 32
}

fn command_of(call: &Call) -> Command {
    let number = call.number;
    let parameters = Parameters::default();
    let sale = || {
        let products: Vec<_> =
            (0..products_of(number)).map(|place| json!({"ID": 1 + place % 8, "Amount": 1})).collect();
        let parameters = Parameters::default().with("POSID", &1).with("PaymentMethod", &1);
        parameters.with("Products", &products).with("ref", &reference(number))
    };
    match call.ask {
        Ask::Transactions => Command::known(
            &command::LISTTRANSACTIONS,
            parameters.with("POSID", &point_of_sale(number)).with("Limit", &1),
        ),
        Ask::Device => Command::known(&command::REGISTERDEVICE, parameters.with("UUID", &reference(number))),
        Ask::Payment => Command::known(&command::PAYITEMS, sale()),
        Ask::RawSale => Command::raw("payitems".to_owned(), None, sale()),
    }
}
