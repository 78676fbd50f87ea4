//! The section `server`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::http;
use crate::http::client::parse_network;
use crate::http::listener::tls::Files;
use crate::settings::{Section, Size, url};

/// Where callers are served by default.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The smallest body limit that leaves room for a sale.
const LEAST_BODY: Size = Size::bytes(1024);

/// Schemes of browsers.
const WEB: [&str; 2] = ["http", "https"];

/// Listeners and limits towards callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub listen: SocketAddr,
    /// Where metrics and probes are served without a token.
    pub admin_listen: Option<SocketAddr>,
    /// Certificate and key, where the bridge itself speaks TLS.
    pub tls: Option<Files>,
    /// How long a stopping bridge goes on serving, not ready, so that load balancers notice.
    pub shutdown_delay: Duration,
    /// How long a stopping bridge waits for requests in progress.
    pub shutdown_grace: Duration,
    pub http: http::Config,
}

impl Server {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = http::Config::default();
        let listen = section.get("listen", DEFAULT_LISTEN);
        let admin_listen = section.optional("admin_listen");
        let tls = tls(&mut section.section("tls"));
        let shutdown_delay = section.get("shutdown_delay", Duration::ZERO);
        let shutdown_grace = section.get("shutdown_grace", default.shutdown_grace);
        let max_body = Size::bytes(u64::try_from(default.max_body).unwrap_or(u64::MAX));
        let max_body = section.at_least("max_body", max_body, &LEAST_BODY);
        let http = http::Config {
            deadline: section.at_least("deadline", default.deadline, &Duration::from_millis(100)),
            max_body: usize::try_from(max_body.in_bytes()).unwrap_or(usize::MAX),
            public_url: section.optional::<String>("public_url").map(|url| url.trim_end_matches('/').to_owned()),
            cors_origins: section.get("cors_origins", default.cors_origins),
            trusted_proxies: trusted_proxies(section),
            shutdown_grace,
            heartbeat: default.heartbeat,
            instance_label: default.instance_label,
            untaken: default.untaken,
            native: default.native,
        };
        section
            .gone("h2c", "is gone: the bridge speaks HTTP/1.1 only, and a proxy HTTP/2 to callers (docs/operating.md)");
        if let Some(public_url) = &http.public_url {
            if let Err(why) = url::check(public_url, &WEB) {
                section.error("public_url", why);
            } else if public_url.contains(['?', '#']) || url::names_a_user(public_url) {
                section.error("public_url", "must be a host and, if any, a port and a path, and nothing else");
            }
        }
        for origin in http.cors_origins.iter().filter(|origin| !is_origin(origin)) {
            section.error(
                "cors_origins",
                format_args!("`{}` is no origin, such as https://shop.example", url::redacted(origin)),
            );
        }
        if admin_listen.is_some_and(|admin| collide(listen, admin)) {
            section.error("admin_listen", "must differ from listen");
        }
        Self { listen, admin_listen, tls, shutdown_delay, shutdown_grace, http }
    }
}

/// Whether a browser sends this origin in this spelling: origins are compared as text.
fn is_origin(origin: &str) -> bool {
    url::check(origin, &WEB).is_ok()
        && url::after_authority(origin).is_empty()
        && !url::names_a_user(origin)
        && !origin.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether two listeners use the same port of the same address.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_address
}

fn tls(section: &mut Section<'_>) -> Option<Files> {
    let certificate: Option<PathBuf> = section.optional("certificate");
    let key: Option<PathBuf> = section.optional("key");
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            section.warn_of_readers("key", &key);
            let files = Files { certificate, key };
            if let Err(why) = files.read() {
                section.error("certificate", format_args!("cannot be used: {why}"));
            }
            Some(files)
        }
        (None, None) => None,
        (Some(_), None) => {
            section.error("key", "is missing beside the certificate");
            None
        }
        (None, Some(_)) => {
            section.error("certificate", "is missing beside the key");
            None
        }
    }
}

fn trusted_proxies(section: &mut Section<'_>) -> Vec<IpNet> {
    let named: Vec<String> = section.get("trusted_proxies", Vec::new());
    let mut networks = Vec::new();
    for name in &named {
        match parse_network(name) {
            Some(network) => networks.push(network),
            None => section.error("trusted_proxies", format_args!("`{name}` is no address and no network")),
        }
    }
    networks
}
