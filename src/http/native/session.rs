//! One native connection: the task that reads it, writes to it and closes it.
//!
//! Commands run in tasks of their own, a bounded number of them, and are answered in the order in which they end. When the
//! peer leaves they run on. Only this task writes, each frame with a deadline, so that a peer which does not read delays
//! nothing but its own connection. [`Session::run`] is the entry point; all that its loop waits for is cancel safe.

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
use super::command_log::Asked;
use super::config::NativeLimits;
use super::error::ErrorReply;
use super::executor::{Executor, scope_of};
use super::frame::{self, Request};
use super::reader::{ANONYMOUS_MESSAGE, Message, ReadError, Reader};
use super::subscription::{NativeSubscription, Received};
use crate::broadcasts::Native;
use crate::clock::RETRY_SHORTLY;
use crate::http::auth::authorization::Authorization;
use crate::http::auth::{Auth, AuthError, Caller, Mode, Purpose, Scope};
use crate::http::connections::Connection;
use crate::http::state::AppState;
use crate::protocol::Format;
use crate::shutdown::Shutdown;

/// What is known of a connection when it opens.
#[derive(Debug)]
pub(super) struct ConnectionInfo {
    /// The error answers every command.
    pub(super) instance: Result<Arc<str>, ErrorReply>,
    /// The name in the URL, where no instance of it is served.
    pub(super) missing: Option<Box<str>>,
    /// Of the instance, which may stop by itself; else of the bridge.
    pub(super) shutdown: Shutdown,
    pub(super) format: Format,
    pub(super) address: IpAddr,
    /// The caller of the token in the URL, which may only hear broadcasts.
    pub(super) listener: Option<Caller>,
    /// The URL has a token that is not accepted.
    pub(super) bad_token: bool,
}

pub(super) struct Session {
    state: Arc<AppState>,
    socket: actix_ws::Session,
    reader: Reader,
    /// `None` only in tests without a socket.
    connection: Option<Arc<Connection>>,
    info: ConnectionInfo,
    /// Held until a key is accepted.
    anonymous: Option<AnonymousSlot>,
    _counted: Arc<()>,
    /// Of the last key that was accepted.
    key: Option<Authorization>,
    /// Of the first key or token that may hear broadcasts.
    listener: Option<Authorization>,
    reloads: watch::Receiver<u64>,
    subscription: NativeSubscription,
    /// Commands in progress; each returns the frame that answers it.
    commands: JoinSet<String>,
    last_read: Instant,
    ping_at: Instant,
    /// Nothing is read until then: there is a flood of refused commands.
    paused_until: Option<Instant>,
    /// New commands are refused, and the connection closes once none is in progress.
    draining: bool,
}

enum SessionEvent {
    Message(Option<Result<Message, ReadError>>),
    Answered(Result<String, JoinError>),
    Received(Received),
    PingDue,
    PauseEnded,
    Evicted,
    Draining,
    Reloaded,
    /// A token that the connection depends on.
    Expired,
}

/// Why a connection ends.
enum End {
    /// The peer is gone or does not read, so no close frame is sent.
    Gone(&'static str),
    /// The bridge closes it.
    Close(CloseCode, &'static str),
    /// The peer closes it.
    Closed(Option<CloseReason>),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Gone("gone")
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge => Self::Close(CloseCode::Size, "the message is too large"),
            ReadError::NotText => Self::Close(CloseCode::Invalid, "the text is not UTF-8"),
            ReadError::Protocol => Self::Close(CloseCode::Protocol, "not a WebSocket message"),
            ReadError::Connection => Self::Gone("broken"),
        }
    }
}

impl Session {
    pub(super) fn new(
        state: Arc<AppState>,
        socket: actix_ws::Session,
        reader: Reader,
        connection: Option<Arc<Connection>>,
        info: ConnectionInfo,
        anonymous: Option<AnonymousSlot>,
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + state.config.native.limits.ping_every;
        let commands = JoinSet::new();
        let counted = state.native.count_one();
        let (subscription, paused_until, draining) = (NativeSubscription::Off, None, false);
        let reloads = state.auth.reloads();
        Self {
            state,
            socket,
            reader,
            connection,
            info,
            anonymous,
            _counted: counted,
            key: None,
            listener: None,
            reloads,
            subscription,
            commands,
            last_read: now,
            ping_at,
            paused_until,
            draining,
        }
    }

    /// Serves the connection until it is closed.
    pub(super) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        // A command may have been sent: its outcome has to be recorded.
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
                // Without this the server would wait until the peer has read what was written.
                if let Some(connection) = &self.connection {
                    connection.abort();
                }
                return;
            }
            End::Close(code, why) => Some(CloseReason { code, description: Some(why.to_owned()) }),
            End::Closed(reason) => reason,
        };
        // The connection ends whether or not the peer reads this.
        let _ = timeout(self.state.config.native.limits.write, self.socket.close(reason)).await;
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.greet().await?;
        loop {
            match self.next().await {
                SessionEvent::Message(message) => self.handle_message(message).await?,
                SessionEvent::Answered(answer) => {
                    let lost = |_| frame::error(&ErrorReply::UNKNOWN, self.info.format);
                    let text = answer.unwrap_or_else(lost);
                    self.send(text).await?;
                }
                SessionEvent::Received(Received::Frame(text)) => self.send(text).await?,
                SessionEvent::Received(Received::Overtaken) => return Err(End::Gone("slow")),
                SessionEvent::PingDue => self.ping().await?,
                SessionEvent::PauseEnded => self.paused_until = None,
                SessionEvent::Evicted => return Err(End::Close(CloseCode::Policy, "no key was presented")),
                SessionEvent::Draining => self.draining = true,
                SessionEvent::Reloaded => self.reloaded()?,
                SessionEvent::Expired => self.check_authorizations()?,
            }
            if self.draining && self.commands.is_empty() {
                return Err(End::Close(CloseCode::Away, "shutting down"));
            }
        }
    }

    /// Cancel safe.
    async fn next(&mut self) -> SessionEvent {
        let max_body = self.state.config.max_body;
        let authorizations = [&self.key, &self.listener].into_iter().flatten();
        let expires_at = authorizations.filter_map(Authorization::expires_at).min();
        let most = if self.anonymous.is_some() { ANONYMOUS_MESSAGE.min(max_body) } else { max_body };
        tokio::select! {
            message = self.reader.next(most), if self.paused_until.is_none() => SessionEvent::Message(message),
            () = at(self.paused_until) => SessionEvent::PauseEnded,
            Some(answer) = self.commands.join_next() => SessionEvent::Answered(answer),
            heard = self.subscription.next(self.info.format) => SessionEvent::Received(heard),
            () = evicted(self.anonymous.as_ref()) => SessionEvent::Evicted,
            () = self.info.shutdown.refusing(), if !self.draining => SessionEvent::Draining,
            () = sleep_until(self.ping_at) => SessionEvent::PingDue,
            Ok(()) = self.reloads.changed() => SessionEvent::Reloaded,
            () = at(expires_at) => SessionEvent::Expired,
        }
    }

    /// What is wrong with the URL is said before the first command, as at the gateway.
    async fn greet(&mut self) -> Result<(), End> {
        if let Err(refusal) = &self.info.instance {
            let text = frame::error(refusal, self.info.format);
            return self.send(text).await;
        }
        if self.info.bad_token {
            let text = frame::error(&ErrorReply::WRONG_KEY, self.info.format);
            self.send(text).await?;
            return Err(End::Close(CloseCode::Policy, "the token in the URL must have the scope events and no other"));
        }
        let open = self.state.config.native.hearing == Native::Open || self.state.auth.mode() == Mode::None;
        if let Some(listener) = self.info.listener.clone() {
            self.listener = self.authorization(listener, Some(Scope::Events));
            // The token may have been revoked since it was verified.
            self.check_authorizations()?;
        }
        if open || self.listener.is_some() {
            self.subscribe().await?;
        }
        Ok(())
    }

    fn authorization(&self, caller: Caller, scope: Option<Scope>) -> Option<Authorization> {
        let instance = self.info.instance.as_ref().ok()?;
        Some(Authorization::new(Arc::clone(&self.state.auth), caller, Arc::clone(instance), scope))
    }

    /// After a reload. The keys of an instance that was removed may have gone with it: what is under way on its connections ends
    /// all the same.
    fn reloaded(&mut self) -> Result<(), End> {
        if self.info.shutdown.refuses_new() {
            self.draining = true;
            return Ok(());
        }
        if self.info.missing.as_deref().is_some_and(|name| self.state.bridge.instances().get_by_slug(name).is_some()) {
            return Err(End::Close(CloseCode::Restart, "the instance is served now"));
        }
        self.check_authorizations()
    }

    /// Ends the connection if a key that it depends on was revoked or has expired.
    fn check_authorizations(&mut self) -> Result<(), End> {
        let are_valid = [&mut self.key, &mut self.listener].into_iter().flatten().all(Authorization::is_valid);
        if are_valid { Ok(()) } else { Err(End::Close(CloseCode::Policy, "the token is no longer valid")) }
    }

    /// Subscribes to broadcasts, or tries again after the limit of subscribers refused it.
    async fn subscribe(&mut self) -> Result<(), End> {
        let Ok(instance) = &self.info.instance else { return Ok(()) };
        let Ok(served) = self.state.bridge.instance(instance) else { return Ok(()) };
        let listener = self.listener.as_ref().map_or("-", |authorization| authorization.caller().name());
        match self.subscription.start(served.broadcasts(), listener, self.info.format) {
            Some(missed) => self.send(missed).await,
            None => Ok(()),
        }
    }

    async fn handle_message(&mut self, message: Option<Result<Message, ReadError>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Gone("gone")),
            Some(Err(why)) => return Err(End::from(why)),
            Some(Ok(message)) => message,
        };
        self.last_read = Instant::now();
        match message {
            Message::Text(text) => self.handle_request(&text).await,
            Message::Ping(bytes) => within_limit(&self.state, self.socket.pong(&bytes)).await,
            Message::Pong => Ok(()),
            Message::Close(reason) => Err(End::Closed(reason)),
        }
    }

    async fn handle_request(&mut self, text: &str) -> Result<(), End> {
        let mut asked = Asked::new(self.info.instance.as_ref().ok().cloned(), self.info.address);
        let started = self.start_command(text, &mut asked);
        if self.listener.is_some() && self.subscription.is_off() {
            self.subscribe().await?;
        }
        match started {
            Ok(()) => Ok(()),
            Err(refusal) => {
                asked.answered(Some(&refusal));
                let text = frame::error(&refusal, self.info.format);
                self.send(text).await
            }
        }
    }

    /// Starts a command in a task of its own. The error is the answer where it cannot be started.
    fn start_command(&mut self, text: &str, asked: &mut Asked) -> Result<(), ErrorReply> {
        let (format, instance) = (self.info.format, self.info.instance.clone()?);
        let request = Request::read(text, format)?;
        asked.note_request(&request);
        let caller = authenticate(&self.state.auth, &request, self.info.address, &instance);
        if caller.is_err() {
            self.pause_reading(self.state.auth.throttle().held_back());
        }
        let caller = caller?;
        asked.note_caller(&caller);
        if self.connection.as_ref().is_some_and(|connection| !connection.claim(caller.name())) {
            return Err(ErrorReply::later(&request.command, RETRY_SHORTLY));
        }
        self.anonymous = None;
        self.key = self.authorization(caller.clone(), None);
        if self.listener.is_none() && caller.has(Scope::Events) {
            self.listener = self.authorization(caller.clone(), Some(Scope::Events));
        }
        let scope = scope_of(&request.command);
        if !caller.has(scope) {
            return Err(ErrorReply::WRONG_KEY);
        }
        // Other commands cannot take the places of payments, as with the limits of a caller.
        let (purpose, most) = match scope {
            Scope::Pay => (Purpose::Payment, self.limits().in_flight.saturating_mul(2)),
            _ => (Purpose::Other, self.limits().in_flight),
        };
        if self.draining || self.commands.len() >= most {
            return Err(ErrorReply::later(&request.command, RETRY_SHORTLY));
        }
        // Held until the command has ended.
        let permit = caller.admit(purpose).map_err(|limited| {
            self.pause_reading(limited.held_back);
            ErrorReply::later(&request.command, limited.retry_after)
        })?;
        let deadline = Instant::now() + self.state.config.deadline;
        let executor = Executor { bridge: self.state.bridge.clone(), instance, caller, deadline };
        let asked = asked.clone();
        self.commands.spawn(async move {
            let outcome = executor.execute(request).await;
            drop(permit);
            asked.answered(outcome.as_ref().err());
            match outcome {
                Ok((event, body)) => frame::event(&event, &body, format),
                Err(refusal) => frame::error(&refusal, format),
            }
        });
        Ok(())
    }

    /// Reads nothing for a while. A peer that repeats refused commands could take the whole machine: a refusal costs as
    /// much as an answer.
    fn pause_reading(&mut self, wait: Option<Duration>) {
        self.paused_until = wait.map(|wait| Instant::now() + wait);
    }

    async fn ping(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let limits = self.limits();
        if self.paused_until.is_none() && now.saturating_duration_since(self.last_read) >= limits.silence {
            return Err(End::Gone("silent"));
        }
        self.ping_at = now + limits.ping_every;
        if self.subscription.is_waiting() {
            self.subscribe().await?;
        }
        within_limit(&self.state, self.socket.ping(b"")).await
    }

    async fn send(&mut self, text: impl Into<ByteString>) -> Result<(), End> {
        within_limit(&self.state, self.socket.text(text)).await
    }

    fn limits(&self) -> &NativeLimits {
        &self.state.config.native.limits
    }
}

/// A write with its deadline. A peer that has not made room by then does not read.
async fn within_limit(state: &AppState, write: impl Future<Output = Result<(), Closed>>) -> Result<(), End> {
    timeout(state.config.native.limits.write, write).await.map_err(|_| End::Gone("slow"))?.map_err(End::from)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn evicted(slot: Option<&AnonymousSlot>) {
    match slot {
        Some(slot) => slot.evicted().await,
        None => pending().await,
    }
}

/// The caller of a command, by the key in it.
fn authenticate(auth: &Auth, request: &Request, address: IpAddr, instance: &str) -> Result<Caller, ErrorReply> {
    let key = request.api_key.as_ref().map(ExposeSecret::expose_secret);
    let caller = match (key, auth.mode()) {
        (Some(key), _) => auth.by_token(key, address),
        (None, Mode::None) => auth.by_token("", address),
        (None, Mode::Tokens) => return Err(ErrorReply::NO_KEY),
    };
    match caller {
        Ok(caller) if caller.may_reach(instance) => Ok(caller),
        Ok(_) | Err(AuthError::NoCredential | AuthError::Rejected(_)) => Err(ErrorReply::WRONG_KEY),
        Err(AuthError::Throttled { retry_after }) => Err(ErrorReply::later(&request.command, retry_after)),
    }
}
