//! The bridge itself: one method a use case, free of HTTP and of sockets.

mod dispatch;
pub mod error;
pub mod relay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use dispatch::{Dispatch, Unfinished};
pub use error::Error;

use crate::drain::Drain;
use crate::gateway::{Cause, Ending, Lost, Pool, PoolStatus};
use crate::wire::{Body, Command};

/// Answers use cases for all configured instances. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instances: BTreeMap<String, Arc<Instance>>,
    drain: Drain,
    runtime: Handle,
    tasks: TaskTracker,
}

/// One instance's room in the bridge.
#[derive(Debug)]
struct Instance {
    dispatch: Dispatch,
    pay_max_wait: Duration,
}

/// What the bridge needs to serve one instance.
#[derive(Debug)]
pub struct InstanceParts {
    /// Its connections.
    pub pool: Pool,
    /// The key that goes into every command.
    pub api_key: SecretString,
    /// From writing a command to its reply.
    pub request_timeout: Duration,
    /// How long a payment may wait before it is written.
    pub pay_max_wait: Duration,
}

impl Bridge {
    /// A bridge for these instances, by name. Work that must outlive its caller runs on the runtime this is called
    /// on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(instances: BTreeMap<String, InstanceParts>, drain: Drain) -> Self {
        let instance = |parts: InstanceParts| {
            let InstanceParts { pool, api_key, request_timeout, pay_max_wait } = parts;
            Arc::new(Instance { dispatch: Dispatch { pool, api_key, request_timeout }, pay_max_wait })
        };
        let instances = instances.into_iter().map(|(name, parts)| (name, instance(parts))).collect();
        let shared = Shared { instances, drain, runtime: Handle::current(), tasks: TaskTracker::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The configured instances, in order of name.
    #[must_use]
    pub fn instances(&self) -> Vec<String> {
        self.shared.instances.keys().cloned().collect()
    }

    /// Asks a read or an upsert, on another shard if the first fails, within `deadline`.
    pub async fn ask(&self, instance: &str, command: Command, deadline: Instant) -> Result<Body, Error> {
        self.instance(instance)?.dispatch.repeatable(&command, deadline).await
    }

    /// Sends a command that must not be repeated (a payment, or a raw command): written once, never again, and run to
    /// its end even if the caller goes away.
    pub async fn send_once(&self, instance: &str, command: Command, deadline: Instant) -> Result<Body, Error> {
        let instance = Arc::clone(self.instance(instance)?);
        let deadline = deadline.min(Instant::now() + instance.pay_max_wait);
        let work = async move {
            match instance.dispatch.once(&command, deadline).await {
                Ok(body) => Ok(body),
                Err(Unfinished::Nothing(error)) => Err(error),
                Err(Unfinished::Unknown(lost)) => Err(unknown(lost)),
            }
        };
        let task = self.shared.tasks.spawn_on(work, &self.shared.runtime);
        task.await.unwrap_or(Err(Error::OutcomeUnknown { gateway: None }))
    }

    /// Whether a connection of every instance is open.
    #[must_use]
    pub fn has_gateway(&self) -> bool {
        let mut pools = self.shared.instances.values().map(|instance| &instance.dispatch.pool);
        !self.shared.instances.is_empty() && pools.all(Pool::is_connected)
    }

    /// Whether the bridge has begun to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.drain.has_begun()
    }

    /// Every instance's shards and links.
    #[must_use]
    pub fn status(&self) -> BTreeMap<String, PoolStatus> {
        let status = |(name, instance): (&String, &Arc<Instance>)| (name.clone(), instance.dispatch.pool.status());
        self.shared.instances.iter().map(status).collect()
    }

    /// Takes a shard out by hand for every instance, or puts it back. False where there is no such shard.
    #[must_use]
    pub fn cordon(&self, shard: &str, cordoned: bool) -> bool {
        let cordon = |instance: &Arc<Instance>| instance.dispatch.pool.cordon(shard, cordoned);
        // Every pool must hear of it, so no shortcut at the first.
        self.shared.instances.values().filter(|instance| cordon(instance)).count() > 0
    }

    /// Waits for everything that must not be cut off. Bounded by what each of them is bounded by.
    pub async fn finished(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn instance(&self, name: &str) -> Result<&Arc<Instance>, Error> {
        self.shared.instances.get(name).ok_or(Error::UnknownInstance)
    }
}

fn unknown(lost: Lost) -> Error {
    let gateway = match lost.cause {
        Cause::Word(error) => Some(error),
        Cause::Timeout | Cause::Disconnected => None,
    };
    if let Some(late) = lost.late {
        tokio::spawn(async move {
            match late.await {
                Ok(Ending::Reply(_)) => tracing::warn!("the late reply of a payment: it was booked"),
                Ok(Ending::Error(error)) => tracing::warn!(error = error.error, "the late error of a payment"),
                Err(_) => tracing::warn!("no late reply of a payment came"),
            }
        });
    }
    Error::OutcomeUnknown { gateway }
}
