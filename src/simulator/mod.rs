//! The simulated gateway: three shards on one store, as the vendor's wire is known to behave, and as nasty as a
//! festival's network.
//!
//! It is the bridge's counterpart in tests, benchmarks and demonstrations, so it imports nothing of the bridge: a codec
//! must never be tested against itself. It answers asynchronously and so reorders, counts what it received so that
//! tests can assert on the gateway's side, and does wrong on request: see [`Fault`].
//!
//! Numbers keep the spelling they have in the sample data, in JSON and in JSON5. Every queue is bounded, and stopping
//! the simulator ends everything it began.

mod commands;
mod config;
mod connection;
mod control;
mod counts;
mod decimal;
mod desk;
mod faults;
mod limiter;
mod printer;
mod reader;
mod roster;
mod sale;
mod sample;
mod server;
mod store;
mod value;
mod world;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use config::{Config, Counting, DEFAULT_API_KEY, DEFAULT_INSTANCE, Instance, Limits};
pub use counts::{CommandCounts, Counts, Payment, ShardCounts};
pub use faults::{Action, Fault, Garbage};
pub use sale::Sold;

use printer::Format;
use reader::read;
use roster::Fate;
use world::World;

/// A call that does not fit what is simulated, such as one that names a shard that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(String);

impl Misuse {
    fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

/// A running gateway. Dropping it stops everything.
pub struct Simulator {
    world: Arc<World>,
    addr: SocketAddr,
    control: Option<(SocketAddr, actix_web::dev::ServerHandle)>,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Simulator({})", self.addr)
    }
}

impl Simulator {
    /// Starts a gateway. Fails where an address is taken or the configuration cannot be simulated.
    pub async fn start(config: Config) -> io::Result<Self> {
        config.check()?;
        let listener = TcpListener::bind(config.listen).await?;
        let addr = listener.local_addr()?;
        let (control, pause) = (config.control, config.broadcast_every);
        let world = Arc::new(World::new(config));
        let control = control.map(|address| control::start(address, Arc::clone(&world))).transpose()?;
        world.tasks.spawn(server::listen(Arc::clone(&world), listener));
        if let Some(pause) = pause {
            world.tasks.spawn(Arc::clone(&world).broadcast_every(pause));
        }
        Ok(Self { world, addr, control })
    }

    /// Where the shards listen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the control endpoint listens, if there is one.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(|(addr, _)| *addr)
    }

    /// The URL template of the shards, with `{shard}`, `{instance}` and `{format}`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/{{shard}}/?instance={{instance}}&Content-Type={{format}}", self.addr)
    }

    /// Cuts every connection of a shard and lets nobody in.
    pub fn kill(&self, shard: &str) -> Result<(), Misuse> {
        self.set_alive(shard, false)
    }

    /// Lets connections to a shard in again.
    pub fn revive(&self, shard: &str) -> Result<(), Misuse> {
        self.set_alive(shard, true)
    }

    /// Keeps every connection of a shard open and answers nothing on them any more, not even pings.
    pub fn freeze(&self, shard: &str) -> Result<(), Misuse> {
        self.world.roster.decide(self.world.shard(shard)?, Fate::Frozen);
        Ok(())
    }

    fn set_alive(&self, shard: &str, alive: bool) -> Result<(), Misuse> {
        self.world.roster.set_alive(self.world.shard(shard)?, alive);
        Ok(())
    }

    /// Sends a broadcast to every connection of the instance; `parameters` is JSON or JSON5. Returns how many there
    /// are.
    pub fn broadcast(&self, instance: &str, message: &str, parameters: &str) -> Result<usize, Misuse> {
        let parameters =
            read(parameters, Format::Json5).ok_or_else(|| Misuse::new(format!("{parameters:?} is no JSON")))?;
        Ok(self.world.broadcast(self.world.instance(instance)?, message, &parameters))
    }

    /// Puts a fault in force; returns its number.
    pub fn add_fault(&self, fault: Fault) -> Result<u64, Misuse> {
        fault.check().map_err(Misuse::new)?;
        Ok(self.world.faults.add(fault))
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Replaces fields of a product by those of `change`, an object in JSON or JSON5. Tells no connection: that is
    /// what a broadcast of `updatepos` is for.
    pub fn change_product(&self, instance: &str, pos_id: i64, product_id: i64, change: &str) -> Result<(), Misuse> {
        self.world.change_product(self.world.instance(instance)?, pos_id, product_id, change)
    }

    /// What it has received and sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.world.counters.snapshot()
    }

    /// Stops, and waits until every connection is gone.
    pub async fn stop(self) {
        self.world.stop.cancel();
        if let Some((_, control)) = &self.control {
            control.stop(false).await;
        }
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.world.stop.cancel();
        if let Some((_, control)) = self.control.take() {
            drop(control.stop(false));
        }
    }
}
