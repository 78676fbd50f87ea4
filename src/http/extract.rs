//! The extractor of every route under `/v1`: what a route needs to know of a request before it does anything.
//!
//! Taking a [`Call`] means that an answer in JSON is acceptable and that the caller is known. The route itself asks
//! [`Call::permit`], since only it knows its scope, and reads the body after that.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload as RawPayload;
use actix_web::web::{Data, Payload};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse};
use tokio::time::Instant;

use crate::bridge::{Instance, Patience};
use crate::http::auth::request::{self as auth, Arrival};
use crate::http::auth::{Caller, Scope};
use crate::http::problem::{Problem, table};
use crate::http::request::body::{self, Empty};
use crate::http::request::{accept, cache_control, integer, params, prefer};
use crate::http::response::reply::POS_PASSWORD;
use crate::http::response::{cached, preference_applied, rate_limit_fields};
use crate::http::state::AppState;
use crate::protocol::{Parameters, Spec};

/// The media type of answers, where nothing else is said.
const JSON: &str = "application/json";

/// A request under `/v1/instances/{instance}` by a known caller.
#[derive(Debug, Clone)]
pub struct Call {
    request: HttpRequest,
    state: Data<AppState>,
    caller: Caller,
    instance: String,
    deadline: Instant,
}

impl FromRequest for Call {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut RawPayload) -> Self::Future {
        ready(Self::new(request))
    }
}

impl Call {
    fn new(request: &HttpRequest) -> Result<Self, Problem> {
        Self::in_any_of(request, &[JSON])
    }

    /// A request whose answer may have one of several media types: `Accept` decides which.
    pub fn in_any_of(request: &HttpRequest, media_types: &[&str]) -> Result<Self, Problem> {
        Self::by(auth::authenticate(request)?, request, media_types)
    }

    /// A request for a stream, whose caller may be named in the query, and whether that caller is within what it may ask.
    pub fn for_stream(request: &HttpRequest, media_type: &str) -> Result<(Self, bool), Problem> {
        let (caller, admitted) = auth::authenticate_stream(request)?;
        Ok((Self::by(caller, request, &[media_type])?, admitted))
    }

    fn by(caller: Caller, request: &HttpRequest, media_types: &[&str]) -> Result<Self, Problem> {
        if !media_types.iter().any(|media_type| accept::accepts(request.headers(), media_type)) {
            return Err(Problem::new(&table::NOT_ACCEPTABLE));
        }
        let state = AppState::of(request)?.clone();
        let arrival = request.extensions().get::<Arrival>().map_or_else(Instant::now, |arrival| arrival.0);
        let deadline = arrival + state.config.deadline;
        let instance = params::segment(request, "instance").to_owned();
        Ok(Self { request: request.clone(), state, caller, instance, deadline })
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The instance in the path. Whether it is configured only the bridge knows.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// What all requests share.
    #[must_use]
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// The request itself.
    #[must_use]
    pub fn request(&self) -> &HttpRequest {
        &self.request
    }

    /// When the answer is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// For how long the caller prefers to wait (RFC 7240), in whole seconds and no longer than the answer may take.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let most = self.state.config.deadline.as_secs();
        prefer::wait(self.request.headers()).map(|seconds| Duration::from_secs(seconds.min(most)))
    }

    /// When it is over, if it begins with the request.
    #[must_use]
    pub fn end_of(&self, wait: Duration) -> Instant {
        // The deadline counts from there too.
        self.deadline - self.state.config.deadline + wait
    }

    /// Refuses a caller who may not do this here.
    pub fn permit(&self, scope: Scope) -> Result<(), Problem> {
        self.caller.permit(&self.instance, scope)
    }

    /// One segment of the path, decoded.
    #[must_use]
    pub fn segment(&self, name: &str) -> &str {
        params::segment(&self.request, name)
    }

    /// The point of sale in the path.
    pub fn pos_id(&self) -> Result<i64, Problem> {
        integer::of_digits(self.segment("pos_id"))
            .map_err(|why| Problem::new(&table::INVALID_REQUEST).detail(format!("`pos_id` in the path {why}.")))
    }

    /// The password given as a header, which may hold any UTF-8.
    pub fn pos_password(&self) -> Result<Option<String>, Problem> {
        let mut given = self.request.headers().get_all(POS_PASSWORD);
        let refuse = |detail| Err(Problem::new(&table::INVALID_REQUEST).detail(detail));
        match (given.next(), given.next()) {
            (None, _) => Ok(None),
            (Some(header), None) => match std::str::from_utf8(header.as_bytes()) {
                Ok(password) => Ok(Some(password.to_owned())),
                Err(_) => refuse("`X-POS-Password` is not UTF-8."),
            },
            (Some(_), Some(_)) => refuse("`X-POS-Password` is given twice."),
        }
    }

    /// A command's parameters with the point of sale of the path and the password of the header in them.
    pub fn for_point_of_sale(&self, parameters: Parameters) -> Result<Parameters, Problem> {
        let parameters = body::with_member(parameters, "POSID", &self.pos_id()?.into())?;
        match self.pos_password()? {
            Some(password) => body::with_member(parameters, "posPassword", &password.into()),
            None => Ok(parameters),
        }
    }

    /// The one value of `name` in the query.
    pub fn query(&self, name: &str) -> Result<Option<String>, Problem> {
        params::query(&self.request, name)
    }

    /// The one JSON object of the body.
    pub async fn object(&self, payload: Payload, empty: Empty) -> Result<Parameters, Problem> {
        let limits = (self.state.config.max_body, self.deadline);
        body::object(self.request.headers(), payload, limits, empty).await
    }

    /// The instance that the path names.
    pub fn served(&self) -> Result<Arc<Instance>, Problem> {
        Ok(self.state.bridge.instance(&self.instance)?)
    }

    /// Asks a read of the bridge and answers with its reply.
    pub async fn read(&self, spec: &'static Spec, parameters: Parameters) -> Result<HttpResponse, Problem> {
        let (instance, headers) = (self.served()?, self.request.headers());
        let (turn, directives) = (self.caller.name(), cache_control::directives(headers));
        let wait = self.wait();
        let patience = Patience { deadline: self.deadline, for_points: wait };
        let outcome = instance.read(spec, parameters, turn, directives, patience).await;
        let answer = cached::answer_to_read(&instance, spec, outcome);
        match wait {
            Some(wait) => preference_applied::add_wait_to(answer, wait),
            None => answer,
        }
    }

    /// What came of a command that was asked for, with what is left of its budget.
    pub fn with_budget(&self, command: &str, outcome: Result<HttpResponse, Problem>) -> Result<HttpResponse, Problem> {
        rate_limit_fields::add_to(outcome, command, self.served().ok().map(|instance| instance.quota(command)))
    }
}
