//! The bridge itself: what its operator sees of it, and what is steered by hand.

use actix_web::http::Method;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, get, put, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use crate::clock::RETRY_SHORTLY;
use crate::http::auth::Scope;
use crate::http::extract::Call;
use crate::http::forwarding::everywhere;
use crate::http::problem::{FieldError, Problem, table};
use crate::http::request::body::{self, Empty};
use crate::http::routes::parameters::InInstance;
use crate::http::views::bridge::{BridgeView, WindowView};
use crate::http::views::merged::merged;
use crate::protocol::Parameters;

/// The shard in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InShard {
    /// The name of the shard, as the bridge's status lists it.
    #[param(example = "exon")]
    pub shard: String,
}

/// Whether a shard is taken out by hand.
#[derive(Debug, ToSchema)]
pub struct Cordon {
    /// `true` takes it out, `false` puts it back.
    pub cordoned: bool,
}

impl Cordon {
    fn read(body: &Parameters) -> Result<Self, FieldError> {
        body::member(body, "cordoned", "true or false").map(|cordoned| Self { cordoned })
    }
}

/// A shard as it stands now.
#[derive(Debug, Serialize, ToSchema)]
pub struct CordonedShard {
    /// Its name.
    #[schema(example = "exon")]
    pub shard: String,
    /// Whether it is taken out by hand.
    pub cordoned: bool,
}

/// Status of the bridge
///
/// What needs attention, in words; shards and their links, budgets, copies, payments by state and subscribers, as they are at this moment. Instances
/// that the token may not use are left out, and then so is what is told of all instances together.
#[utoipa::path(tag = "Operations", operation_id = "getBridge",
    responses((status = 200, description = "The bridge at this moment.", body = BridgeView)))]
#[get("/v1/bridge")]
pub(super) async fn get_bridge(call: Call) -> Result<HttpResponse, Problem> {
    call.caller().require(Scope::Operate)?;
    let status = call.state().overview(|instance| call.caller().may_reach(instance)).await;
    let others = everywhere::ask(call.request(), &Method::GET, &Bytes::new()).await;
    let others = others.into_iter().filter_map(|other| other.answer.filter(|(status, _)| *status == 200));
    let others: Vec<Value> = others.filter_map(|(_, body)| serde_json::from_slice(&body).ok()).collect();
    let mut answer = HttpResponse::Ok();
    answer.insert_header((CACHE_CONTROL, "no-store"));
    let view = BridgeView::from(status);
    if others.is_empty() {
        return Ok(answer.json(view));
    }
    let own = serde_json::to_value(view).map_err(|_| Problem::new(&table::INTERNAL_ERROR))?;
    Ok(answer.json(merged(own, others)))
}

/// Take a shard out, or put it back
///
/// A shard that is taken out gets no new connections, and gives up those it has as soon as another shard serves; what is
/// under way on them ends as ever. Holds for the instances that the token may use, until the shard is put back or the bridge
/// restarts.
#[utoipa::path(tag = "Operations", operation_id = "cordonShard", params(InShard),
    request_body(content = Cordon, description = "Whether the shard is to be taken out."),
    responses((status = 200, description = "The shard as it stands now.", body = CordonedShard)))]
#[put("/v1/bridge/shards/{shard}")]
pub(super) async fn cordon_shard(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.caller().require(Scope::Operate)?;
    let body = call.object(payload, Empty::Refused).await?;
    let Cordon { cordoned } = Cordon::read(&body).map_err(|fault| {
        Problem::new(&table::INVALID_REQUEST).detail("The body has a fault. Nothing was changed.").errors(vec![fault])
    })?;
    let shard = call.segment("shard");
    let instances = call.state().bridge.cordon(shard, cordoned, |instance| call.caller().may_reach(instance));
    let same = Bytes::from(serde_json::to_vec(&body).map_err(|_| Problem::new(&table::INTERNAL_ERROR))?);
    let others = everywhere::ask(call.request(), &Method::PUT, &same).await;
    let is_known = !instances.is_empty() || others.iter().any(|other| matches!(other.answer, Some((200, _))));
    let missing: Vec<&str> = others
        .iter()
        .filter(|other| !matches!(other.answer, Some((200 | 404, _))))
        .map(|other| &*other.replica)
        .collect();
    if !missing.is_empty() {
        let detail =
            format!("This was not done at these replicas, which do not answer: {}. Repeat it.", missing.join(", "));
        return Err(Problem::new(&table::INSTANCE_UNAVAILABLE).detail(detail).retry_after(RETRY_SHORTLY));
    }
    if !is_known {
        return Err(Problem::new(&table::NOT_FOUND).detail("The gateway has no shard of this name."));
    }
    tracing::info!(
        shard,
        cordoned,
        instances = instances.join(","),
        by = call.caller().name(),
        "shard taken out or put back by hand"
    );
    let shard = shard.to_owned();
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(CordonedShard { shard, cordoned }))
}

/// The command in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InBudget {
    /// The command, as the bridge's status lists it among the instance's budgets; `*` is the one that all share.
    #[param(example = "payitems")]
    pub command: String,
}

/// The wish to open a command that the gateway closed.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, ToSchema)]
pub struct Opening {
    /// Only `true`.
    #[schema(schema_with = only_true)]
    pub open: bool,
}

fn only_true() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).description(Some("Only `true`.")).build()
}

impl Opening {
    fn read(body: &Parameters) -> Result<(), FieldError> {
        let expected = "true";
        match body::member(body, "open", expected) {
            Ok(true) => Ok(()),
            Ok(false) => Err(FieldError::new("/open", format!("must be {expected}"))),
            Err(fault) => Err(fault),
        }
    }
}

/// Open a command that the gateway closed
///
/// After a `ratelimit` of the gateway the bridge sends nothing more of that command for as long as the gateway said, at
/// most one window, and then one command alone until it is answered. This ends both at once. Points that are spent stay
/// spent: it is for a `ratelimit` that is known to be a mistake.
#[utoipa::path(tag = "Operations", operation_id = "openBudget", params(InInstance, InBudget),
    request_body(content = Opening, description = "The wish to open it."),
    responses((status = 200, description = "The command's budget as it stands now.", body = WindowView)))]
#[put("/budget/{command}")]
pub(super) async fn open_budget(call: Call, payload: web::Payload) -> Result<HttpResponse, Problem> {
    call.permit(Scope::Operate)?;
    let body = call.object(payload, Empty::Refused).await?;
    Opening::read(&body).map_err(|fault| {
        Problem::new(&table::INVALID_REQUEST).detail("The body has a fault. Nothing was changed.").errors(vec![fault])
    })?;
    let command = call.segment("command");
    let Some(budget) = call.served()?.open_budget(command) else {
        return Err(Problem::new(&table::NOT_FOUND).detail("The instance has no budget of this name."));
    };
    tracing::info!(instance = call.instance(), command, by = call.caller().name(), "budget opened by hand");
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(WindowView::from(budget)))
}
