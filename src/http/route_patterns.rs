//! Which route a path belongs to, found without memory or regular expressions: what is counted at every request must
//! cost next to nothing, and a metric must never carry a path as a caller wrote it.
//!
//! The patterns are those of the OpenAPI document and the few that it does not list, so they cannot drift from the
//! router's; a test asks both the same.

/// The name under which every path is counted that belongs to no route.
pub const UNMATCHED: &str = "unmatched";

/// Patterns as a tree of segments.
#[derive(Debug)]
pub struct Patterns {
    nodes: Vec<Node>,
    names: Vec<String>,
}

#[derive(Debug, Default)]
struct Node {
    /// Segments that are plain text, with the node each leads to.
    literals: Vec<(String, usize)>,
    /// The node that any other segment leads to.
    any: Option<usize>,
    /// The pattern that ends here.
    ends: Option<usize>,
    /// The pattern that takes everything from here on.
    rest: Option<usize>,
}

impl Patterns {
    /// The tree of these patterns: segments in braces stand for any one segment, a last `*` for everything after it.
    #[must_use]
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tree = Self { nodes: vec![Node::default()], names: vec![UNMATCHED.to_owned()] };
        for pattern in patterns {
            tree.names.push(pattern.to_owned());
            tree.insert(pattern, tree.names.len() - 1);
        }
        tree
    }

    fn insert(&mut self, pattern: &str, index: usize) {
        let mut at = 0;
        for segment in segments(pattern) {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            if segment == "*" {
                node.rest = Some(index);
                return;
            }
            at = if segment.starts_with('{') {
                *node.any.get_or_insert(fresh)
            } else if let Some((_, known)) = node.literals.iter().find(|(literal, _)| literal == segment) {
                *known
            } else {
                node.literals.push((segment.to_owned(), fresh));
                fresh
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends = Some(index);
        }
    }

    /// The index of the path's pattern; that of [`UNMATCHED`] where it has none.
    #[must_use]
    pub fn find(&self, path: &str) -> usize {
        let mut node = self.nodes.first();
        let mut rest = None;
        for segment in segments(path) {
            let Some(here) = node else { break };
            rest = here.rest.or(rest);
            let literal = here.literals.iter().find(|(literal, _)| literal == segment).map(|(_, next)| *next);
            let any = here.any.filter(|_| !segment.is_empty());
            node = literal.or(any).and_then(|next| self.nodes.get(next));
        }
        node.and_then(|node| node.ends).or(rest).unwrap_or(0)
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

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
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
        ] {
            assert_eq!(find(path), pattern);
        }
        for path in ["", "/v1", "/v1/things/", "/v1/things/7/parts/8", "/v1/other", "//v1/things", "/docs"] {
            assert!([UNMATCHED, "/"].contains(&find(path)), "{path}");
        }
    }
}
