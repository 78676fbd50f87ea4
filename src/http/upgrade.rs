//! Which requests ask for the gateway's own protocol, by path and by header field.

use actix_web::guard::GuardContext;
use actix_web::http::header::{HeaderMap, UPGRADE};

/// Where a native connection may be opened: beside the root, one segment that is a shard, `gateway`, or an instance.
pub const PATTERNS: [&str; 3] = ["/", "/{name}", "/{name}/"];

/// Whether a path with this pattern answers nothing but upgrades; the root itself is also the dashboard's.
#[must_use]
pub fn is_pattern(pattern: &str) -> bool {
    PATTERNS.contains(&pattern)
}

/// Whether a request asks to speak the gateway's protocol.
pub(super) fn is_upgrade(context: &GuardContext<'_>) -> bool {
    is_asked(context.head().headers())
}

/// Whether these header fields ask for it.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).any(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}
