//! From an accepted socket to a connection that is served, in the clear or over TLS.
//!
//! actix-web's own server keeps a connection for as long as half of a second head lasts, and takes newcomers without
//! looking at the others. So its parts are put together here, with each socket registered in [`Connections`].

pub mod tls;

use std::future::{Future, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::error::DispatchError;
use actix_http::{Extensions, HttpService, Request, Response};
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, boxed, fn_service, map_config};
use actix_web::Error;
use actix_web::dev::{AppConfig, ServiceFactory, ServiceResponse};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::auth::remembered_caller::RememberedCaller;
use crate::http::connections::{Bounded, Connections, TrackedStream};

/// How long a connection may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: longer than balancers keep theirs (60 s is usual), so that it is never this
/// side that closes one just as a request comes.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long the peer of a closing connection may take to read what is left and to end what it was sending. [`Connections`]
/// closes one that sends very slowly earlier.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a head may take that another replica sends.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// None: `Connections` times callers' heads. The server's clock is read twice a second, and would close hundreds of slow
/// connections in the same moment.
const HEAD_BY_REGISTER: Duration = Duration::ZERO;

/// Bytes of answers that may wait to be written before no more are added.
const WRITTEN_AHEAD: usize = 8 * 1024;

#[derive(Clone)]
pub(super) enum Protocol {
    /// HTTP/1.1 in the clear.
    Clear,
    /// HTTP/1.1 over TLS.
    Tls(Arc<ServerConfig>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ListenerLimits {
    /// Threads.
    pub(super) workers: usize,
    /// Connections of one thread.
    pub(super) connections_each: usize,
    /// TLS handshakes of one thread at once.
    pub(super) handshakes_each: usize,
    /// How long requests in progress may take once it stops.
    pub(super) grace_s: u64,
}

/// Serves `app` on `listener`.
pub(super) fn open<F, I, S, B>(
    listener: TcpListener,
    protocol: Protocol,
    limits: ListenerLimits,
    connections: &Arc<Connections>,
    app: F,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let builder = ServerBuilder::new()
        .workers(limits.workers)
        .max_concurrent_connections(limits.connections_each)
        .shutdown_timeout(limits.grace_s)
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let connections = Arc::clone(connections);
    // Unboxed, the future of a connection would take memory twice for as long as an event stream lasts: once as it is
    // handed over and once as it is awaited.
    match protocol {
        Protocol::Clear => builder.listen("callers", listener, move || {
            let (connections, stopping) = (Arc::clone(&connections), stopping.clone());
            let entering = move |socket| ready(entered(socket, &connections));
            let served = http(address, app().into_factory(), stopping, HEAD_BY_REGISTER, registered);
            boxed::factory(fn_service(entering).and_then(served))
        }),
        Protocol::Tls(config) => builder.listen("callers", listener, move || {
            let (connections, stopping) = (Arc::clone(&connections), stopping.clone());
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            let handshakes = Arc::new(Semaphore::new(limits.handshakes_each));
            let entering = move |socket| {
                // A connection would have room for its handshake for as long as it is open.
                Box::pin(encrypted(socket, Arc::clone(&connections), acceptor.clone(), Arc::clone(&handshakes)))
            };
            let served = http(address, app().into_factory(), stopping, HEAD_BY_REGISTER, registered);
            boxed::factory(fn_service(entering).and_then(served))
        }),
    }
}

/// Adds a listener for other replicas to the threads of `builder`. Its connections carry many callers' requests, so none of
/// them is a caller's.
pub(super) fn open_for_replicas<F, I, S, B>(
    builder: ServerBuilder,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: ListenerLimits,
    app: F,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let stopping = builder.graceful_shutdown_signal();
    let Some(config) = tls else {
        return builder.listen("replicas", listener, move || {
            let entering = |socket: TcpStream| {
                let peer = socket.peer_addr().ok();
                ready(Ok::<_, DispatchError>((socket, actix_http::Protocol::Http1, peer)))
            };
            let served = http(address, app().into_factory(), stopping.clone(), HEAD_TIMEOUT, |_, _| ());
            boxed::factory(fn_service(entering).and_then(served))
        });
    };
    builder.listen("replicas", listener, move || {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let handshakes = Arc::new(Semaphore::new(limits.handshakes_each));
        let entering = move |socket: TcpStream| {
            let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
            async move {
                let peer = socket.peer_addr().ok();
                let handshake = async {
                    socket.readable().await?;
                    let _one_of_so_many = handshakes.acquire().await.map_err(io::Error::other)?;
                    acceptor.accept(socket).await
                };
                Ok::<_, DispatchError>((in_time(handshake).await?, actix_http::Protocol::Http1, peer))
            }
        };
        let served = http(address, app().into_factory(), stopping.clone(), HEAD_TIMEOUT, |_, _| ());
        boxed::factory(fn_service(entering).and_then(served))
    })
}

/// A connection ready for HTTP.
type Entered<T> = (T, actix_http::Protocol, Option<SocketAddr>);

/// Each request can find the connection that it came on.
fn registered<T>(stream: &Bounded<T>, data: &mut Extensions) {
    data.insert(Arc::clone(stream.connection()));
    data.insert(RememberedCaller::default());
}

/// Registers a socket, if there is room.
fn place(socket: TcpStream, connections: &Arc<Connections>) -> Result<TrackedStream, DispatchError> {
    let full = || DispatchError::Io(io::Error::other("there is no room for one more connection"));
    Ok(TrackedStream::new(socket, connections.enter().ok_or_else(full)?))
}

fn entered(
    socket: TcpStream,
    connections: &Arc<Connections>,
) -> Result<Entered<Bounded<TrackedStream>>, DispatchError> {
    let tracked = place(socket, connections)?;
    let (peer, connection) = (tracked.socket().peer_addr().ok(), Arc::clone(tracked.connection()));
    Ok((Bounded::new(tracked, connection), actix_http::Protocol::Http1, peer))
}

async fn encrypted(
    socket: TcpStream,
    connections: Arc<Connections>,
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
) -> Result<Entered<Bounded<TlsStream<TrackedStream>>>, DispatchError> {
    let tracked = place(socket, &connections)?;
    let (peer, connection) = (tracked.socket().peer_addr().ok(), Arc::clone(tracked.connection()));
    let handshake = async {
        // A peer that sends nothing takes none of the handshakes.
        tracked.socket().readable().await?;
        let _one_of_so_many = handshakes.acquire().await.map_err(io::Error::other)?;
        acceptor.accept(tracked).await
    };
    let stream = in_time(handshake).await?;
    Ok((Bounded::new(stream, connection), actix_http::Protocol::Http1, peer))
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, DispatchError> {
    let step = timeout(HANDSHAKE_TIMEOUT, step).await.map_err(|_| DispatchError::SlowRequestTimeout)?;
    step.map_err(DispatchError::Io)
}

/// HTTP over connections of one kind, for each of which `on_connect` is called.
fn http<T, S, B>(
    address: SocketAddr,
    app: S,
    stopping: GracefulShutdownSignal,
    head_timeout: Duration,
    on_connect: impl Fn(&T, &mut Extensions) + 'static,
) -> impl ServiceFactory<Entered<T>, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let app = app.map_err(|error: Error| -> Response<BoxBody> { error.error_response().into() });
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(KEEP_ALIVE)
        // Bodies have the deadline of their request.
        .client_request_timeout(head_timeout)
        .client_disconnect_timeout(CLOSE_TIMEOUT)
        // A peer that closes its side has gone: its stream ends then, and not at its next event.
        .h1_allow_half_closed(false)
        // Of an answer that is not read, one piece is kept.
        .h1_write_buffer_size(WRITTEN_AHEAD)
        .local_addr(address)
        .on_connect_ext(on_connect)
        .finish(map_config(app, |()| AppConfig::default()))
}
