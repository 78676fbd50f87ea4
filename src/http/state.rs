//! What all requests share, made once and passed to the handlers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Data;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::auth::Auth;
use super::client;
use super::config::Config;
use super::connections::Connections;
use super::forwarding::Forwarding;
use super::metrics::Metrics;
use super::native::NativeState;
use super::openapi::served::ServedDocuments;
use super::problem::{Problem, table};
use super::request::query_names::QueryNames;
use super::routes::allowed_methods::AllowedMethods;
use crate::bridge::Bridge;
use crate::bridge::attention::findings;
use crate::bridge::attention_log::AttentionLog;
use crate::bridge::status::{BridgeStatus, CallerStatus};
use crate::cluster::Route;
use crate::telemetry::runtimes::Runtimes;

/// How often it is looked for what needs attention, to be logged.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// State of the handlers. One for all threads: a budget in each worker's own state would be as many budgets as there are
/// cores.
#[derive(Debug)]
pub struct AppState {
    pub bridge: Bridge,
    pub auth: Arc<Auth>,
    pub config: Config,
    pub native: NativeState,
    pub allowed_methods: AllowedMethods,
    pub query_names: QueryNames,
    pub documents: ServedDocuments,
    pub metrics: Metrics,
    pub runtimes: Runtimes,
    pub connections: Arc<Connections>,
    pub untrusted: client::Untrusted,
    /// Where there are several replicas.
    pub forwarding: Option<Forwarding>,
}

impl AppState {
    /// The bridge at this moment, with the callers that were refused; see [`Bridge::overview`].
    pub async fn overview(&self, wanted: impl Fn(&str) -> bool) -> BridgeStatus {
        let status = self.bridge.overview(&wanted).await;
        let callers = status.whole.then(|| self.refused_callers());
        let cluster = self.forwarding.as_ref().map(|forwarding| forwarding.status(&wanted));
        BridgeStatus { callers, cluster, ..status }
    }

    /// Logs what needs attention, for as long as it is polled. A drain, in which links are closed, is none of it.
    pub async fn log_attention(&self) {
        let mut log = AttentionLog::default();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // At a start nothing is known yet.
        looks.tick().await;
        while !self.bridge.is_draining() {
            looks.tick().await;
            let status = self.overview(|_| true).await;
            if !self.bridge.is_draining() {
                log.tell(findings(&status), Instant::now());
            }
        }
    }

    /// Whether another replica can serve the instance, whether or not one does at this moment.
    #[must_use]
    pub fn is_served_elsewhere(&self, instance: &str) -> bool {
        let route = self.forwarding.as_ref().map(|forwarding| forwarding.directory().route(instance));
        route.is_some_and(|route| route != Route::Unknown)
    }

    /// The names of all instances, in order: of those that are served here, and of those that other replicas can serve.
    #[must_use]
    pub fn instance_names(&self) -> Vec<String> {
        let here: Vec<String> = self.bridge.instances().names().map(str::to_owned).collect();
        let Some(forwarding) = &self.forwarding else { return here };
        let members = forwarding.directory().members();
        let listed = members.iter().flat_map(|member| member.instances.iter()).map(|listed| listed.name.to_string());
        here.into_iter().chain(listed).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn refused_callers(&self) -> CallerStatus {
        let ([turned_away], [blocked_attempts]) = {
            let now = Instant::now();
            let throttle = self.auth.throttle();
            (self.connections.refused_lately.last_minute(now), throttle.blocked_lately.last_minute(now))
        };
        let limited = self.auth.limiters().into_iter();
        let limited = limited.map(|(caller, limiters)| (caller, limiters.iter().map(|one| one.refused_lately()).sum()));
        let limited = limited.filter(|(_, refused)| *refused > 0).collect();
        CallerStatus { turned_away, blocked_attempts, limited, issuer_keys: self.auth.key_status() }
    }

    /// The state of the application that serves `request`.
    pub fn of(request: &HttpRequest) -> Result<&Data<Self>, Problem> {
        request.app_data::<Data<Self>>().ok_or_else(|| Problem::new(&table::INTERNAL_ERROR))
    }
}
