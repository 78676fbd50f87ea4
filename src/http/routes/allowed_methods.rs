//! The methods of each path, as the OpenAPI document lists them, so that `Allow` and the document cannot disagree.

use std::collections::HashMap;

use crate::http::openapi::listed::{ListedRoutes, Methods};

/// What a path answers that the document does not list: pages and probes.
const UNLISTED: &str = "GET, HEAD, OPTIONS";

/// The methods of each path, as `Allow` spells them.
#[derive(Debug, Default)]
pub struct AllowedMethods(HashMap<String, String>);

impl AllowedMethods {
    /// Of what the document lists.
    #[must_use]
    pub fn of(routes: &ListedRoutes) -> Self {
        Self(routes.0.iter().map(|(path, methods)| (path.clone(), spell(methods))).collect())
    }

    /// The methods of the route with this pattern.
    #[must_use]
    pub fn allow(&self, pattern: &str) -> &str {
        self.0.get(pattern).map_or(UNLISTED, String::as_str)
    }
}

fn spell(methods: &Methods) -> String {
    let answered = |method: &&str| match *method {
        "HEAD" => methods.contains_key("GET"),
        "OPTIONS" => true,
        method => methods.contains_key(method),
    };
    let listed: Vec<&str> =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].into_iter().filter(answered).collect();
    listed.join(", ")
}
