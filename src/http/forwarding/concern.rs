//! Which instance a request concerns, and what may be done where its owner does not answer. Pure.

use actix_web::http::Method;
use percent_encoding::percent_decode_str;

use crate::http::native;
use crate::http::route_patterns::INSTANCES;

/// What a request asks of its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be asked again, or changes nothing that it has not changed already.
    Repeatable,
    /// Likewise, and what it asks for is kept where every replica can read it.
    Record,
    Payment,
    /// A command that may have had any effect.
    Raw,
    /// May be repeated by who asked for it, who knows what it was for.
    Change,
    /// A stream of events.
    Events,
    /// A connection that speaks the gateway's protocol.
    Native,
}

impl Kind {
    /// Whether it may be asked again after it may have been done.
    pub(super) fn may_repeat(self) -> bool {
        matches!(self, Self::Repeatable | Self::Record | Self::Events)
    }

    /// Whether its answer may last longer than any deadline.
    pub(super) fn is_long(self) -> bool {
        matches!(self, Self::Events | Self::Native)
    }

    /// By method and path below the instance, as their routes are in `routes/`.
    fn of(method: &Method, route: &str) -> Self {
        let reads = *method == Method::GET || *method == Method::HEAD;
        match route.split_once('/').map_or(route, |(first, _)| first) {
            "events" if reads => Self::Events,
            "payments" if reads => Self::Record,
            _ if reads => Self::Repeatable,
            "commands" => Self::Raw,
            "devices" => Self::Repeatable,
            "points-of-sale" if route.ends_with("/payments") => Self::Payment,
            "points-of-sale" if route.ends_with("/password-check") => Self::Repeatable,
            _ => Self::Change,
        }
    }
}

/// Which instance a request concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Concern {
    Instance(String, Kind),
    /// The one with this slug.
    Native(String),
}

impl Concern {
    /// None where a request concerns no instance. `shards` are names that a native connection may have in its path.
    pub(super) fn of(
        method: &Method,
        (path, query): (&str, &str),
        is_upgrade: bool,
        shards: &[String],
    ) -> Option<Self> {
        if let Some(below) = path.strip_prefix(INSTANCES) {
            let (name, route) = below.split_once('/')?;
            let name = percent_decode_str(name).decode_utf8().ok()?;
            return Some(Self::Instance(name.into(), Kind::of(method, route)));
        }
        let slug = is_upgrade.then(|| native::slug_of(path, query, shards)).flatten()?;
        Some(Self::Native(slug))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Instance(_, kind) => *kind,
            Self::Native(_) => Kind::Native,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &Method, path: &str, is_upgrade: bool) -> Option<Concern> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Concern::of(method, (path, query), is_upgrade, &["zeus".to_owned()])
    }

    #[test]
    fn what_may_be_asked_again_is_known_by_method_and_path() {
        let kind = |method: &Method, route: &str| match of(method, &format!("/v1/instances/demo/{route}"), false) {
            Some(Concern::Instance(name, kind)) if name == "demo" => kind,
            other => panic!("{other:?}"),
        };
        for (method, route, expected) in [
            (Method::GET, "config", Kind::Repeatable),
            (Method::HEAD, "points-of-sale/1/products", Kind::Repeatable),
            (Method::GET, "points-of-sale/1/transactions", Kind::Repeatable),
            (Method::POST, "points-of-sale/1/password-check", Kind::Repeatable),
            (Method::PUT, "devices/a", Kind::Repeatable),
            (Method::GET, "payments", Kind::Record),
            (Method::GET, "payments/7", Kind::Record),
            (Method::POST, "points-of-sale/1/payments", Kind::Payment),
            (Method::POST, "commands/payitem", Kind::Raw),
            (Method::PUT, "payments/7/outcome", Kind::Change),
            (Method::PUT, "budget/payitems", Kind::Change),
            (Method::POST, "something/new", Kind::Change),
            (Method::GET, "events", Kind::Events),
        ] {
            assert_eq!(kind(&method, route), expected, "{method} {route}");
        }
    }

    #[test]
    fn an_instance_is_known_by_its_path_and_a_native_connection_by_its_slug() {
        let instance = |name: &str| Some(Concern::Instance(name.to_owned(), Kind::Repeatable));
        assert_eq!(of(&Method::GET, "/v1/instances/my%20fest/config", false), instance("my fest"));
        for path in ["/", "/v1/instances", "/v1/instances/demo", "/v1/bridge", "/demo"] {
            assert_eq!(of(&Method::GET, path, false), None, "{path}");
        }
        for path in ["/demo", "/demo/", "/?instance=demo", "/zeus/?instance=demo", "/gateway?instance=demo"] {
            assert_eq!(of(&Method::GET, path, true), Some(Concern::Native("demo".to_owned())), "{path}");
        }
        for path in ["/", "/zeus/", "/a/b"] {
            assert_eq!(of(&Method::GET, path, true), None, "{path}");
        }
    }
}
