//! Who owns which instance, as last read from the database: where to pass a request on. Never a right to act.
//!
//! What it says may be a second old. A request that was passed on for an owner of the past meets a replica that knows a higher
//! epoch, and is passed on once more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::host::Listed;
use super::standing::Standing;
use crate::tenure::SessionId;

/// Where a request for an instance goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// This session owns it, in this epoch.
    Here(i64),
    Other(Peer),
    /// A live session lists it, and none owns it.
    Nobody,
    /// No live session lists it; or which do is not known yet, see [`Directory::is_read`].
    Unknown,
}

impl Route {
    /// The epoch of the owner; none while there is no owner.
    #[must_use]
    pub fn epoch(&self) -> Option<i64> {
        match self {
            Self::Here(epoch) => Some(*epoch),
            Self::Other(peer) => Some(peer.epoch),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

/// Another session that owns an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub session: SessionId,
    pub name: Arc<str>,
    /// Where it takes requests that are passed on: a host and a port.
    pub address: Arc<str>,
    pub epoch: i64,
}

/// A session that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub session: SessionId,
    pub name: Arc<str>,
    pub address: Arc<str>,
    pub version: Arc<str>,
    /// The newest format of data that it reads.
    pub format: i32,
    /// It gives up what it owns and takes nothing new.
    pub draining: bool,
    /// For how long no renewal of it was seen.
    pub silent: Duration,
    pub instances: Arc<[Listed]>,
}

/// Who owns an instance. The session may have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub session: Option<SessionId>,
    pub epoch: i64,
}

#[derive(Debug, Default)]
struct View {
    is_read: bool,
    me: Option<SessionId>,
    members: BTreeMap<SessionId, Member>,
    owners: HashMap<Arc<str>, Owner>,
    /// The names of the instances that members list, and by slug.
    listed: HashSet<Arc<str>>,
    by_slug: HashMap<Arc<str>, Arc<str>>,
    moves: u64,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<View>,
    /// Counts the changes of the view.
    changes: watch::Sender<u64>,
    standing: RwLock<Standing>,
}

/// Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Shared>);

impl Default for Directory {
    fn default() -> Self {
        Self(Arc::new(Shared { view: RwLock::default(), changes: watch::Sender::new(0), standing: RwLock::default() }))
    }
}

impl Directory {
    /// One that is known from the start, for tests.
    #[must_use]
    pub fn fixed(me: SessionId, members: Vec<Member>, owners: Vec<(Arc<str>, Owner)>) -> Self {
        let directory = Self::default();
        directory.show_members(Some(me), members);
        directory.show_owners(owners);
        directory
    }

    /// Whether it was read since the start. Before that [`Route::Unknown`] says nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.0.view.read().is_read
    }

    /// Where requests for the instance of this name go.
    #[must_use]
    pub fn route(&self, instance: &str) -> Route {
        self.0.view.read().route(instance)
    }

    /// The name of the instance with this slug, if a live session lists one.
    #[must_use]
    pub fn by_slug(&self, slug: &str) -> Option<Arc<str>> {
        self.0.view.read().by_slug.get(slug).cloned()
    }

    /// Waits until the instance has an owner of a higher epoch, or `until`; then where its requests go.
    pub async fn newer(&self, instance: &str, than_epoch: i64, until: Instant) -> Route {
        let mut changes = self.0.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let route = self.route(instance);
            let is_newer = route.epoch().is_some_and(|epoch| epoch > than_epoch);
            if is_newer || !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return if is_newer { route } else { self.route(instance) };
            }
        }
    }

    /// How this replica stands with the database, for people.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.standing.read().clone()
    }

    /// Keeps for people what changed in that.
    pub fn note(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.0.standing.write());
    }

    /// Changes of owner that were seen since the first reading.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.0.view.read().moves
    }

    /// The names of the instances that some member lists, in order.
    #[must_use]
    pub fn listed(&self) -> Vec<Arc<str>> {
        let mut listed: Vec<_> = self.0.view.read().listed.iter().cloned().collect();
        listed.sort();
        listed
    }

    /// The sessions that have not ended, this one included.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.0.view.read().members.values().cloned().collect()
    }

    /// This session; none while it has none.
    #[must_use]
    pub fn me(&self) -> Option<SessionId> {
        self.0.view.read().me
    }

    /// The owners of all instances that ever had one, by instance in no order.
    #[must_use]
    pub fn owners(&self) -> Vec<(Arc<str>, Owner)> {
        self.0.view.read().owners.iter().map(|(instance, owner)| (Arc::clone(instance), owner.clone())).collect()
    }

    /// Shows these sessions in place of those before.
    pub fn show_members(&self, me: Option<SessionId>, members: Vec<Member>) {
        let mut view = self.0.view.write();
        (view.me, view.is_read) = (me, true);
        let relisted = members.len() != view.members.len()
            || members.iter().any(|new| {
                view.members.get(&new.session).is_none_or(|old| !Arc::ptr_eq(&old.instances, &new.instances))
            });
        view.members = members.into_iter().map(|member| (member.session, member)).collect();
        if relisted {
            view.list();
        }
        drop(view);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Shows these owners in place of those that the same instances had.
    pub fn show_owners(&self, owners: Vec<(Arc<str>, Owner)>) {
        if owners.is_empty() {
            return;
        }
        self.0.view.write().own(owners);
        self.0.changes.send_modify(|count| *count += 1);
    }
}

impl View {
    fn route(&self, instance: &str) -> Route {
        let owner = self.owners.get(instance).and_then(|owner| Some((owner.session?, owner.epoch)));
        if let Some((session, epoch)) = owner {
            if self.me == Some(session) {
                return Route::Here(epoch);
            }
            if let Some(member) = self.members.get(&session) {
                let (name, address) = (Arc::clone(&member.name), Arc::clone(&member.address));
                return Route::Other(Peer { session, name, address, epoch });
            }
        }
        if self.listed.contains(instance) { Route::Nobody } else { Route::Unknown }
    }

    fn own(&mut self, owners: Vec<(Arc<str>, Owner)>) {
        // Whose owner was not known before may have had it for long.
        let moved = owners.iter().filter(|(instance, new)| {
            new.session.is_some() && self.owners.get(instance).is_some_and(|old| old.epoch < new.epoch)
        });
        self.moves += moved.count() as u64;
        self.owners.extend(owners);
    }

    fn list(&mut self) {
        self.by_slug.clear();
        self.listed.clear();
        for listed in self.members.values().flat_map(|member| member.instances.iter()) {
            self.by_slug.insert(Arc::clone(&listed.slug), Arc::clone(&listed.name));
            self.listed.insert(Arc::clone(&listed.name));
        }
    }
}

#[cfg(test)]
mod tests;
