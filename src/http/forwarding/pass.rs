//! Passes one request on: to which replica, how often, and what is said where no answer comes.
//!
//! - A request goes to the owner that the directory names. While none is known it waits, within its deadline and in bounded
//!   number.
//! - What was provably not sent, or what the other replica says it did not begin, may go elsewhere. What may have been done is
//!   asked again only if its [`Kind`] allows that: never a payment, never a raw command.
//! - What this replica did not begin for want of a valid lease waits for the next owner, or until this one may act again: then
//!   it is asked like any other owner.
//! - A request that came from another replica goes on only to an owner of a higher epoch, a bounded number of times, and
//!   waits for none: so it goes in no circle.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::answer;
use super::body::Body;
use super::client::{self, Lent, Peers, Reply};
use super::concern::Kind;
use super::fields;
use super::metrics::{InFlight, Outcome};
use super::proof::{self, Sealed};
use super::state::Forwarding;
use super::tunnel;
use crate::cluster::{Peer, Route};
use crate::http::problem::{Problem, table};
use crate::http::upgrade;

/// How often a request is passed on at all, by one replica after the other.
const MAX_HOPS: u8 = 2;

/// How often one replica tries for one request.
const MAX_TRIES: u32 = 32;

/// The first pause before an owner that did not take a request is asked again, unless another becomes known. It doubles, up to
/// the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is kept of the deadline for the way back: the owner answers within the rest.
const WAY_BACK: Duration = Duration::from_millis(100);

/// How long a stream or a native connection waits for an owner: its client comes back by itself.
const LONG_PATIENCE: Duration = Duration::from_secs(1);

/// How long a replica that became the owner just now may take until it serves.
const BEGINNING: Duration = Duration::from_secs(5);

/// How often it is looked whether it does.
const LOOK: Duration = Duration::from_millis(10);

/// When a caller is to come back, in milliseconds: not all at once.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1000..=3000;

/// A request to be passed on.
pub(super) struct Call<'a> {
    pub(super) forwarding: &'a Forwarding,
    pub(super) peers: Rc<Peers>,
    pub(super) request: &'a HttpRequest,
    /// As the caller sent it: the server turns `HEAD` into `GET`.
    pub(super) method: &'a Method,
    pub(super) instance: &'a str,
    pub(super) kind: Kind,
    pub(super) address: IpAddr,
    pub(super) request_id: String,
    /// The header `traceparent` of this replica's own span.
    pub(super) trace: Option<String>,
    pub(super) deadline: Instant,
    /// The epoch and the hops of a request that another replica passed on.
    pub(super) came: Option<(i64, u8)>,
    /// Served here until just now, and no longer.
    pub(super) is_given_up: bool,
    /// Its answer is not passed back as it is.
    pub(super) is_read_here: bool,
    /// What comes on the connection once it speaks another protocol.
    pub(super) upgraded: Cell<Option<Payload>>,
    pub(super) is_served_here: Box<dyn Fn() -> bool + 'a>,
    /// Whether this replica may act for the instance now.
    pub(super) may_act_here: Box<dyn Fn() -> bool + 'a>,
}

/// What is told of a request that was passed on.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The caller, as the owner knows it.
    pub(crate) caller: Option<String>,
    pub(crate) replica: Arc<str>,
}

/// What becomes of a request.
pub(super) enum Verdict {
    Answered(HttpResponse, Told),
    /// It is for the router after all.
    Route,
    Refused(Problem),
    /// Nobody serves its instance now.
    Unowned,
}

/// Why an owner gave no answer that counts.
pub(super) enum Failed {
    /// It may go elsewhere.
    NotBegun(String),
    NoAnswer(String),
    /// One of both, on a connection that had been kept, and may have been closed before the request came.
    OnKept(Box<Failed>),
}

impl Call<'_> {
    /// Passes it on. `body` is left empty once it was sent and cannot be sent again.
    pub(super) async fn pass_on(&self, body: &mut Option<Body>) -> Verdict {
        let (until, directory) = (self.patience(), self.forwarding.directory());
        let (mut waiting, mut pause) = (None, FIRST_PAUSE);
        let (given_up, mut may_be_done) = (self.given_up_epoch(), false);
        let mut asked = given_up;
        for _ in 0..MAX_TRIES {
            let owner = match directory.route(self.instance) {
                Route::Here(epoch) if given_up == Some(epoch) => self.this_replica(epoch),
                Route::Here(epoch) => {
                    if waiting.is_none() {
                        let Some(place) = self.place() else { return Verdict::Refused(overloaded()) };
                        waiting = Some(place);
                    }
                    match self.begun_here(epoch, until).await {
                        Some(verdict) => return verdict,
                        None => continue,
                    }
                }
                Route::Other(peer) if !self.may_go_to(peer.epoch) => return Verdict::Unowned,
                Route::Other(peer) => Some(peer),
                Route::Nobody if self.kind == Kind::Record => return Verdict::Route,
                Route::Unknown if directory.is_read() => return Verdict::Route,
                Route::Nobody | Route::Unknown => None,
            };
            if let Some(peer) = owner {
                asked = Some(peer.epoch);
                match self.ask(&peer, body).await {
                    Ok(verdict) => return verdict,
                    Err(failed) => may_be_done |= self.may_be_done(&peer, &failed),
                }
                if may_be_done && !(self.kind.may_repeat() && body.is_some()) {
                    return Verdict::Refused(no_answer(self.kind));
                }
            }
            if self.came.is_some() || body.is_none() || Instant::now() >= until {
                break;
            }
            if waiting.is_none() {
                let Some(place) = self.place() else { return Verdict::Refused(overloaded()) };
                waiting = Some(place);
            }
            let next = Instant::now() + pause.mul_f64(1.0 - fastrand::f64() / 4.0);
            directory.newer(self.instance, asked.unwrap_or(i64::MIN), until.min(next)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if may_be_done { Verdict::Refused(no_answer(self.kind)) } else { Verdict::Unowned }
    }

    /// Until when an owner is waited for.
    fn patience(&self) -> Instant {
        let most = self.deadline.checked_sub(2 * WAY_BACK).unwrap_or(self.deadline);
        if self.kind.is_long() { most.min(Instant::now() + LONG_PATIENCE) } else { most }
    }

    /// The epoch in which it was served here, where it was until just now.
    fn given_up_epoch(&self) -> Option<i64> {
        match self.forwarding.directory().route(self.instance) {
            Route::Here(epoch) if self.is_given_up => Some(epoch),
            _ => None,
        }
    }

    /// This replica as an owner that is asked, once it may act again.
    fn this_replica(&self, epoch: i64) -> Option<Peer> {
        let may_be_asked = self.may_go_to(epoch) && (self.may_act_here)();
        may_be_asked.then(|| self.forwarding.this_replica(epoch))?
    }

    fn may_go_to(&self, epoch: i64) -> bool {
        self.came.is_none_or(|(came_for, hops)| epoch > came_for && hops < MAX_HOPS)
    }

    fn place(&self) -> Option<Waiting<'_>> {
        let permit = self.forwarding.waiting().try_acquire().ok()?;
        self.forwarding.metrics().waiting.fetch_add(1, Ordering::Relaxed);
        Some(Waiting { forwarding: self.forwarding, _permit: permit })
    }

    /// This replica is the owner, and may be about to serve; or it has given the instance up, and the next owner is not read
    /// yet. None once it is no longer the owner.
    async fn begun_here(&self, epoch: i64, until: Instant) -> Option<Verdict> {
        let until = until.min(Instant::now() + BEGINNING);
        while !(self.is_served_here)() {
            if self.forwarding.directory().route(self.instance) != Route::Here(epoch) {
                return None;
            }
            if Instant::now() >= until {
                return Some(Verdict::Unowned);
            }
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        Some(Verdict::Route)
    }

    /// Asks one owner, a second time where a connection that had been kept turned out to be closed.
    pub(super) async fn ask(&self, peer: &Peer, body: &mut Option<Body>) -> Result<Verdict, Failed> {
        match self.ask_once(peer, body, false).await {
            Err(Failed::OnKept(failed)) => {
                let may_repeat = self.kind.may_repeat() || matches!(*failed, Failed::NotBegun(_));
                if may_repeat && body.is_some() { self.ask_once(peer, body, true).await } else { Err(*failed) }
            }
            ended => ended,
        }
    }

    async fn ask_once(&self, peer: &Peer, body: &mut Option<Body>, is_new: bool) -> Result<Verdict, Failed> {
        let mut in_flight = self.forwarding.metrics().begin(&peer.name);
        let lent = self.peers.lend(&peer.address, (self.kind.is_long(), is_new), self.deadline).await;
        let sealed = self.sealed(peer);
        let (lent, sealed) = lent.and_then(|lent| Ok((lent, sealed?))).map_err(|why| {
            in_flight.ended(Outcome::NotSent);
            Failed::NotBegun(why)
        })?;
        let Some(sent) = body.as_ref().and_then(Body::copy).or_else(|| body.take()) else {
            return Err(Failed::NotBegun("its body was sent already".to_owned()));
        };
        let request = self.message(peer, &sealed.text, sent).map_err(Failed::NotBegun)?;
        match lent.send(request, self.deadline).await {
            Reply::Answered(answer, lent) => self.judge(peer, &sealed, (answer, lent, in_flight)).await,
            Reply::NotSent { unsent, why, was_kept } => {
                in_flight.ended(Outcome::NotSent);
                *body = Some(unsent);
                Err(Failed::NotBegun(why).on(was_kept))
            }
            Reply::NoAnswer { why, was_kept } => {
                in_flight.ended(Outcome::NoAnswer);
                Err(Failed::NoAnswer(why).on(was_kept))
            }
        }
    }

    fn sealed(&self, peer: &Peer) -> Result<Sealed, String> {
        let left = self.deadline.saturating_duration_since(Instant::now()).saturating_sub(WAY_BACK);
        let hops = self.came.map_or(1, |(_, hops)| hops.saturating_add(1));
        let ticket = self.forwarding.ticket(&peer.address, (peer.epoch, hops), left, self.address)?;
        Ok(ticket.seal(self.forwarding.key(), self.method.as_str(), self.target()))
    }

    /// An answer whose head has come.
    async fn judge(
        &self,
        peer: &Peer,
        sealed: &Sealed,
        (answer, lent, mut in_flight): (Response<Incoming>, Lent, InFlight),
    ) -> Result<Verdict, Failed> {
        let Some(said) = client::said(self.forwarding, sealed, &answer) else {
            in_flight.ended(Outcome::NoAnswer);
            self.forwarding.metrics().unproved.inc();
            return Err(Failed::NoAnswer("its answer does not prove that it knows the cluster's secret".to_owned()));
        };
        if !said.is_served {
            in_flight.ended(Outcome::Elsewhere);
            return Err(Failed::NotBegun("it does not serve the instance".to_owned()));
        }
        let told = Told { caller: said.caller, replica: Arc::clone(&peer.name) };
        let passed = if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            in_flight.ended(Outcome::Answered);
            let payload = self.upgraded.take().ok_or_else(|| Failed::NoAnswer("it changed the protocol".to_owned()))?;
            tunnel::joined(answer, payload, (lent, in_flight)).await
        } else {
            answer::passed_back(answer, (self.method, lent, in_flight), self.deadline).await
        };
        passed.map(|answer| Verdict::Answered(answer, told)).map_err(Failed::NoAnswer)
    }

    fn target(&self) -> &str {
        self.request.uri().path_and_query().map_or("/", |target| target.as_str())
    }

    /// The request as it is sent.
    fn message(&self, peer: &Peer, sealed: &str, body: Body) -> Result<Request<Body>, String> {
        let request = Request::builder().method(self.method.as_str()).uri(self.target());
        let mut request = request.body(body).map_err(|fault| fault.to_string())?;
        let headers = request.headers_mut();
        *headers = fields::of_request(self.request.headers());
        if !headers.contains_key("host") {
            fields::append(headers, "host", peer.address.as_bytes());
        }
        if upgrade::is_asked(self.request.headers()) {
            fields::append(headers, "connection", b"upgrade");
            fields::append(headers, "upgrade", b"websocket");
        }
        if self.is_read_here {
            headers.remove("accept-encoding");
        }
        fields::append(headers, "x-request-id", self.request_id.as_bytes());
        if let Some(trace) = &self.trace {
            headers.remove("traceparent");
            fields::append(headers, "traceparent", trace.as_bytes());
        }
        fields::append(headers, proof::FIELD.as_str(), sealed.as_bytes());
        Ok(request)
    }

    /// Whether a failed request may have been done all the same. Tells of it.
    pub(super) fn may_be_done(&self, peer: &Peer, failed: &Failed) -> bool {
        let (why, may_be_done) = failed.told();
        let (replica, address, request_id) = (&*peer.name, &*peer.address, &*self.request_id);
        if self.forwarding.may_warn() {
            tracing::warn!(replica, address, request_id, may_be_done, why, "a request was passed on and not answered");
        } else {
            tracing::debug!(replica, address, request_id, may_be_done, why, "a request was passed on and not answered");
        }
        may_be_done
    }
}

impl Failed {
    fn on(self, was_kept: bool) -> Self {
        if was_kept { Self::OnKept(Box::new(self)) } else { self }
    }

    /// For people, and whether the request may have been done.
    fn told(&self) -> (&str, bool) {
        match self {
            Self::NotBegun(why) => (why, false),
            Self::NoAnswer(why) => (why, true),
            Self::OnKept(failed) => failed.told(),
        }
    }
}

/// A request that waits for an owner.
struct Waiting<'a> {
    forwarding: &'a Forwarding,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.forwarding.metrics().waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn shortly() -> Duration {
    Duration::from_millis(fastrand::u64(RETRY_MS))
}

/// Nobody serves the instance, and nothing was begun.
pub(super) fn unowned() -> Problem {
    Problem::new(&table::INSTANCE_UNAVAILABLE).retry_after(shortly())
}

fn overloaded() -> Problem {
    let detail = "Too many requests wait for a replica that serves this instance. Nothing was sent.";
    Problem::new(&table::OVERLOADED).detail(detail).retry_after(shortly())
}

/// It was passed on, and what became of it is not known.
fn no_answer(kind: Kind) -> Problem {
    match kind {
        Kind::Payment => Problem::new(&table::PAYMENT_OUTCOME_UNKNOWN).detail(
            "The payment was passed on to the replica that serves this instance, and no answer came that says whether it was \
             booked. Repeat it with the same key to learn that.",
        ),
        Kind::Raw => Problem::new(&table::GATEWAY_TIMEOUT)
            .detail(
                "The command was passed on to the replica that serves this instance, and no answer came. Whether it took \
                 effect is not known.",
            )
            .not_retryable(),
        _ => Problem::new(&table::GATEWAY_TIMEOUT)
            .detail("The request was passed on to the replica that serves this instance, and no answer came in time."),
    }
}
