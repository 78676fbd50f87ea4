//! Everything the shards share: the store, the limiter, the faults, the counts, the dice, and the signal to stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Misuse;
use super::config::{Config, Instance};
use super::counts::Counters;
use super::faults::Faults;
use super::limiter::Limiter;
use super::printer::{Format, message};
use super::reader::read;
use super::roster::Roster;
use super::store::{Data, Store};
use super::value::Value;

/// Commands waiting for their time to be applied or answered, on all connections together and also on those that have
/// gone since: like the real server, this one finishes what it began.
const WAITING_COMMANDS: usize = 65_536;

/// What all connections, the control endpoint and [`super::Simulator`] work on.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) roster: Roster,
    /// Outlives this world where the gateway is switched off and on again.
    pub(super) store: Arc<Store>,
    pub(super) limiter: Limiter,
    pub(super) faults: Faults,
    /// Likewise.
    pub(super) counters: Arc<Counters>,
    /// Room for commands that wait; see [`WAITING_COMMANDS`].
    pub(super) waiting: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    dice: Mutex<fastrand::Rng>,
    /// What commands have to carry, by index of the instance.
    api_keys: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new(config: Config, store: Arc<Store>, counters: Arc<Counters>) -> Self {
        let faults = Faults::default();
        for fault in &config.faults {
            faults.add(fault.clone());
        }
        Self {
            roster: Roster::new(config.shards.len()),
            store,
            limiter: Limiter::new(config.limits.clone()),
            faults,
            counters,
            waiting: Arc::new(Semaphore::new(WAITING_COMMANDS)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            dice: Mutex::new(fastrand::Rng::with_seed(config.seed)),
            api_keys: Mutex::new(config.instances.iter().map(|instance| instance.api_key.clone()).collect()),
            config,
        }
    }

    fn api_keys(&self) -> MutexGuard<'_, Vec<String>> {
        self.api_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether commands to this instance have to carry `given`.
    pub(super) fn is_api_key(&self, instance: usize, given: Option<&str>) -> bool {
        given.is_some() && self.api_keys().get(instance).map(String::as_str) == given
    }

    pub(super) fn replace_api_key(&self, instance: usize, api_key: &str) {
        if let Some(known) = self.api_keys().get_mut(instance) {
            api_key.clone_into(known);
        }
    }

    /// The instances with the keys in force.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let keys = self.api_keys();
        let instances = self.config.instances.iter().zip(keys.iter());
        instances.map(|(Instance { slug, .. }, key)| Instance { slug: slug.clone(), api_key: key.clone() }).collect()
    }

    fn dice(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number from 0 up to 1.
    pub(super) fn chance(&self) -> f64 {
        self.dice().f64()
    }

    /// A time from `least` to `most`.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        if most.is_zero() { Duration::ZERO } else { least + most.saturating_sub(least).mul_f64(self.chance()) }
    }

    /// Random letters that are neither JSON nor JSON5.
    pub(super) fn gibberish(&self) -> String {
        let mut dice = self.dice();
        let letters = std::iter::repeat_with(|| dice.lowercase()).take(24);
        format!("}}{}", letters.collect::<String>())
    }

    pub(super) fn shard(&self, name: &str) -> Result<usize, Misuse> {
        let found = self.config.shards.iter().position(|shard| shard == name);
        found.ok_or_else(|| Misuse::new(format!("there is no shard {name:?}")))
    }

    pub(super) fn shard_name(&self, shard: usize) -> &str {
        self.config.shards.get(shard).map_or("", String::as_str)
    }

    pub(super) fn instance(&self, slug: &str) -> Result<usize, Misuse> {
        let found = self.config.instances.iter().position(|instance| instance.slug == slug);
        found.ok_or_else(|| Misuse::new(format!("there is no instance {slug:?}")))
    }

    /// Sends a text, whatever it is, as one message to every connection of an instance on every live shard, like a
    /// broadcast. Returns how many there are.
    pub(super) fn send_text(&self, instance: usize, text: &str) -> usize {
        let text = Utf8Bytes::from(text);
        self.deliver(instance, |_| text.clone())
    }

    /// Sends a broadcast to every connection of an instance on every live shard, and returns how many there are.
    pub(super) fn broadcast(&self, instance: usize, name: &str, parameters: &Value) -> usize {
        let name = Value::from(name.to_owned());
        let text = |format| {
            let result = [("message", &name), ("parameters", parameters)];
            Utf8Bytes::from(message("broadcast", &result, format))
        };
        let (json, json5) = (text(Format::Json), text(Format::Json5));
        self.deliver(instance, |format| if format == Format::Json { json.clone() } else { json5.clone() })
    }

    fn deliver(&self, instance: usize, text: impl Fn(Format) -> Utf8Bytes) -> usize {
        let due = || Instant::now() + self.between(Duration::ZERO, self.config.broadcast_jitter);
        let copies = self.roster.broadcast(instance, text, due);
        self.counters.broadcast(u64::try_from(copies).unwrap_or(u64::MAX));
        copies
    }

    /// Replaces fields of a product by those of `change`, an object in JSON or JSON5. Says nothing to any connection.
    pub(super) fn change_product(&self, instance: usize, pos: i64, product: i64, change: &str) -> Result<(), Misuse> {
        let change = read(change, Format::Json5).ok_or_else(|| Misuse::new(format!("{change:?} is no JSON")))?;
        let mut data = self.data(instance)?;
        data.change_product(pos, product, &change).map_err(Misuse::new)
    }

    pub(super) fn data(&self, instance: usize) -> Result<MutexGuard<'_, Data>, Misuse> {
        self.store.lock(instance).ok_or_else(|| Misuse::new("there is no such instance".to_owned()))
    }

    /// Runs until stopped: `updatepos` to every instance, again and again.
    pub(super) async fn broadcast_every(self: Arc<Self>, pause: Duration) {
        let mut ticks = tokio::time::interval_at(Instant::now() + pause, pause);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {
                    for instance in 0..self.config.instances.len() {
                        self.broadcast(instance, "updatepos", &Value::object([]));
                    }
                }
            }
        }
    }
}
