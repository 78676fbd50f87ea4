//! The instances that are served at one moment. Never changed: a reload puts another map in its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::instance::Instance;
use super::status::InstanceMetrics;

/// Instances by name.
#[derive(Debug, Default)]
pub struct InstanceMap {
    by_name: BTreeMap<String, Arc<Instance>>,
}

impl FromIterator<Arc<Instance>> for InstanceMap {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        let by_name = instances.into_iter().map(|instance| (instance.name().to_string(), instance)).collect();
        Self { by_name }
    }
}

impl InstanceMap {
    /// The instance of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Instance>> {
        self.by_name.get(name)
    }

    /// All instances, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.by_name.values()
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
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
