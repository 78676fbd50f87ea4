//! How the bytes of a connection reach the gateway, and which certificates are trusted.
//!
//! The bridge dials TCP. Tests dial a simulated network, where a seed decides every delay and a minute passes in moments, so
//! the network is passed in. That costs one virtual call at each read and write, beside a system call.
//!
//! Every byte for a gateway passes [`Fenced`], below TLS and WebSocket, so that pings, answers to pings, close frames and the
//! rest of a frame that was half written are held to the tenure as commands are.

use std::any::Any;
use std::fmt;
use std::future::pending;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::reach::Reach;
use crate::clock::whole_ms;
use crate::tenure::Tenure;

/// How long an address is tried alone before the next is tried beside it: what RFC 8305, section 5, recommends.
const UNTIL_NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// A connection's bytes, both ways and in order, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + Any + fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Any + fmt::Debug + Send + Unpin> Stream for S {}

/// A connection's bytes under a tenure. While that may not listen, nothing is written: a write waits, so that reading goes on.
/// Closed then, what the system has not sent yet is dropped.
#[derive(Debug)]
pub(super) struct Fenced {
    stream: Box<dyn Stream>,
    tenure: Tenure,
    written: u64,
}

impl Fenced {
    /// How many bytes were written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The system's socket, where it is one.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        (&*self.stream as &dyn Any).downcast_ref()
    }

    fn write(
        &mut self,
        write: impl FnOnce(Pin<&mut dyn Stream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.tenure.may_listen() {
            // Who writes waits for the end of the tenure beside it. An error would end the reading too: the library answers
            // the gateway's pings as it reads.
            return Poll::Pending;
        }
        let written = write(Pin::new(&mut *self.stream));
        if let Poll::Ready(Ok(count)) = written {
            self.written += count as u64;
        }
        written
    }
}

impl AsyncRead for Fenced {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Fenced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(|stream| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        if self.tenure.may_listen() {
            return;
        }
        // Otherwise the system would send on what it holds. Where it refuses, `TCP_USER_TIMEOUT` bounds that.
        let _ = self.socket().map(TcpStream::set_zero_linger);
    }
}

/// A network on which a gateway can be reached.
#[async_trait]
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects to `host`, a name or an address without brackets. The caller bounds the time: dropping the future gives
    /// the attempt up.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// The network of the system.
#[derive(Debug, Clone, Copy)]
struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let tcp = connect(addresses(host, port).await?).await?;
        // One small frame each way per exchange: waiting to fill a segment would only add delay.
        tcp.set_nodelay(true)?;
        Ok(Box::new(tcp))
    }
}

/// The addresses of `host`, as the system resolves it.
async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (host, (answer, resolved)) = (host.to_owned(), oneshot::channel());
    // A thread of its own rather than one of the runtime, which waits for its blocking threads at the end of the process.
    // How many there are is bounded by how often shards are dialled.
    thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        // The attempt may have been given up.
        let _ = answer.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect));
    })?;
    let addresses = resolved.await.unwrap_or_else(|_| Err(io::Error::other("the resolver gave no answer")));
    addresses.map_err(|why| io::Error::other(Unresolved(why)))
}

/// The system found no address of a name.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct Unresolved(io::Error);

/// Connects to the first of `addresses` that answers. They are tried in order, IPv6 and IPv4 in turns, each next one as
/// soon as those before it have failed or 250 ms have passed (RFC 8305), so that one dead address does not make a name
/// unreachable. Dropping the future gives up all attempts.
pub async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    first(in_turns(addresses), TcpStream::connect).await
}

/// The family that stands first begins; within a family the order stays, which is the system's preference (RFC 6724).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut turns = Vec::with_capacity(preferred.len() + others.len());
    while preferred.len() + others.len() > 0 {
        turns.extend(preferred.next());
        turns.extend(others.next());
    }
    turns
}

/// The first that succeeds, or why the first that failed did.
async fn first<T, F: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let (mut addresses, mut attempts, mut failed) = (addresses.into_iter(), FuturesUnordered::new(), None);
    loop {
        attempts.extend(addresses.next().map(&connect));
        let moment = async { if addresses.len() > 0 { sleep(UNTIL_NEXT_ADDRESS).await } else { pending().await } };
        tokio::select! {
            biased;
            outcome = attempts.next() => match outcome {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(why)) => failed = failed.or(Some(why)),
                None => return Err(failed.unwrap_or_else(|| io::Error::other("the name has no address"))),
            },
            () = moment => {}
        }
    }
}

/// How connections are opened. Cheap to clone; all clones know together which shards cannot be reached.
#[derive(Debug, Clone)]
pub struct Dialer {
    network: Arc<dyn Dial>,
    tls: Arc<rustls::ClientConfig>,
    reach: Reach,
    tenure: Tenure,
}

impl Dialer {
    /// Over TCP, as the system does it. `tls` is used for `wss`.
    #[must_use]
    pub fn tcp(tls: Arc<rustls::ClientConfig>) -> Self {
        Self::over(Tcp, tls)
    }

    /// Over `network`. `tls` is used for `wss`.
    #[must_use]
    pub fn over(network: impl Dial + 'static, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { network: Arc::new(network), tls, reach: Reach::default(), tenure: Tenure::unlimited() }
    }

    /// The same, for connections on which nothing is written once `tenure` is over.
    #[must_use]
    pub fn under(self, tenure: Tenure) -> Self {
        Self { tenure, ..self }
    }

    pub(super) fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// What all pools that dial with it found out.
    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Connects. What was written and is not acknowledged within `patience` ends the connection: the system sends on for a
    /// quarter of an hour otherwise, also when the process has stopped or died.
    pub(super) async fn dial(&self, host: &str, port: u16, patience: Duration) -> io::Result<Fenced> {
        let stream = self.network.dial(host, port).await?;
        let fenced = Fenced { stream, tenure: self.tenure.clone(), written: 0 };
        if let Some(socket) = fenced.socket() {
            let patience = u32::try_from(whole_ms(patience)).unwrap_or(u32::MAX);
            rustix::net::sockopt::set_tcp_user_timeout(socket, patience)?;
        }
        Ok(fenced)
    }

    pub(super) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::gateway::{self, Config, dial_once};
    use concertpos_simulator::{self as simulator, Simulator};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_families_take_turns_and_the_system_s_first_choice_stays_first() {
        let named = ["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"].map(address);
        let expected = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"].map(address);
        assert_eq!(in_turns(named.to_vec()), expected);
        let ipv4_first = ["10.0.0.1:1", "[::1]:1", "[::2]:1"].map(address);
        assert_eq!(in_turns(ipv4_first.to_vec()), ipv4_first);
        assert_eq!(in_turns(Vec::new()), []);
    }

    proptest! {
        #[test]
        fn no_address_is_left_out_or_tried_twice(families in proptest::collection::vec(any::<bool>(), 0..12)) {
            let given: Vec<SocketAddr> = families
                .iter()
                .zip(1_u16..)
                .map(|(ipv6, port)| address(&format!("{}:{port}", if *ipv6 { "[::1]" } else { "127.0.0.1" })))
                .collect();
            let mut turns = in_turns(given.clone());
            prop_assert_eq!(turns.first(), given.first());
            turns.sort_by_key(SocketAddr::port);
            prop_assert_eq!(turns, given);
        }
    }

    /// What becomes of an attempt, by the port: refused after so many milliseconds, open after so many, or neither.
    async fn attempt(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            9 => pending().await,
            port if port < 1000 => {
                sleep(Duration::from_millis(port.into())).await;
                Err(io::Error::other(port.to_string()))
            }
            port => {
                sleep(Duration::from_millis(u64::from(port) - 1000)).await;
                Ok(port)
            }
        }
    }

    async fn first_of(ports: &[u16]) -> (io::Result<u16>, u128) {
        let begun = Instant::now();
        let addresses = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        (first(addresses, attempt).await, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_after_a_refusal_at_once_and_beside_one_that_keeps_waiting() {
        let within = |expected: u16, at_ms: u128, (told, took_ms): (io::Result<u16>, u128)| {
            assert_eq!(told.unwrap(), expected);
            assert!((at_ms..at_ms + 5).contains(&took_ms), "{took_ms} ms instead of {at_ms}");
        };
        within(1010, 10, first_of(&[1010, 1001]).await);
        within(1010, 15, first_of(&[5, 1010]).await);
        within(1010, 260, first_of(&[9, 1010]).await);
        within(1010, 760, first_of(&[9, 9, 9, 1010]).await);
        within(1300, 300, first_of(&[1300, 1100]).await);
        within(1010, 265, first_of(&[9, 5, 1010]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_refused_the_first_reason_is_told_at_once_and_where_there_is_none_that() {
        let (told, took_ms) = first_of(&[20, 5, 7]).await;
        assert_eq!((told.unwrap_err().to_string().as_str(), took_ms < 40), ("20", true));
        assert!(first_of(&[]).await.0.unwrap_err().to_string().contains("no address"));
    }

    /// An address that neither refuses nor answers: its listener never accepts, and its backlog is full.
    async fn silent(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        (listener, queued)
    }

    /// A name with these addresses.
    #[derive(Debug)]
    struct Named(Vec<SocketAddr>);

    #[async_trait]
    impl Dial for Named {
        async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
            Ok(Box::new(connect(self.0.clone()).await?))
        }
    }

    #[tokio::test]
    async fn a_shard_is_reached_by_the_address_that_answers_past_one_that_is_silent_and_one_that_refuses() {
        let gateway = Simulator::start(simulator::Config::default()).await.unwrap();
        let alive = gateway.addr();
        let dead = SocketAddr::from(([127, 0, 0, 2], alive.port()));
        let _silent = silent(dead).await;
        let refusing = SocketAddr::from(([127, 0, 0, 3], alive.port()));
        let config = Config { url: gateway.url(), ..Config::default() };
        for addresses in [vec![dead, alive], vec![refusing, dead, alive], vec![dead, refusing, alive]] {
            let dialer = Dialer::over(Named(addresses.clone()), gateway::client_config(None).unwrap());
            let opened = dial_once(&config, &dialer, "exon", "demo").await;
            assert!(opened.as_ref().is_ok_and(|took| *took < Duration::from_secs(2)), "{addresses:?} {opened:?}");
        }
        let dialer = Dialer::over(Named(vec![refusing]), gateway::client_config(None).unwrap());
        assert!(dial_once(&config, &dialer, "exon", "demo").await.is_err());
    }

    #[tokio::test]
    async fn a_name_is_resolved_to_all_of_its_addresses_and_one_that_is_none_is_an_error() {
        let resolved = addresses("localhost", 7).await.unwrap();
        assert!(resolved.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{resolved:?}");
        assert_eq!(addresses("::1", 7).await.unwrap(), [address("[::1]:7")]);
        assert!(addresses("no-such-host.invalid", 7).await.is_err());
    }
}
