//! One connection's task.
//!
//! It owns the socket and the exchange on it, takes one job at a time, and is the only place that writes a command.
//! The waiter is registered before the write, the reply's clock starts with it, and from that moment every end but a
//! reply or a refusal is *unknown*. A job that was handed over and never begun comes back as *not sent*.
//!
//! An error to a payment is a refusal only if nothing follows it for `refusal_grace`. That silence counts only where the
//! process was running, or what came meanwhile may lie unread in the socket: it has a limit on the clock that goes on
//! while the machine sleeps, and after it the event loop looks at the socket once more.
//!
//! While this replica may not act for the instance, nothing is written ([`Tenure`](crate::tenure::Tenure)). What was written
//! before is listened to as long as ever, and so is a set-aside link; a link that would have to write ends.
//!
//! The task ends when the connection does, when it can no longer be trusted, or when it is told to; it is bounded in
//! every state by a deadline.

use std::borrow::Cow;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::context::PoolContext;
use super::dialer::Dialer;
use super::error::{Cause, DialError, Ended, Ending, Failure, LateFrames, Lost, NotSent, Refusal};
use super::events::LinkEvent;
use super::exchange::{Conclusion, Exchange, Pong, Step, Untrusted};
use super::links::{Heard, Job, LinkId, Work};
use super::metrics::ExchangeOutcome;
use super::socket::{self, Socket};
use crate::protocol::{Body, Frame, GatewayError, Kind, Meaning, Undecodable, frame};
use crate::tenure::boot_time;

/// How long closing a connection may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than the grace a silence may have lasted, on top of the grace itself, before the process counts as
/// stopped in between. Less, and a busy machine would turn refusals into unknown outcomes.
const PAUSE: Duration = Duration::from_millis(500);

/// After the grace the socket is read once more: what had come by then is handled before the silence counts.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Frames for one payment on a set-aside link that may wait to be recorded: some errors, and one reply. Further errors
/// tell nothing new and are dropped.
const LATE_FRAMES: usize = 8;

pub(super) fn lost() -> Failure {
    unknown(Cause::Disconnected, None)
}

fn unknown(cause: Cause, late: Option<LateFrames>) -> Failure {
    Failure::Unknown(Lost { cause, late })
}

/// Opens a connection and waits for its first ping to be answered, so that a gateway that accepts and then refuses
/// (`invalid_instance`) or says nothing is not taken for one that serves. Returns the round trip.
pub(super) async fn open(url: &str, dialer: &Dialer, config: &Config) -> Result<(Socket, Duration), DialError> {
    let opening = async {
        let mut socket = Socket::connect(url, dialer, config).await?;
        let asked = Instant::now();
        let connect = |why: String| DialError::Connect(why);
        socket.ping(0).await.map_err(connect)?;
        loop {
            match socket.receive().await {
                socket::Received::Pong(0) => return Ok((socket, asked.elapsed())),
                socket::Received::Closed(why) | socket::Received::Garbled(why) => return Err(DialError::Closed(why)),
                socket::Received::Text(text) => {
                    if let Ok(Frame::Error(error)) = frame::decode(&text, config.format) {
                        return Err(DialError::Refused(error));
                    }
                }
                socket::Received::Binary(_) | socket::Received::Pong(_) | socket::Received::Ignored => {}
            }
        }
    };
    tokio::select! {
        biased;
        opened = timeout(config.connect_timeout, opening) => opened.unwrap_or(Err(DialError::Timeout)),
        () = dialer.tenure().lapsed() => Err(DialError::NotOwner),
    }
}

/// What the next deadline of a link means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Silence: time for a keep-alive ping.
    KeepAlive,
    /// The pong that settles an exchange, or answers a keep-alive, is overdue.
    Pong,
    /// The reply is overdue.
    Reply,
    /// The silence after an error has lasted for the grace.
    Silence,
    /// It still lasts after the socket was read once more.
    LastLook,
    /// The late reply is no longer awaited.
    Late,
}

/// The caller that waits for the end of an exchange.
#[derive(Debug)]
struct Waiter {
    command: Cow<'static, str>,
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
    shared: Arc<PoolContext>,
    exchange: Exchange,
    waiter: Option<Waiter>,
    late: Option<mpsc::Sender<Ending>>,
    due: (Due, Instant),
    /// The deadline of the exchange, or of listening, while something else is due before.
    limit: (Due, Instant),
    /// Whether something came since the last command that could not be read.
    garbled: bool,
    /// When the silence began, by [`boot_time`].
    silent_since: Duration,
    pinged: Instant,
    last_heard: Instant,
    /// The same for who asks from outside.
    heard: Heard,
    proved: bool,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        (shard, name): (usize, String),
        socket: Socket,
        heard: Heard,
        pool: Arc<PoolContext>,
    ) -> Self {
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
            limit: due,
            garbled: false,
            silent_since: Duration::ZERO,
            pinged: now,
            last_heard: now,
            heard,
            proved: false,
        }
    }

    /// Serves until the connection is over; the waiting caller is then answered. Also says whether an exchange was completed.
    pub(super) async fn serve(mut self, mut jobs: mpsc::Receiver<Work>, stop: CancellationToken) -> (Ended, bool) {
        self.tell(&LinkEvent::Opened { link: self.id, at: self.last_heard });
        self.shared.put_back(self.id);
        // With a new link in service the planner may close another.
        self.shared.replan();
        let mut stopped = pin!(stop.cancelled());
        // Set anew only for a deadline that is nearer than the one it is set for. Most deadlines are put off before they come,
        // and then it costs nothing to have one.
        let mut alarm = pin!(sleep_until(self.due.1));
        let ended = loop {
            if self.due.1 < alarm.deadline() {
                alarm.as_mut().reset(self.due.1);
            }
            // In this order: what has come is handled before a deadline counts as missed and before anything is written,
            // so that a frame of an earlier command, or the end of the connection, never meets a new one.
            let went_on = tokio::select! {
                biased;
                () = &mut stopped => Err(Ended::Asked),
                received = self.socket.receive() => self.received(received).await,
                () = &mut alarm => {
                    let went_on = if self.due.1 <= Instant::now() { self.overdue().await } else { Ok(()) };
                    alarm.as_mut().reset(self.due.1);
                    went_on
                }
                () = unawaited(self.late.as_ref()) => Err(Ended::Spent),
                Some(work) = jobs.recv(), if self.exchange.is_idle() => match work {
                    Work::Command(job) => self.begin(job).await,
                    Work::Ping => self.settle().await,
                },
            };
            if let Err(ended) = went_on {
                break ended;
            }
        };
        if let Some(waiter) = &mut self.waiter {
            waiter.garbled |= matches!(ended, Ended::Garbled(_));
        }
        let word = self.exchange.doubted().cloned().map(Cause::Word);
        self.conclude(|waiter| Err(unknown(word.unwrap_or_else(|| waiter.lost(Cause::Disconnected)), None)));
        jobs.close();
        // Waits for a job that is being handed over in this very moment.
        while let Some(work) = jobs.recv().await {
            if let Work::Command(job) = work {
                let _ = job.answer.send(Err(NotSent::LinkGone.into()));
            }
        }
        self.tell(&LinkEvent::Closed { link: self.id, last_heard: self.last_heard });
        // Closing writes out first what the library still holds: a command that was stopped by the fence must not leave after all,
        // should the lease be valid again by now.
        if !matches!(ended, Ended::Lost(_) | Ended::Fenced) && self.shared.tenure().may_listen() {
            self.socket.close(CLOSE_TIMEOUT).await;
        }
        (ended, self.proved)
    }

    fn tell(&self, upward: &LinkEvent) {
        (self.shared.events.0)(upward);
    }

    async fn begin(&mut self, job: Job) -> Result<(), Ended> {
        let Job { text, expect, limit, answer } = job;
        if !self.shared.tenure().may_act() {
            let _ = answer.send(Err(NotSent::NotOwner.into()));
            return Err(Ended::Fenced);
        }
        let (command, kind) = (expect.command.clone(), expect.kind);
        if !self.exchange.start(expect) {
            let _ = answer.send(Err(NotSent::LinkGone.into()));
            return Ok(());
        }
        let written = Instant::now();
        self.waiter = Some(Waiter { command, kind, written, answer, garbled: false });
        self.garbled = false;
        self.limit = (Due::Reply, written + limit);
        self.due = self.limit;
        let before = self.socket.written();
        let went_on = self.write(limit, async |socket| socket.send(text).await).await;
        if went_on == Err(Ended::Fenced) && self.socket.written() == before {
            self.conclude(|_| Err(NotSent::NotOwner.into()));
        }
        went_on
    }

    /// One write, bounded: a peer that reads nothing must not hold the task. What was not written by the end of the tenure
    /// never is.
    async fn write(
        &mut self,
        limit: Duration,
        write: impl AsyncFnOnce(&mut Socket) -> Result<(), String>,
    ) -> Result<(), Ended> {
        let mut writing = pin!(write(&mut self.socket));
        // Most writes end at once, and need no timer.
        if let Poll::Ready(written) = poll!(writing.as_mut()) {
            return written.map_err(Ended::Lost);
        }
        tokio::select! {
            biased;
            written = timeout(limit, writing) => match written {
                Ok(written) => written.map_err(Ended::Lost),
                Err(_) => Err(Ended::Lost("a write made no headway".to_owned())),
            },
            () = self.shared.tenure().lapsed() => Err(Ended::Fenced),
        }
    }

    async fn received(&mut self, received: socket::Received) -> Result<(), Ended> {
        match received {
            socket::Received::Closed(why) => return Err(Ended::Lost(why)),
            socket::Received::Garbled(why) => return Err(Ended::Garbled(why)),
            socket::Received::Ignored => {}
            socket::Received::Pong(payload) => {
                self.note_heard();
                self.pong(payload);
                return Ok(());
            }
            socket::Received::Text(text) => {
                self.note_heard();
                match frame::decode(&text, self.shared.config.format) {
                    Ok(frame) => return self.frame(frame).await,
                    Err(why) => self.not_understood(text.as_bytes(), &why),
                }
            }
            socket::Received::Binary(bytes) => {
                self.note_heard();
                self.not_understood(&bytes, &Undecodable::BINARY);
            }
        }
        self.note_heard();
        Ok(())
    }

    fn note_heard(&mut self) {
        self.last_heard = Instant::now();
        self.heard.note(self.last_heard);
    }

    /// A message came that is no frame. It may have been a broadcast, and the reply that is waited for.
    fn not_understood(&mut self, message: &[u8], why: &Undecodable) {
        tracing::warn!(instance = self.shared.instance, shard = self.name, link = self.id, %why,
            "a message from the gateway was not understood");
        self.garbled = true;
        if let Some(waiter) = &mut self.waiter {
            waiter.garbled = true;
        }
        if why.may_be_broadcast {
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            self.tell(&LinkEvent::Unreadable { link: self.id, at: self.last_heard, digest: hasher.finish() });
        }
    }

    fn pong(&mut self, payload: u64) {
        let now = self.last_heard;
        match self.exchange.pong(payload) {
            Pong::Settled => {
                self.proved = true;
                self.due = (Due::KeepAlive, now + self.shared.config.ping_interval);
                self.shared.settled(self.id, now - self.pinged, now);
            }
            Pong::Doubted => {
                self.proved = true;
                self.silent_since = boot_time();
                // It may end a little after the exchange's own deadline, and each further error is held to that.
                self.due = (Due::Silence, now + self.shared.config.refusal_grace);
            }
            Pong::Alive if self.due.0 == Due::Pong && self.late.is_some() => self.listen_on(now),
            Pong::Alive if self.due.0 == Due::Pong && self.exchange.is_idle() => {
                self.shared.doubt(self.id, false);
                self.due = (Due::KeepAlive, now + self.shared.config.ping_interval);
            }
            Pong::Alive => {}
        }
    }

    async fn frame(&mut self, frame: Frame) -> Result<(), Ended> {
        let in_doubt = self.exchange.doubted().is_some();
        match self.exchange.frame(frame) {
            Step::Ends(ending) => {
                self.answer(ending);
                give_way().await;
                self.settle().await
            }
            Step::Doubted(payload) => {
                let limit = self.shared.config.connect_timeout;
                if self.waiter.is_some() && !in_doubt {
                    // The gateway has answered in time: what follows has the time that any pong has.
                    self.limit.1 = self.limit.1.max(Instant::now() + limit);
                }
                self.due = self.limit;
                if !self.shared.tenure().may_act() {
                    // Without the ping nothing proves a refusal.
                    return self.give_up();
                }
                self.write(limit, async |socket| socket.ping(payload).await).await
            }
            Step::Late(reply) => {
                self.pass_on(Ending::Reply(reply))?;
                Err(Ended::Spent)
            }
            Step::Up { message, parameters } => {
                self.shared.metrics.broadcast_frames.inc();
                self.tell(&LinkEvent::Broadcast { link: self.id, at: self.last_heard, message, parameters });
                Ok(())
            }
            Step::Stray => {
                tracing::trace!(instance = self.shared.instance, shard = self.name, link = self.id, "a stray frame");
                Ok(())
            }
            Step::Close(untrusted) => Err(Ended::Untrusted(match untrusted {
                Untrusted::Reply(event) => format!("a reply `{event}` to no command"),
                Untrusted::Error(error) => format!("an error `{}` about no command", error.error),
            })),
        }
    }

    /// Sends the ping that must be answered before the next command.
    async fn settle(&mut self) -> Result<(), Ended> {
        let payload = self.exchange.settle();
        self.pinged = Instant::now();
        let limit = self.shared.config.connect_timeout;
        self.due = (Due::Pong, self.pinged + limit);
        self.write(limit, async |socket| socket.ping(payload).await).await
    }

    fn answer(&mut self, ending: Ending) {
        self.conclude(|waiter| match ending {
            Ending::Reply(body) => Ok(body),
            Ending::Error(error) if !waiter.kind.may_repeat() && !refuses(waiter.kind, &error) => {
                Err(unknown(Cause::Word(error), None))
            }
            Ending::Error(error) => Err(Failure::Refused(Refusal { error, late: None })),
        });
    }

    /// Passes on what came for the payment after its caller was answered.
    fn pass_on(&mut self, ending: Ending) -> Result<(), Ended> {
        let Some(late) = &self.late else { return Err(Ended::Spent) };
        // The last place is the reply's, however many errors come before it.
        if matches!(ending, Ending::Error(_)) && late.capacity() <= 1 {
            return Ok(());
        }
        // Closed: the payment was settled in the meantime.
        late.try_send(ending).map_err(|_| Ended::Spent)
    }

    /// Answers the waiting caller, if there is one, and counts the exchange. Returns whether there was one.
    fn conclude(&mut self, outcome: impl FnOnce(&Waiter) -> Result<Body, Failure>) -> bool {
        let Some(waiter) = self.waiter.take() else { return false };
        let outcome = outcome(&waiter);
        let Waiter { command, written, answer, .. } = waiter;
        let now = Instant::now();
        let took = now.saturating_duration_since(written);
        self.shared.metrics.exchange_ended(&command, ExchangeOutcome::of(&outcome), took, now);
        // A caller that went away needs no answer.
        let _ = answer.send(outcome);
        true
    }

    async fn overdue(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        match self.due.0 {
            Due::KeepAlive if !self.shared.tenure().may_listen() => {
                // Only a link that is listened to has an end of its own.
                self.due = self.limit;
                if self.late.is_some() { Ok(()) } else { Err(Ended::Fenced) }
            }
            Due::KeepAlive => {
                let limit = self.shared.config.connect_timeout;
                self.due = (Due::Pong, now + limit);
                let payload = self.exchange.probe();
                self.shared.doubt(self.id, true);
                self.write(limit, async |socket| socket.ping(payload).await).await
            }
            Due::Pong => Err(Ended::Lost("a ping was not answered".to_owned())),
            Due::Late => Err(Ended::Spent),
            Due::Reply => self.give_up(),
            Due::Silence => {
                self.due = (Due::LastLook, now + LAST_LOOK);
                Ok(())
            }
            Due::LastLook => self.silence_is_over(),
        }
    }

    /// Nothing followed an error to a payment. The link is set aside: a reply that comes later all the same belongs to
    /// that payment.
    fn silence_is_over(&mut self) -> Result<(), Ended> {
        self.listen_on(Instant::now());
        let lasted = boot_time().saturating_sub(self.silent_since);
        let Some(Conclusion { error, refuses }) = self.exchange.conclude() else { return Ok(()) };
        let was_paused = lasted > self.shared.config.refusal_grace * 2 + PAUSE;
        let may_act = self.shared.tenure().may_act();
        // What could not be read may have been the reply.
        let proven = refuses && !was_paused && !self.garbled && may_act;
        if refuses && !(was_paused || may_act) {
            tracing::warn!(
                instance = self.shared.instance,
                shard = self.name,
                link = self.id,
                gateway = error.error,
                "the lease ended after an error to a payment: the payment counts as one of unknown outcome"
            );
        }
        if refuses && was_paused {
            tracing::warn!(
                instance = self.shared.instance,
                shard = self.name,
                link = self.id,
                gateway = error.error,
                "the process was paused after an error to a payment: the payment counts as one of unknown outcome"
            );
        }
        if self.waiter.is_none() {
            return if proven { self.pass_on(Ending::Error(error)) } else { Ok(()) };
        }
        let late = Some(self.set_aside(!proven));
        let refused = |error, late| Failure::Refused(Refusal { error, late });
        self.conclude(|_| Err(if proven { refused(error, late) } else { unknown(Cause::Word(error), late) }));
        Ok(())
    }

    /// Listens on only for what becomes of the payment, for `late_patience`.
    fn set_aside(&mut self, is_unknown: bool) -> LateFrames {
        let (sender, frames) = mpsc::channel(LATE_FRAMES);
        let until = Instant::now() + self.shared.config.late_patience;
        self.late = Some(sender);
        self.limit = (Due::Late, until);
        self.listen_on(Instant::now());
        self.shared.set_aside(self.id, is_unknown);
        LateFrames { frames }
    }

    /// Asks now and then whether the connection is alive, as of any that is silent, until its limit.
    fn listen_on(&mut self, now: Instant) {
        let ping = (Due::KeepAlive, now + self.shared.config.ping_interval);
        self.due = if ping.1 < self.limit.1 { ping } else { self.limit };
    }

    /// The reply is overdue: tells the caller, and listens on only for what became of a payment.
    fn give_up(&mut self) -> Result<(), Ended> {
        let doubted = self.exchange.doubted().cloned();
        if doubted.is_none() {
            self.shared.timed_out(self.shard);
        }
        if !(self.exchange.give_up() && self.waiter.is_some()) {
            self.conclude(|waiter| Err(unknown(waiter.lost(Cause::Timeout), None)));
            return Err(Ended::Spent);
        }
        let late = Some(self.set_aside(true));
        let word = doubted.map(Cause::Word);
        self.conclude(|waiter| Err(unknown(word.unwrap_or_else(|| waiter.lost(Cause::Timeout)), late)));
        Ok(())
    }
}

/// Lets the caller's task on this thread, and the one that writes for it, pass a reply on before a ping is written. Unlike tokio's
/// `yield_now` this asks the system for nothing new in between.
async fn give_way() {
    const TASKS: u8 = 2;
    let mut left = TASKS;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether an error proves that a command which must not be repeated did nothing.
fn refuses(kind: Kind, error: &GatewayError) -> bool {
    // A `ratelimit` that names another command never gets here.
    let own_limit = matches!(error.meaning(), Meaning::RateLimit { command: Some(_), .. });
    error.refuses_payment() || (kind == Kind::Raw && own_limit)
}

/// Resolves when the receiver of late frames is gone; never where there is none.
async fn unawaited(late: Option<&mpsc::Sender<Ending>>) {
    match late {
        Some(sender) => sender.closed().await,
        None => std::future::pending().await,
    }
}
