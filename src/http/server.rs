//! The actix application and its server: layers in order, shared state, limits.
//!
//! State is made once, outside the closure that actix runs for each worker: a budget made in it would be as many
//! budgets as there are cores. Signals are not this room's business: whoever runs the server stops it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use actix_web::middleware::{Compress, Condition, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, Error, HttpServer};
use utoipa_actix_web::AppExt;

use super::auth::Auth;
use super::fallback::{self, Methods};
use super::tally::Tally;
use super::{Config, edge, openapi, routes};
use crate::bridge::Bridge;

/// How long an idle connection is kept: longer than balancers keep theirs (60 s is usual), so that it is never this
/// side that closes one just as a request comes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a browser may keep what it was told about CORS.
const CORS_MAX_AGE_S: usize = 3600;

/// What the server is built from.
#[derive(Debug)]
pub struct Parts {
    /// Answers the use cases.
    pub bridge: Bridge,
    /// Knows the callers.
    pub auth: Arc<Auth>,
    /// The room's settings.
    pub config: Config,
    /// Certificate and key, where the bridge itself speaks TLS.
    pub tls: Option<rustls::ServerConfig>,
}

/// What all requests share, made once.
#[derive(Debug)]
pub struct Shared {
    /// Answers the use cases.
    pub bridge: Bridge,
    /// Knows the callers.
    pub auth: Arc<Auth>,
    /// The room's settings.
    pub config: Config,
    /// The methods of each path.
    pub methods: Methods,
    /// The document as it is served.
    pub document: openapi::Served,
    /// What the edge counts.
    pub tally: Tally,
}

impl Shared {
    /// Shared state over a bridge and its callers.
    #[must_use]
    pub fn new(bridge: Bridge, auth: Arc<Auth>, config: Config) -> Self {
        let document = openapi::document();
        let (methods, tally) = (Methods::of(&document), Tally::of(&document));
        Self { bridge, auth, config, methods, document: openapi::Served::new(&document), tally }
    }
}

/// Serves `parts` on `listener` until the returned server is stopped, which waits for requests in progress as long as
/// the grace allows.
pub fn run(listener: TcpListener, parts: Parts) -> io::Result<Server> {
    let Parts { bridge, auth, config, tls } = parts;
    let grace_s = config.shutdown_grace.as_secs() + u64::from(config.shutdown_grace.subsec_nanos() > 0);
    let shared = Data::new(Shared::new(bridge, auth, config));
    let server = HttpServer::new(move || app(shared.clone()))
        .workers(available_parallelism().map_or(1, usize::from))
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(grace_s)
        .disable_signals();
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

/// The application of one worker.
pub fn app(
    shared: Data<Shared>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let origins = shared.config.cors_origins.clone();
    let (app, _) = App::new().into_utoipa_app().configure(routes::configure).split_for_parts();
    // The last one wrapped is the first to see a request.
    app.app_data(shared)
        .default_service(web::to(fallback::answer))
        .wrap(from_fn(edge::complete))
        .wrap(Compress::default())
        .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
        .wrap(from_fn(edge::observe))
}

fn cors(origins: &[String]) -> Cors {
    let own = ["x-pos-password", "idempotency-key", "x-request-id", "last-event-id"].map(HeaderName::from_static);
    let told = [
        "x-request-id",
        "retry-after",
        "location",
        "etag",
        "age",
        "cache-status",
        "ratelimit",
        "ratelimit-policy",
        "idempotent-replayed",
    ];
    origins
        .iter()
        .fold(Cors::default(), |cors, origin| cors.allowed_origin(origin))
        .allowed_methods(["GET", "HEAD", "POST", "PUT"])
        .allowed_headers([AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH].into_iter().chain(own))
        .expose_headers(told)
        .max_age(CORS_MAX_AGE_S)
}
