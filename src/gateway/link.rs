//! One connection's task.
//!
//! It owns the socket and the exchange on it, takes one job at a time, and is the only place that writes a command.
//! The waiter is registered before the write, the reply's clock starts with it, and from that moment every end but a
//! reply or a refusal is *unknown*. A job that was handed over and never begun comes back as *not sent*.
//!
//! The task ends when the connection does, when it can no longer be trusted, or when it is told to; it is bounded in
//! every state by a deadline.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::dialer::Dialer;
use super::error::{Cause, DialError, Ended, Ending, Failure, Lost, NotSent};
use super::exchange::{Exchange, Step, Untrusted};
use super::shared::Shared;
use super::socket::{self, Socket};
use super::state::{Job, LinkId};
use super::tally::Outcome;
use super::upward::Upward;
use crate::wire::{Body, Frame, GatewayError, Kind, Meaning, Undecodable, frame};

/// How long a goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// An exchange of which nothing is known any more.
pub(super) fn lost() -> Failure {
    Failure::Unknown(Lost { cause: Cause::Disconnected, late: None })
}

/// Opens a connection and waits for its first ping to be answered, so that a gateway that accepts and then refuses
/// (`invalid_instance`) or says nothing is not taken for one that serves. Returns the round trip.
pub(super) async fn open(url: &str, dialer: &Dialer, config: &Config) -> Result<(Socket, Duration), DialError> {
    let opening = async {
        let mut socket = Socket::connect(url, dialer, config.connect_timeout).await?;
        let asked = Instant::now();
        let connect = |why: String| DialError::Connect(why);
        socket.ping(0).await.map_err(connect)?;
        loop {
            match socket.hear().await {
                socket::Heard::Pong(0) => return Ok((socket, asked.elapsed())),
                socket::Heard::Closed(why) | socket::Heard::Garbled(why) => return Err(DialError::Closed(why)),
                socket::Heard::Text(text) => {
                    if let Ok(Frame::Error(error)) = frame::decode(&text, config.format) {
                        return Err(DialError::Refused(error));
                    }
                }
                socket::Heard::Binary(_) | socket::Heard::Pong(_) | socket::Heard::Noise => {}
            }
        }
    };
    timeout(config.connect_timeout, opening).await.unwrap_or(Err(DialError::Timeout))
}

/// What the next deadline of a link means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Silence: time to ask whether the gateway is there.
    KeepAlive,
    /// The pong that settles an exchange, or answers a keep-alive, is overdue.
    Pong,
    /// The reply is overdue.
    Reply,
    /// The late reply is no longer awaited.
    Late,
}

/// Who waits for the end of an exchange, and since when.
#[derive(Debug)]
struct Waiter {
    command: String,
    kind: Kind,
    written: Instant,
    answer: oneshot::Sender<Result<Body, Failure>>,
    /// Whether something came since then that could not be read and may have been the reply.
    garbled: bool,
}

impl Waiter {
    /// What is told where the exchange ends without a reply, for this cause.
    fn lost(&self, cause: Cause) -> Cause {
        if self.garbled { Cause::NotUnderstood } else { cause }
    }
}

/// One connection in service.
#[derive(Debug)]
pub(super) struct Link {
    id: LinkId,
    shard: usize,
    name: String,
    socket: Socket,
    shared: Arc<Shared>,
    exchange: Exchange,
    waiter: Option<Waiter>,
    late: Option<oneshot::Sender<Ending>>,
    due: (Due, Instant),
    pinged: Instant,
    last_heard: Instant,
    proved: bool,
}

impl Link {
    pub(super) fn new(id: LinkId, shard: usize, name: String, socket: Socket, pool: Arc<Shared>) -> Self {
        let now = Instant::now();
        let due = (Due::KeepAlive, now + pool.config.ping_interval);
        let exchange = Exchange::new();
        Self {
            id,
            shard,
            name,
            socket,
            shared: pool,
            exchange,
            waiter: None,
            late: None,
            due,
            pinged: now,
            last_heard: now,
            proved: false,
        }
    }

    /// Serves until the connection is over, and leaves nobody waiting. Says also whether an exchange was completed.
    pub(super) async fn serve(mut self, mut jobs: mpsc::Receiver<Job>, stop: CancellationToken) -> (Ended, bool) {
        self.tell(&Upward::Opened { link: self.id, at: self.last_heard });
        self.shared.put_back(self.id);
        // A new link in service may free another to be given up.
        self.shared.replan();
        let ended = loop {
            let overdue = sleep_until(self.due.1);
            // In this order: what has come is heard before a deadline is called missed and before anything is written,
            // so that a frame of an earlier command, or the end of the connection, never meets a new one.
            let went_on = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Ended::Asked),
                heard = self.socket.hear() => self.heard(heard).await,
                () = overdue => self.overdue().await,
                () = unawaited(self.late.as_mut()) => Err(Ended::Spent),
                Some(job) = jobs.recv(), if self.exchange.is_idle() => self.begin(job).await,
            };
            if let Err(ended) = went_on {
                break ended;
            }
        };
        if let Some(waiter) = &mut self.waiter {
            waiter.garbled |= matches!(ended, Ended::Garbled(_));
        }
        self.conclude(|waiter| Err(Failure::Unknown(Lost { cause: waiter.lost(Cause::Disconnected), late: None })));
        jobs.close();
        // Waits for a job that is being handed over in this very moment.
        while let Some(job) = jobs.recv().await {
            let _ = job.answer.send(Err(NotSent::LinkGone.into()));
        }
        self.tell(&Upward::Closed { link: self.id, last_heard: self.last_heard });
        if !matches!(ended, Ended::Lost(_)) {
            self.socket.close(GOODBYE).await;
        }
        (ended, self.proved)
    }

    fn tell(&self, upward: &Upward) {
        (self.shared.heard.0)(upward);
    }

    /// Writes a command.
    async fn begin(&mut self, job: Job) -> Result<(), Ended> {
        let Job { text, expect, limit, answer } = job;
        let (command, kind) = (expect.command.clone(), expect.kind);
        if !self.exchange.start(expect) {
            let _ = answer.send(Err(NotSent::LinkGone.into()));
            return Ok(());
        }
        let written = Instant::now();
        self.waiter = Some(Waiter { command, kind, written, answer, garbled: false });
        self.due = (Due::Reply, written + limit);
        self.write(limit, async |socket| socket.send(text).await).await
    }

    /// One write, bounded: a peer that reads nothing must not hold the task.
    async fn write(
        &mut self,
        limit: Duration,
        write: impl AsyncFnOnce(&mut Socket) -> Result<(), String>,
    ) -> Result<(), Ended> {
        match timeout(limit, write(&mut self.socket)).await {
            Ok(written) => written.map_err(Ended::Lost),
            Err(_) => Err(Ended::Lost("a write made no headway".to_owned())),
        }
    }

    async fn heard(&mut self, heard: socket::Heard) -> Result<(), Ended> {
        match heard {
            socket::Heard::Closed(why) => return Err(Ended::Lost(why)),
            socket::Heard::Garbled(why) => return Err(Ended::Garbled(why)),
            socket::Heard::Noise => {}
            socket::Heard::Pong(payload) => self.pong(payload),
            socket::Heard::Text(text) => {
                self.last_heard = Instant::now();
                match frame::decode(&text, self.shared.config.format) {
                    Ok(frame) => return self.frame(frame).await,
                    Err(why) => self.not_understood(text.as_bytes(), &why),
                }
            }
            socket::Heard::Binary(bytes) => {
                self.last_heard = Instant::now();
                self.not_understood(&bytes, &Undecodable::BINARY);
            }
        }
        self.last_heard = Instant::now();
        Ok(())
    }

    /// A message came that is no frame. It may have been a broadcast, and the reply that is waited for.
    fn not_understood(&mut self, message: &[u8], why: &Undecodable) {
        tracing::warn!(instance = self.shared.instance, shard = self.name, link = self.id, %why,
            "a message from the gateway was not understood");
        if let Some(waiter) = &mut self.waiter {
            waiter.garbled = true;
        }
        if why.may_be_broadcast {
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            self.tell(&Upward::Unreadable { link: self.id, at: self.last_heard, digest: hasher.finish() });
        }
    }

    fn pong(&mut self, payload: u64) {
        let now = Instant::now();
        if self.exchange.pong(payload) {
            self.proved = true;
            self.shared.measured(self.shard, now - self.pinged);
            self.due = (Due::KeepAlive, now + self.shared.config.ping_interval);
            self.shared.put_back(self.id);
        } else if self.due.0 == Due::Pong && self.exchange.is_idle() {
            self.shared.doubt(self.id, false);
            self.due = (Due::KeepAlive, now + self.shared.config.ping_interval);
        }
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        match self.exchange.frame(frame) {
            Step::Ends(ending) => {
                let payload = self.exchange.settle();
                self.answer(ending);
                // Whoever lives on this thread too passes the reply on first: the ping can wait, they cannot.
                tokio::task::yield_now().await;
                self.pinged = Instant::now();
                let limit = self.shared.config.connect_timeout;
                self.due = (Due::Pong, self.pinged + limit);
                self.write(limit, async |socket| socket.ping(payload).await).await
            }
            Step::Late(ending) => {
                if let Some(late) = self.late.take() {
                    // Whoever settled the payment in the meantime has stopped listening.
                    let _ = late.send(ending);
                }
                Err(Ended::Spent)
            }
            Step::Up { message, parameters } => {
                self.shared.tally.broadcast_frames.count();
                self.tell(&Upward::Broadcast { link: self.id, at: self.last_heard, message, parameters });
                Ok(())
            }
            Step::Stray => {
                tracing::debug!(instance = self.shared.instance, shard = self.name, link = self.id, "a stray frame");
                Ok(())
            }
            Step::Close(untrusted) => Err(Ended::Untrusted(match untrusted {
                Untrusted::Reply(event) => format!("a reply `{event}` to no command"),
                Untrusted::Error(error) => format!("an error `{}` about no command", error.error),
            })),
        }
    }

    fn answer(&mut self, ending: Ending) {
        self.conclude(|waiter| match ending {
            Ending::Reply(body) => Ok(body),
            Ending::Error(error) if !waiter.kind.may_repeat() && !refuses(waiter.kind, &error) => {
                Err(Failure::Unknown(Lost { cause: Cause::Word(error), late: None }))
            }
            Ending::Error(error) => Err(Failure::Refused(error)),
        });
    }

    /// Tells whoever waits, if anybody does, and counts the exchange. Says whether somebody did.
    fn conclude(&mut self, outcome: impl FnOnce(&Waiter) -> Result<Body, Failure>) -> bool {
        let Some(waiter) = self.waiter.take() else { return false };
        let outcome = outcome(&waiter);
        let Waiter { command, written, answer, .. } = waiter;
        self.shared.tally.ended(&command, Outcome::of(&outcome), written.elapsed());
        // A caller that went away needs no answer.
        let _ = answer.send(outcome);
        true
    }

    async fn overdue(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        match self.due.0 {
            Due::KeepAlive => {
                let limit = self.shared.config.connect_timeout;
                self.due = (Due::Pong, now + limit);
                let payload = self.exchange.probe();
                self.shared.doubt(self.id, true);
                self.write(limit, async |socket| socket.ping(payload).await).await
            }
            Due::Pong => Err(Ended::Lost("a ping was not answered".to_owned())),
            Due::Late => Err(Ended::Spent),
            Due::Reply => self.give_up(now),
        }
    }

    /// The reply is overdue: tells the caller, and listens on only for what became of a payment.
    fn give_up(&mut self, now: Instant) -> Result<(), Ended> {
        self.shared.timed_out(self.shard);
        let aside = self.exchange.give_up();
        let (late, receiver) = if aside {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let waited =
            self.conclude(|waiter| Err(Failure::Unknown(Lost { cause: waiter.lost(Cause::Timeout), late: receiver })));
        if !(aside && waited) {
            return Err(Ended::Spent);
        }
        self.late = late;
        self.due = (Due::Late, now + self.shared.config.late_patience);
        self.shared.set_aside(self.id);
        Ok(())
    }
}

/// Whether an error proves that a command which must not be repeated did nothing.
fn refuses(kind: Kind, error: &GatewayError) -> bool {
    // A `ratelimit` that names another command never gets here.
    let own_limit = matches!(error.meaning(), Meaning::RateLimit { command: Some(_), .. });
    error.refuses_payment() || (kind == Kind::Raw && own_limit)
}

/// Resolves when nobody listens for the late reply any more; never where none is awaited.
async fn unawaited(late: Option<&mut oneshot::Sender<Ending>>) {
    match late {
        Some(sender) => sender.closed().await,
        None => std::future::pending().await,
    }
}
