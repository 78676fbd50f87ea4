//! The methods of each path, read from the OpenAPI document, so that `Allow` and the document cannot disagree.

use std::collections::HashMap;

use utoipa::openapi::OpenApi;
use utoipa::openapi::path::PathItem;

/// What a path answers that the document does not list: pages and probes.
const UNLISTED: &str = "GET, HEAD, OPTIONS";

/// The methods of each path, as `Allow` spells them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AllowedMethods(HashMap<String, String>);

impl AllowedMethods {
    /// Reads them out of the document.
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        Self(document.paths.paths.iter().map(|(path, item)| (path.clone(), spell(item))).collect())
    }

    /// The methods of the route with this pattern.
    #[must_use]
    pub fn allow(&self, pattern: &str) -> &str {
        self.0.get(pattern).map_or(UNLISTED, String::as_str)
    }
}

fn spell(item: &PathItem) -> String {
    let known = [
        (&["GET", "HEAD"][..], item.get.is_some()),
        (&["POST"], item.post.is_some()),
        (&["PUT"], item.put.is_some()),
        (&["PATCH"], item.patch.is_some()),
        (&["DELETE"], item.delete.is_some()),
        (&["OPTIONS"], true),
    ];
    let listed: Vec<&str> = known.into_iter().filter(|(_, has)| *has).flat_map(|(names, _)| names).copied().collect();
    listed.join(", ")
}
