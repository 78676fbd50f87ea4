//! The whole configuration: gathers each room's section, and checks what concerns several of them.
//!
//! All errors are reported together. Secrets are shown as `(redacted)`.
//!
//! Entry point: [`Config::load`].

mod auth;
mod cache;
mod cluster;
mod events;
mod folders;
mod instances;
mod jwt;
mod limits;
mod payments;
mod server;
mod telemetry;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use secrecy::SecretString;

pub use cluster::Cluster;
pub use instances::Instance;
pub use server::{DEFAULT_LISTEN, Server};
pub use telemetry::Telemetry;

use crate::gateway;
use crate::http;
use crate::http::auth::{AuthConfigError, Config as Auth, Mode};
use crate::settings::{ConfigErrors, EffectiveConfig, Section, Settings};

#[derive(Debug)]
pub struct Config {
    /// Listeners and limits towards callers.
    pub server: Server,
    /// How the gateway is reached.
    pub gateway: gateway::Config,
    /// The instances, by name.
    pub instances: BTreeMap<String, Instance>,
    /// Who may call.
    pub auth: Auth,
    /// How many points the gateway gives, and who waits for them how long.
    pub limits: crate::budget::Config,
    /// How long copies of replies are fresh and kept.
    pub cache: crate::cache::Config,
    /// How broadcasts are kept and passed on.
    pub events: crate::broadcasts::Config,
    /// Where payments are recorded, and how long.
    pub payments: crate::journal::Config,
    /// Several replicas; none for one bridge.
    pub cluster: Option<Cluster>,
    /// What the bridge tells.
    pub telemetry: Telemetry,
}

impl Config {
    /// Reads `file`, if one is given, with `environment` over it. The second value has the origin of each setting.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, EffectiveConfig), ConfigErrors> {
        let mut settings = Settings::load(file, environment)?;
        let mut root = settings.root();
        let mut server = Server::read(&mut root.section("server"));
        let mut gateway = gateway::Config::read(&mut root.section("gateway"));
        let instances = instances::read(&mut root.section("instances"), &gateway.shards);
        let auth = auth::read(&mut root.section("auth"), &instances);
        let limits = limits::read(&mut root.section("limits"));
        let cache = cache::read(&mut root.section("cache"));
        let events = events::read(&mut root.section("events"));
        payments::read_refusal_grace(&mut root.section("payments"), &mut gateway);
        let payments = payments::read(&mut root.section("payments"));
        let cluster = cluster::read(&mut root.section("cluster"), &server);
        let telemetry = Telemetry::read(&mut root.section("telemetry"));
        server.http.heartbeat = events.heartbeat;
        server.http.instance_label = telemetry.instance_label;
        server.http.native = http::native::NativeConfig {
            hearing: events.native,
            shards: gateway.shards.clone(),
            ..http::native::NativeConfig::default()
        };
        if auth.mode == Mode::None && !server.listen.ip().is_loopback() {
            root.section("auth").error(
                "mode",
                format_args!("may be \"none\" only on a loopback address, and server.listen is {}", server.listen),
            );
        }
        if server.shutdown_grace <= gateway.request_timeout {
            root.section("server")
                .error("shutdown_grace", "must exceed gateway.request_timeout, so that a command under way can end");
        }
        for refusal in http::auth::Auth::check(&auth, &accepted_gateway_keys(&instances)) {
            refused(&mut root.section("auth"), &refusal);
        }
        if cache.store.as_deref().is_some_and(|store| folders::is_same(store, payments.directory())) {
            root.section("cache").error("store", "must be another folder than payments.journal");
        }
        let config = Self { server, gateway, instances, auth, limits, cache, events, payments, cluster, telemetry };
        settings.finish().map(|printed| (config, printed))
    }

    /// The gateway keys of those instances that accept theirs as a token.
    #[must_use]
    pub fn accepted_gateway_keys(&self) -> BTreeMap<String, SecretString> {
        accepted_gateway_keys(&self.instances)
    }
}

fn accepted_gateway_keys(instances: &BTreeMap<String, Instance>) -> BTreeMap<String, SecretString> {
    let accepting = instances.iter().filter(|(_, instance)| instance.accept_gateway_key);
    accepting.map(|(name, instance)| (name.clone(), instance.api_key.clone())).collect()
}

/// Reports why callers cannot be told apart. That nobody may call was reported when the section was read.
fn refused(auth: &mut Section<'_>, refusal: &AuthConfigError) {
    let mut tokens = auth.section("tokens");
    match refusal {
        AuthConfigError::NoCaller => {}
        AuthConfigError::ReservedName(name) => {
            tokens.section(name).error("", "has a name that the bridge uses itself; name it otherwise");
        }
        AuthConfigError::NameOfAnIssuer(name) => {
            tokens
                .section(name)
                .error("", "has a `|` in its name, which only callers with a JWT have; name it otherwise");
        }
        AuthConfigError::NoKeys(why) => auth.section("jwt").error("jwks_file", format_args!("cannot be used: {why}")),
        AuthConfigError::SharedDigest(other, name) => {
            tokens.section(name).error("sha256", format_args!("holds a digest that auth.tokens.{other} has too"));
        }
    }
}
