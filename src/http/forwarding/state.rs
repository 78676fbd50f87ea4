//! What all requests that are passed on share.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rustls::{ClientConfig, ServerConfig};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use super::proof::{Key, Sealed, Ticket};
use super::tls::Tls;
use crate::bridge::status::ClusterStatus;
use crate::clock::{unix_ms, whole_ms};
use crate::cluster::{Config, Directory, Peer, status};

/// What a new connection is opened with.
pub(super) const GREETING: &str = "/cluster/greeting";

/// Requests that wait at once for an owner to become known. A thread's share of memory, and less than a second of a festival.
const MAX_WAITING: usize = 4096;

/// Passes requests on to the owners of their instances. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Forwarding(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    directory: Directory,
    key: Key,
    /// The name of this replica, and where the others reach it.
    name: String,
    advertise: String,
    lease: Duration,
    tls: Option<Tls>,
    waiting: Semaphore,
    metrics: Metrics,
    warnings: DefaultDirectRateLimiter,
}

impl Forwarding {
    /// The error is a sentence that names what is wrong.
    pub fn new(config: &Config, directory: Directory) -> Result<Self, String> {
        Ok(Self(Arc::new(Shared {
            directory,
            key: Key::new(config.secret.expose_secret())?,
            name: config.name.clone(),
            advertise: config.advertise.clone(),
            lease: config.lease,
            tls: config.tls.as_ref().map(Tls::read).transpose()?,
            waiting: Semaphore::new(MAX_WAITING),
            metrics: Metrics::default(),
            warnings: RateLimiter::direct(Quota::per_second(NonZeroU32::MIN)),
        })))
    }

    /// Who owns what.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// The replicas as this one knows them, with the instances that are `wanted`.
    pub fn status(&self, wanted: impl Fn(&str) -> bool) -> ClusterStatus {
        status::status(&self.0.directory, &self.0.name, self.0.lease, wanted)
    }

    /// This replica as the others see it; none while it has no session.
    pub(super) fn this_replica(&self, epoch: i64) -> Option<Peer> {
        let (name, address) = (self.0.name.as_str().into(), self.0.advertise.as_str().into());
        Some(Peer { session: self.0.directory.me()?, name, address, epoch })
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn key(&self) -> &Key {
        &self.0.key
    }

    pub(super) fn advertise(&self) -> &str {
        &self.0.advertise
    }

    /// Whether another warning of one request may be logged now: an owner that died has thousands of them.
    pub(super) fn may_warn(&self) -> bool {
        self.0.warnings.check().is_ok()
    }

    pub(super) fn waiting(&self) -> &Semaphore {
        &self.0.waiting
    }

    pub(super) fn client_tls(&self) -> Option<Arc<ClientConfig>> {
        self.0.tls.as_ref().map(|tls| Arc::clone(&tls.client))
    }

    pub(crate) fn server_tls(&self) -> Option<Arc<ServerConfig>> {
        self.0.tls.as_ref().map(|tls| Arc::clone(&tls.server))
    }

    /// A ticket for a request to the replica at `to`.
    pub(super) fn ticket(
        &self,
        to: &str,
        (epoch, hops): (i64, u8),
        left: Duration,
        address: IpAddr,
    ) -> Result<Ticket, String> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| "the system gives no random bytes".to_owned())?;
        Ok(Ticket {
            time_ms: unix_ms(),
            nonce,
            epoch,
            hops,
            left_ms: whole_ms(left),
            address,
            from: self.0.name.clone(),
            to: to.to_owned(),
        })
    }

    pub(super) fn greeting(&self, to: &str) -> Result<Sealed, String> {
        let ticket = self.ticket(to, (0, 0), Duration::ZERO, IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
        Ok(ticket.seal(&self.0.key, "GET", GREETING))
    }
}
