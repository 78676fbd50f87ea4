//! Payments through the real bridge and the simulated gateway, on a journal whose disk hangs and fails as told.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::bridge::{Error, Instance, Paid, Parts};
use crate::broadcasts::{Broadcasts, Epoch, SubscriberLimit};
use crate::budget::{self, Ledger};
use crate::cache::{self, Cache};
use crate::gateway::{self, Pool};
use crate::journal::tests::disk::{Disk, Failure};
use crate::journal::tests::on_disk;
use crate::journal::{Filter, Finding, Journal, Key, Record, RecordId, Sale, State, Verdict};
use crate::protocol::{Command, Parameters, command};
use crate::shutdown::Shutdown;
use concertpos_simulator::{self as simulator, Simulator};

/// How long a payment may wait before it is written.
const PAY_MAX_WAIT: Duration = Duration::from_millis(300);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(15);

struct World {
    gateway: Simulator,
    disk: Disk,
    journal: Journal,
    instance: std::sync::Arc<Instance>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    async fn start() -> Self {
        Self::with(gateway::Config::default()).await
    }

    async fn with(config: gateway::Config) -> Self {
        let gateway = Simulator::start(simulator::Config::default()).await.unwrap();
        let disk = Disk::default();
        let journal = on_disk(&disk);
        let config = gateway::Config { url: gateway.url(), ..config };
        let dialer = gateway::Dialer::tcp(gateway::client_config(None).unwrap());
        let heard = gateway::EventSink(std::sync::Arc::new(|_| ()));
        let pool = Pool::new(config, "demo", "demo", dialer, heard);
        let stop = CancellationToken::new();
        tokio::spawn(pool.clone().tend(gateway::Runtimes::default(), stop.clone(), Duration::ZERO));
        let parts = Parts {
            pool: pool.clone(),
            ledger: Ledger::new(budget::Config { capacity: 1_000_000, ..budget::Config::default() }),
            api_key: SecretString::from("demo-key"),
            max_wait: PAY_MAX_WAIT,
            pay_max_wait: PAY_MAX_WAIT,
            broadcasts: Broadcasts::new(Epoch::random().unwrap(), 16, SubscriberLimit::new(1, 1)),
            relay: None,
        };
        let cache = cache::Config { max_size: 0, min_age: Duration::ZERO, rules: BTreeMap::new(), store: None };
        let cache = std::sync::Arc::new(Cache::new(cache));
        let instance = Instance::new("demo", parts, &cache, &journal, &Shutdown::new());
        let world = Self { gateway, disk, journal, instance, stop };
        world.eventually("it has its links", async || pool.is_connected()).await;
        world
    }

    /// One piece of product 1, whose answer is due in `patience`.
    async fn pay_within(&self, key: &str, patience: Duration) -> Result<Paid, Error> {
        let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 1)] };
        let body = format!(r#"{{"POSID":1,"PaymentMethod":1,"Products":[{{"ID":1,"Amount":1}}],"ref":"{key}"}}"#);
        let command = Command::known(&command::PAYITEMS, Parameters::parse(body.as_bytes()).unwrap());
        let key = Key { instance: "demo".into(), caller: "shop".into(), idempotency_key: key.into() };
        self.instance.pay(key, sale, command, Instant::now() + patience).await
    }

    async fn pay(&self, key: &str) -> Result<Paid, Error> {
        self.pay_within(key, PATIENCE).await
    }

    /// How often the gateway was sent this payment, and how often it booked it.
    fn sent_and_booked(&self, key: &str) -> (u64, usize) {
        let counts = self.gateway.counts();
        (counts.payitems_received.get(key).copied().unwrap_or(0), counts.bookings(key))
    }

    async fn record(&self, key: &str) -> Option<Record> {
        let idempotency_key = Some(key.to_owned());
        let filter = Filter { instance: "demo".into(), idempotency_key, limit: 1, ..Filter::default() };
        self.journal.list(filter).await.unwrap_or_default().readable().pop()
    }

    async fn eventually(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !is_so().await {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
    }

    async fn until_the_disk_hangs(&self) {
        self.eventually("a commit hangs", async || self.disk.has_hanging_sync()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_record_took_too_long_is_not_written_and_its_key_is_free() {
    let world = World::start().await;
    world.disk.hold_syncs();
    let (told, ()) = tokio::join!(world.pay("slow"), async {
        world.until_the_disk_hangs().await;
        // Not a wait for something to happen: the payment's own time has to pass.
        sleep(PAY_MAX_WAIT).await;
        world.disk.release_syncs();
    });
    assert!(matches!(told, Err(Error::JournalUnavailable { .. })), "{told:?}");
    assert_eq!(world.sent_and_booked("slow"), (0, 0));
    assert_eq!(world.record("slow").await.map(|record| record.state()), Some(State::Released));
    assert!(world.pay("slow").await.is_ok_and(|paid| !paid.replayed));
    assert_eq!(world.sent_and_booked("slow"), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_at_the_deadline_that_nothing_was_sent_is_right_for_ever() {
    let world = World::start().await;
    world.disk.hold_syncs();
    let told = world.pay_within("slow", PAY_MAX_WAIT / 2).await;
    assert!(matches!(told, Err(Error::Overloaded { .. })), "{told:?}");
    assert!(matches!(world.pay("slow").await, Err(Error::PaymentInProgress { .. })), "its record may yet be made");
    world.disk.release_syncs();
    let released = async || world.record("slow").await.is_some_and(|record| record.state() == State::Released);
    world.eventually("it is released", released).await;
    assert_eq!(world.sent_and_booked("slow"), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_at_the_deadline_names_the_record_of_a_payment_that_runs_on() {
    let world = World::start().await;
    world.gateway.add_fault(simulator::Fault::new(simulator::Action::Latency { ms: 400 }).on("payitems"));
    let told = world.pay_within("slow", PAY_MAX_WAIT / 2).await;
    let Err(Error::OutcomeUnknown { payment: Some(id), .. }) = told else { panic!("{told:?}") };
    let id: RecordId = id.parse().unwrap();
    let state = async || world.journal.get(id).await.unwrap().map(|record| record.state());
    assert_eq!(state().await, Some(State::Dispatching));
    world.eventually("it is booked", async || state().await == Some(State::Booked)).await;
    assert!(world.pay("slow").await.is_ok_and(|paid| paid.replayed));
    assert_eq!(world.sent_and_booked("slow"), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_cancels_nothing_and_its_payment_is_recorded() {
    let world = World::start().await;
    world.gateway.add_fault(simulator::Fault::new(simulator::Action::Late { ms: 200 }).on("payitems"));
    {
        let mut paying = std::pin::pin!(world.pay("gone"));
        let sent = async || world.sent_and_booked("gone").0 == 1;
        tokio::select! {
            told = &mut paying => panic!("it is answered already: {told:?}"),
            () = world.eventually("it is sent", sent) => {}
        }
    }
    let booked = async || world.record("gone").await.is_some_and(|record| record.state() == State::Booked);
    world.eventually("it is booked and recorded all the same", booked).await;
    assert_eq!(world.sent_and_booked("gone"), (1, 1));
}

/// On one thread, so that nothing of the payment has run when the bridge begins to refuse.
#[tokio::test]
async fn a_payment_that_came_before_new_ones_are_refused_is_made_however_far_it_was() {
    let world = World::start().await;
    let mut paying = std::pin::pin!(world.pay("early"));
    assert!(futures_util::poll!(&mut paying).is_pending());
    let mut finished = std::pin::pin!(world.instance.drain());
    assert!(futures_util::poll!(&mut finished).is_pending(), "it is waited for");
    let refused = world.pay("late").await;
    assert!(matches!(refused, Err(Error::ShuttingDown { .. })), "{refused:?}");
    let paid = paying.await;
    assert!(paid.as_ref().is_ok_and(|paid| !paid.replayed), "{paid:?}");
    assert!(world.pay("early").await.is_ok_and(|paid| paid.replayed), "what is known is told to the end");
    finished.await;
    assert_eq!((world.sent_and_booked("early"), world.sent_and_booked("late")), ((1, 1), (0, 0)));
    assert!(world.record("late").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_journal_is_out_of_order_every_answer_says_so_and_nothing_is_sent() {
    let world = World::start().await;
    assert!(world.pay("before").await.is_ok());
    world.disk.fail_after(Failure::Write, 0);
    for key in ["first", "second", "before"] {
        let told = world.pay(key).await;
        assert!(matches!(told, Err(Error::JournalUnavailable { .. })), "{key}: {told:?}");
    }
    assert_eq!((world.sent_and_booked("first").0, world.sent_and_booked("second").0), (0, 0));
}

/// Fails at every operation of the disk in turn while a payment is made, and heals after its answer.
#[tokio::test(flavor = "multi_thread")]
async fn at_whatever_point_the_disk_fails_nothing_is_sent_unrecorded_and_no_answer_is_taken_back() {
    let world = World::start().await;
    for failure in [Failure::Write, Failure::Full, Failure::Sync] {
        for point in 0.. {
            let (key, failures) = (format!("{failure:?} {point}"), world.disk.failures());
            world.disk.fail_after(failure, point);
            let told = world.pay(&key).await;
            let has_failed = world.disk.failures() > failures;
            world.disk.heal();
            let case = format!("{key}: {told:?}, {:?}", world.sent_and_booked(&key));
            let sent = match &told {
                Ok(paid) => !paid.replayed,
                Err(Error::OutcomeUnknown { payment: Some(_), .. }) => true,
                Err(Error::JournalUnavailable { .. }) => false,
                Err(other) => panic!("{case}: {other}"),
            };
            let once = u64::from(sent);
            assert_eq!(world.sent_and_booked(&key), (once, usize::from(sent)), "{case}");
            world.eventually("the journal recovers", async || world.journal.is_available()).await;
            // The gateway's reply was known: it is recorded as soon as that can be done.
            let again = world.pay(&key).await;
            assert!(again.as_ref().is_ok_and(|paid| paid.replayed == sent), "{case}, then {again:?}");
            assert_eq!(world.sent_and_booked(&key), (1, 1), "{case}");
            if !has_failed {
                assert!(told.is_ok() && point > 3, "{case}");
                break;
            }
        }
    }
}

/// What a restart would find after a power cut now.
async fn after_a_power_cut(world: &World, key: &str) -> Option<State> {
    let journal = on_disk(&world.disk.after_crash(0));
    let idempotency_key = Some(key.to_owned());
    let filter = Filter { instance: "demo".into(), idempotency_key, limit: 1, ..Filter::default() };
    journal.list(filter).await.unwrap().readable().pop().map(|record| record.state())
}

/// Fails at every operation of the disk in turn while a payment is made that the gateway refuses.
#[tokio::test(flavor = "multi_thread")]
async fn at_whatever_point_the_disk_fails_a_refusal_is_told_only_once_the_release_is_on_disk() {
    let world = World::start().await;
    let mut unknown = 0;
    for failure in [Failure::Write, Failure::Sync] {
        for point in 0.. {
            let (key, failures) = (format!("{failure:?} {point}"), world.disk.failures());
            let refusal = simulator::Action::Error { word: "invalid_password".into(), code: None, and_reply: false };
            world.gateway.add_fault(simulator::Fault::new(refusal).on("payitems"));
            world.disk.fail_after(failure, point);
            let told = world.pay(&key).await;
            let found = after_a_power_cut(&world, &key).await;
            let has_failed = world.disk.failures() > failures;
            world.disk.heal();
            world.gateway.clear_faults();
            let case = format!("{key}: {told:?}, after a power cut {found:?}");
            match &told {
                Err(Error::Refused(_)) => assert_eq!(found, Some(State::Released), "{case}"),
                Err(Error::OutcomeUnknown { payment: Some(_), .. }) => unknown += 1,
                Err(Error::JournalUnavailable { .. }) => assert_eq!(world.sent_and_booked(&key).0, 0, "{case}"),
                _ => panic!("{case}"),
            }
            world.eventually("the journal recovers", async || world.journal.is_available()).await;
            world.eventually("its key is free again", async || world.pay(&key).await.is_ok()).await;
            assert_eq!(world.sent_and_booked(&key).1, 1, "{case}");
            if !has_failed {
                assert!(matches!(told, Err(Error::Refused(_))) && point > 3, "{case}");
                break;
            }
        }
    }
    assert!(unknown > 0, "no failure came between the refusal and its release");
}

fn verdict() -> Verdict {
    Verdict { outcome: Finding::NotBooked, reason: "counted".into(), by: "ops".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_recorded_costs_a_payment_nothing_of_its_late_reply() {
    let world =
        World::with(gateway::Config { request_timeout: Duration::from_millis(300), ..gateway::Config::default() })
            .await;
    world.gateway.add_fault(simulator::Fault::new(simulator::Action::Latency { ms: 3000 }).on("payitems"));
    let Err(Error::OutcomeUnknown { payment: Some(id), .. }) = world.pay("late").await else { panic!("it is lost") };
    let id: RecordId = id.parse().unwrap();
    let revision = world.journal.get(id).await.unwrap().unwrap().revision;
    world.disk.fail_after(Failure::Full, 0);
    let settled = world.instance.settle(id, revision, verdict()).await;
    assert!(matches!(settled, Err(Error::JournalUnavailable { .. })), "{settled:?}");
    world.disk.heal();
    let booked = async || world.record("late").await.is_some_and(|record| record.state() == State::Booked);
    world.eventually("its late reply is recorded", booked).await;
    assert!(world.pay("late").await.is_ok_and(|paid| paid.replayed));
    assert_eq!(world.sent_and_booked("late"), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_does_not_apply_costs_a_payment_nothing_of_its_late_reply() {
    let world = World::start().await;
    let payments = &world.instance.payments;
    let id = RecordId::fresh();
    let stop = payments.listen(id);
    assert!(payments.settle(id, 1, verdict()).await.is_err(), "there is no such record");
    assert!(!stop.is_cancelled() && payments.listening().contains_key(&id));
    world.gateway.add_fault(simulator::Fault::new(simulator::Action::CutBeforeApply).on("payitems"));
    let Err(Error::OutcomeUnknown { payment: Some(id), .. }) = world.pay("lost").await else { panic!("it is lost") };
    let id: RecordId = id.parse().unwrap();
    let stop = payments.listen(id);
    assert!(payments.settle(id, 77, verdict()).await.is_err(), "it was never at this revision");
    assert!(!stop.is_cancelled());
    let revision = world.journal.get(id).await.unwrap().unwrap().revision;
    assert!(payments.settle(id, revision, verdict()).await.is_ok());
    assert!(stop.is_cancelled(), "nothing more is to come over its link");
}
