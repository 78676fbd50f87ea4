//! One native connection: one task that reads, writes and ends it.
//!
//! Commands run beside each other in tasks of their own, a bounded number of them, and are answered as they end; those
//! begun run to their end when the peer leaves. All writing is done here, each frame with a deadline, so a peer that does
//! not read holds up nobody but itself, and not for long. The loop ends with a reason, and everything it waits for is
//! safe to drop.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_ws::{CloseCode, CloseReason, Closed};
use bytestring::ByteString;
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::desk::{Desk, scope_of};
use super::frame::{self, Order};
use super::listening::{Heard, Listening};
use super::reader::{Broken, KEYLESS_MESSAGE, Message, Reader};
use super::refusal::Refusal;
use super::threshold::Place;
use crate::broadcasts::Native;
use crate::http::auth::{Auth, Caller, Lease, Mode, Purpose, Scope, Stranger};
use crate::http::connections::Connection;
use crate::http::native::Limits;
use crate::http::server::Shared;
use crate::protocol::Format;

/// When a command that found no room may come again.
const SHORTLY: Duration = Duration::from_secs(1);

/// Where a connection stands from its beginning.
#[derive(Debug)]
pub(super) struct Standing {
    /// The instance it is about, or what every command is answered with.
    pub(super) instance: Result<Arc<str>, Refusal>,
    /// How frames are printed.
    pub(super) format: Format,
    /// Whom to hold to account for the keys that it shows.
    pub(super) address: IpAddr,
    /// Who it is of, where it came with a listener's token.
    pub(super) listener: Option<Caller>,
    /// It came with a token that does not serve.
    pub(super) turned_away: bool,
}

/// A connection and what belongs to it.
pub(super) struct Session {
    shared: Arc<Shared>,
    socket: actix_ws::Session,
    reader: Reader,
    /// Nothing only where no real socket is behind it.
    connection: Option<Arc<Connection>>,
    standing: Standing,
    /// Held until it shows a key.
    place: Option<Place>,
    /// By which connections are counted.
    _present: Arc<()>,
    /// The last key shown, for as long as it is good.
    key: Option<Lease>,
    /// The key that was shown and may listen.
    hearing: Option<Lease>,
    reloads: watch::Receiver<u64>,
    listening: Listening,
    /// Commands under way; each ends with its answer's text.
    commands: JoinSet<String>,
    heard_at: Instant,
    ping_at: Instant,
    /// Nothing is read until then: what came was refused, and is part of a flood.
    deaf_until: Option<Instant>,
    /// New commands are refused, and the connection ends with the last one under way.
    draining: bool,
}

/// What a connection waits for.
enum Happening {
    Message(Option<Result<Message, Broken>>),
    Answered(Result<String, JoinError>),
    Heard(Heard),
    PingDue,
    Hears,
    GivenAway,
    Draining,
    Reloaded,
}

/// Why a connection ends.
enum End {
    /// The peer is gone, or does not read: there is nobody to say anything to.
    Gone(&'static str),
    /// It is closed with these words.
    Close(CloseCode, &'static str),
    /// The peer closes it.
    Closed(Option<CloseReason>),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Gone("gone")
    }
}

impl Session {
    pub(super) fn new(
        shared: Arc<Shared>,
        socket: actix_ws::Session,
        reader: Reader,
        connection: Option<Arc<Connection>>,
        standing: Standing,
        place: Option<Place>,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + shared.config.native.limits.ping_every;
        let commands = JoinSet::new();
        let present = shared.native.presence();
        let (listening, deaf_until, draining) = (Listening::No, None, false);
        let reloads = shared.auth.reloads();
        Self {
            shared,
            socket,
            reader,
            connection,
            standing,
            place,
            _present: present,
            key: None,
            hearing: None,
            reloads,
            listening,
            commands,
            heard_at: now,
            ping_at,
            deaf_until,
            draining,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        // What was begun runs to its end, though nobody waits for its answer.
        self.commands.detach_all();
        let (code, why) = match &end {
            End::Gone(why) => (None, *why),
            End::Close(code, why) => (Some((*code).into()), *why),
            End::Closed(reason) => (reason.as_ref().map(|reason| reason.code.into()), "closed by the peer"),
        };
        let instance = self.standing.instance.as_deref().unwrap_or("-");
        tracing::debug!(instance, code = code.map(|code: u16| code), why, "a native connection ended");
        let reason = match end {
            End::Gone(_) => {
                // What was written and not taken is waited for by nobody.
                if let Some(connection) = &self.connection {
                    connection.cut();
                }
                return;
            }
            End::Close(code, why) => Some(CloseReason { code, description: Some(why.to_owned()) }),
            End::Closed(reason) => reason,
        };
        // Whether the peer still listens changes nothing about the end.
        let _ = timeout(self.shared.config.native.limits.write, self.socket.close(reason)).await;
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.greet().await?;
        loop {
            match self.next().await {
                Happening::Message(message) => self.take(message).await?,
                Happening::Answered(answer) => {
                    let lost = |_| frame::error(&Refusal::UNKNOWN, self.standing.format);
                    let text = answer.unwrap_or_else(lost);
                    self.say(text).await?;
                }
                Happening::Heard(Heard::Frame(text)) => self.say(text).await?,
                Happening::Heard(Heard::Overtaken) => return Err(End::Gone("slow")),
                Happening::PingDue => self.ping().await?,
                Happening::Hears => self.deaf_until = None,
                Happening::GivenAway => return Err(End::Close(CloseCode::Policy, "no key was shown")),
                Happening::Draining => self.draining = true,
                Happening::Reloaded => self.look_at_keys()?,
            }
            if self.draining && self.commands.is_empty() {
                return Err(End::Close(CloseCode::Away, "shutting down"));
            }
        }
    }

    /// The next thing that happens. Safe to drop at any moment.
    async fn next(&mut self) -> Happening {
        let shutdown = self.shared.bridge.shutdown();
        let max_body = self.shared.config.max_body;
        let most = if self.place.is_some() { KEYLESS_MESSAGE.min(max_body) } else { max_body };
        tokio::select! {
            message = self.reader.next(most), if self.deaf_until.is_none() => Happening::Message(message),
            () = at(self.deaf_until) => Happening::Hears,
            Some(answer) = self.commands.join_next() => Happening::Answered(answer),
            heard = self.listening.next(self.standing.format) => Happening::Heard(heard),
            () = given_away(self.place.as_ref()) => Happening::GivenAway,
            () = shutdown.refusing(), if !self.draining => Happening::Draining,
            () = sleep_until(self.ping_at) => Happening::PingDue,
            Ok(()) = self.reloads.changed() => Happening::Reloaded,
        }
    }

    /// What is wrong with the URL is said before anything is asked, as the gateway does.
    async fn greet(&mut self) -> Result<(), End> {
        if let Err(refusal) = &self.standing.instance {
            let text = frame::error(refusal, self.standing.format);
            return self.say(text).await;
        }
        if self.standing.turned_away {
            let text = frame::error(&Refusal::WRONG_KEY, self.standing.format);
            self.say(text).await?;
            return Err(End::Close(CloseCode::Policy, "the token in the URL must have the scope events and no other"));
        }
        let open = self.shared.config.native.hearing == Native::Open || self.shared.auth.mode() == Mode::None;
        if let Some(listener) = self.standing.listener.clone() {
            self.hearing = self.lease(listener, Some(Scope::Events));
            // The token may have been taken away since it was looked at.
            self.look_at_keys()?;
        }
        if open || self.hearing.is_some() {
            self.listen().await?;
        }
        Ok(())
    }

    /// The leave of a caller to be here.
    fn lease(&self, caller: Caller, scope: Option<Scope>) -> Option<Lease> {
        let instance = self.standing.instance.as_ref().ok()?;
        Some(Lease::new(Arc::clone(&self.shared.auth), caller, Arc::clone(instance), scope))
    }

    /// Ends the connection if a key that was shown on it is good no more.
    fn look_at_keys(&mut self) -> Result<(), End> {
        let last = [&mut self.key, &mut self.hearing].into_iter().flatten().all(Lease::lasts);
        if last { Ok(()) } else { Err(End::Close(CloseCode::Policy, "the token was taken away")) }
    }

    /// Begins to hear, or asks again for the place that was not to be had.
    async fn listen(&mut self) -> Result<(), End> {
        let Ok(instance) = &self.standing.instance else { return Ok(()) };
        let Ok(broadcasts) = self.shared.bridge.broadcasts(instance) else { return Ok(()) };
        let listener = self.hearing.as_ref().map_or("-", |lease| lease.caller().name());
        match self.listening.begin(broadcasts, listener, self.standing.format) {
            Some(missed) => self.say(missed).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, message: Option<Result<Message, Broken>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Gone("gone")),
            Some(Err(why)) => return Err(broken(why)),
            Some(Ok(message)) => message,
        };
        self.heard_at = Instant::now();
        match message {
            Message::Text(text) => self.order(&text).await,
            Message::Ping(bytes) => in_time(&self.shared, self.socket.pong(&bytes)).await,
            Message::Pong => Ok(()),
            Message::Close(reason) => Err(End::Closed(reason)),
        }
    }

    async fn order(&mut self, text: &str) -> Result<(), End> {
        let begun = self.begin(text);
        if self.hearing.is_some() && self.listening.is_off() {
            self.listen().await?;
        }
        match begun {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let text = frame::error(&refusal, self.standing.format);
                self.say(text).await
            }
        }
    }

    /// Begins a command, or says at once why not.
    fn begin(&mut self, text: &str) -> Result<(), Refusal> {
        let (format, instance) = (self.standing.format, self.standing.instance.clone()?);
        let order = Order::read(text, format)?;
        let caller = identify(&self.shared.auth, &order, self.standing.address, &instance);
        if caller.is_err() {
            self.hold_back(self.shared.auth.suspects().held_back());
        }
        let caller = caller?;
        if self.connection.as_ref().is_some_and(|connection| !connection.is_of(caller.name())) {
            return Err(Refusal::later(&order.command, SHORTLY));
        }
        self.place = None;
        self.key = self.lease(caller.clone(), None);
        if self.hearing.is_none() && caller.has(Scope::Events) {
            self.hearing = self.lease(caller.clone(), Some(Scope::Events));
        }
        let scope = scope_of(&order.command);
        if !caller.has(scope) {
            return Err(Refusal::WRONG_KEY);
        }
        // What else is under way takes none of the places of payments, here as in a token's share.
        let (purpose, places) = match scope {
            Scope::Pay => (Purpose::Payment, self.limits().in_flight.saturating_mul(2)),
            _ => (Purpose::Other, self.limits().in_flight),
        };
        if self.draining || self.commands.len() >= places {
            return Err(Refusal::later(&order.command, SHORTLY));
        }
        // Held until the command has ended, as a request's is until its answer has.
        let admitted = caller.admit(purpose).map_err(|limited| {
            self.hold_back(limited.held_back);
            Refusal::later(&order.command, limited.retry_after)
        })?;
        let deadline = Instant::now() + self.shared.config.deadline;
        let desk = Desk { bridge: self.shared.bridge.clone(), instance, caller, deadline };
        self.commands.spawn(async move {
            let outcome = desk.carry_out(order).await;
            drop(admitted);
            match outcome {
                Ok((event, body)) => frame::event(&event, &body, format),
                Err(refusal) => frame::error(&refusal, format),
            }
        });
        Ok(())
    }

    /// Reads no further for a while: what is refused at once only to be sent again costs as much as an answer.
    fn hold_back(&mut self, wait: Option<Duration>) {
        self.deaf_until = wait.map(|wait| Instant::now() + wait);
    }

    async fn ping(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let limits = self.limits();
        if self.deaf_until.is_none() && now.saturating_duration_since(self.heard_at) >= limits.silence {
            return Err(End::Gone("silent"));
        }
        self.ping_at = now + limits.ping_every;
        if self.listening.waits() {
            self.listen().await?;
        }
        in_time(&self.shared, self.socket.ping(b"")).await
    }

    async fn say(&mut self, text: impl Into<ByteString>) -> Result<(), End> {
        in_time(&self.shared, self.socket.text(text)).await
    }

    fn limits(&self) -> &Limits {
        &self.shared.config.native.limits
    }
}

/// A write, as long as it may take. A peer that makes no room by then does not read.
async fn in_time(shared: &Shared, write: impl Future<Output = Result<(), Closed>>) -> Result<(), End> {
    timeout(shared.config.native.limits.write, write).await.map_err(|_| End::Gone("slow"))?.map_err(End::from)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn given_away(place: Option<&Place>) {
    match place {
        Some(place) => place.given_away().await,
        None => pending().await,
    }
}

/// Who gives a command on this connection. An address that showed too many wrong keys is not listened to for a while.
fn identify(auth: &Auth, order: &Order, address: IpAddr, instance: &str) -> Result<Caller, Refusal> {
    let key = order.api_key.as_ref().map(ExposeSecret::expose_secret);
    let caller = match (key, auth.mode()) {
        (Some(key), _) => auth.by_token(key, address),
        (None, Mode::None) => auth.by_token("", address),
        (None, Mode::Tokens) => return Err(Refusal::NO_KEY),
    };
    match caller {
        Ok(caller) if caller.may_reach(instance) => Ok(caller),
        Ok(_) | Err(Stranger::Unknown) => Err(Refusal::WRONG_KEY),
        Err(Stranger::Unheard { retry_after }) => Err(Refusal::later(&order.command, retry_after)),
    }
}

/// How a connection ends on which something came that is no message.
fn broken(why: Broken) -> End {
    match why {
        Broken::TooLarge => End::Close(CloseCode::Size, "the message is too large"),
        Broken::NotText => End::Close(CloseCode::Invalid, "the text is no UTF-8"),
        Broken::Protocol => End::Close(CloseCode::Protocol, "this is no WebSocket message"),
        Broken::Connection => End::Gone("broken"),
    }
}
