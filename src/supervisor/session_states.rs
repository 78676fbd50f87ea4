//! The state of what this replica owns, written and read under its present session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::bridge::Instance;
use crate::cache::Cache;
use crate::cluster::state::{Carried, Serving, States};
use crate::database;
use crate::tenure::{SessionId, Tenure};

/// How often what was left of an instance is read at a claim before it is given up, and how long after a failure.
const ATTEMPTS: u32 = 3;
const AGAIN: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct SessionStates {
    database: database::Config,
    cache: Arc<Cache>,
    /// How many entries a log holds.
    history: usize,
    /// Something changed that is written at once.
    changed: Arc<Notify>,
    present: Mutex<Option<Present>>,
}

#[derive(Debug)]
struct Present {
    session: SessionId,
    states: States,
    /// What was of an earlier session writes nothing any more: others own it.
    _writing: AbortOnDropHandle<()>,
}

impl SessionStates {
    pub(crate) fn new(database: database::Config, cache: Arc<Cache>, history: usize, changed: Arc<Notify>) -> Self {
        Self { database, cache, history, changed, present: Mutex::default() }
    }

    /// Those of the session of this tenure; none where it is over.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    fn of(&self, tenure: &Tenure) -> Option<States> {
        let mut present = self.present.lock();
        // The next session begins once the one before is over: never does one that has ended take the place of another.
        let (session, _) = tenure.token().filter(|_| !tenure.is_over())?;
        if let Some(same) = present.as_ref().filter(|present| present.session == session) {
            return Some(same.states.clone());
        }
        let states =
            States::new(session, &self.database, Arc::clone(&self.cache), self.history, Arc::clone(&self.changed));
        let writing = states.clone();
        let task = tokio::spawn(async move { writing.run().await });
        *present = Some(Present { session, states: states.clone(), _writing: AbortOnDropHandle::new(task) });
        Some(states)
    }

    /// What earlier owners left of an instance that is claimed under this tenure.
    pub(crate) async fn load(&self, name: &str, tenure: &Tenure) -> io::Result<Carried> {
        let (states, (_, epoch)) = self.of(tenure).zip(tenure.token()).ok_or_else(|| io::Error::other(OVER))?;
        let name = Arc::from(name);
        let mut attempts = 1;
        loop {
            match states.load(&name, epoch).await {
                Ok(carried) => return Ok(carried),
                Err(fault) if attempts < ATTEMPTS && tenure.may_act() => {
                    tracing::debug!(instance = &*name, %fault, "what earlier owners left could not be read");
                }
                Err(fault) => return Err(io::Error::other(fault)),
            }
            attempts += 1;
            sleep(AGAIN).await;
        }
    }

    /// Logs nothing of an instance that is not written. To be said before it begins.
    pub(crate) fn write_first(&self, instance: &Instance) {
        if let Some(states) = self.of(instance.tenure()) {
            states.write_first(instance.name(), instance.broadcasts());
        }
    }

    /// Writes the state of an instance from now on. `goes_on`: with the log of an earlier owner.
    pub(crate) fn serve(&self, instance: &Instance, goes_on: bool) {
        let (Some(states), Some(relay)) = (self.of(instance.tenure()), instance.relay()) else { return };
        let serving = Serving {
            name: Arc::clone(instance.name()),
            slug: instance.slug().into(),
            tenure: instance.tenure().clone(),
            ledger: instance.ledger().clone(),
            broadcasts: instance.broadcasts().clone(),
            relay: Arc::clone(relay),
            cordoned: Arc::new(instance.cordons()),
            heard: Arc::new(instance.heard()),
        };
        states.serve(serving, goes_on);
    }

    /// The statements that hand an instance over.
    pub(crate) fn hand_over(&self, instance: &Instance) -> Vec<database::Statement> {
        let states = self.of(instance.tenure());
        states.and_then(|states| states.hand_over(instance.name())).unwrap_or_default()
    }

    /// Writes nothing more of an instance.
    pub(crate) fn end(&self, instance: &Instance) {
        if let Some(present) = &*self.present.lock() {
            present.states.end(instance.name(), instance.tenure());
        }
    }
}

const OVER: &str = "the session has ended";
