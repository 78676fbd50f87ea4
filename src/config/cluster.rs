//! The section `cluster`: several replicas. Where nothing of it is set, there is one bridge, and no database.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::server::Server;
use crate::cluster;
use crate::cluster::config::{LEASES, Tls};
use crate::database::{self, ConfigFault};
use crate::settings::Section;

/// How long a lease is by default.
const LEASE: Duration = Duration::from_secs(6);

/// A shorter secret can be guessed.
const LEAST_SECRET: usize = 32;

/// Where the system says how this machine is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// How this replica runs beside others.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub database: database::Config,
    pub replicas: cluster::Config,
}

pub(super) fn read(section: &mut Section<'_>, server: &Server) -> Option<Cluster> {
    let is_set = section.is_set();
    let errors_before = section.errors();
    let ca_file: Option<PathBuf> = section.optional("ca_file");
    let database = database(section, is_set, ca_file.as_deref());
    let listen: Option<SocketAddr> = section.optional("listen");
    let advertise: Option<String> = section.optional("advertise");
    let secret: Option<PathBuf> = section.optional("secret_file");
    let tls = tls(&mut section.section("tls"));
    let name: Option<String> = section.optional("name");
    let lease: Option<Duration> = section.optional("lease");
    let migrate: Option<bool> = section.optional("migrate");
    if !is_set {
        return None;
    }
    let listen = listening(section, listen, server);
    let advertise = advertised(section, advertise, listen);
    let secret = secret_of(section, secret);
    let lease = lease.unwrap_or(LEASE);
    if !LEASES.contains(&lease) {
        let (shortest, longest) =
            (humantime::format_duration(*LEASES.start()), humantime::format_duration(*LEASES.end()));
        section.error("lease", format_args!("must be from {shortest} to {longest}"));
    }
    let name = name.map(|name| name.trim().to_owned()).or_else(host_name).unwrap_or_default();
    if name.is_empty() {
        section.error("name", "is missing, and the system does not say how this machine is called");
    }
    if tls.is_none() && listen.is_some_and(|listen| !listen.ip().is_loopback()) {
        section
            .warn("tls", "is missing: what replicas pass on, tokens of callers too, passes between them unencrypted");
    }
    let (listen, advertise, database) = (listen?, advertise?, database?);
    let migrate = migrate.unwrap_or(true);
    let replicas = cluster::Config { listen, advertise, secret: secret?, tls, name, lease, migrate };
    (section.errors() == errors_before).then_some(Cluster { database, replicas })
}

fn database(section: &mut Section<'_>, is_set: bool, ca_file: Option<&Path>) -> Option<database::Config> {
    let errors_before = section.errors();
    let (given, file) = (section.secret("database"), section.optional::<PathBuf>("database_file"));
    let (key, url) = match (given, file) {
        (Some(url), None) => ("database", url),
        (None, Some(path)) => ("database_file", secret_in(section, "database_file", &path)?),
        (Some(_), Some(_)) => {
            section.error("database_file", "is set beside database; set one of them");
            return None;
        }
        (None, None) if is_set && section.errors() == errors_before => {
            section.error("database", "is missing; set it or database_file");
            return None;
        }
        (None, None) => return None,
    };
    let tls = || crate::gateway::client_config(ca_file);
    match database::Config::parse(url.expose_secret(), tls) {
        Ok(config) => return Some(config),
        Err(ConfigFault::Certificates(why)) => section.error("ca_file", format_args!("cannot be used: {why}")),
        Err(fault) => section.error(key, fault),
    }
    None
}

/// What a file holds, without white space around it.
fn secret_in(section: &mut Section<'_>, key: &str, path: &Path) -> Option<SecretString> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => {
            section.warn_of_readers(key, path);
            return Some(text.trim().into());
        }
        Ok(_) => section.error(key, format_args!("{} is empty", path.display())),
        Err(why) => section.error(key, format_args!("{} cannot be read: {why}", path.display())),
    }
    None
}

fn secret_of(section: &mut Section<'_>, file: Option<PathBuf>) -> Option<SecretString> {
    let Some(path) = file else {
        section.error("secret_file", "is missing: replicas show each other what it holds");
        return None;
    };
    let secret = secret_in(section, "secret_file", &path)?;
    if secret.expose_secret().len() < LEAST_SECRET {
        section.error("secret_file", format_args!("{} holds less than {LEAST_SECRET} characters", path.display()));
    }
    Some(secret)
}

fn listening(section: &mut Section<'_>, listen: Option<SocketAddr>, server: &Server) -> Option<SocketAddr> {
    let Some(listen) = listen else {
        section.error("listen", "is missing: other replicas pass requests on to it");
        return None;
    };
    if super::server::collide(listen, server.listen)
        || server.admin_listen.is_some_and(|admin| super::server::collide(listen, admin))
    {
        section.error("listen", "must differ from server.listen and server.admin_listen");
    }
    Some(listen)
}

/// How other replicas reach this one: a host and a port.
fn advertised(section: &mut Section<'_>, advertise: Option<String>, listen: Option<SocketAddr>) -> Option<String> {
    if let Some(advertise) = advertise {
        let port = advertise.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) || advertise.contains(['/', '@', ' ']) {
            section.error("advertise", "must be a host and a port, such as 10.0.0.5:9191");
        }
        return Some(advertise);
    }
    let listen = listen?;
    if listen.ip().is_unspecified() || listen.port() == 0 {
        section.error("advertise", "is missing: listen names no address that other replicas can reach");
        return None;
    }
    Some(listen.to_string())
}

fn tls(section: &mut Section<'_>) -> Option<Tls> {
    let names = ["certificate", "key", "ca"];
    let files = names.map(|name| section.optional::<PathBuf>(name));
    if files.iter().all(Option::is_none) {
        return None;
    }
    for (name, file) in names.into_iter().zip(&files) {
        match file {
            None => section.error(name, "is missing beside the others"),
            Some(path) => {
                if let Err(why) = std::fs::File::open(path) {
                    section.error(name, format_args!("{} cannot be read: {why}", path.display()));
                }
            }
        }
    }
    let [certificate, key, ca] = files;
    let tls = Tls { certificate: certificate?, key: key?, ca: ca? };
    section.warn_of_readers("key", &tls.key);
    Some(tls)
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string(HOST_NAME).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
