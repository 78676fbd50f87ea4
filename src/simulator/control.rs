//! The control endpoint: what a test can do to a simulated gateway, over HTTP, for whoever is not in its process.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::web::{Data, Json, JsonConfig, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, ResponseError, delete, get, patch, post};
use serde::Deserialize;
use serde_json::{Value as Json5, json};

use super::Misuse;
use super::config::DEFAULT_INSTANCE;
use super::faults::Fault;
use super::printer::{Format, print};
use super::reader::read;
use super::world::World;

/// Starts the endpoint on the runtime that is running.
pub(super) fn start(address: SocketAddr, world: Arc<World>) -> io::Result<(SocketAddr, ServerHandle)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let world = Data::from(world);
    let app = move || {
        let bad_json = |error: actix_web::error::JsonPayloadError, _: &_| Refusal(error.to_string()).into();
        App::new()
            .app_data(world.clone())
            .app_data(JsonConfig::default().error_handler(bad_json))
            .service(counts)
            .service(reset_counts)
            .service(add_fault)
            .service(clear_faults)
            .service(set_alive)
            .service(broadcast)
            .service(change_product)
            .service(transactions)
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok((address, handle))
}

/// A call that cannot be carried out: 400 with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl From<Misuse> for Refusal {
    fn from(misuse: Misuse) -> Self {
        Self(misuse.to_string())
    }
}

impl ResponseError for Refusal {
    fn error_response(&self) -> HttpResponse {
        HttpResponse::BadRequest().json(json!({ "error": self.0 }))
    }
}

/// Which instance is meant; the default one where none is named.
#[derive(Deserialize)]
struct Which {
    instance: Option<String>,
}

impl Which {
    fn of(&self, world: &World) -> Result<usize, Misuse> {
        world.instance(self.instance.as_deref().unwrap_or(DEFAULT_INSTANCE))
    }
}

#[get("/counts")]
async fn counts(world: Data<World>) -> HttpResponse {
    HttpResponse::Ok().json(world.counters.snapshot())
}

#[post("/reset-counts")]
async fn reset_counts(world: Data<World>) -> HttpResponse {
    world.counters.reset();
    HttpResponse::NoContent().finish()
}

#[post("/faults")]
async fn add_fault(world: Data<World>, fault: Json<Fault>) -> Result<HttpResponse, Refusal> {
    fault.check().map_err(Refusal)?;
    Ok(HttpResponse::Created().json(json!({ "id": world.faults.add(fault.into_inner()) })))
}

#[delete("/faults")]
async fn clear_faults(world: Data<World>) -> HttpResponse {
    world.faults.clear();
    HttpResponse::NoContent().finish()
}

#[derive(Deserialize)]
struct Life {
    alive: bool,
}

#[post("/shards/{shard}")]
async fn set_alive(world: Data<World>, shard: Path<String>, life: Json<Life>) -> Result<HttpResponse, Refusal> {
    world.roster.set_alive(world.shard(&shard)?, life.alive);
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Deserialize)]
struct Broadcast {
    message: String,
    #[serde(default)]
    parameters: Option<Json5>,
}

#[post("/broadcasts")]
async fn broadcast(
    world: Data<World>,
    which: Query<Which>,
    broadcast: Json<Broadcast>,
) -> Result<HttpResponse, Refusal> {
    let parameters = broadcast.parameters.as_ref().map_or_else(|| "{}".to_owned(), Json5::to_string);
    let parameters = read(&parameters, Format::Json).ok_or_else(|| Refusal("the parameters are no JSON".to_owned()))?;
    let copies = world.broadcast(which.of(&world)?, &broadcast.message, &parameters);
    Ok(HttpResponse::Ok().json(json!({ "connections": copies })))
}

#[patch("/products/{pos_id}/{product_id}")]
async fn change_product(
    world: Data<World>,
    which: Query<Which>,
    path: Path<(i64, i64)>,
    change: String,
) -> Result<HttpResponse, Refusal> {
    let (pos_id, product_id) = path.into_inner();
    world.change_product(which.of(&world)?, pos_id, product_id, &change)?;
    Ok(HttpResponse::NoContent().finish())
}

#[get("/transactions")]
async fn transactions(world: Data<World>, which: Query<Which>) -> Result<HttpResponse, Refusal> {
    let transactions = world.data(which.of(&world)?)?.all_transactions();
    let printed: Vec<String> = transactions.iter().map(|one| print(one, Format::Json)).collect();
    Ok(HttpResponse::Ok().content_type("application/json").body(format!("[{}]", printed.join(","))))
}
