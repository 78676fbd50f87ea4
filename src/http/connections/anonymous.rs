//! Which anonymous connection is evicted for a new one. Pure.
//!
//! A connection is anonymous until a caller has authenticated on it. The register of all connections and the limit of
//! native ones both keep theirs here and evict by the same rule: among the connections of the networks that have the most,
//! the oldest that is not protected. What protects one, and what happens where all are protected, is theirs to say. The
//! register does not tell networks apart, since all callers behind a proxy have the proxy's address until the head of a
//! request was read.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Bound;

/// How many entries are searched for one that is not protected: enough, since protected ones are few.
pub(crate) const MAX_SEARCHED: usize = 1024;

/// Anonymous connections, each with what its owner keeps of it.
#[derive(Debug)]
pub(crate) struct Anonymous<T> {
    /// By number, so the first is the oldest.
    entries: BTreeMap<u64, (Option<IpAddr>, T)>,
    /// How many each network has.
    networks: HashMap<Option<IpAddr>, usize>,
}

impl<T> Default for Anonymous<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), networks: HashMap::new() }
    }
}

impl<T> Anonymous<T> {
    /// `number` is larger than any before. Without a `network` an entry counts as of one that all such entries share.
    pub(crate) fn insert(&mut self, number: u64, network: Option<IpAddr>, value: T) {
        *self.networks.entry(network).or_default() += 1;
        self.entries.insert(number, (network, value));
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let (network, value) = self.entries.remove(&number)?;
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
        Some(value)
    }

    /// The entry to evict: the oldest of the largest networks that is not protected.
    pub(crate) fn unprotected(&self, is_protected: impl Fn(&T) -> bool) -> Option<u64> {
        self.of_largest_networks().take(MAX_SEARCHED).find(|(_, value)| !is_protected(value)).map(|(number, _)| number)
    }

    /// The oldest entry of the largest networks, protected or not.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.of_largest_networks().next().map(|(number, _)| number)
    }

    /// Whether the largest network has more than `network` would have with one more.
    pub(crate) fn is_outnumbered(&self, network: IpAddr) -> bool {
        self.largest() > self.networks.get(&Some(network)).copied().unwrap_or_default() + 1
    }

    /// The first entry after `number`.
    pub(crate) fn after(&self, number: u64) -> Option<(u64, &T)> {
        let next = self.entries.range((Bound::Excluded(number), Bound::Unbounded)).next();
        next.map(|(number, (_, value))| (*number, value))
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn largest(&self) -> usize {
        self.networks.values().copied().max().unwrap_or_default()
    }

    fn of_largest_networks(&self) -> impl Iterator<Item = (u64, &T)> {
        let (largest, is_only_one) = (self.largest(), self.networks.len() == 1);
        let is_of_largest =
            move |network| is_only_one || self.networks.get(network).is_some_and(|count| *count == largest);
        let entries = self.entries.iter().filter(move |(_, (network, _))| is_of_largest(network));
        entries.map(|(number, (_, value))| (*number, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_oldest_unprotected_entry_of_the_largest_networks_is_evicted() {
        let mut anonymous = Anonymous::default();
        assert_eq!((anonymous.oldest(), anonymous.unprotected(|_: &bool| false)), (None, None));
        for (number, network, is_protected) in
            [(1, 1, false), (2, 2, true), (3, 2, false), (4, 3, false), (5, 3, false)]
        {
            anonymous.insert(number, Some(address(network)), is_protected);
        }
        assert_eq!(anonymous.oldest(), Some(2));
        assert_eq!(anonymous.unprotected(|is_protected| *is_protected), Some(3));
        assert_eq!(anonymous.unprotected(|_| true), None);
        assert!(anonymous.is_outnumbered(address(4)) && !anonymous.is_outnumbered(address(1)));
        assert_eq!(anonymous.remove(3), Some(false));
        assert_eq!((anonymous.oldest(), anonymous.remove(3), anonymous.len()), (Some(4), None, 4));
    }

    #[test]
    fn without_networks_all_entries_are_alike() {
        let mut anonymous = Anonymous::default();
        for number in 1..=3 {
            anonymous.insert(number, None, ());
        }
        assert_eq!((anonymous.oldest(), anonymous.unprotected(|()| false)), (Some(1), Some(1)));
        anonymous.remove(1);
        assert_eq!((anonymous.oldest(), anonymous.after(2).map(|(number, ())| number)), (Some(2), Some(3)));
        assert!(anonymous.contains(2) && anonymous.after(3).is_none());
    }
}
