//! The settings of the gateway room.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::wire::Format;

/// Everything but RFC 3986's unreserved characters, so that a slug cannot end its place in the URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the gateway is reached.
#[derive(Debug, Clone)]
pub struct Config {
    /// A template with `{shard}`, `{instance}` and `{format}`.
    pub url: String,
    /// The shards' names, as the template wants them.
    pub shards: Vec<String>,
    /// How the gateway is asked to print.
    pub format: Format,
    /// The most that opening a connection may take, its first ping answered included.
    pub connect_timeout: Duration,
    /// From writing a command to its reply.
    pub request_timeout: Duration,
    /// How long a payment's set-aside link is listened to.
    pub late_patience: Duration,
    /// Links kept open per instance, on different shards.
    pub min_links: usize,
    /// Links never exceeded per instance.
    pub max_links: usize,
    /// How long a link may be silent before it is pinged.
    pub ping_interval: Duration,
    /// Certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "wss://shard-{shard}.ws.concertpos.com/?instance={instance}&Content-Type={format}".to_owned(),
            shards: ["exon", "cyton", "zeus"].map(str::to_owned).to_vec(),
            format: Format::Json,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            late_patience: Duration::from_mins(1),
            min_links: 2,
            max_links: 8,
            ping_interval: Duration::from_secs(15),
            ca_file: None,
        }
    }
}

impl Config {
    /// The URL of `shard` for the instance with this slug.
    #[must_use]
    pub fn url_of(&self, shard: &str, slug: &str) -> String {
        self.url
            .replace("{shard}", shard)
            .replace("{instance}", &utf8_percent_encode(slug, ESCAPED).to_string())
            .replace("{format}", self.format.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_filled_and_a_slug_cannot_leave_its_place() {
        let url = Config::default().url_of("zeus", "a&b/ü");
        assert_eq!(url, "wss://shard-zeus.ws.concertpos.com/?instance=a%26b%2F%C3%BC&Content-Type=json");
    }
}
