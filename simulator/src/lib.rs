//! The simulated gateway: ConcertPOS without ConcertPOS.
//!
//! Nobody outside the vendor has a gateway to test against, let alone one that cuts a connection between booking a sale
//! and answering it. This one speaks the protocol of `protocol.md`, with three shards on one store, sample data, exact
//! rate limits, broadcasts, and every fault that a client has to survive, on demand and under a seed. It also counts what
//! it saw and did, which is the word of the other side against which the bridge's promises are tested, and it is quick
//! enough to be the counterpart of benchmarks.
//!
//! It depends on nothing of the bridge, not even its table of commands or its JSON5 reader: what both sides had in common
//! would never be tested. Everything in it is bounded, and everything ends with [`Simulator::stop`] or its drop.

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
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

pub use config::{Config, Counting, DEFAULT_API_KEY, DEFAULT_INSTANCE, Instance, Limits};
pub use counts::{CommandCounts, Counts, Payment, ShardCounts};
pub use faults::{ACTIONS, Action, Fault, Garbage, Say, Scripted};
pub use sale::Sold;
pub use sample::{LOCKED_POS, LOCKED_POS_PASSWORD};

use counts::Counters;
use printer::{Format, print};
use reader::read;
use roster::Fate;
use store::Store;
use value::Value;
use world::World;

/// How long [`Simulator::stop`] waits for its tasks, all of which end at the first chance they get.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A simulator was asked for something that does not exist: a shard, an instance, a product, or malformed JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(String);

impl Misuse {
    fn new(reason: String) -> Self {
        Self(reason)
    }
}

/// A simulated gateway that runs until it is stopped or dropped.
pub struct Simulator {
    world: Arc<World>,
    addr: SocketAddr,
    control_addr: Option<SocketAddr>,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Simulator").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.world.stop.cancel();
    }
}

impl Simulator {
    /// Starts a gateway, on the tokio runtime of the caller; it serves once this returns.
    ///
    /// Fails where an address is taken or the configuration makes no sense.
    pub async fn start(config: Config) -> io::Result<Self> {
        let (store, counters) = blank(&config)?;
        Self::over(config, store, counters).await
    }

    /// A gateway that listens nowhere and has no control endpoint: whoever accepts connections for it hands them to
    /// [`serve`](Self::serve).
    ///
    /// Fails where the configuration makes no sense.
    pub fn without_listener(config: Config) -> io::Result<Self> {
        let (store, counters) = blank(&config)?;
        let addr = config.listen;
        Ok(Self { world: Arc::new(World::new(config, store, counters)), addr, control_addr: None })
    }

    /// Serves one connection that was accepted elsewhere, until its end. Dropped, the future ends it as a process that
    /// crashes would. A reset is an ordinary end there, since not every stream knows another.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        server::receive(Arc::clone(&self.world), stream, |_| {})
    }

    async fn over(config: Config, store: Arc<Store>, counters: Arc<Counters>) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.map_err(cannot_listen(config.listen))?;
        let addr = listener.local_addr()?;
        let (control, broadcast_every) = (config.control, config.broadcast_every);
        let world = Arc::new(World::new(config, store, counters));
        let control_addr = control.map(|listen| control::start(&world, listen).map_err(cannot_listen(listen)));
        let control_addr = control_addr.transpose()?;
        world.tasks.spawn(server::listen(Arc::clone(&world), listener));
        if let Some(pause) = broadcast_every {
            world.tasks.spawn(Arc::clone(&world).broadcast_every(pause));
        }
        Ok(Self { world, addr, control_addr })
    }

    /// Where the gateway listens, or would by its configuration.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the control endpoint listens, if there is one.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control_addr
    }

    /// The template of the gateway's URL, with `{shard}`, `{instance}` and `{format}` to be filled in.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/{{shard}}/?instance={{instance}}&Content-Type={{format}}", self.addr)
    }

    /// Kills a shard: its connections are reset, without a close frame, and so is every new one once its request was read.
    pub fn kill(&self, shard: &str) -> Result<(), Misuse> {
        self.world.roster.set_alive(self.world.shard(shard)?, false);
        Ok(())
    }

    /// Lets a dead shard take connections again.
    pub fn revive(&self, shard: &str) -> Result<(), Misuse> {
        self.world.roster.set_alive(self.world.shard(shard)?, true);
        Ok(())
    }

    /// Makes the connections that a shard has now half-open: they stay, but nothing is read or answered on them any more.
    pub fn freeze(&self, shard: &str) -> Result<(), Misuse> {
        self.world.roster.decide(self.world.shard(shard)?, Fate::Frozen);
        Ok(())
    }

    /// Sends a broadcast to every connection of `instance`, each with its own jitter, and returns how many there are.
    /// `parameters` is an object in JSON or JSON5.
    pub fn broadcast(&self, instance: &str, message: &str, parameters: &str) -> Result<usize, Misuse> {
        let value = read(parameters, Format::Json5).ok_or_else(|| Misuse::new(format!("{parameters:?} is no JSON")))?;
        Ok(self.world.broadcast(self.world.instance(instance)?, message, &value))
    }

    /// Sends `text` as one message to every connection of `instance`, as a broadcast is sent, whatever it says: for what
    /// a server prints that no [`broadcast`](Self::broadcast) can spell, such as half of a surrogate pair. Returns how many
    /// connections there are.
    pub fn send_text(&self, instance: &str, text: &str) -> Result<usize, Misuse> {
        Ok(self.world.send_text(self.world.instance(instance)?, text))
    }

    /// Puts a fault in force, behind those that are, and returns its number.
    #[expect(clippy::must_use_candidate, reason = "most faults are never taken back one by one")]
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.world.faults.add(fault)
    }

    /// Ends the fault with this number, and says whether it was still in force.
    #[expect(clippy::must_use_candidate, reason = "a fault that has struck its last time is gone already")]
    pub fn remove_fault(&self, id: u64) -> bool {
        self.world.faults.remove(id)
    }

    /// Ends all faults. What has already struck takes its course.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// What was seen and done since the start or the last reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.world.counters.snapshot()
    }

    /// Counts from nothing again; only the connections that are open stay counted.
    pub fn reset_counts(&self) {
        self.world.counters.reset();
    }

    /// Gives an instance another key: from now on commands with the old one are refused, on open connections too.
    pub fn replace_api_key(&self, instance: &str, api_key: &str) -> Result<(), Misuse> {
        self.world.replace_api_key(self.world.instance(instance)?, api_key);
        Ok(())
    }

    /// Sets a price, spelled as it is to appear on the wire (`4.50`). Tells nobody: broadcast `updatepos` for that.
    pub fn set_product_price(&self, instance: &str, pos_id: i64, product_id: i64, price: &str) -> Result<(), Misuse> {
        self.change_product(instance, pos_id, product_id, &format!("{{Price: {price}}}"))
    }

    /// Replaces fields of a product by those of `change`, an object in JSON or JSON5; new fields are added. Tells nobody.
    pub fn change_product(&self, instance: &str, pos_id: i64, product_id: i64, change: &str) -> Result<(), Misuse> {
        self.world.change_product(self.world.instance(instance)?, pos_id, product_id, change)
    }

    /// The transactions of an instance, newest first, as a JSON array.
    pub fn transactions(&self, instance: &str) -> Result<String, Misuse> {
        let listed = self.world.data(self.world.instance(instance)?)?.all_transactions();
        Ok(print(&Value::Array(listed), Format::Json))
    }

    /// Switches the gateway off and, `down` later, on again at the same address, as a restart of its process would:
    /// connections end, what is on its way is lost, points and faults are forgotten. What was booked, changed and counted
    /// stays, as in a database. The control endpoint, if there is one, moves to a new port where it was given none.
    pub async fn restarted(self, down: Duration) -> io::Result<Self> {
        self.end().await;
        sleep(down).await;
        let config = Config { listen: self.addr, instances: self.world.instances(), ..self.world.config.clone() };
        let (store, counters) = (Arc::clone(&self.world.store), Arc::clone(&self.world.counters));
        counters.nobody_is_connected();
        Self::over(config, store, counters).await
    }

    /// Ends everything and waits until it has ended. Connections end as they would if the server were switched off.
    pub async fn stop(self) {
        self.end().await;
    }

    async fn end(&self) {
        self.world.stop.cancel();
        self.world.tasks.close();
        // Nothing can outlast the patience but a task that the runtime no longer runs.
        let _ = timeout(STOP_PATIENCE, self.world.tasks.wait()).await;
    }
}

/// What a gateway of this configuration holds and has counted before anything happened, if it makes sense.
fn blank(config: &Config) -> io::Result<(Arc<Store>, Arc<Counters>)> {
    config.check()?;
    let store = Store::new(config.instances.len(), sample::data);
    Ok((Arc::new(store), Arc::new(Counters::new(&config.shards))))
}

/// Says which of the two addresses it is.
fn cannot_listen(address: SocketAddr) -> impl FnOnce(io::Error) -> io::Error {
    move |fault| io::Error::new(fault.kind(), format!("cannot listen on {address}: {fault}"))
}
