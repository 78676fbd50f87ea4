//! A call: what every route under `/v1` needs to know of a request before it does anything.
//!
//! Taking a [`Call`] means that an answer in JSON is acceptable and that the caller is known. What the caller may do is
//! asked by the route, since only it knows its scope; nothing of the body is read before.

use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload as RawPayload;
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::{Data, Payload, Query};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse};
use tokio::time::Instant;

use super::answer::POS_PASSWORD;
use super::auth::{Caller, Mode, Purpose, RequestPermit, Scope, local};
use super::body::{self, Empty};
use super::caching;
use super::client;
use super::connections::Connection;
use super::integer;
use super::negotiate;
use super::problem::{Fault, Problem, table};
use super::rate_limit;
use super::server::Shared;
use crate::clock::RETRY_SHORTLY;
use crate::protocol::{Parameters, Spec};

/// When the request arrived; set at the edge, and what its deadline counts from.
#[derive(Debug, Clone, Copy)]
pub struct Arrival(pub Instant);

/// Until when the refusal of a request is held back, since it is one of a flood.
#[derive(Debug, Clone, Copy)]
pub struct HeldBack(pub Instant);

/// Who sent a request, and the place that it takes.
#[derive(Debug)]
pub struct Admitted {
    /// Who sent it.
    pub caller: Caller,
    /// What it takes of the caller's allowance; none for a caller without limits, or one that has used its up.
    pub permit: Option<RequestPermit>,
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut RawPayload) -> Self::Future {
        ready(authenticate(request))
    }
}

/// The caller of a request, noted for the log, with a place for it that is held until its answer has ended.
pub fn authenticate(request: &HttpRequest) -> Result<Caller, Problem> {
    let admitted = examine(request)?;
    let caller = admitted.caller.clone();
    request.extensions_mut().insert(admitted);
    // After the caller is known: strangers are told of nothing else.
    shared(request)?.queries.check(request)?;
    Ok(caller)
}

/// The caller of a request and its place, noted only where it is refused one: the log names also whom it refuses.
pub fn examine(request: &HttpRequest) -> Result<Admitted, Problem> {
    let shared = shared(request)?;
    if shared.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &shared.config.cors_origins)?;
    }
    let address = address(request, shared);
    let caller = shared.auth.by_header(request.headers(), address).inspect_err(|_| {
        hold_back(request, shared.auth.throttle().held_back());
    })?;
    note_connection(request, &caller)?;
    admit(request, caller)
}

/// Notes whose the connection of a request is, or refuses a caller that has as many as one may have.
fn note_connection(request: &HttpRequest, caller: &Caller) -> Result<(), Problem> {
    let connection = request.conn_data::<Arc<Connection>>();
    if connection.is_none_or(|connection| connection.is_of(caller.name())) {
        return Ok(());
    }
    let detail = "This token has as many connections as one may have, and none of them is idle.";
    Err(Problem::new(&table::CALLER_LIMITED).detail(detail).retry_after(RETRY_SHORTLY))
}

/// Takes a place for a caller's request.
fn admit(request: &HttpRequest, caller: Caller) -> Result<Admitted, Problem> {
    match caller.admit(purpose(request)) {
        Ok(permit) => Ok(Admitted { caller, permit }),
        Err(limited) => {
            request.extensions_mut().insert(Admitted { caller, permit: None });
            hold_back(request, limited.held_back);
            Err(limited.into())
        }
    }
}

/// What a request wants a place for, before it is known whether it may.
fn purpose(request: &HttpRequest) -> Purpose {
    let path = request.path();
    let is_payment =
        *request.method() == Method::POST && path.ends_with("/payments") && path.contains("/points-of-sale/");
    if is_payment { Purpose::Payment } else { Purpose::Other }
}

fn hold_back(request: &HttpRequest, wait: Option<Duration>) {
    if let Some(wait) = wait {
        request.extensions_mut().insert(HeldBack(Instant::now() + wait));
    }
}

/// The caller of a stream: by the header, or by a token in the query, since a browser's `EventSource` sets none.
/// Queries end up in logs and histories, so only a token that can do nothing but listen is taken from one.
fn listener(request: &HttpRequest) -> Result<Caller, Problem> {
    let shared = shared(request)?;
    let address = address(request, shared);
    if shared.auth.mode() == Mode::None {
        local::guard(request.uri(), request.headers(), &shared.config.cors_origins)?;
        return shared.auth.by_header(request.headers(), address);
    }
    let stranger = || hold_back(request, shared.auth.throttle().held_back());
    let Some(token) = query(request, "access_token")? else {
        return shared.auth.by_header(request.headers(), address).inspect_err(|_| stranger());
    };
    if request.headers().contains_key(AUTHORIZATION) {
        let detail = "A token is given twice, in the header and in the query.";
        return Err(Problem::new(&table::INVALID_REQUEST).detail(detail));
    }
    let caller = shared.auth.by_token(&token, address).inspect_err(|_| stranger())?;
    if !caller.scopes().eq([Scope::Events]) {
        let detail = "In the query only a token is taken whose sole scope is `events`.";
        return Err(Problem::new(&table::FORBIDDEN).detail(detail));
    }
    Ok(caller)
}

/// Whom to hold to account for a request.
#[must_use]
pub fn address(request: &HttpRequest, shared: &Shared) -> IpAddr {
    // Only a test has no peer.
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let trusted = &shared.config.trusted_proxies;
    shared.untrusted.look(peer, request.headers(), trusted);
    client::address(peer, request.headers(), trusted)
}

fn shared(request: &HttpRequest) -> Result<&Data<Shared>, Problem> {
    request.app_data::<Data<Shared>>().ok_or_else(|| Problem::new(&table::INTERNAL_ERROR))
}

/// A request under `/v1/instances/{instance}` by a known caller.
#[derive(Debug, Clone)]
pub struct Call {
    request: HttpRequest,
    shared: Data<Shared>,
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
        Self::by(authenticate(request)?, request, "application/json")
    }

    /// A request for a stream, whose caller may be named in the query, and whether that caller is within what it may ask.
    pub fn for_stream(request: &HttpRequest, media_type: &str) -> Result<(Self, bool), Problem> {
        let caller = listener(request)?;
        let admitted = note_connection(request, &caller).and_then(|()| admit(request, caller.clone()));
        let admitted = admitted.map(|admitted| drop(request.extensions_mut().insert(admitted))).is_ok();
        shared(request)?.queries.check(request)?;
        Ok((Self::by(caller, request, media_type)?, admitted))
    }

    fn by(caller: Caller, request: &HttpRequest, media_type: &str) -> Result<Self, Problem> {
        if !negotiate::accepts(request.headers(), media_type) {
            return Err(Problem::new(&table::NOT_ACCEPTABLE));
        }
        let shared = shared(request)?.clone();
        let arrival = request.extensions().get::<Arrival>().map_or_else(Instant::now, |arrival| arrival.0);
        let deadline = arrival + shared.config.deadline;
        let instance = segment(request, "instance").to_owned();
        Ok(Self { request: request.clone(), shared, caller, instance, deadline })
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
    pub fn shared(&self) -> &Shared {
        &self.shared
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

    /// Refuses a caller who may not do this here.
    pub fn permit(&self, scope: Scope) -> Result<(), Problem> {
        self.caller.permit(&self.instance, scope)
    }

    /// One segment of the path, decoded.
    #[must_use]
    pub fn segment(&self, name: &str) -> &str {
        segment(&self.request, name)
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
        let parameters = agree(parameters, "POSID", &self.pos_id()?.into())?;
        match self.pos_password()? {
            Some(password) => agree(parameters, "posPassword", &password.into()),
            None => Ok(parameters),
        }
    }

    /// The one value of `name` in the query.
    pub fn query(&self, name: &str) -> Result<Option<String>, Problem> {
        query(&self.request, name)
    }

    /// The one JSON object of the body.
    pub async fn object(&self, payload: Payload, empty: Empty) -> Result<Parameters, Problem> {
        let limits = (self.shared.config.max_body, self.deadline);
        body::object(self.request.headers(), payload, limits, empty).await
    }

    /// Asks a read of the bridge and answers with its reply.
    pub async fn read(&self, spec: &'static Spec, parameters: Parameters) -> Result<HttpResponse, Problem> {
        let (bridge, headers) = (&self.shared.bridge, self.request.headers());
        let (turn, wish) = (self.caller.name(), caching::wish(headers));
        let served = bridge.read(&self.instance, spec, parameters, turn, wish, self.deadline).await;
        match served {
            // Only an answer that touched the budget speaks of it.
            Ok(served) if served.status.forward.is_none() => Ok(caching::answer(served)),
            served => {
                let answer = served.map(caching::answer).map_err(Problem::from);
                self.with_budget(spec.name, answer)
            }
        }
    }

    /// What came of a command that was asked for, with what is left of its budget.
    pub fn with_budget(&self, command: &str, outcome: Result<HttpResponse, Problem>) -> Result<HttpResponse, Problem> {
        rate_limit::told(outcome, command, self.shared.bridge.quota(&self.instance, command))
    }
}

/// Sets `name` to what the path or a header says. A body that says otherwise is refused, not overruled: one of the two
/// is a mistake, and which one only the caller knows. `null` says nothing: tills send it where they know no password.
pub fn agree(body: Parameters, name: &str, value: &serde_json::Value) -> Result<Parameters, Problem> {
    let same = body.get(name).is_none_or(|given| match value.as_i64() {
        _ if given.get() == "null" => true,
        Some(number) => integer::of_json(given.get()) == Ok(number),
        None => serde_json::from_str::<serde_json::Value>(given.get()).is_ok_and(|given| given == *value),
    });
    if same {
        return Ok(body.with(name, value));
    }
    Err(Problem::new(&table::INVALID_REQUEST)
        .detail(format!("`{name}` in the body contradicts the path or the header."))
        .errors(vec![Fault::new(format!("/{name}"), "contradicts the path or the header")]))
}

/// The one value of `name` in the query. Given twice it is refused: which was meant is not known.
pub fn query(request: &HttpRequest, name: &str) -> Result<Option<String>, Problem> {
    let mut given = pairs(request)?.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value);
    match (given.next(), given.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => {
            Err(Problem::new(&table::INVALID_REQUEST).detail(format!("`{name}` is given twice in the query.")))
        }
    }
}

/// Names and values of the query.
pub fn pairs(request: &HttpRequest) -> Result<Vec<(String, String)>, Problem> {
    let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string());
    pairs.map(Query::into_inner).map_err(|_| Problem::new(&table::INVALID_REQUEST).detail("The query is malformed."))
}

/// The router has decoded the segment but for `%25`, `%2B` and `%2F`, which stand in no name used here and so match
/// nothing.
fn segment<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().get(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use serde_json::json;

    use super::*;

    fn merged(body: &str, value: &serde_json::Value) -> Result<String, &'static str> {
        let body = Parameters::parse(body.as_bytes()).unwrap();
        match agree(body, "POSID", value) {
            Ok(parameters) => Ok(serde_json::to_string(&parameters).unwrap()),
            Err(problem) => Err(problem.entry().code),
        }
    }

    #[test]
    fn the_path_is_put_into_the_body_and_a_body_that_says_otherwise_is_refused() {
        assert_eq!(merged("{}", &json!(7)).unwrap(), r#"{"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":"7","x":1.10}"#, &json!(7)).unwrap(), r#"{"x":1.10,"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":8}"#, &json!(7)), Err("invalid-request"));
        assert_eq!(merged(r#"{"POSID":null}"#, &json!(7)).unwrap(), r#"{"POSID":7}"#);
        assert_eq!(merged(r#"{"POSID":[7]}"#, &json!(7)), Err("invalid-request"));
        assert_eq!(merged(r#"{"POSID":"a"}"#, &json!("a")).unwrap(), r#"{"POSID":"a"}"#);
        assert_eq!(merged(r#"{"POSID":"b"}"#, &json!("a")), Err("invalid-request"));
    }

    #[test]
    fn a_name_in_the_query_has_one_value_or_none() {
        let ask = |uri: &str| query(&TestRequest::with_uri(uri).to_http_request(), "reply");
        assert_eq!(ask("/?x=1").unwrap(), None);
        assert_eq!(ask("/?reply=a%20b").unwrap().as_deref(), Some("a b"));
        assert_eq!(ask("/?reply=a&reply=a").unwrap_err().entry().code, "invalid-request");
    }
}
