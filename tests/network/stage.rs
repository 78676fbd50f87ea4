//! The simulated network: a host for each shard, one for the bridge, and what a plan does to the ways between them.
//!
//! Everything runs on one thread and in simulated time, in an order that the seed decides, so a run of a seed is the same
//! each time. The shards are three processes of one gateway: what is booked and counted outlives each of them.
//!
//! The simulated TCP loses where the real one would send again: after a loss a connection is deaf for good. That is the
//! worst that a long outage does to a real one. It knows a reset only where something was left unread.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use concertpos_bridge::internals::gateway::Dial;
use concertpos_bridge::internals::gateway::dialer::Stream;
use concertpos_simulator::{Config, Simulator};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

use crate::plan::{Act, Moment, Plan, SHARDS, USUAL_DELAY_MS};

/// The host of the bridge.
const BRIDGE: &str = "bridge";

/// The port at which each shard listens.
const PORT: u16 = 80;

/// The template of the gateway's URL: each shard is a host.
pub(crate) const URL: &str = "ws://{shard}:80/{shard}/?instance={instance}&Content-Type={format}";

/// Simulated time within which a run has to have ended. Only one that hangs gets there.
const LONGEST_RUN: Duration = Duration::from_mins(5);

/// What a shard says travels in pieces of so many bytes, each with its own delay: frames come torn, and two that were
/// written at once come one after the other.
const PIECE: usize = 48;

/// Pieces under way on one connection, beyond which a writer waits.
const MOST_PIECES: usize = 1_024;

/// The network that exists only here.
#[derive(Debug)]
pub(crate) struct Network;

#[async_trait]
impl Dial for Network {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(TcpStream::connect((host, port)).await?))
    }
}

/// A simulation about to run.
pub(crate) struct Stage {
    pub(crate) gateway: Arc<Simulator>,
    sim: Sim<'static>,
    faults: BTreeMap<usize, u64>,
}

impl Stage {
    /// The shards, and `bridge` as what runs on the host of the bridge.
    pub(crate) fn set(seed: u64, bridge: impl Future<Output = turmoil::Result> + 'static) -> Self {
        // The pool draws its jitter from here.
        fastrand::seed(seed);
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tcp_capacity(MOST_PIECES)
            .tick_duration(Duration::from_millis(5))
            .simulation_duration(LONGEST_RUN)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(USUAL_DELAY_MS))
            .build();
        let latency = (Duration::ZERO, Duration::from_millis(10));
        let gateway = Arc::new(Simulator::without_listener(Config { seed, latency, ..Config::default() }).unwrap());
        for shard in SHARDS {
            let gateway = Arc::clone(&gateway);
            sim.host(shard, move || accept(Arc::clone(&gateway)));
        }
        sim.client(BRIDGE, bridge);
        Self { gateway, sim, faults: BTreeMap::new() }
    }

    /// Plays `plan` until the bridge has ended.
    pub(crate) fn play(&mut self, plan: &Plan) -> turmoil::Result {
        let mut moments = plan.moments().into_iter().peekable();
        loop {
            let now = self.sim.elapsed().as_millis();
            while let Some((_, moment)) = moments.next_if(|(at_ms, _)| u128::from(*at_ms) <= now) {
                match moment {
                    Moment::Begins(number) => self.begin(number, &plan.steps[number].act),
                    Moment::Ends(number) => self.end(number, &plan.steps[number].act),
                }
            }
            if self.sim.step()? {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, number: usize, act: &Act) {
        let sim = &mut self.sim;
        match act {
            Act::Hold(shards) => shards.iter().for_each(|shard| sim.hold(BRIDGE, *shard)),
            Act::Partition(shards) => shards.iter().for_each(|shard| sim.partition(BRIDGE, *shard)),
            Act::Mute(shards) => shards.iter().for_each(|shard| sim.partition_oneway(BRIDGE, *shard)),
            Act::Deaf(shards) => shards.iter().for_each(|shard| sim.partition_oneway(*shard, BRIDGE)),
            Act::Slow(shards, ms) => delay(sim, shards, *ms),
            Act::Crash(shards) => shards.iter().for_each(|shard| sim.crash(*shard)),
            Act::Gateway(fault) => {
                self.faults.insert(number, self.gateway.add_fault(fault.clone()));
            }
        }
    }

    fn end(&mut self, number: usize, act: &Act) {
        let sim = &mut self.sim;
        match act {
            Act::Hold(shards) => shards.iter().for_each(|shard| sim.release(BRIDGE, *shard)),
            Act::Partition(shards) => shards.iter().for_each(|shard| sim.repair(BRIDGE, *shard)),
            Act::Mute(shards) => shards.iter().for_each(|shard| sim.repair_oneway(BRIDGE, *shard)),
            Act::Deaf(shards) => shards.iter().for_each(|shard| sim.repair_oneway(*shard, BRIDGE)),
            Act::Slow(shards, _) => delay(sim, shards, USUAL_DELAY_MS),
            Act::Crash(shards) => shards.iter().for_each(|shard| sim.bounce(*shard)),
            Act::Gateway(_) => {
                self.faults.remove(&number).map(|fault| self.gateway.remove_fault(fault));
            }
        }
    }
}

fn delay(sim: &Sim<'static>, shards: &[&'static str], most_ms: u64) {
    for shard in shards {
        sim.set_link_max_message_latency(BRIDGE, *shard, Duration::from_millis(most_ms));
    }
}

/// The process of one shard.
async fn accept(gateway: Arc<Simulator>) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Those of a host end in order where it crashes. Those of a runtime end in an order that differs from run to run.
        tokio::task::spawn_local(gateway.serve(InPieces(stream)));
    }
}

/// A stream that writes at most a piece at a time.
struct InPieces(TcpStream);

impl AsyncRead for InPieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for InPieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        Pin::new(&mut self.0).poll_write(cx, piece)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
