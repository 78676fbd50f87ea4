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

use super::anonymous_limit::AnonymousSlot;
use super::error::ErrorReply;
use super::executor::{Executor, scope_of};
use super::frame::{self, Request};
use super::reader::{Broken, KEYLESS_MESSAGE, Message, Reader};
use super::subscription::{NativeSubscription, Received};
use crate::broadcasts::Native;
use crate::clock::RETRY_SHORTLY;
use crate::http::auth::{Auth, AuthError, Authorization, Caller, Mode, Purpose, Scope};
use crate::http::connections::Connection;
use crate::http::native::NativeLimits;
use crate::http::state::AppState;
use crate::protocol::Format;

/// Where a connection stands from its beginning.
#[derive(Debug)]
pub(super) struct ConnectionInfo {
    /// The instance it is about, or what every command is answered with.
    pub(super) instance: Result<Arc<str>, ErrorReply>,
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
    shared: Arc<AppState>,
    socket: actix_ws::Session,
    reader: Reader,
    /// Nothing only where no real socket is behind it.
    connection: Option<Arc<Connection>>,
    info: ConnectionInfo,
    /// Held until it shows a key.
    place: Option<AnonymousSlot>,
    /// By which connections are counted.
    _present: Arc<()>,
    /// The last key shown, for as long as it is good.
    key: Option<Authorization>,
    /// The key that was shown and may listen.
    hearing: Option<Authorization>,
    reloads: watch::Receiver<u64>,
    subscription: NativeSubscription,
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
enum SessionEvent {
    Message(Option<Result<Message, Broken>>),
    Answered(Result<String, JoinError>),
    Received(Received),
    PingDue,
    Hears,
    Evicted,
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
        shared: Arc<AppState>,
        socket: actix_ws::Session,
        reader: Reader,
        connection: Option<Arc<Connection>>,
        info: ConnectionInfo,
        place: Option<AnonymousSlot>,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + shared.config.native.limits.ping_every;
        let commands = JoinSet::new();
        let present = shared.native.presence();
        let (subscription, deaf_until, draining) = (NativeSubscription::No, None, false);
        let reloads = shared.auth.reloads();
        Self {
            shared,
            socket,
            reader,
            connection,
            info,
            place,
            _present: present,
            key: None,
            hearing: None,
            reloads,
            subscription,
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
        let instance = self.info.instance.as_deref().unwrap_or("-");
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
                SessionEvent::Message(message) => self.take(message).await?,
                SessionEvent::Answered(answer) => {
                    let lost = |_| frame::error(&ErrorReply::UNKNOWN, self.info.format);
                    let text = answer.unwrap_or_else(lost);
                    self.say(text).await?;
                }
                SessionEvent::Received(Received::Frame(text)) => self.say(text).await?,
                SessionEvent::Received(Received::Overtaken) => return Err(End::Gone("slow")),
                SessionEvent::PingDue => self.ping().await?,
                SessionEvent::Hears => self.deaf_until = None,
                SessionEvent::Evicted => return Err(End::Close(CloseCode::Policy, "no key was shown")),
                SessionEvent::Draining => self.draining = true,
                SessionEvent::Reloaded => self.look_at_keys()?,
            }
            if self.draining && self.commands.is_empty() {
                return Err(End::Close(CloseCode::Away, "shutting down"));
            }
        }
    }

    /// The next thing that happens. Safe to drop at any moment.
    async fn next(&mut self) -> SessionEvent {
        let shutdown = self.shared.bridge.shutdown();
        let max_body = self.shared.config.max_body;
        let most = if self.place.is_some() { KEYLESS_MESSAGE.min(max_body) } else { max_body };
        tokio::select! {
            message = self.reader.next(most), if self.deaf_until.is_none() => SessionEvent::Message(message),
            () = at(self.deaf_until) => SessionEvent::Hears,
            Some(answer) = self.commands.join_next() => SessionEvent::Answered(answer),
            heard = self.subscription.next(self.info.format) => SessionEvent::Received(heard),
            () = evicted(self.place.as_ref()) => SessionEvent::Evicted,
            () = shutdown.refusing(), if !self.draining => SessionEvent::Draining,
            () = sleep_until(self.ping_at) => SessionEvent::PingDue,
            Ok(()) = self.reloads.changed() => SessionEvent::Reloaded,
        }
    }

    /// What is wrong with the URL is said before anything is asked, as the gateway does.
    async fn greet(&mut self) -> Result<(), End> {
        if let Err(refusal) = &self.info.instance {
            let text = frame::error(refusal, self.info.format);
            return self.say(text).await;
        }
        if self.info.turned_away {
            let text = frame::error(&ErrorReply::WRONG_KEY, self.info.format);
            self.say(text).await?;
            return Err(End::Close(CloseCode::Policy, "the token in the URL must have the scope events and no other"));
        }
        let open = self.shared.config.native.hearing == Native::Open || self.shared.auth.mode() == Mode::None;
        if let Some(listener) = self.info.listener.clone() {
            self.hearing = self.authorization(listener, Some(Scope::Events));
            // The token may have been taken away since it was looked at.
            self.look_at_keys()?;
        }
        if open || self.hearing.is_some() {
            self.listen().await?;
        }
        Ok(())
    }

    /// The leave of a caller to be here.
    fn authorization(&self, caller: Caller, scope: Option<Scope>) -> Option<Authorization> {
        let instance = self.info.instance.as_ref().ok()?;
        Some(Authorization::new(Arc::clone(&self.shared.auth), caller, Arc::clone(instance), scope))
    }

    /// Ends the connection if a key that was shown on it is good no more.
    fn look_at_keys(&mut self) -> Result<(), End> {
        let last = [&mut self.key, &mut self.hearing].into_iter().flatten().all(Authorization::is_valid);
        if last { Ok(()) } else { Err(End::Close(CloseCode::Policy, "the token was taken away")) }
    }

    /// Begins to hear, or asks again for the place that was not to be had.
    async fn listen(&mut self) -> Result<(), End> {
        let Ok(instance) = &self.info.instance else { return Ok(()) };
        let Ok(served) = self.shared.bridge.instance(instance) else { return Ok(()) };
        let listener = self.hearing.as_ref().map_or("-", |authorization| authorization.caller().name());
        match self.subscription.begin(served.broadcasts(), listener, self.info.format) {
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
        if self.hearing.is_some() && self.subscription.is_off() {
            self.listen().await?;
        }
        match begun {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let text = frame::error(&refusal, self.info.format);
                self.say(text).await
            }
        }
    }

    /// Begins a command, or says at once why not.
    fn begin(&mut self, text: &str) -> Result<(), ErrorReply> {
        let (format, instance) = (self.info.format, self.info.instance.clone()?);
        let request = Request::read(text, format)?;
        let caller = identify(&self.shared.auth, &request, self.info.address, &instance);
        if caller.is_err() {
            self.hold_back(self.shared.auth.throttle().held_back());
        }
        let caller = caller?;
        if self.connection.as_ref().is_some_and(|connection| !connection.is_of(caller.name())) {
            return Err(ErrorReply::later(&request.command, RETRY_SHORTLY));
        }
        self.place = None;
        self.key = self.authorization(caller.clone(), None);
        if self.hearing.is_none() && caller.has(Scope::Events) {
            self.hearing = self.authorization(caller.clone(), Some(Scope::Events));
        }
        let scope = scope_of(&request.command);
        if !caller.has(scope) {
            return Err(ErrorReply::WRONG_KEY);
        }
        // What else is under way takes none of the places of payments, here as in a token's share.
        let (purpose, places) = match scope {
            Scope::Pay => (Purpose::Payment, self.limits().in_flight.saturating_mul(2)),
            _ => (Purpose::Other, self.limits().in_flight),
        };
        if self.draining || self.commands.len() >= places {
            return Err(ErrorReply::later(&request.command, RETRY_SHORTLY));
        }
        // Held until the command has ended, as a request's is until its answer has.
        let admitted = caller.admit(purpose).map_err(|limited| {
            self.hold_back(limited.held_back);
            ErrorReply::later(&request.command, limited.retry_after)
        })?;
        let deadline = Instant::now() + self.shared.config.deadline;
        let executor = Executor { bridge: self.shared.bridge.clone(), instance, caller, deadline };
        self.commands.spawn(async move {
            let outcome = executor.execute(request).await;
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
        if self.subscription.waits() {
            self.listen().await?;
        }
        in_time(&self.shared, self.socket.ping(b"")).await
    }

    async fn say(&mut self, text: impl Into<ByteString>) -> Result<(), End> {
        in_time(&self.shared, self.socket.text(text)).await
    }

    fn limits(&self) -> &NativeLimits {
        &self.shared.config.native.limits
    }
}

/// A write, as long as it may take. A peer that makes no room by then does not read.
async fn in_time(shared: &AppState, write: impl Future<Output = Result<(), Closed>>) -> Result<(), End> {
    timeout(shared.config.native.limits.write, write).await.map_err(|_| End::Gone("slow"))?.map_err(End::from)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn evicted(place: Option<&AnonymousSlot>) {
    match place {
        Some(place) => place.evicted().await,
        None => pending().await,
    }
}

/// Who gives a command on this connection. An address that showed too many wrong keys is not listened to for a while.
fn identify(auth: &Auth, request: &Request, address: IpAddr, instance: &str) -> Result<Caller, ErrorReply> {
    let key = request.api_key.as_ref().map(ExposeSecret::expose_secret);
    let caller = match (key, auth.mode()) {
        (Some(key), _) => auth.by_token(key, address),
        (None, Mode::None) => auth.by_token("", address),
        (None, Mode::Tokens) => return Err(ErrorReply::NO_KEY),
    };
    match caller {
        Ok(caller) if caller.may_reach(instance) => Ok(caller),
        Ok(_) | Err(AuthError::Unknown) => Err(ErrorReply::WRONG_KEY),
        Err(AuthError::Throttled { retry_after }) => Err(ErrorReply::later(&request.command, retry_after)),
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
