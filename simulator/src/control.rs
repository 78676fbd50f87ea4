//! The control endpoint: what [`super::Simulator`] does for tests in the same process, over HTTP for all others.
//!
//! It has no authentication, since there is nothing to protect; it belongs on loopback. Whatever is wrong with a request
//! is said in JSON: `{"error": "there is no shard \"exxon\""}`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, ResponseError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Misuse;
use super::faults::Fault;
use super::printer::{Format, print};
use super::reader::read;
use super::roster::Fate;
use super::value::Value;
use super::world::World;

/// A fault or a broadcast is a hundred bytes.
const MOST_BODY: usize = 64 * 1024;

/// How long requests in progress may take to end when the simulator stops; all of them are immediate.
const STOP_PATIENCE: u64 = 1;

impl ResponseError for Misuse {
    fn status_code(&self) -> StatusCode {
        StatusCode::BAD_REQUEST
    }

    fn error_response(&self) -> HttpResponse {
        refusal(self.status_code(), &self.to_string())
    }
}

fn refusal(status: StatusCode, reason: &str) -> HttpResponse {
    HttpResponse::build(status).json(serde_json::json!({ "error": reason }))
}

/// What the framework finds wrong before a handler runs, said in our own way.
fn in_json(status: StatusCode, fault: impl fmt::Debug + fmt::Display + 'static) -> actix_web::Error {
    let answer = refusal(status, &fault.to_string());
    InternalError::from_response(fault, answer).into()
}

/// Listens on `listen` and serves until the world stops. Returns the address taken.
pub(super) fn start(world: &Arc<World>, listen: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)?;
    let addr = listener.local_addr()?;
    let data = Data::from(Arc::clone(world));
    let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(routes))
        .workers(1)
        .disable_signals()
        .shutdown_signal(world.stop.clone().cancelled_owned())
        .shutdown_timeout(STOP_PATIENCE)
        .client_request_timeout(Duration::from_secs(5))
        .listen(listener)?
        .run();
    world.tasks.spawn(async move {
        // The server ends when the world stops; an end of its own would show as a control endpoint that is gone.
        let _ = server.await;
    });
    Ok(addr)
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .app_data(web::PayloadConfig::new(MOST_BODY))
        .app_data(web::PathConfig::default().error_handler(|fault, _| in_json(StatusCode::NOT_FOUND, fault)))
        .app_data(web::QueryConfig::default().error_handler(|fault, _| in_json(StatusCode::BAD_REQUEST, fault)))
        .route("/counts", web::get().to(counts))
        .route("/reset-counts", web::post().to(reset_counts))
        .route("/faults", web::post().to(add_fault))
        .route("/faults", web::delete().to(clear_faults))
        .route("/faults/{id}", web::delete().to(remove_fault))
        .route("/shards/{shard}", web::post().to(set_shard))
        .route("/broadcasts", web::post().to(broadcast))
        .route("/messages", web::post().to(send_text))
        .route("/products/{pos_id}/{product_id}", web::patch().to(change_product))
        .route("/transactions", web::get().to(transactions))
        .default_service(web::to(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing here") }));
}

fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Misuse> {
    serde_json::from_slice(bytes).map_err(|fault| Misuse::new(format!("the body is not understood: {fault}")))
}

/// Which instance is meant; the first where none is named.
#[derive(Deserialize)]
struct Whose {
    instance: Option<String>,
}

impl Whose {
    fn index(&self, world: &World) -> Result<usize, Misuse> {
        self.instance.as_deref().map_or(Ok(0), |slug| world.instance(slug))
    }
}

async fn counts(world: Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.counters.snapshot())
}

async fn reset_counts(world: Data<World>) -> HttpResponse {
    world.counters.reset();
    HttpResponse::NoContent().finish()
}

async fn add_fault(world: Data<World>, bytes: Bytes) -> Result<HttpResponse, Misuse> {
    let fault: Fault = body(&bytes)?;
    fault.check().map_err(Misuse::new)?;
    if let Some(shard) = &fault.shard {
        world.shard(shard)?;
    }
    Ok(HttpResponse::Created().json(serde_json::json!({ "id": world.faults.add(fault) })))
}

async fn remove_fault(world: Data<World>, id: Path<u64>) -> HttpResponse {
    if world.faults.remove(*id) {
        HttpResponse::NoContent().finish()
    } else {
        refusal(StatusCode::NOT_FOUND, &format!("there is no fault {id} in force"))
    }
}

async fn clear_faults(world: Data<World>) -> HttpResponse {
    world.faults.clear();
    HttpResponse::NoContent().finish()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardChange {
    /// Kills or revives.
    alive: Option<bool>,
    /// Makes the connections open now half-open.
    #[serde(default)]
    freeze: bool,
}

async fn set_shard(world: Data<World>, shard: Path<String>, bytes: Bytes) -> Result<HttpResponse, Misuse> {
    let shard = world.shard(&shard)?;
    let change: ShardChange = body(&bytes)?;
    if change.freeze {
        world.roster.decide(shard, Fate::Frozen);
    }
    if let Some(alive) = change.alive {
        world.roster.set_alive(shard, alive);
    }
    Ok(HttpResponse::Ok().json(serde_json::json!({ "alive": world.roster.is_alive(shard) })))
}

/// Read by this room's own reader rather than by serde, so that numbers keep their spelling on the wire.
async fn broadcast(world: Data<World>, whose: Query<Whose>, bytes: Bytes) -> Result<HttpResponse, Misuse> {
    let asked = value(&bytes)?;
    let instance = match asked.get("instance").and_then(Value::as_str) {
        Some(slug) => world.instance(slug)?,
        None => whose.index(&world)?,
    };
    let message = asked.get("message").and_then(Value::as_str);
    let message = message.ok_or_else(|| Misuse::new("a broadcast needs a message".to_owned()))?;
    let parameters = asked.get("parameters").cloned().unwrap_or_else(|| Value::object([]));
    let copies = world.broadcast(instance, message, &parameters);
    Ok(HttpResponse::Ok().json(serde_json::json!({ "connections": copies })))
}

/// The body is the message, whatever it says.
async fn send_text(world: Data<World>, whose: Query<Whose>, bytes: Bytes) -> Result<HttpResponse, Misuse> {
    let copies = world.send_text(whose.index(&world)?, text(&bytes)?);
    Ok(HttpResponse::Ok().json(serde_json::json!({ "connections": copies })))
}

async fn change_product(
    world: Data<World>,
    product: Path<(i64, i64)>,
    whose: Query<Whose>,
    bytes: Bytes,
) -> Result<HttpResponse, Misuse> {
    let (pos_id, product_id) = product.into_inner();
    world.change_product(whose.index(&world)?, pos_id, product_id, text(&bytes)?)?;
    Ok(HttpResponse::NoContent().finish())
}

async fn transactions(world: Data<World>, whose: Query<Whose>) -> Result<HttpResponse, Misuse> {
    let listed = world.data(whose.index(&world)?)?.all_transactions();
    Ok(HttpResponse::Ok().content_type("application/json").body(print(&Value::Array(listed), Format::Json)))
}

fn text(bytes: &Bytes) -> Result<&str, Misuse> {
    std::str::from_utf8(bytes).map_err(|_| Misuse::new("the body is not text".to_owned()))
}

fn value(bytes: &Bytes) -> Result<Value, Misuse> {
    read(text(bytes)?, Format::Json5).ok_or_else(|| Misuse::new("the body is no JSON".to_owned()))
}
