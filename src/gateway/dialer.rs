//! The way to the gateway: over what a connection's bytes travel, and whom it trusts.
//!
//! The bridge dials TCP. What the room promises has to hold on any network, though, also on one that exists only in a
//! simulation, where a seed decides every delay and a minute passes in moments; so the way is passed in. It costs one
//! pointer followed at each read and write, beside the system's own work for it.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A connection's bytes, both ways and in order, before TLS.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for S {}

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
        let tcp = TcpStream::connect((host, port)).await?;
        // One small frame each way per exchange: waiting to fill a segment would only add delay.
        tcp.set_nodelay(true)?;
        Ok(Box::new(tcp))
    }
}

/// How connections are opened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    network: Arc<dyn Dial>,
    tls: Arc<rustls::ClientConfig>,
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
        Self { network: Arc::new(network), tls }
    }

    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        self.network.dial(host, port).await
    }

    pub(super) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }
}
