//! What a pool does with a tenure that ends, against a gateway that says what the test has it say.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::dialer::Stream;
use super::{
    Cause, Config, Dial, Dialer, Ending, EventSink, Failure, Lease as Link, LinkEvent, Lost, NotSent, Pool, Priority,
    Reply, Runtimes, client_config,
};
use crate::protocol::{Body, Command, Parameters, command};
use crate::tenure::{Lease, SessionId, Tenure, boot_time};

const PATIENCE: Duration = Duration::from_secs(20);

/// Of a lease that is renewed; shorter than what counts as a pause of the process.
const TERM: Duration = Duration::from_millis(700);

/// What holds the bytes on their way to the gateway.
const BUFFER: usize = 4096;

const BOOKED: &str = r#"{"type":"event","result":{"event":"payitem","parameters":{"TransactionID":7}}}"#;
const LISTED: &str = r#"{"type":"event","result":{"event":"listpm","parameters":{"PaymentMethods":[]}}}"#;
const REFUSED: &str = r#"{"type":"error","result":{"error":"invalid_password","code":0}}"#;

/// The bridge's end of a connection, which counts writes that came after the end of the tenure.
#[derive(Debug)]
struct Watched {
    near: DuplexStream,
    tenure: Tenure,
    late: Arc<AtomicUsize>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_read(context, into)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let may_act = self.tenure.may_act();
        let written = Pin::new(&mut self.near).poll_write(context, bytes);
        if !may_act && matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(context)
    }
}

/// What the gateway is told to do on a connection.
#[derive(Debug)]
enum Order {
    Say(Message),
    /// Reads no more, so that nothing is answered either.
    Ignore,
    /// Reads again.
    Heed,
}

/// The gateway's end of a connection.
#[derive(Debug)]
struct Wire {
    orders: mpsc::UnboundedSender<Order>,
    /// The text messages that came; ends with the connection.
    heard: mpsc::UnboundedReceiver<String>,
}

impl Wire {
    fn say(&self, text: &str) {
        self.orders.send(Order::Say(Message::text(text))).unwrap();
    }

    async fn command(&mut self) -> String {
        timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap()
    }

    async fn closed(&mut self) {
        while timeout(PATIENCE, self.heard.recv()).await.unwrap().is_some() {}
    }
}

/// A gateway to which connections are made in memory.
#[derive(Debug, Clone)]
struct Gateway {
    wires: mpsc::UnboundedSender<Wire>,
    tenure: Tenure,
    late: Arc<AtomicUsize>,
}

async fn serve(far: DuplexStream, mut orders: mpsc::UnboundedReceiver<Order>, heard: mpsc::UnboundedSender<String>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(far).await else { return };
    let mut reads = true;
    loop {
        tokio::select! {
            // Answers pings as it reads.
            came = socket.next(), if reads => match came {
                Some(Ok(Message::Text(text))) => { let _ = heard.send(text.to_string()); }
                Some(Ok(_)) => {}
                _ => return,
            },
            order = orders.recv() => match order {
                Some(Order::Say(message)) => { let _ = socket.send(message).await; }
                Some(Order::Ignore) => reads = false,
                Some(Order::Heed) => reads = true,
                None => return,
            },
        }
    }
}

#[async_trait]
impl Dial for Gateway {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
        let (near, far) = duplex(BUFFER);
        let ((orders, ordered), (told, heard)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        tokio::spawn(serve(far, ordered, told));
        self.wires.send(Wire { orders, heard }).map_err(io::Error::other)?;
        Ok(Box::new(Watched { near, tenure: self.tenure.clone(), late: Arc::clone(&self.late) }))
    }
}

/// A pool of one link under a tenure.
struct World {
    pool: Pool,
    lease: Lease,
    tenure: Tenure,
    late: Arc<AtomicUsize>,
    wires: Mutex<mpsc::UnboundedReceiver<Wire>>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.late.load(Ordering::Relaxed), 0, "bytes left after the end of the tenure");
    }
}

fn config() -> Config {
    let url = "ws://gateway:1/{shard}?instance={instance}".to_owned();
    Config { url, shards: vec!["exon".to_owned()], min_links: 1, max_links: 1, ..Config::default() }
}

impl World {
    fn with(lasts: Duration) -> Self {
        Self::reporting(lasts, |_| EventSink(Arc::new(|_| {})))
    }

    /// What links report goes to what is made of the lease.
    fn reporting(lasts: Duration, sink: impl FnOnce(&Lease) -> EventSink) -> Self {
        let lease = Lease::of(SessionId::random().unwrap());
        lease.extend_to(boot_time() + lasts);
        let (tenure, late) = (Tenure::new(&lease, 1), Arc::default());
        let (sender, wires) = mpsc::unbounded_channel();
        let gateway = Gateway { wires: sender, tenure: tenure.clone(), late: Arc::clone(&late) };
        let dialer = Dialer::over(gateway, client_config(None).unwrap()).under(tenure.clone());
        let pool = Pool::new(config(), "demo", "demo", dialer, sink(&lease));
        let stop = CancellationToken::new();
        tokio::spawn(pool.clone().tend(Runtimes::default(), stop.clone(), Duration::ZERO));
        Self { pool, lease, tenure, late, wires: Mutex::new(wires), stop }
    }

    fn new() -> Self {
        Self::with(Duration::from_hours(1))
    }

    /// Renews the lease, each time for [`TERM`], until the task is aborted.
    fn renewed() -> (Self, tokio::task::JoinHandle<()>) {
        let world = Self::with(TERM);
        let lease = world.lease.clone();
        let renewing = tokio::spawn(async move {
            loop {
                lease.extend_to(boot_time() + TERM);
                tokio::time::sleep(TERM / 20).await;
            }
        });
        (world, renewing)
    }

    /// Stops the process until the lease is over: nothing in it runs, and time goes on.
    fn pause(&self) {
        std::thread::sleep(self.lease.until().saturating_sub(boot_time()));
        assert!(!self.tenure.may_act());
    }

    async fn wire(&self) -> Wire {
        timeout(PATIENCE, self.wires.lock().await.recv()).await.unwrap().unwrap()
    }

    async fn link(&self) -> Link {
        self.pool.checkout(Priority::Payment, Instant::now() + PATIENCE, None).await.unwrap()
    }

    /// A payment that is on its way, and the gateway's end of its connection.
    async fn payment(&self) -> (tracing::instrument::Instrumented<Reply>, Wire) {
        let mut wire = self.wire().await;
        let reply = self.link().await.exchange(&payment(), "key");
        assert!(wire.command().await.contains("payitem"));
        (reply, wire)
    }
}

fn payment() -> Command {
    let sale = br#"{"POSID":1,"PaymentMethod":1,"Products":[{"ID":1,"Amount":1}]}"#;
    Command::known(&command::PAYITEMS, Parameters::parse(sale).unwrap())
}

fn read() -> Command {
    Command::known(&command::LISTPM, Parameters::default())
}

/// The ways in which a tenure ends.
const ENDS: [fn(&World); 2] = [|world| world.tenure.release(), |world| world.lease.end()];

fn not_owner(outcome: &Result<Body, Failure>) -> bool {
    matches!(outcome, Err(Failure::NotSent(NotSent::NotOwner)))
}

async fn ended(reply: impl Future<Output = Result<Body, Failure>>) -> Result<Body, Failure> {
    timeout(PATIENCE, reply).await.unwrap()
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn past_the_end_no_link_is_given_idle_ones_are_closed_and_none_is_opened() {
    for end in ENDS {
        let world = World::new();
        let mut wire = world.wire().await;
        drop(world.link().await);
        end(&world);
        let refused = world.pool.checkout(Priority::Ordinary, Instant::now() + PATIENCE, None).await;
        assert_eq!(refused.unwrap_err(), NotSent::NotOwner);
        wire.closed().await;
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(world.wires.lock().await.try_recv().is_err(), "nothing was dialled");
        assert!(!world.pool.is_connected());
        assert!(world.pool.status().shards.iter().all(|shard| shard.good), "that says nothing of the shard");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_link_is_told_at_the_end() {
    for end in ENDS {
        let world = World::new();
        let given = world.link().await;
        let mut waiting = Box::pin(world.pool.checkout(Priority::Ordinary, Instant::now() + PATIENCE, None));
        assert!(waiting.as_mut().now_or_never().is_none());
        end(&world);
        let begun = Instant::now();
        assert_eq!(waiting.await.unwrap_err(), NotSent::NotOwner);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(given);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_given_a_link_before_the_end_is_not_sent_after_it() {
    for end in ENDS {
        let world = World::new();
        let mut wire = world.wire().await;
        let link = world.link().await;
        end(&world);
        assert!(not_owner(&ended(link.exchange(&payment(), "key")).await));
        wire.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_what_was_written_before_the_end_is_heard_and_the_link_ends() {
    for end in ENDS {
        let world = World::new();
        let (reply, mut wire) = world.payment().await;
        end(&world);
        settle().await;
        wire.say(BOOKED);
        assert!(ended(reply).await.unwrap().as_str().contains("TransactionID"));
        wire.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_pings_is_listened_to_though_nobody_answers_it() {
    let world = World::new();
    let (reply, wire) = world.payment().await;
    world.tenure.release();
    wire.orders.send(Order::Say(Message::Ping(vec![1].into()))).unwrap();
    settle().await;
    wire.say(BOOKED);
    assert!(ended(reply).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_reply_a_payment_is_listened_to_as_long_as_ever_and_nothing_is_written() {
    for end in ENDS {
        let world = World::new();
        let (reply, mut wire) = world.payment().await;
        end(&world);
        let Err(Failure::Unknown(Lost { cause: Cause::Timeout, late: Some(mut late) })) = ended(reply).await else {
            panic!("not set aside")
        };
        // Longer than an idle link goes without a ping.
        tokio::time::sleep(config().ping_interval * 2).await;
        wire.say(BOOKED);
        assert!(matches!(late.next().await, Some(Ending::Reply(_))));
        assert_eq!(late.next().await, None);
        wire.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_after_the_end_proves_no_refusal_and_what_follows_is_heard() {
    for end in ENDS {
        let world = World::new();
        let (reply, wire) = world.payment().await;
        end(&world);
        settle().await;
        wire.say(REFUSED);
        let Err(Failure::Unknown(Lost { cause: Cause::Word(_), late: Some(mut late) })) = ended(reply).await else {
            panic!("taken for a refusal")
        };
        wire.say(BOOKED);
        assert!(matches!(late.next().await, Some(Ending::Reply(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_proves_no_refusal_where_the_tenure_ends_within_the_grace() {
    for end in ENDS {
        let world = World::new();
        let (reply, wire) = world.payment().await;
        wire.say(REFUSED);
        // The ping is answered, and the silence has begun.
        settle().await;
        end(&world);
        let Err(Failure::Unknown(Lost { cause: Cause::Word(_), late: Some(mut late) })) = ended(reply).await else {
            panic!("taken for a refusal")
        };
        wire.say(BOOKED);
        assert!(matches!(late.next().await, Some(Ending::Reply(_))));
    }
    let world = World::new();
    let (reply, wire) = world.payment().await;
    wire.say(REFUSED);
    assert!(matches!(ended(reply).await, Err(Failure::Refused(_))), "within the tenure it does");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_half_written_is_never_completed() {
    for end in ENDS {
        let world = World::new();
        let mut wire = world.wire().await;
        let link = world.link().await;
        wire.orders.send(Order::Ignore).unwrap();
        settle().await;
        let long = format!(r#"{{"POSID":1,"note":"{}"}}"#, "x".repeat(BUFFER * 3));
        let command = Command::known(&command::PAYITEMS, Parameters::parse(long.as_bytes()).unwrap());
        let mut reply = Box::pin(link.exchange(&command, "key"));
        assert!(reply.as_mut().now_or_never().is_none());
        settle().await;
        let begun = Instant::now();
        end(&world);
        let outcome = ended(reply).await;
        assert!(matches!(outcome, Err(Failure::Unknown(Lost { cause: Cause::Disconnected, .. }))), "{outcome:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO, "the link is closed at once");
        drop(wire.orders);
        assert!(timeout(PATIENCE, wire.heard.recv()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_the_fence_stopped_does_not_leave_though_the_lease_is_renewed_before_its_link_is_closed() {
    let world = World::reporting(TERM, |lease| {
        let lease = lease.clone();
        EventSink(Arc::new(move |report| {
            if matches!(report, LinkEvent::Closed { .. }) {
                lease.extend_to(boot_time() + Duration::from_hours(1));
            }
        }))
    });
    let mut wire = world.wire().await;
    let link = world.link().await;
    wire.orders.send(Order::Ignore).unwrap();
    settle().await;
    let long = format!(r#"{{"POSID":1,"note":"{}"}}"#, "x".repeat(BUFFER * 3));
    let command = Command::known(&command::PAYITEMS, Parameters::parse(long.as_bytes()).unwrap());
    let outcome = ended(link.exchange(&command, "key")).await;
    assert!(matches!(outcome, Err(Failure::Unknown(_))), "{outcome:?}");
    wire.orders.send(Order::Heed).unwrap();
    assert!(timeout(PATIENCE, wire.heard.recv()).await.unwrap().is_none(), "the rest of it left");
    assert!(world.tenure.may_act(), "it was renewed meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_answered_before_the_end_leaves_no_link_behind() {
    for end in ENDS {
        let world = World::new();
        let mut wire = world.wire().await;
        let reply = world.link().await.exchange(&read(), "key");
        wire.command().await;
        wire.say(LISTED);
        ended(reply).await.unwrap();
        end(&world);
        wire.closed().await;
    }
}

#[tokio::test]
async fn a_lease_that_is_renewed_late_lets_the_pool_open_links_again() {
    let (world, renewing) = World::renewed();
    let mut wire = world.wire().await;
    drop(world.link().await);
    renewing.abort();
    wire.closed().await;
    assert!(!world.tenure.may_act());
    world.lease.extend_to(boot_time() + Duration::from_hours(1));
    let (reply, wire) = world.payment().await;
    wire.say(BOOKED);
    ended(reply).await.unwrap();
}

#[tokio::test]
async fn what_came_while_the_process_was_stopped_is_heard_and_nothing_is_written() {
    let (world, renewing) = World::renewed();
    let (reply, mut wire) = world.payment().await;
    renewing.abort();
    wire.say(BOOKED);
    settle().await;
    world.pause();
    assert!(ended(reply).await.is_ok());
    wire.closed().await;
}

#[tokio::test]
async fn an_error_proves_no_refusal_where_the_process_was_stopped_past_the_end_of_the_lease() {
    let (world, renewing) = World::renewed();
    let (reply, wire) = world.payment().await;
    renewing.abort();
    wire.say(REFUSED);
    settle().await;
    world.pause();
    assert!(matches!(ended(reply).await, Err(Failure::Unknown(Lost { late: Some(_), .. }))));
}

#[tokio::test]
async fn past_the_end_a_connection_is_reset_and_what_the_system_holds_is_bounded() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let lease = Lease::of(SessionId::random().unwrap());
    lease.extend_to(boot_time() + Duration::from_hours(1));
    let tenure = Tenure::new(&lease, 1);
    let dialer = Dialer::tcp(client_config(None).unwrap()).under(tenure.clone());
    for is_over in [false, true] {
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let near = dialer.dial("127.0.0.1", address.port(), Duration::from_secs(7)).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(near.socket().unwrap()).unwrap(), 7_000);
        if is_over {
            tenure.release();
        }
        drop(near);
        let read = far.read(&mut [0; 8]).await;
        assert_eq!(
            read.map_err(|error| error.kind()),
            if is_over { Err(io::ErrorKind::ConnectionReset) } else { Ok(0) }
        );
    }
}

/// What may happen to a pool in one step.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Pay,
    Read,
    Reply,
    Refuse,
    Ping,
    Ignore,
    Wait(u64),
    Release,
    EndSession,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{EndSession, Ignore, Pay, Ping, Read, Refuse, Release, Reply, Wait};
    let waits = prop::sample::select(vec![0, 1, 100, 251, 1_000, 5_001, 10_001, 16_000]);
    prop_oneof![
        prop::sample::select(vec![Pay, Pay, Read, Reply, Reply, Refuse, Ping, Ignore, Release, EndSession]),
        waits.prop_map(Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever happens in whatever order, no byte leaves after the end of the tenure, and every command ends.
    #[test]
    fn no_byte_leaves_after_the_end(happenings in prop::collection::vec(happening(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let (mut wires, mut replies) = (Vec::new(), Vec::new());
            for happening in happenings {
                while let Ok(wire) = world.wires.lock().await.try_recv() {
                    wires.push(wire);
                }
                let all = |order: &dyn Fn() -> Order| wires.iter().for_each(|wire| { let _ = wire.orders.send(order()); });
                match happening {
                    Happening::Pay | Happening::Read => {
                        let pays = matches!(happening, Happening::Pay);
                        let (command, pool) = (if pays { payment() } else { read() }, world.pool.clone());
                        replies.push(tokio::spawn(async move {
                            let link = pool.checkout(Priority::Ordinary, Instant::now() + PATIENCE, None).await;
                            if let Ok(link) = link {
                                let _ = link.exchange(&command, "key").await;
                            }
                        }));
                    }
                    Happening::Reply => all(&|| Order::Say(Message::text(BOOKED))),
                    Happening::Refuse => all(&|| Order::Say(Message::text(REFUSED))),
                    Happening::Ping => all(&|| Order::Say(Message::Ping(vec![1].into()))),
                    Happening::Ignore => all(&|| Order::Ignore),
                    Happening::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Happening::Release => world.tenure.release(),
                    Happening::EndSession => world.lease.end(),
                }
                settle().await;
            }
            world.tenure.release();
            for reply in replies {
                timeout(Duration::from_mins(2), reply).await.unwrap().unwrap();
            }
        });
    }
}
