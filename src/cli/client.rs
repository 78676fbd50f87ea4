//! The bridge over HTTP, for an operator's commands.
//!
//! A token comes from a file or from the environment, never from an argument, which every user of the machine can read. It
//! goes to the bridge that was named and nowhere else: no redirect is followed and no proxy is used. Every request has a
//! deadline.

use std::env;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use secrecy::{ExposeSecret, SecretString};
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, LINK, LOCATION};
use ureq::http::{HeaderValue, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, RequestBuilder};

use super::common::{Failure, as_json, print};
use super::node::Node;
use super::refusal::Refusal;
use super::terminal;
use crate::config::DEFAULT_LISTEN;
use crate::gateway;
use crate::settings::url;

/// Names without two underscores: `BRIDGE_SECTION__KEY` is a setting of `serve`.
const URL: &str = "BRIDGE_URL";
const TOKEN: &str = "BRIDGE_TOKEN";
const TOKEN_FILE: &str = "BRIDGE_TOKEN_FILE";
const CA_FILE: &str = "BRIDGE_CA_FILE";
const INSTANCE: &str = "BRIDGE_INSTANCE";

/// What `--help` says after the flags of each of these commands.
pub(super) const HELP: &str = "Environment:
  BRIDGE_URL         the bridge's address, where --url is not given
  BRIDGE_TOKEN       the token, where --token-file is not given
  BRIDGE_TOKEN_FILE  the file that holds it, where BRIDGE_TOKEN is not set
  BRIDGE_CA_FILE     certificates to trust, where --ca-file is not given
  BRIDGE_INSTANCE    the instance, where --instance is not given

Exit status: 0 done, 1 refused or failed, 2 bad usage. Errors go to standard error.";

/// For a name to be found and a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read. A listing has at most 1000 payments, each of some kilobytes.
const MOST_BYTES: u64 = 64 << 20;

/// What a path segment may hold as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which bridge is asked, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bridge")]
pub(super) struct Connection {
    /// Address of the bridge; else `BRIDGE_URL`, else `http://127.0.0.1:8080`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File that holds the token; else `BRIDGE_TOKEN`, the token itself, else `BRIDGE_TOKEN_FILE`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of certificates to trust beside the system's roots; else `BRIDGE_CA_FILE`
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long the bridge may take to answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the bridge's JSON as it came; a refusal's goes to standard error
    #[arg(long)]
    pub(super) json: bool,
}

/// The instance that is meant.
#[derive(Debug, Args)]
pub(super) struct InInstance {
    /// Instance; else `BRIDGE_INSTANCE`, else the only one that the token may use
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Csv,
    EventStream,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::EventStream => "text/event-stream",
        }
    }
}

/// Why a request has no answer of the kind that was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The bridge said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// There was no answer, or none of a bridge.
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => Self::Refused(refusal),
            CallError::Failed(error) => Self::Other(error),
        }
    }
}

impl CallError {
    /// Says what the operator may do, where the problem has this code.
    pub(super) fn hint(self, code: &str, hint: impl FnOnce() -> String) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Box::new(refusal.hint(code, hint))),
            failed @ Self::Failed(_) => failed,
        }
    }
}

/// An answer of the bridge.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: String,
    /// The tag of the record, as `If-Match` wants it.
    pub(super) etag: Option<String>,
    /// Where more is.
    pub(super) link: Option<String>,
}

impl Answer {
    /// The body, to look into.
    pub(super) fn node(&self) -> anyhow::Result<Node> {
        Node::parse(&self.body).context("the answer is no JSON")
    }
}

/// One bridge and the token for it.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<SecretString>,
    timeout: Duration,
    json: bool,
}

impl Client {
    /// Reads address, token and certificates; connects to nothing.
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let base = base(connection)?;
        let tls = if base.starts_with("https:") { tls(connection)? } else { TlsConfig::builder().build() };
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("concertpos-bridge/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT));
        let (token, timeout, json) = (token(connection)?, connection.timeout, connection.json);
        Ok(Self { agent: config.build().new_agent(), base, token, timeout, json })
    }

    /// `GET` of the path that these segments make.
    pub(super) fn get(&self, path: &[&str], query: &[(&str, String)], media: Media) -> Result<Answer, CallError> {
        let url = self.url(path);
        let request = self.agent.get(&url).query_pairs(query.iter().map(|(name, value)| (*name, value)));
        let request = request.config().timeout_global(Some(self.timeout)).build();
        let response = self.with_token(request, media)?.call();
        self.answer(&url, media, response)
    }

    /// `PUT` of a JSON document there.
    pub(super) fn put(&self, path: &[&str], if_match: Option<&str>, body: &str) -> Result<Answer, CallError> {
        let url = self.url(path);
        let mut request = self.agent.put(&url).content_type(Media::Json.name());
        if let Some(tag) = if_match {
            request = request.header(IF_MATCH, tag);
        }
        let request = request.config().timeout_global(Some(self.timeout)).build();
        let response = self.with_token(request, Media::Json)?.send(body);
        self.answer(&url, Media::Json, response)
    }

    /// Opens an event stream there, after the event with this id. It ends with an error when nothing comes for `silence`.
    pub(super) fn stream(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        last_id: Option<&str>,
        silence: Duration,
    ) -> Result<impl Read + use<>, CallError> {
        let url = self.url(path);
        let mut request = self.agent.get(&url).query_pairs(query.iter().map(|(name, value)| (*name, value)));
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let limits = request.config().timeout_recv_response(Some(self.timeout)).timeout_per_read(Some(silence));
        let response = self.with_token(limits.build(), Media::EventStream)?.call();
        let response = response.map_err(|error| CallError::Failed(self.explain(&url, error)))?;
        if !response.status().is_success() {
            return Err(match self.answer(&url, Media::EventStream, Ok(response)) {
                Err(error) => error,
                Ok(_) => CallError::Failed(anyhow!("{url}: no stream")),
            });
        }
        is_kind(&url, Media::EventStream, &response)?;
        Ok(response.into_body().into_reader())
    }

    /// The instance that was named, or the only one that the token may use.
    pub(super) fn instance(&self, wanted: &InInstance) -> Result<String, Failure> {
        if let Some(name) = wanted.instance.clone().filter(|name| !name.is_empty()).or_else(|| variable(INSTANCE)) {
            return Ok(name);
        }
        let list = self.get(&["v1", "instances"], &[], Media::Json)?.node()?;
        let names: Vec<&str> = list.items("instances").iter().filter_map(Node::as_text).collect();
        match names[..] {
            [only] => Ok(only.to_owned()),
            [] => {
                Err(Failure::Other(anyhow!("the token may use no instance that is served; name one with --instance")))
            }
            _ => {
                let names = terminal::one_line(&names.join(", "));
                Err(Failure::Usage(format!(
                    "name an instance with --instance or {INSTANCE}: the token may use {names}"
                )))
            }
        }
    }

    /// Prints the answer as it came, or as `shown` makes it readable.
    pub(super) fn show(&self, answer: &Answer, shown: impl FnOnce(&Node) -> String) -> Result<(), Failure> {
        // Read in both cases, so that what is no JSON is never printed as some.
        let node = answer.node()?;
        let text = if self.json { as_json(&answer.body) } else { shown(&node) };
        print(&text).context("standard output")?;
        Ok(())
    }

    /// The address of a path.
    fn url(&self, path: &[&str]) -> String {
        path.iter().fold(self.base.clone(), |mut url, segment| {
            url.push('/');
            url.extend(percent_encode(segment.as_bytes(), SEGMENT));
            url
        })
    }

    fn with_token<B>(&self, request: RequestBuilder<B>, media: Media) -> Result<RequestBuilder<B>, CallError> {
        let request = request.header(ACCEPT, media.name());
        let Some(token) = &self.token else { return Ok(request) };
        let header = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        let mut header = header.map_err(|_| CallError::Failed(anyhow!("the token holds a character that none has")))?;
        header.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, header))
    }

    fn answer(
        &self,
        url: &str,
        media: Media,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<Answer, CallError> {
        let failed = |error| CallError::Failed(self.explain(url, error));
        let mut response = response.map_err(failed)?;
        let body = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string();
        let body = body.map_err(failed)?;
        self.judge(url, media, &response, body)
    }

    /// An answer, or what is wrong with it.
    fn judge<B>(&self, url: &str, media: Media, response: &Response<B>, body: String) -> Result<Answer, CallError> {
        let (status, header) = (response.status(), |name| text_of(response, name));
        if status.is_success() {
            is_kind(url, media, response)?;
            return Ok(Answer { body, etag: header(ETAG), link: header(LINK) });
        }
        if let Some(place) = header(LOCATION).filter(|_| status.is_redirection()) {
            let place = terminal::one_line(&place);
            return Err(CallError::Failed(anyhow!(
                "{url} answered {status} and points to {place}: is that the --url?"
            )));
        }
        let media_type = header(CONTENT_TYPE).unwrap_or_default();
        let refusal = Refusal::new(url.to_owned(), status.as_u16(), &media_type, body).shown_as_json(self.json);
        let without_token = self.token.is_none();
        let refusal = refusal.hint("unauthenticated", || {
            let given = if without_token { "No token was given" } else { "The token that was given is not accepted" };
            format!("{given}: use --token-file, {TOKEN} or {TOKEN_FILE}.")
        });
        Err(CallError::Refused(Box::new(refusal)))
    }

    fn explain(&self, url: &str, error: ureq::Error) -> anyhow::Error {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                anyhow!("{url}: no connection within {}", humantime::format_duration(CONNECT_TIMEOUT))
            }
            ureq::Error::Timeout(_) => anyhow!("{url}: no answer within {}", humantime::format_duration(self.timeout)),
            ureq::Error::Io(error) => anyhow!("{url}: {error}"),
            other => anyhow!("{url}: {other}"),
        }
    }
}

/// An error where the answer is of another kind than was asked for.
fn is_kind<B>(url: &str, media: Media, response: &Response<B>) -> Result<(), CallError> {
    let kind = text_of(response, CONTENT_TYPE).unwrap_or_default();
    if kind.starts_with(media.name()) {
        return Ok(());
    }
    let (status, kind) = (response.status(), terminal::one_line(&kind));
    Err(CallError::Failed(anyhow!("{url} answered {status} with `{kind}`, and not as a bridge does")))
}

fn text_of<B>(response: &Response<B>, name: HeaderName) -> Option<String> {
    response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The address before `/v1`.
fn base(connection: &Connection) -> Result<String, Failure> {
    let given = connection.url.clone().map(|url| ("--url", url)).or_else(|| Some((URL, variable(URL)?)));
    let (origin, text) = given.unwrap_or_else(|| ("--url", format!("http://{DEFAULT_LISTEN}")));
    let base = text.trim().trim_end_matches('/');
    let usage = |why: &str| Failure::Usage(format!("{origin}: {why}"));
    url::check(base, &["http", "https"]).map_err(|why| usage(&why))?;
    if url::names_a_user(base) {
        return Err(usage("must hold no name and no password: the bridge takes a token"));
    }
    if url::after_authority(base).contains(['?', '#']) {
        return Err(usage("must end before the query"));
    }
    Ok(base.to_owned())
}

/// The token, if there is one. A bridge without authentication wants none.
fn token(connection: &Connection) -> Result<Option<SecretString>, Failure> {
    let file = match &connection.token_file {
        Some(file) => Some(file.clone()),
        None => match variable(TOKEN) {
            Some(token) => return Ok(Some(token.trim().to_owned().into())),
            None => variable(TOKEN_FILE).map(PathBuf::from),
        },
    };
    let Some(file) = file else { return Ok(None) };
    let unusable = |why: &dyn std::fmt::Display| Failure::Usage(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| unusable(&error))?;
    match text.trim() {
        "" => Err(unusable(&"holds no token")),
        token => Ok(Some(token.to_owned().into())),
    }
}

/// The system's roots and the file's.
fn tls(connection: &Connection) -> Result<TlsConfig, Failure> {
    let file = connection.ca_file.clone().or_else(|| variable(CA_FILE).map(PathBuf::from));
    let trusted = gateway::trusted_certificates(file.as_deref()).map_err(Failure::Usage)?;
    let roots: Vec<_> = trusted.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}
