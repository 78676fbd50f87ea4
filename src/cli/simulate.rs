//! `simulate`: the simulated gateway alone, for developing against ConcertPOS without ConcertPOS.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::shutdown::Shutdown;
use concertpos_simulator::{
    ACTIONS, Config, Counting, DEFAULT_API_KEY, DEFAULT_INSTANCE, Fault, Instance, Limits, Simulator,
};

/// Whose requests share one counter.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Nothing is refused.
    Off,
    /// One counter a command: how the gateway is believed to count.
    Command,
    /// One counter for all commands.
    Instance,
}

/// Flags of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = format!("Actions of --fault: {ACTIONS}. docs/simulator.md says more."))]
pub(super) struct Simulate {
    /// Where the shards listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6001")]
    listen: SocketAddr,
    /// Where the control endpoint listens: counts, faults, shards, broadcasts over HTTP
    #[arg(long, value_name = "ADDR")]
    control: Option<SocketAddr>,
    /// Name of a shard; repeat it for several
    #[arg(long = "shard", value_name = "NAME", default_values = ["exon", "cyton", "zeus"])]
    shards: Vec<String>,
    /// Slug of the instance
    #[arg(long, value_name = "SLUG", default_value = DEFAULT_INSTANCE)]
    instance: String,
    /// Key that every command has to carry
    #[arg(long, value_name = "KEY", default_value = DEFAULT_API_KEY)]
    api_key: String,
    /// Seed of everything left to chance
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Least time to answer a command
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    latency_min: Duration,
    /// Most time to answer a command; replies overtake each other
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    latency_max: Duration,
    /// Whose requests share one counter of the rate limit
    #[arg(long, value_name = "SCOPE", value_enum, default_value = "command")]
    limits: Scope,
    /// Send `updatepos` to everybody this often
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    broadcast_every: Option<Duration>,
    /// Each connection hears a broadcast up to this much later
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = humantime::parse_duration)]
    broadcast_jitter: Duration,
    /// Speak first on each connection, with a `session` event
    #[arg(long)]
    session_event: bool,
    /// Something that goes wrong: `COMMAND[@SHARD]:ACTION[=ARGUMENT][:PROBABILITY[:TIMES]]`, with * for any command,
    /// such as `payitems:cut_after_apply:0.1`; repeat it for several
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
}

/// Runs until told to stop.
pub(super) async fn run(flags: Simulate, shutdown: Shutdown) -> anyhow::Result<()> {
    let counting = match flags.limits {
        Scope::Off => Counting::Off,
        Scope::Command => Counting::PerCommand,
        Scope::Instance => Counting::PerInstance,
    };
    let config = Config {
        listen: flags.listen,
        control: flags.control,
        shards: flags.shards,
        instances: vec![Instance { slug: flags.instance, api_key: flags.api_key }],
        seed: flags.seed,
        // Whoever names the least alone wants that, and not the other one's default.
        latency: (flags.latency_min, flags.latency_max.max(flags.latency_min)),
        limits: Limits::new(counting),
        broadcast_jitter: flags.broadcast_jitter,
        broadcast_every: flags.broadcast_every,
        session_event: flags.session_event,
        faults: flags.faults,
        ..Config::default()
    };
    let simulator = Simulator::start(config).await?;
    println!("gateway.url = \"{}\"", simulator.url());
    if let Some(control) = simulator.control_addr() {
        println!("control endpoint: http://{control}");
    }
    shutdown.requested().await;
    simulator.stop().await;
    Ok(())
}
