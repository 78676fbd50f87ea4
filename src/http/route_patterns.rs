//! Which route a path belongs to. Middleware counts requests by route also where no router has run, and a metric must
//! never carry a path as a caller wrote it.
//!
//! The patterns are those of the OpenAPI document and the few that it does not list, so they cannot drift from the
//! router's; a test asks both the same.

use matchit::Router;

/// What the paths of one instance begin with.
pub const INSTANCES: &str = "/v1/instances/";

/// The name under which every path is counted that belongs to no route.
pub const UNMATCHED: &str = "unmatched";

/// Patterns, each with an index.
#[derive(Debug)]
pub struct Patterns {
    router: Router<usize>,
    names: Vec<String>,
}

impl Patterns {
    /// Patterns in which a segment in braces stands for any one segment, and a last `*` for everything after it.
    #[must_use]
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut router, mut names) = (Router::new(), vec![UNMATCHED.to_owned()]);
        for pattern in patterns {
            let index = names.len();
            names.push(pattern.to_owned());
            let paths = match pattern.strip_suffix('*') {
                Some(folder) => vec![folder.to_owned(), format!("{folder}{{*rest}}")],
                None => vec![pattern.to_owned()],
            };
            for path in paths {
                if let Err(error) = router.insert(path, index) {
                    tracing::error!(%error, pattern, "requests of this route are counted as unmatched");
                }
            }
        }
        Self { router, names }
    }

    /// The index of the path's pattern; that of [`UNMATCHED`] where it has none.
    #[must_use]
    pub fn find(&self, path: &str) -> usize {
        self.router.at(path).map_or(0, |found| *found.value)
    }

    /// The pattern at `index`.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or(UNMATCHED, String::as_str)
    }

    /// The patterns by index.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_under_its_pattern_and_nothing_else_is() {
        let tree = Patterns::new(["/", "/v1/things", "/v1/things/{id}", "/v1/things/{id}/parts", "/docs/*"]);
        let find = |path| tree.names().nth(tree.find(path)).unwrap();
        for (path, pattern) in [
            ("/", "/"),
            ("/v1/things", "/v1/things"),
            ("/v1/things/7", "/v1/things/{id}"),
            ("/v1/things/7/parts", "/v1/things/{id}/parts"),
            ("/docs/a/b.css", "/docs/*"),
            ("/docs/", "/docs/*"),
        ] {
            assert_eq!(find(path), pattern);
        }
        for path in ["", "/v1", "/v1/things/", "/v1/things/7/parts/8", "/v1/other", "//v1/things", "/docs"] {
            assert!(find(path) == UNMATCHED, "{path}");
        }
    }
}
