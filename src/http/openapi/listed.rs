//! What a running bridge needs of the document: its routes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The methods of a path, in capitals, each with the names that it takes in the query.
pub type Methods = BTreeMap<String, Vec<String>>;

/// The paths of the document.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedRoutes(pub BTreeMap<String, Methods>);

impl ListedRoutes {
    /// Those of the committed document, as `build.rs` wrote them.
    #[must_use]
    pub fn committed() -> Self {
        // Read by a test; what the program carries does not change.
        serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/routes.json"))).unwrap_or_default()
    }
}
