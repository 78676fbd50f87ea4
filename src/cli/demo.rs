//! `demo`: simulated gateway and bridge in one process, to see the main job done with nothing else installed.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::common::log_to_standard_error;
use super::token;
use crate::app::App;
use crate::config::{Config, DEFAULT_LISTEN};
use crate::shutdown::Shutdown;
use concertpos_simulator::{self as simulator, Counting, DEFAULT_API_KEY, DEFAULT_INSTANCE, Limits, Simulator};

/// A real gateway across the internet answers about this fast.
const LATENCY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(40));

/// Often enough to be seen, seldom enough to read what is on the screen.
const BROADCAST_EVERY: Duration = Duration::from_secs(20);

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where the bridge listens; beyond loopback a token is made and printed
    #[arg(long, value_name = "ADDR", default_value_t = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Where the gateway's control endpoint listens, without authentication: counts, faults, shards, broadcasts over HTTP
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// Ask for a token on loopback too, as a bridge in earnest does
    #[arg(long)]
    token: bool,
}

/// Runs until told to stop.
pub(super) async fn run(flags: Demo, shutdown: Shutdown) -> anyhow::Result<()> {
    log_to_standard_error("info");
    let gateway = Simulator::start(simulator::Config {
        control: flags.control,
        latency: LATENCY,
        limits: Limits::new(Counting::PerCommand),
        broadcast_every: Some(BROADCAST_EVERY),
        session_event: true,
        ..simulator::Config::default()
    })
    .await?;
    let token = (flags.token || !flags.listen.ip().is_loopback()).then(token::random).transpose()?;
    let kept_nowhere = tempfile::tempdir()?;
    let mut settings = environment(&flags, &gateway, token.as_deref());
    settings.push(("BRIDGE_PAYMENTS__JOURNAL".into(), kept_nowhere.path().join("journal").into()));
    settings.push(("BRIDGE_CACHE__STORE".into(), "".into()));
    let (config, _) = Config::load(None, settings).map_err(|faults| anyhow::anyhow!(faults.to_string()))?;
    let app = App::build(config, shutdown)?;
    print_things_to_try(app.addr(), token.as_deref(), gateway.control_addr());
    let ended = app.run().await;
    gateway.stop().await;
    ended
}

/// The demonstration's settings, in the environment's form.
fn environment(
    flags: &Demo,
    gateway: &Simulator,
    token: Option<&str>,
) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut settings = vec![
        ("BRIDGE_SERVER__LISTEN", flags.listen.to_string()),
        ("BRIDGE_GATEWAY__URL", gateway.url()),
        ("BRIDGE_INSTANCES__DEMO__SLUG", DEFAULT_INSTANCE.to_owned()),
        ("BRIDGE_INSTANCES__DEMO__API_KEY", DEFAULT_API_KEY.to_owned()),
    ];
    match token {
        None => settings.push(("BRIDGE_AUTH__MODE", "none".to_owned())),
        Some(token) => {
            settings.extend([
                // The simulator's key is written in the documentation and would let anybody in.
                ("BRIDGE_INSTANCES__DEMO__ACCEPT_GATEWAY_KEY", "false".to_owned()),
                ("BRIDGE_AUTH__TOKENS__DEMO__SHA256", token::digest(token)),
                ("BRIDGE_AUTH__TOKENS__DEMO__INSTANCES", "demo".to_owned()),
                ("BRIDGE_AUTH__TOKENS__DEMO__SCOPES", "read,pay,devices,events,raw,operate".to_owned()),
            ]);
        }
    }
    settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// An address at which this machine reaches what listens on `addr`.
fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], addr.port())) } else { addr }
}

/// The lines that let something go wrong at the gateway.
fn faults_to_try(control: Option<SocketAddr>) -> String {
    let Some(control) = control.map(reachable) else {
        return "To stop shards and to inject faults: start it with --control 127.0.0.1:6002".to_owned();
    };
    format!(
        "Stop a shard, watch the bridge go on with the others, and start it again (more: docs/simulator.md):

  curl -i http://{control}/shards/exon -d '{{\"alive\": false}}'
  curl -i http://{control}/shards/exon -d '{{\"alive\": true}}'
  curl -i http://{control}/counts
"
    )
}

fn print_things_to_try(addr: SocketAddr, token: Option<&str>, control: Option<SocketAddr>) {
    let reachable = reachable(addr);
    let (base, header) = (
        format!("http://{reachable}"),
        token.map(|token| format!("-H 'Authorization: Bearer {token}' ")).unwrap_or_default(),
    );
    let instance = format!("{base}/v1/instances/demo");
    println!(
        "ConcertPOS bridge, over a simulated gateway with three shards. Listening on {addr}. Stop it with Ctrl-C.
{token}
Things to try:

  curl -i {header}{instance}/points-of-sale
  curl -i {header}{instance}/points-of-sale/1/products
  curl -i {header}-H 'Content-Type: application/json' -H 'Idempotency-Key: '$(date +%s%N) \\
    -d '{{\"PaymentMethod\": 1, \"Products\": [{{\"ID\": 1, \"Amount\": 2}}]}}' {instance}/points-of-sale/1/payments
  curl -i {header}'{instance}/points-of-sale/1/transactions?limit=3'
  curl -i {base}/readyz
  curl -i {header}{instance}/nowhere

{faults}
Broadcasts as they come, one now and then: curl -N {header}{instance}/events
For a till written for ConcertPOS: ws://{reachable}/?instance=demo&Content-Type=json5
The bridge at a glance, in a browser: {base}/
The API, to browse: {base}/docs
",
        faults = faults_to_try(control),
        token = token.map(|token| format!("\nToken of this run: {token}\n")).unwrap_or_default(),
    );
}
