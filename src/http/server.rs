//! Assembles the application and its servers: state, layers in order, limits.
//!
//! State is made once, outside the closure that actix runs for each worker: a budget made in it would be as many
//! budgets as there are cores. Signals are left to the caller of [`run`], who stops the
//! servers by their [`ServerHandle`].

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use actix_web::middleware::{Compress, Condition, from_fn};
use actix_web::web::{self, Data};
use actix_web::{App, Error, HttpServer};
use rustix::process::{Resource, getrlimit};

use super::auth::{Auth, local};
use super::config::Config;
use super::connections::Connections;
use super::forwarding::{Forwarding, Peers, entrance};
use super::listener::tls::Certificates;
use super::listener::{self, ListenerLimits, Protocol};
use super::metrics::Metrics;
use super::middleware::{outermost, problem_details};
use super::openapi::listed::ListedRoutes;
use super::openapi::served::ServedDocuments;
use super::request::query_names::QueryNames;
use super::routes::allowed_methods::AllowedMethods;
use super::routes::fallback;
use super::routes::register::Routes;
use super::state::AppState;
use super::{client, native, routes};
use crate::bridge::Bridge;
use crate::clock::secs_up;
use crate::telemetry::runtimes::Runtimes;

/// Connections of one worker. Beyond it new ones wait to be accepted; each holds an open file and some kilobytes.
const MAX_CONNECTIONS: usize = 25_000;

/// TLS handshakes of one worker at once: each is a millisecond of a core, which must not starve those who are in.
const MAX_HANDSHAKES: usize = 256;

/// Connections that may wait to be accepted: a whole festival's tills coming back at the same moment.
const BACKLOG: i32 = 4096;

/// Open files that are not for callers: journal, copies, links to the gateway, logs.
const OTHER_FILES: u64 = 512;

/// How long a browser may keep the answer to a CORS preflight.
const CORS_MAX_AGE_S: usize = 3600;

/// What the server is built from.
#[derive(Debug)]
pub struct Parts {
    /// Answers the use cases.
    pub bridge: Bridge,
    /// Knows the callers.
    pub auth: Arc<Auth>,
    pub config: Config,
    /// The certificate, where the bridge itself speaks TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Where there are several replicas: passes on what is not served here.
    pub forwarding: Option<Forwarding>,
}

/// Where it serves.
#[derive(Debug)]
pub struct Listeners {
    /// Callers.
    pub callers: TcpListener,
    /// The operator's own tools, without a token.
    pub admin: Option<TcpListener>,
    /// Other replicas; `cluster.listen`.
    pub cluster: Option<TcpListener>,
}

/// A listener that is bound, and serves.
pub struct Server(actix_web::dev::Server);

impl Server {
    /// What stops it.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.0.handle())
    }

    /// Resolves when it has stopped.
    pub async fn serve(self) -> io::Result<()> {
        self.0.await
    }
}

/// Stops a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerHandle(actix_web::dev::ServerHandle);

impl ServerHandle {
    /// Stops the server: at once, or after the requests in progress.
    pub async fn stop(&self, graceful: bool) {
        self.0.stop(graceful).await;
    }
}

/// What serves, until it is stopped, which waits for requests in progress as long as the grace allows.
pub struct Servers {
    /// Callers.
    pub callers: Server,
    /// The operator's own tools.
    pub admin: Option<Server>,
    /// What requests share: callers' connections, to be watched, and what needs attention, to be logged, for as long as they
    /// are served.
    pub state: Data<AppState>,
}

/// The state of the handlers over a bridge and its callers.
#[must_use]
pub fn state(bridge: Bridge, auth: Arc<Auth>, config: Config) -> AppState {
    let routes = ListedRoutes::committed();
    let connections = Connections::new(most_connections(), config.untaken, config.native.limits.write);
    AppState {
        bridge,
        auth,
        native: native::NativeState::new(&config.native),
        allowed_methods: AllowedMethods::of(&routes),
        query_names: QueryNames::of(&routes),
        metrics: Metrics::of(&routes),
        documents: ServedDocuments::at(config.public_url.as_deref()),
        runtimes: Runtimes::default(),
        connections: Arc::new(connections),
        untrusted: client::Untrusted::default(),
        config,
        forwarding: None,
    }
}

/// Threads that serve callers.
#[must_use]
pub fn workers() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// How many connections there can be: as many as there may be open files, with some for everything else.
fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files - OTHER_FILES.min(files / 2)).unwrap_or(usize::MAX)
}

/// Serves `parts` on `listeners`. Each thread that serves callers calls `on_worker` once, on a tokio runtime of its own,
/// before it begins.
pub fn run(listeners: Listeners, parts: Parts, on_worker: impl Fn() + Clone + Send + 'static) -> io::Result<Servers> {
    let Listeners { callers, admin, cluster } = listeners;
    let Parts { bridge, auth, config, certificates, forwarding } = parts;
    let grace_s = secs_up(config.shutdown_grace);
    let cluster_tls = forwarding.as_ref().and_then(Forwarding::server_tls);
    let state = Data::new(AppState { forwarding, ..state(bridge, auth, config) });
    let for_admin = state.clone();
    state.runtimes.count_mine();
    for listener in cluster.iter().chain([&callers]) {
        rustix::net::listen(listener, BACKLOG)?;
    }
    // Sockets take it from the listener. What is written to them and not taken holds memory, here and in the system.
    let untaken_ms = u32::try_from(state.config.untaken.as_millis()).unwrap_or(u32::MAX);
    for listener in cluster.iter().chain([&callers]) {
        rustix::net::sockopt::set_tcp_user_timeout(listener, untaken_ms)?;
    }
    // Likewise. An event, or the end of a page of metrics, would wait until the peer acknowledges what came before it, which
    // it does after 40 ms if it has nothing to say meanwhile.
    for listener in admin.iter().chain(&cluster).chain([&callers]) {
        rustix::net::sockopt::set_tcp_nodelay(listener, true)?;
    }
    let limits = ListenerLimits {
        workers: workers(),
        connections_each: MAX_CONNECTIONS,
        handshakes_each: MAX_HANDSHAKES,
        grace_s,
    };
    let protocol = match certificates {
        Some(certificates) => Protocol::Tls(Arc::new(certificates.server_config().map_err(io::Error::other)?)),
        None => Protocol::Clear,
    };
    let connections = Arc::clone(&state.connections);
    let for_callers = state.clone();
    let for_cluster = state.clone();
    let builder = listener::open(callers, protocol, limits, &connections, move || {
        on_worker();
        for_callers.runtimes.count_mine();
        app(for_callers.clone())
    })?;
    // On the same threads as callers, where the links to the gateway are.
    let builder = match cluster {
        None => builder,
        Some(cluster) => listener::open_for_replicas(builder, cluster, cluster_tls, limits, move || {
            app(for_cluster.clone()).wrap(from_fn(entrance::enter))
        })?,
    };
    let server = builder.run();
    let admin = admin.map(|listener| {
        let server = HttpServer::new(move || admin_app(for_admin.clone()));
        let server = server.workers(1).shutdown_timeout(grace_s).disable_signals();
        Ok::<_, io::Error>(Server(server.listen(listener)?.run()))
    });
    Ok(Servers { callers: Server(server), admin: admin.transpose()?, state })
}

/// The application of the operator's own listener: probes, and metrics without a token.
fn admin_app(
    state: Data<AppState>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(state)
        .configure(|config| {
            routes::health::configure(config).service(routes::metrics::open);
        })
        .default_service(web::to(fallback::answer))
        .wrap(from_fn(problem_details::innermost))
        .wrap(Compress::default())
        .wrap(from_fn(outermost::handle))
}

/// The application of one worker.
pub fn app(
    state: Data<AppState>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let origins = state.config.cors_origins.clone();
    let app = App::new().configure(|config| routes::All.register(config));
    let peers = state.forwarding.as_ref().map(|forwarding| Rc::new(Peers::new(forwarding.clone())));
    let app = match peers {
        Some(peers) => app.app_data(peers),
        None => app,
    };
    // The last one wrapped is the first to see a request.
    app.app_data(state)
        .default_service(web::to(fallback::answer))
        .wrap(from_fn(problem_details::innermost))
        .wrap(from_fn(local::refuse_foreign_pages))
        .wrap(Compress::default())
        .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
        .wrap(from_fn(outermost::handle))
}

fn cors(origins: &[String]) -> Cors {
    let own = [
        "x-pos-password",
        "idempotency-key",
        "x-request-id",
        "prefer",
        "last-event-id",
        // Libraries that trace add them to each request.
        "traceparent",
        "tracestate",
        "baggage",
    ]
    .map(HeaderName::from_static);
    let exposed = [
        "x-request-id",
        "retry-after",
        "location",
        "etag",
        "age",
        "cache-status",
        "ratelimit",
        "ratelimit-policy",
        "idempotent-replayed",
        "preference-applied",
        "proxy-status",
    ];
    origins
        .iter()
        .fold(Cors::default(), |cors, origin| cors.allowed_origin(origin))
        .allowed_methods(["GET", "HEAD", "POST", "PUT"])
        .allowed_headers([AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH].into_iter().chain(own))
        .expose_headers(exposed)
        .max_age(CORS_MAX_AGE_S)
}
