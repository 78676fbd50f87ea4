//! The settings of the section `cluster`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// By how much a session stops before its lease is over, and by how much others wait longer before they end it: what the
/// clocks of two machines may differ by in the length of a lease.
pub const MARGIN: Duration = Duration::from_secs(1);

/// How long a lease may be: it outlasts two renewals that failed, and an instance whose owner died is away for longer than it.
pub const LEASES: RangeInclusive<Duration> = Duration::from_secs(4)..=Duration::from_mins(2);

/// How this replica is known to the others, and for how long it may act without the database.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where other replicas pass requests on.
    pub listen: SocketAddr,
    /// How they reach it: a host and a port.
    pub advertise: String,
    /// What replicas show each other.
    pub secret: SecretString,
    /// Encrypts what is passed on.
    pub tls: Option<Tls>,
    /// The name of this replica for people.
    pub name: String,
    /// How long after its last renewal a session may act, but for [`MARGIN`]; within [`LEASES`].
    pub lease: Duration,
    /// Whether a start brings the schema up to date.
    pub migrate: bool,
}

/// Certificate and key of this replica, and the authorities that it believes the others' certificates from; all as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}
