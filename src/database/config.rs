//! Where the database is, as its URL says.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::tls::Tls;

/// A connection whose other end vanished is given up after as long.
const SOCKET_LIMIT: Duration = Duration::from_secs(5);

const DEFAULT_PORT: u16 = 5432;

/// Why a URL of a database cannot be used. Never quotes it, since it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    #[error("it is no URL of a PostgreSQL database: {0}")]
    Unparsable(String),
    #[error("it names no host")]
    NoHost,
    #[error("it names {hosts} hosts and {others} {what}: one for each, or one for all")]
    Uneven { hosts: usize, others: usize, what: &'static str },
    #[error("{0} is another machine: its URL needs sslmode=require, which verifies the certificate and the name in it")]
    Plaintext(String),
    #[error("{0}")]
    Certificates(String),
}

/// How to reach a database. Cheap to clone.
#[derive(Clone)]
pub struct Config(Arc<Reach>);

struct Reach {
    /// One for each server, in the order in which they are tried.
    servers: Vec<tokio_postgres::Config>,
    tls: Tls,
}

impl Config {
    /// Reads a URL such as `postgres://bridge@db1,db2/bridge?target_session_attrs=read-write&sslmode=require`, or the
    /// `key=value` form. `tls` gives what certificates are judged by.
    pub fn parse(url: &str, tls: impl FnOnce() -> Result<Arc<ClientConfig>, String>) -> Result<Self, ConfigFault> {
        let whole: tokio_postgres::Config =
            url.trim().parse().map_err(|fault| ConfigFault::Unparsable(super::error::explained(&fault)))?;
        let servers = servers(&whole)?;
        if let Some(name) = other_machine(&whole)
            && whole.get_ssl_mode() != SslMode::Require
        {
            return Err(ConfigFault::Plaintext(name));
        }
        Ok(Self(Arc::new(Reach { servers, tls: Tls(tls().map_err(ConfigFault::Certificates)?) })))
    }

    /// How many servers may be the one that takes writes.
    pub(super) fn servers(&self) -> usize {
        self.0.servers.len()
    }

    /// How the `at`th server is reached for `purpose`, counted round and round.
    pub(super) fn server(&self, at: usize, purpose: &str) -> Option<(tokio_postgres::Config, Tls)> {
        let mut server = self.0.servers.get(at.checked_rem(self.servers())?)?.clone();
        if server.get_application_name().is_none() {
            server.application_name(format!("concertpos-bridge {purpose}"));
        }
        Some((server, self.0.tls.clone()))
    }
}

/// Without its password.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.0.servers.iter().flat_map(tokio_postgres::Config::get_hosts).collect();
        formatter.debug_struct("Config").field("hosts", &hosts).finish_non_exhaustive()
    }
}

/// The first host that is not this machine.
fn other_machine(whole: &tokio_postgres::Config) -> Option<String> {
    let addresses = whole.get_hostaddrs().iter().find(|address| !address.is_loopback()).map(ToString::to_string);
    let mut names = whole.get_hosts().iter().filter_map(|host| match host {
        Host::Tcp(name) if !is_this_machine(name) => Some(name.clone()),
        _ => None,
    });
    // The name only serves to verify where the address is given.
    addresses.or_else(|| if whole.get_hostaddrs().is_empty() { names.next() } else { None })
}

fn is_this_machine(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn servers(whole: &tokio_postgres::Config) -> Result<Vec<tokio_postgres::Config>, ConfigFault> {
    let (hosts, addresses, ports) = (whole.get_hosts(), whole.get_hostaddrs(), whole.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(ConfigFault::NoHost);
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(ConfigFault::Uneven { hosts: hosts.len(), others: addresses.len(), what: "addresses" });
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConfigFault::Uneven { hosts: count, others: ports.len(), what: "ports" });
    }
    let one = |at: usize| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        server(whole, hosts.get(at), addresses.get(at).copied(), port)
    };
    Ok((0..count).map(one).collect())
}

/// The settings of one server.
fn server(
    whole: &tokio_postgres::Config,
    host: Option<&Host>,
    address: Option<IpAddr>,
    port: u16,
) -> tokio_postgres::Config {
    let mut server = tokio_postgres::Config::new();
    match host {
        Some(Host::Tcp(name)) => drop(server.host(name)),
        #[cfg(unix)]
        Some(Host::Unix(path)) => drop(server.host_path(path)),
        None => {}
    }
    if let Some(address) = address {
        server.hostaddr(address);
    }
    if let Some(user) = whole.get_user() {
        server.user(user);
    }
    if let Some(password) = whole.get_password() {
        server.password(password);
    }
    if let Some(name) = whole.get_dbname() {
        server.dbname(name);
    }
    if let Some(options) = whole.get_options() {
        server.options(options);
    }
    if let Some(name) = whole.get_application_name() {
        server.application_name(name);
    }
    server
        .port(port)
        .ssl_mode(whole.get_ssl_mode())
        .channel_binding(whole.get_channel_binding())
        // A standby takes no writes, whatever the URL says.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .tcp_user_timeout(SOCKET_LIMIT)
        .keepalives(true)
        .keepalives_idle(SOCKET_LIMIT)
        .keepalives_interval(Duration::from_secs(1))
        .keepalives_retries(3);
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Config, ConfigFault> {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Config::parse(url, || Ok(Arc::new(tls.with_root_certificates(roots).with_no_client_auth())))
    }

    #[test]
    fn each_host_is_a_server_with_its_port_and_takes_writes() {
        let config = parse("postgres://bridge:pw@db1:5001,db2:5002/bridge?sslmode=require").unwrap();
        let server = |at| config.server(at, "journal").unwrap().0;
        assert_eq!(config.servers(), 2);
        assert_eq!((server(1).get_hosts(), server(1).get_ports()), (&[Host::Tcp("db2".into())][..], &[5002][..]));
        assert_eq!(server(2).get_hosts(), [Host::Tcp("db1".into())]);
        assert_eq!(server(0).get_application_name(), Some("concertpos-bridge journal"));
        assert_eq!(server(0).get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        let shown = format!("{config:?}");
        assert!(shown.contains("db1") && !shown.contains("pw"), "{shown}");
    }

    #[test]
    fn another_machine_needs_tls_and_this_one_does_not() {
        for url in [
            "postgres://db1/bridge",
            "postgres://db1/bridge?sslmode=prefer",
            "postgres://localhost,10.0.0.7/bridge?sslmode=disable",
            "host=localhost hostaddr=10.0.0.7 dbname=bridge",
        ] {
            assert!(matches!(parse(url), Err(ConfigFault::Plaintext(_))), "{url}");
        }
        for url in [
            "postgres://localhost/bridge",
            "postgres://127.0.0.1,[::1]/bridge",
            "host=/run/postgresql dbname=bridge",
            "host=db1 hostaddr=127.0.0.1",
            "postgres://db1/bridge?sslmode=require",
        ] {
            assert!(parse(url).is_ok(), "{url}: {:?}", parse(url));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_its_password() {
        assert_eq!(parse("dbname=bridge").unwrap_err(), ConfigFault::NoHost);
        let uneven = ConfigFault::Uneven { hosts: 3, others: 2, what: "ports" };
        assert_eq!(parse("host=::1,::1,::1 port=1,2").unwrap_err(), uneven);
        let fault = parse("postgres://bridge:hunter2@localhost/bridge?sslmode=maybe").unwrap_err();
        assert!(!fault.to_string().contains("hunter2"), "{fault}");
    }
}
