//! The ledgers of all instances, also of those that are no longer served, for as long as the gateway may count what they
//! spent.
//!
//! The gateway counts by its own name of an instance, so a ledger belongs to a slug: an instance that is removed and added
//! again, under whatever name, goes on with what was spent. A ledger that nobody holds is dropped once it holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::config::Config;
use super::ledger::Ledger;
use super::spending::Spending;

/// All ledgers. Cheap to clone; all clones are one table.
#[derive(Debug, Clone)]
pub struct Ledgers {
    config: Config,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    by_slug: BTreeMap<String, Entry>,
    /// A ledger that is made before this instant begins full: what an earlier process spent of it is not known.
    full_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// Under which the snapshot names it: the last instance that had this slug.
    instance: String,
    /// Whether its slug is known. Of what an earlier process spent only the instance's name is.
    has_slug: bool,
    ledger: Ledger,
}

impl Ledgers {
    /// None yet. All will have these settings.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, table: Arc::default() }
    }

    /// The ledger of `instance`, which the gateway knows as `slug`.
    #[must_use]
    pub fn of(&self, instance: &str, slug: &str) -> Ledger {
        let mut table = self.table();
        let is_former = |entry: &Entry| !entry.has_slug && entry.instance == instance;
        let former = table.by_slug.get(instance).is_some_and(is_former);
        if former && let Some(entry) = table.by_slug.remove(instance) {
            table.by_slug.entry(slug.to_owned()).or_insert(entry);
        }
        let full = table.full_until.is_some_and(|until| Instant::now() < until);
        let made = || Entry { instance: String::new(), has_slug: true, ledger: self.made(full) };
        let entry = table.by_slug.entry(slug.to_owned()).or_insert_with(made);
        instance.clone_into(&mut entry.instance);
        entry.has_slug = true;
        entry.ledger.clone()
    }

    /// For how long points are held after the end of their command.
    #[must_use]
    pub fn hold(&self) -> Duration {
        self.config.hold()
    }

    /// The settings of all of them, in words that differ where the settings do.
    #[must_use]
    pub fn settings(&self) -> String {
        format!("{:?}", self.config)
    }

    fn made(&self, full: bool) -> Ledger {
        let ledger = Ledger::new(self.config.clone());
        if full {
            ledger.count_payments(None);
            ledger.assume_spent();
        }
        ledger
    }

    #[cfg(test)]
    pub(super) fn insert(&self, instance: &str, ledger: &Ledger) {
        let entry = Entry { instance: instance.to_owned(), has_slug: true, ledger: ledger.clone() };
        self.table().by_slug.insert(instance.to_owned(), entry);
    }

    /// Makes a ledger for each of these instances that is not served and of which an earlier process has spent, unless there is
    /// one.
    pub(super) fn add_former<'a>(&self, instances: impl IntoIterator<Item = &'a str>) {
        let mut table = self.table();
        let mut known: BTreeSet<String> = table.by_slug.values().map(|entry| entry.instance.clone()).collect();
        for instance in instances {
            if table.by_slug.contains_key(instance) || !known.insert(instance.to_owned()) {
                continue;
            }
            let entry = Entry { instance: instance.to_owned(), has_slug: false, ledger: self.made(false) };
            table.by_slug.insert(instance.to_owned(), entry);
        }
    }

    /// Every ledger that is made within one window from now begins full: what an earlier process spent of it is not known.
    pub(super) fn assume_spent_by_others(&self) {
        self.table().full_until = Instant::now().checked_add(self.config.hold());
    }

    /// Every ledger with its instance's name.
    pub(super) fn by_instance(&self) -> Vec<(String, Ledger)> {
        let table = self.table();
        table.by_slug.values().map(|entry| (entry.instance.clone(), entry.ledger.clone())).collect()
    }

    /// What is spent, by instance, of all of its slugs together. Drops the ledgers that nobody holds and that hold nothing.
    pub(super) fn spent(&self) -> BTreeMap<String, Spending> {
        let mut spent: BTreeMap<String, Spending> = BTreeMap::new();
        self.table().by_slug.retain(|_, entry| {
            let spending = entry.ledger.spent();
            if spending.windows.is_empty() && !entry.ledger.is_held_elsewhere() {
                return false;
            }
            match spent.get_mut(&entry.instance) {
                Some(known) => known.add(spending),
                None => drop(spent.insert(entry.instance.clone(), spending)),
            }
            true
        });
        spent
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Class;
    use super::super::{Ask, Permit};
    use super::*;

    async fn permit(ledger: &Ledger) -> Permit {
        let ask = Ask { command: "getconfig", class: Class::Caller("shop"), deadline: Instant::now() };
        ledger.acquire(ask).await.unwrap()
    }

    fn left(ledger: &Ledger) -> u64 {
        ledger.budget("getconfig").remaining
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_of_a_slug_is_counted_under_whatever_name_it_comes_back_until_it_has_lapsed() {
        let ledgers = Ledgers::new(Config::default());
        let first = ledgers.of("demo", "Fest");
        permit(&first).await.answered();
        let mut flying = permit(&first).await;
        flying.written();
        drop(first);
        assert_eq!(ledgers.spent()["demo"].windows["getconfig"].in_flight, 25, "it is saved though nobody holds it");
        assert_eq!(left(&ledgers.of("other", "Fest")), 2);
        assert_eq!(left(&ledgers.of("demo", "demo")), 4, "another instance of the gateway");
        flying.ended();
        tokio::time::advance(Config::default().hold() + Duration::from_millis(1)).await;
        assert!(ledgers.spent().is_empty() && ledgers.by_instance().is_empty(), "nothing is left to count");
    }

    #[tokio::test(start_paused = true)]
    async fn two_slugs_of_one_name_are_saved_as_one_and_a_ledger_that_is_held_stays() {
        let ledgers = Ledgers::new(Config::default());
        permit(&ledgers.of("demo", "old")).await.answered();
        let new = ledgers.of("demo", "new");
        permit(&new).await.answered();
        let spent = ledgers.spent();
        assert_eq!(spent["demo"].windows["getconfig"].ended.iter().map(|(points, _)| points).sum::<u64>(), 50);
        tokio::time::advance(Config::default().hold() + Duration::from_millis(1)).await;
        assert!(ledgers.spent()["demo"].windows.is_empty());
        assert_eq!(ledgers.by_instance().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_process_spent_waits_for_an_instance_of_that_name_or_is_taken_to_be_everything() {
        let ledgers = Ledgers::new(Config::default());
        ledgers.add_former(["demo"]);
        let [(_, former)] = ledgers.by_instance().try_into().unwrap();
        permit(&former).await.answered();
        drop(former);
        assert_eq!(left(&ledgers.of("demo", "Fest")), 3);
        ledgers.assume_spent_by_others();
        let full = ledgers.of("another", "another");
        assert_eq!((left(&full), full.budget("payitems").remaining), (0, 0));
        tokio::time::advance(Config::default().hold() + Duration::from_millis(1)).await;
        assert_eq!(left(&full), 4);
        assert_eq!(left(&ledgers.of("late", "late")), 4);
    }
}
