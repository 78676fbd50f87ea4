//! Owners that are stopped with SIGSTOP for longer than their lease, at each step of a payment: when they go on, another owns
//! the instance. Nothing leaves them, and what they heard is recorded.

use std::time::{Duration, Instant};

use concertpos_simulator::{Action, Fault};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::alone;
use super::replicas::{Answer, BACK, Cluster, SLACK, Setup, answer, sale};
use super::support::{KEY, eventually};

/// An owner with a payment under way, and the one that a caller's request came to.
struct Sale {
    cluster: Cluster,
    owner: usize,
    other: usize,
    key: &'static str,
    asked: JoinHandle<Answer>,
}

impl Sale {
    /// Begins a payment, at the owner or at another replica which passes it on.
    async fn begin(setup: Setup, key: &'static str, forwarded: bool, prepare: impl FnOnce(&Cluster, usize)) -> Self {
        let mut cluster = Cluster::start(setup).await;
        let owner = cluster.owner("demo").await;
        let other = cluster.other("demo").await;
        // So that both servers' connections are there.
        let warm = answer(sale(&cluster.http, &cluster.replicas[other].url, "demo", "warm")).await;
        assert_eq!(warm.status(), Some(201), "{warm:?}");
        prepare(&cluster, owner);
        let at = if forwarded { other } else { owner };
        let asked = tokio::spawn(answer(sale(&cluster.http, &cluster.replicas[at].url, "demo", key)));
        Self { cluster, owner, other, key, asked }
    }

    fn received(&self) -> u64 {
        self.cluster.gateway.counts().payitems_received.get(self.key).copied().unwrap_or(0)
    }

    async fn until_received(&self) {
        eventually("the gateway has the sale", async || self.received() == 1).await;
    }

    /// Stops the owner until another owns the instance, and lets it go on. How many messages it had sent by then.
    async fn pause_beyond_lease(&mut self, meanwhile: impl FnOnce(&Cluster, usize)) -> u32 {
        self.cluster.replicas[self.owner].pause();
        let stopped = Instant::now();
        while self.cluster.owner_of("demo") != Some(self.other) {
            let waited = stopped.elapsed();
            assert!(waited < BACK + SLACK, "nobody took over after {waited:?}:\n{}", self.cluster.logs());
            sleep(Duration::from_millis(10)).await;
        }
        meanwhile(&self.cluster, self.owner);
        let sent = self.cluster.replicas[self.owner].gateway.messages();
        self.cluster.replicas[self.owner].resume();
        sent
    }

    /// The state of the payment's record, at whoever owns the instance.
    async fn state(&self) -> Value {
        let url = format!(
            "{}/v1/instances/demo/payments?idempotency_key={}",
            self.cluster.replicas[self.other].url, self.key
        );
        match answer(self.cluster.http.get(url).bearer_auth(KEY)).await {
            Answer::Whole(200, _, body) => {
                serde_json::from_str::<Value>(&body).unwrap()["payments"][0]["state"].clone()
            }
            _ => Value::Null,
        }
    }

    async fn until_state(&self, state: &str) {
        let began = Instant::now();
        loop {
            let found = self.state().await;
            if found == state {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{} is {found}, not {state}:\n{}",
                self.key,
                self.cluster.logs()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for the key again, at the new owner.
    async fn again(&self) -> Answer {
        answer(sale(&self.cluster.http, &self.cluster.replicas[self.other].url, "demo", self.key)).await
    }

    /// The old owner serves again what others own, and has sent nothing to the gateway since it went on.
    async fn nothing_left_since(&self, sent: u32) {
        let began = Instant::now();
        while !self.cluster.replicas[self.owner].serves(&self.cluster.http, "demo").await {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not serve again:\n{}", self.cluster.logs());
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.cluster.replicas[self.owner].gateway.messages(), sent, "it sent:\n{}", self.cluster.logs());
    }
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn before_its_record_is_durable_a_payment_is_never_sent() {
    let _alone = alone().await;
    let mut paid = Sale::begin(Setup::of(2), "before-record", true, |cluster, owner| {
        cluster.replicas[owner].database.iter().for_each(|way| way.silence(true));
    })
    .await;
    // The order to write the record waits on the way to the database, or will.
    sleep(Duration::from_millis(100)).await;
    let sent = paid
        .pause_beyond_lease(|cluster, owner| cluster.replicas[owner].database.iter().for_each(|way| way.silence(false)))
        .await;
    paid.nothing_left_since(sent).await;
    assert_eq!(paid.received(), 0);
    let told = (&mut paid.asked).await.unwrap();
    assert!(matches!(told.status(), Some(503 | 504)), "{told:?}");
    // Nothing was sent, and its old owner can prove it: the key is free, or was never taken.
    let began = Instant::now();
    let again = loop {
        let again = paid.again().await;
        if again.status() == Some(201) || began.elapsed() > Duration::from_secs(15) {
            break again;
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(again.status(), Some(201), "{again:?} {}\n{}", paid.state().await, paid.cluster.logs());
    assert_eq!((paid.received(), paid.cluster.gateway.counts().bookings(paid.key)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_came_while_its_owner_was_stopped_is_recorded_when_it_goes_on() {
    let _alone = alone().await;
    for forwarded in [false, true] {
        let late = Fault::new(Action::Latency { ms: 1500 }).on("payitems").times(1);
        let mut paid = Sale::begin(Setup::of(2), "before-reply", forwarded, |cluster, _| {
            cluster.gateway.add_fault(late);
        })
        .await;
        paid.until_received().await;
        let sent = paid.pause_beyond_lease(|_, _| {}).await;
        paid.until_state("booked").await;
        paid.nothing_left_since(sent).await;
        assert_eq!((paid.received(), paid.cluster.gateway.counts().bookings(paid.key)), (1, 1));
        assert_eq!(paid.again().await.status(), Some(201));
        assert_eq!(paid.received(), 1, "the repeat is answered from the record");
    }
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_whose_grace_the_owner_was_stopped_proves_no_refusal() {
    let _alone = alone().await;
    let refusal = Action::Error { word: "pos_closed".to_owned(), code: None, and_reply: false };
    let setup = Setup::of(2).set("payments.refusal_grace", "\"2s\"");
    let mut paid = Sale::begin(setup, "in-grace", false, |cluster, _| {
        cluster.gateway.add_fault(Fault::new(refusal).on("payitems").times(1));
    })
    .await;
    paid.until_received().await;
    let sent = paid.pause_beyond_lease(|_, _| {}).await;
    paid.nothing_left_since(sent).await;
    paid.until_state("unknown").await;
    let again = paid.again().await;
    assert_eq!(again.code(), Some("payment-outcome-unknown"), "its key is not free: {again:?}");
    assert_eq!(paid.received(), 1);
}

#[ignore = "starts PostgreSQL and several processes, one test after the other: scripts/cluster"]
#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_could_not_be_recorded_before_the_stop_is_recorded_after_it() {
    let _alone = alone().await;
    let late = Fault::new(Action::Latency { ms: 300 }).on("payitems").times(1);
    let mut paid = Sale::begin(Setup::of(2), "before-outcome", true, |cluster, _| {
        cluster.gateway.add_fault(late);
    })
    .await;
    paid.until_received().await;
    let silence = |cluster: &Cluster, owner: usize, silent| {
        cluster.replicas[owner].database.iter().for_each(|way| way.silence(silent));
    };
    silence(&paid.cluster, paid.owner, true);
    // The reply comes, and its record waits on the way to the database.
    sleep(Duration::from_millis(600)).await;
    let sent = paid.pause_beyond_lease(|cluster, owner| silence(cluster, owner, false)).await;
    paid.until_state("booked").await;
    paid.nothing_left_since(sent).await;
    assert_eq!((paid.received(), paid.cluster.gateway.counts().bookings(paid.key)), (1, 1));
    assert_eq!(paid.again().await.status(), Some(201));
}
