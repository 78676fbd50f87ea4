//! The issuer's keys in force, and their renewal: now and then, and when a token names a key that is not known.
//!
//! One fetch at a time, and none sooner than the floor after the last one ended, so that tokens with made-up key ids cannot make
//! the bridge flood the issuer. Whoever presents a token with an unknown key waits for that fetch. A fetch that fails changes
//! nothing.

use std::collections::BTreeSet;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::{JwtConfig, KeySource, SignatureAlgorithm};
use super::fetch;
use super::key_set::KeySet;
use crate::bridge::status::IssuerKeys;
use crate::clock::unix_ms_at;

/// After a fetch that failed.
const RETRY: Duration = Duration::from_secs(30);

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeyStore {
    source: KeySource,
    ca_file: Option<PathBuf>,
    algorithms: BTreeSet<SignatureAlgorithm>,
    refresh: Duration,
    floor: Duration,
    keys: ArcSwap<KeySet>,
    progress: Mutex<Progress>,
    wanted: Notify,
    /// Fetches that have ended.
    ended: watch::Sender<u64>,
    pub fetched: Counter,
    pub failed: Counter,
}

#[derive(Debug, Default)]
struct Progress {
    /// A fetch is under way, or about to begin.
    under_way: bool,
    last_ended: Option<Instant>,
    last_success: Option<Instant>,
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
struct Fault {
    since: Instant,
    words: String,
}

impl KeyStore {
    /// The keys that `config` names; none is known yet.
    #[must_use]
    pub fn new(config: &JwtConfig) -> Self {
        Self {
            source: config.keys.clone(),
            ca_file: config.ca_file.clone(),
            algorithms: config.algorithms.clone(),
            refresh: config.refresh,
            floor: config.refresh_floor,
            keys: ArcSwap::default(),
            progress: Mutex::new(Progress { under_way: true, ..Progress::default() }),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            fetched: Counter::default(),
            failed: Counter::default(),
        }
    }

    /// Whether it is what `config` names.
    #[must_use]
    pub fn is_of(&self, config: &JwtConfig) -> bool {
        self.source == config.keys
            && self.ca_file == config.ca_file
            && self.algorithms == config.algorithms
            && self.refresh == config.refresh
            && self.floor == config.refresh_floor
    }

    /// Reads the keys, where they are in a file. Blocks for a moment.
    pub fn read_file(&self) -> Result<(), String> {
        if matches!(self.source, KeySource::File(_)) {
            let set = self.read()?;
            self.take(Ok(set));
        }
        Ok(())
    }

    pub(super) fn current(&self) -> Guard<Arc<KeySet>> {
        self.keys.load()
    }

    /// Renews the keys, for as long as it is polled. Whether one of those before is gone is told to `on_loss`.
    pub async fn tend(self: &Arc<Self>, on_loss: impl Fn()) {
        let mut is_first = true;
        loop {
            self.progress.lock().under_way = true;
            let store = Arc::clone(self);
            // The fetch has a deadline of its own for all but the resolution of a name, which cannot be interrupted.
            let read = match timeout(fetch::PATIENCE * 2, spawn_blocking(move || store.read())).await {
                Ok(read) => read.unwrap_or_else(|panicked| Err(panicked.to_string())),
                Err(_) => Err("it took too long".to_owned()),
            };
            let pause = if read.is_ok() { self.refresh } else { RETRY.min(self.refresh) };
            self.log(&read, mem::take(&mut is_first));
            if self.take(read) {
                on_loss();
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    fn read(&self) -> Result<KeySet, String> {
        let text = fetch::key_set(&self.source, self.ca_file.as_deref())?;
        KeySet::read(&text, &self.algorithms)
    }

    /// Logs what is new in what a fetch brought.
    fn log(&self, read: &Result<KeySet, String>, is_first: bool) {
        let (source, is_failing) = (self.place(), self.progress.lock().fault.is_some());
        match read {
            Ok(set) if is_first || is_failing || **self.current() != *set => {
                let (keys, unusable) = (set.count(), set.unusable);
                tracing::info!(source, keys, unusable, "the keys of the issuer were fetched");
            }
            Err(why) if !is_failing => {
                let keys = self.current().count();
                tracing::warn!(
                    source,
                    why,
                    keys,
                    "the keys of the issuer cannot be fetched; those that are known stay in force"
                );
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Takes what a fetch brought, and returns whether a key is in force no more.
    pub(super) fn take(&self, read: Result<KeySet, String>) -> bool {
        let now = Instant::now();
        let (is_less, fault) = match read {
            Ok(set) => {
                self.fetched.inc();
                let before = self.keys.swap(Arc::new(set));
                (self.current().lacks_one_of(&before), None)
            }
            Err(words) => {
                self.failed.inc();
                (false, Some(words))
            }
        };
        let mut progress = self.progress.lock();
        progress.under_way = false;
        progress.last_ended = Some(now);
        if fault.is_none() {
            progress.last_success = Some(now);
        }
        let since = progress.fault.take().map_or(now, |fault| fault.since);
        progress.fault = fault.map(|words| Fault { since, words });
        drop(progress);
        self.ended.send_modify(|ended| *ended += 1);
        is_less
    }

    fn place(&self) -> String {
        match &self.source {
            KeySource::Url(url) => url.clone(),
            KeySource::File(path) => path.display().to_string(),
        }
    }

    /// Has the keys fetched because one is not known, and waits for that, at most until `deadline`. At once where a fetch ended
    /// just now: another would bring the same.
    pub async fn renewed(&self, deadline: Instant) {
        let Some(mut ended) = self.want() else { return };
        // The store is dropped only with its configuration.
        let _ = timeout_at(deadline, ended.changed()).await;
    }

    /// Has the keys fetched. What this returns changes with the end of that fetch; none where one ended just now.
    pub(super) fn want(&self) -> Option<watch::Receiver<u64>> {
        let mut progress = self.progress.lock();
        if !progress.under_way {
            if progress.last_ended.is_some_and(|last| last.elapsed() < self.floor) {
                return None;
            }
            progress.under_way = true;
            self.wanted.notify_one();
        }
        Some(self.ended.subscribe())
    }

    /// How they are doing.
    #[must_use]
    pub fn status(&self, issuer: &str) -> IssuerKeys {
        let progress = self.progress.lock();
        IssuerKeys {
            issuer: issuer.to_owned(),
            keys: self.current().count(),
            age_s: progress.last_success.map(|last| last.elapsed().as_secs()),
            fault: progress.fault.as_ref().map(|fault| fault.words.clone()),
            fault_since_ms: progress.fault.as_ref().map(|fault| unix_ms_at(fault.since)),
        }
    }
}
