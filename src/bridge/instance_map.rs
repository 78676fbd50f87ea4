//! The instances that are served at one moment. Never changed: a reload puts another map in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::instance::Instance;
use super::status::InstanceMetrics;

/// Instances by name.
#[derive(Debug, Default)]
pub struct InstanceMap {
    by_name: BTreeMap<Arc<str>, Arc<Instance>>,
    /// Those whose slug is not their name, and no other's: that would be ambiguous.
    by_slug: BTreeMap<String, Arc<Instance>>,
}

impl FromIterator<Arc<Instance>> for InstanceMap {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        // Made anew at each change of owner, with as many as there are: names are shared, not copied.
        let named = |instance: Arc<Instance>| (Arc::clone(instance.name()), instance);
        let by_name: BTreeMap<_, _> = instances.into_iter().map(named).collect();
        let is_named_otherwise = |instance: &&Arc<Instance>| !by_name.contains_key(instance.slug());
        let of_slug = |instance: &Arc<Instance>| (instance.slug().to_owned(), Arc::clone(instance));
        let by_slug = by_name.values().filter(is_named_otherwise).map(of_slug).collect();
        Self { by_name, by_slug }
    }
}

impl InstanceMap {
    /// The instance of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Instance>> {
        self.by_name.get(name)
    }

    /// The instance that the gateway calls so, or else the one of this name. A till knows only the slug.
    #[must_use]
    pub fn get_by_slug(&self, slug: &str) -> Option<&Arc<Instance>> {
        self.by_slug.get(slug).or_else(|| self.get(slug))
    }

    /// The shards that all of them have taken out by hand: a further instance begins without them too.
    #[must_use]
    pub fn cordoned(&self) -> BTreeSet<String> {
        let common = |some: BTreeSet<String>, others: BTreeSet<String>| some.intersection(&others).cloned().collect();
        self.iter().map(|instance| instance.cordoned()).reduce(common).unwrap_or_default()
    }

    /// The same with this instance, in place of another of its name.
    #[must_use]
    pub fn with(&self, instance: &Arc<Instance>) -> Self {
        let others = self.iter().filter(|other| other.name() != instance.name()).cloned();
        others.chain([Arc::clone(instance)]).collect()
    }

    /// The same without the instance of this name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        self.iter().filter(|other| &**other.name() != name).cloned().collect()
    }

    /// All instances, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.by_name.values()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// What each instance has counted, in order of name.
    pub fn metrics(&self) -> impl Iterator<Item = (&str, InstanceMetrics<'_>)> {
        self.iter().map(|instance| (&**instance.name(), instance.metrics()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}
