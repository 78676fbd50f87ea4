//! For tests: the real application over a bridge without a gateway, which answers every use case with
//! "no such instance", so a test can tell what reached it from what did not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix_http::Request;
use actix_web::Error;
use actix_web::body::{MessageBody, to_bytes};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::web::{Bytes, Data};
use secrecy::SecretString;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::auth::{self, Auth, Mode, Scope, Token};
use super::{Config, server};
use crate::bridge::{Bridge, Instance, Parts};
use crate::broadcasts::Broadcasts;
use crate::budget::{self, Ledger};
use crate::cache;
use crate::gateway::{self, EventSink, Pool};
use crate::journal::{self, Journal};
use crate::scratch;
use crate::shutdown::Shutdown;

/// A bridge without a gateway.
pub(crate) fn bridge() -> Bridge {
    bridge_for(None)
}

/// A bridge whose instance `demo` publishes `broadcasts`, and is connected to nothing.
pub(crate) fn bridge_over(broadcasts: Broadcasts) -> Bridge {
    let nothing = EventSink(Arc::new(|_| {}));
    let dialer = gateway::Dialer::tcp(gateway::client_config(None).unwrap());
    let parts = Parts {
        pool: Pool::new(gateway::Config::default(), "demo", "demo", dialer, nothing),
        ledger: Ledger::new(budget::Config::default()),
        api_key: SecretString::from("gateway-secret"),
        max_wait: Duration::ZERO,
        pay_max_wait: Duration::ZERO,
        broadcasts,
        relay: None,
    };
    bridge_for(Some(parts))
}

fn bridge_for(demo: Option<Parts>) -> Bridge {
    let cache = cache::Config { max_size: 0, min_age: Duration::ZERO, rules: BTreeMap::new(), store: None };
    let (cache, journal, shutdown) = (Arc::new(cache::Cache::new(cache)), journal(), Shutdown::new());
    let instances = demo.map(|parts| Instance::new("demo", parts, &cache, &journal, &shutdown));
    Bridge::new(instances.into_iter().collect(), &cache, &journal, shutdown)
}

/// A journal in a folder that goes with the process.
fn journal() -> Journal {
    let config = journal::Config::new(scratch::folder(), journal::Config::LEAST_KEEP).unwrap();
    Journal::open(&config).unwrap()
}

/// Callers for tests: `ALL` may do everything in `demo`, each scope's own name is a token with only that scope, and
/// `gateway-secret` is the gateway key of `demo`.
pub(crate) fn auth() -> Arc<Auth> {
    let mut tokens: BTreeMap<String, Token> =
        Scope::ALL.into_iter().map(|scope| (scope.name().to_owned(), token(scope.name(), [scope].into()))).collect();
    tokens.insert("all".to_owned(), token("ALL", Scope::ALL.into()));
    let keys = BTreeMap::from([("demo".to_owned(), SecretString::from("gateway-secret"))]);
    Arc::new(Auth::new(&auth::Config { mode: Mode::Tokens, tokens, ..auth::Config::default() }, &keys).unwrap())
}

fn token(secret: &str, scopes: BTreeSet<Scope>) -> Token {
    Token {
        sha256: vec![Sha256::digest(secret).into()],
        instances: vec!["demo".to_owned()],
        scopes,
        max_in_flight: 64,
        per_second: 200,
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An application with these settings and callers.
pub(crate) async fn app(
    config: Config,
    auth: Arc<Auth>,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    init_service(server::app(Data::new(server::state(bridge(), auth, config)))).await
}

/// Sends one request to an application with these settings and callers.
pub(crate) async fn ask_with(config: Config, auth: Arc<Auth>, request: TestRequest) -> Answer {
    let response = call_service(&app(config, auth).await, request.to_request()).await;
    let (_, response) = response.into_parts();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.map_err(Into::into).unwrap();
    Answer { status, headers, body }
}

/// Sends one request to an application with the default settings.
pub(crate) async fn ask(request: TestRequest) -> Answer {
    ask_with(Config::default(), auth(), request).await
}

/// A request by the caller who may do everything.
pub(crate) fn allowed(request: TestRequest) -> TestRequest {
    request.insert_header(("Authorization", "Bearer ALL"))
}
