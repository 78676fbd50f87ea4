//! Connections to other replicas, and requests on them. The only file that names hyper's client.
//!
//! Each thread that serves callers has connections of its own: its requests wait for no other thread. A connection carries one
//! request at a time, is kept for the next one, and is closed with a request that is given up, which tells the other replica.
//! Before the first request both sides have proved that they know the secret, so no caller's token is shown to a stranger.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::body::Body;
use super::fields;
use super::proof::{self, Said, Sealed};
use super::state::{Forwarding, GREETING};

/// How long a connection may take until both sides have proved what they are.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the other replica may take nothing of what is sent, or say nothing to a probe, before the system gives the
/// connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// When a silent connection is probed, and then how often.
const PROBE: Duration = Duration::from_secs(5);

/// Requests of one thread to one replica at once, without streams. More wait.
const PLACES: usize = 256;

/// Streams and native connections of one thread to one replica at once.
const LONG_PLACES: usize = 10_000;

/// Connections that one thread keeps to one replica without a request.
const KEPT: usize = 64;

/// How long a connection is kept without a request: shorter than the other side keeps it, so that it is not closed there just
/// as a request is sent.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// What is read ahead of an answer, at most.
const READ_AHEAD: usize = 64 * 1024;

/// One connection. Closed when it is dropped, whatever is on it.
struct Connection {
    sender: SendRequest<Body>,
    task: AbortHandle,
    used_at: Option<Instant>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connections of one thread to one replica.
struct Pool {
    kept: RefCell<Vec<Connection>>,
    places: Arc<Semaphore>,
    long_places: Arc<Semaphore>,
}

/// The connections of one thread, by address.
pub struct Peers {
    forwarding: Forwarding,
    pools: RefCell<HashMap<Arc<str>, Rc<Pool>>>,
}

/// A connection for one request. Closed when it is dropped before [`Self::keep`].
pub(super) struct Lent {
    connection: Connection,
    pool: Rc<Pool>,
    _place: OwnedSemaphorePermit,
}

/// What became of a request.
pub(super) enum Reply {
    Answered(Response<Incoming>, Lent),
    /// No byte of it left; the body is as it was.
    NotSent {
        unsent: Body,
        why: String,
        was_kept: bool,
    },
    /// Some of it may have arrived.
    NoAnswer {
        why: String,
        was_kept: bool,
    },
}

impl Peers {
    #[must_use]
    pub fn new(forwarding: Forwarding) -> Self {
        Self { forwarding, pools: RefCell::default() }
    }

    /// A connection for a request that is due at `deadline`: one that was kept, unless it is to be `new`.
    pub(super) async fn lend(
        &self,
        address: &Arc<str>,
        (is_long, is_new): (bool, bool),
        deadline: Instant,
    ) -> Result<Lent, String> {
        let pool = self.pool(address);
        let places = Arc::clone(if is_long { &pool.long_places } else { &pool.places });
        let place = match places.try_acquire_owned() {
            Ok(place) => place,
            Err(_) if is_long => return Err("it has as many streams from here as it may have".to_owned()),
            Err(_) => {
                let waiting = timeout_at(deadline, Arc::clone(&pool.places).acquire_owned()).await;
                waiting.ok().and_then(Result::ok).ok_or("too many requests to it are under way")?
            }
        };
        while let Some(mut connection) = if is_new { None } else { pool.take() } {
            // It says at once whether it is still open.
            if matches!(timeout_at(deadline, connection.sender.ready()).await, Ok(Ok(()))) {
                return Ok(Lent { connection, pool, _place: place });
            }
        }
        let connecting = timeout_at(deadline, timeout(CONNECT_TIMEOUT, self.connect(address))).await;
        let connected = connecting.ok().and_then(Result::ok).ok_or("it could not be reached in time")?;
        Ok(Lent { connection: connected?, pool, _place: place })
    }

    fn pool(&self, address: &Arc<str>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(address) {
            return Rc::clone(pool);
        }
        // Those of replicas that are gone.
        pools.retain(|_, pool| Rc::strong_count(pool) > 1 || pool.has_kept());
        let pool = Pool {
            kept: RefCell::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            long_places: Arc::new(Semaphore::new(LONG_PLACES)),
        };
        Rc::clone(pools.entry(Arc::clone(address)).or_insert_with(|| Rc::new(pool)))
    }

    async fn connect(&self, address: &str) -> Result<Connection, String> {
        let failed = |fault: &dyn std::fmt::Display| fault.to_string();
        let socket = TcpStream::connect(address).await.map_err(|fault| failed(&fault))?;
        tune(&socket).map_err(|fault| failed(&fault))?;
        let Some(tls) = self.forwarding.client_tls() else { return self.greeted(address, socket).await };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|fault| failed(&fault))?;
        let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(|fault| failed(&fault))?;
        self.greeted(address, stream).await
    }

    /// Proves the secret to the other side, and has it prove the same.
    async fn greeted(
        &self,
        address: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, String> {
        let (sender, task) = http1::Builder::new()
            .max_buf_size(READ_AHEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|fault| fault.to_string())?;
        let running = rt::spawn(async move {
            // Whoever waits for an answer is told how it ended.
            let _ = task.with_upgrades().await;
        });
        let mut connection = Connection { sender, task: running.abort_handle(), used_at: None };
        let (sealed, request) = self.greeting(address)?;
        let answer = connection.sender.send_request(request).await.map_err(|fault| fault.to_string())?;
        said(&self.forwarding, &sealed, &answer).ok_or_else(|| {
            self.forwarding.metrics().unproved.inc();
            "it did not prove that it knows the cluster's secret".to_owned()
        })?;
        connection.sender.ready().await.map_err(|fault| fault.to_string())?;
        Ok(connection)
    }

    fn greeting(&self, address: &str) -> Result<(Sealed, Request<Body>), String> {
        let sealed = self.forwarding.greeting(address)?;
        let mut request = Request::builder().uri(GREETING).body(Body::None).map_err(|fault| fault.to_string())?;
        fields::append(request.headers_mut(), "host", address.as_bytes());
        fields::append(request.headers_mut(), proof::FIELD.as_str(), sealed.text.as_bytes());
        Ok((sealed, request))
    }
}

fn tune(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(socket, u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_tcp_keepidle(socket, PROBE)?;
    sockopt::set_tcp_keepintvl(socket, PROBE)?;
    Ok(sockopt::set_socket_keepalive(socket, true)?)
}

/// What an answer says of itself; none where it is not proved.
pub(super) fn said<B>(forwarding: &Forwarding, sealed: &Sealed, answer: &Response<B>) -> Option<Said> {
    let field = answer.headers().get(proof::FIELD.as_str()).and_then(|field| field.to_str().ok());
    Said::open(forwarding.key(), sealed, answer.status().as_u16(), field)
}

impl Pool {
    fn has_kept(&self) -> bool {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|connection| !connection.sender.is_closed());
        !kept.is_empty()
    }

    /// The connection that was used last: others may end their time.
    fn take(&self) -> Option<Connection> {
        let mut kept = self.kept.borrow_mut();
        let now = Instant::now();
        let is_good = |connection: &Connection| {
            let is_young = connection.used_at.is_none_or(|used_at| now.saturating_duration_since(used_at) < KEPT_FOR);
            is_young && !connection.sender.is_closed()
        };
        while let Some(last) = kept.pop() {
            if is_good(&last) {
                return Some(last);
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT {
            // The one that was used first.
            kept.remove(0);
        }
        kept.push(connection);
    }
}

impl Lent {
    /// Sends a request, and waits for the head of its answer until `deadline`.
    pub(super) async fn send(mut self, request: Request<Body>, deadline: Instant) -> Reply {
        let was_kept = self.connection.used_at.is_some();
        let answer = timeout_at(deadline, self.connection.sender.try_send_request(request)).await;
        match answer {
            Ok(Ok(answer)) => Reply::Answered(answer, self),
            Ok(Err(mut failed)) => {
                let why = failed.error().to_string();
                match failed.take_message() {
                    Some(request) => Reply::NotSent { unsent: request.into_body(), why, was_kept },
                    None => Reply::NoAnswer { why, was_kept },
                }
            }
            Err(_) => Reply::NoAnswer { why: "it did not answer in time".to_owned(), was_kept: false },
        }
    }

    /// Its answer has ended: keeps the connection for another request, where it can take one.
    pub(super) fn keep(mut self) {
        if !self.connection.sender.is_closed() {
            self.connection.used_at = Some(Instant::now());
            self.pool.put(self.connection);
        }
    }
}
