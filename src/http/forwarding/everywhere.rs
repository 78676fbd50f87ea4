//! Asks all other replicas what one of them was asked, where the answer is of all of them: the status of the bridge, a shard
//! that is taken out.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::to_bytes_limited;
use actix_web::http::Method;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::body::Body;
use super::client::Peers;
use super::concern::Kind;
use super::entrance::Passed;
use super::pass::{Call, Verdict};
use super::state::Forwarding;
use crate::cluster::{Member, Peer};
use crate::http::auth::request;
use crate::http::middleware::request_id::RequestId;
use crate::http::state::AppState;
use crate::telemetry::traces;

/// How long the others may take: a replica that is away must not make the status wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is taken: the status of some thousand instances.
const LONGEST: usize = 16 * 1024 * 1024;

/// What another replica answered: status and body, or nothing.
pub(crate) struct Other {
    pub(crate) replica: Arc<str>,
    pub(crate) answer: Option<(u16, Bytes)>,
}

/// What each other replica answers to this request with this body; nobody, where it came from one of them.
pub(crate) async fn ask(request: &HttpRequest, method: &Method, body: &Bytes) -> Vec<Other> {
    let state = request.app_data::<Data<AppState>>();
    let forwarding = state.and_then(|state| state.forwarding.as_ref());
    let peers = request.app_data::<Rc<Peers>>();
    let (Some(state), Some(forwarding), Some(peers)) = (state, forwarding, peers) else { return Vec::new() };
    if request.extensions().get::<Passed>().is_some() {
        return Vec::new();
    }
    let me = forwarding.directory().me();
    let others: Vec<Member> =
        forwarding.directory().members().into_iter().filter(|one| Some(one.session) != me).collect();
    let asked = others.into_iter().map(|member| {
        let call = call(request, method, (state, forwarding, peers));
        let body = if body.is_empty() { Body::None } else { Body::Whole(body.clone()) };
        one(call, member, body)
    });
    join_all(asked).await
}

fn call<'a>(
    request: &'a HttpRequest,
    method: &'a Method,
    (state, forwarding, peers): (&AppState, &'a Forwarding, &Rc<Peers>),
) -> Call<'a> {
    Call {
        forwarding,
        peers: Rc::clone(peers),
        request,
        method,
        instance: "",
        kind: Kind::Repeatable,
        address: request::address(request, state),
        request_id: request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        trace: traces::header_of_current(),
        deadline: Instant::now() + PATIENCE,
        came: None,
        is_given_up: false,
        is_read_here: true,
        upgraded: Cell::new(None),
        is_served_here: Box::new(|| false),
        may_act_here: Box::new(|| false),
    }
}

async fn one(call: Call<'_>, member: Member, body: Body) -> Other {
    let Member { session, name, address, .. } = member;
    let peer = Peer { session, name: Arc::clone(&name), address, epoch: 0 };
    let answer = match call.ask(&peer, &mut Some(body)).await {
        Ok(Verdict::Answered(answer, _)) => {
            let status = answer.status().as_u16();
            let body = timeout_at(call.deadline, to_bytes_limited(answer.into_body(), LONGEST)).await;
            body.ok().and_then(Result::ok).and_then(Result::ok).map(|body| (status, body))
        }
        Ok(_) => None,
        Err(failed) => {
            call.may_be_done(&peer, &failed);
            None
        }
    };
    Other { replica: name, answer }
}
