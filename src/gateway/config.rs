//! The settings of the gateway room.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::protocol::Format;
use crate::settings::{EnumSetting, Section, url};

/// Nothing waits less than this: a shorter limit fails before a healthy gateway can answer.
const LEAST_WAIT: Duration = Duration::from_millis(10);

impl EnumSetting for Format {
    const ALL: &'static [(&'static str, Self)] = &[("json", Self::Json), ("json5", Self::Json5)];
}

/// More connections of one instance than a gateway can be asked to hold; 32 carry thousands of reads a second.
const MOST_LINKS: usize = 256;

/// Everything but RFC 3986's unreserved characters, so that a slug cannot end its place in the URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the gateway is reached.
#[derive(Clone)]
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
    /// How long nothing may follow an error to a payment before it counts as refused. Read from `payments`.
    pub refusal_grace: Duration,
    /// Links kept open per instance, on different shards.
    pub min_links: usize,
    /// Links never exceeded per instance. Other commands than payments occupy at most one less, so that one is left for
    /// payments; where there may be only one, a payment that waits for it opens a second.
    pub max_links: usize,
    /// How long a link may be silent before it is pinged.
    pub ping_interval: Duration,
    /// Certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// The URL may hold credentials.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = url::redacted(&self.url);
        formatter.debug_struct("Config").field("url", &url).field("shards", &self.shards).finish_non_exhaustive()
    }
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
            refusal_grace: Duration::from_millis(250),
            min_links: 2,
            max_links: 8,
            ping_interval: Duration::from_secs(15),
            ca_file: None,
        }
    }
}

impl Config {
    /// How long nothing can come on a link before it is closed, whatever it is doing.
    #[must_use]
    pub fn longest_silence(&self) -> Duration {
        // A command waits for its reply in silence, a late one for longer, and an idle link for its next ping; then each
        // must be answered, and a write may make no headway for as long again.
        let waits = self.ping_interval.max(self.request_timeout * 2 + self.refusal_grace * 2 + self.late_patience);
        waits + self.connect_timeout * 2
    }

    pub fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            url: section.get("url", default.url),
            shards: section.get("shards", default.shards),
            format: section.get("format", default.format),
            connect_timeout: section.at_least("connect_timeout", default.connect_timeout, &LEAST_WAIT),
            request_timeout: section.at_least("request_timeout", default.request_timeout, &LEAST_WAIT),
            late_patience: section.get("late_patience", default.late_patience),
            refusal_grace: default.refusal_grace,
            min_links: section.at_least("min_links", default.min_links, &1),
            max_links: section.at_least("max_links", default.max_links, &1),
            ping_interval: section.at_least("ping_interval", default.ping_interval, &LEAST_WAIT),
            ca_file: section.optional("ca_file"),
        };
        config.check(section);
        config
    }

    fn check(&self, section: &mut Section<'_>) {
        if url::names_a_user(&self.url) {
            section.warn("url", "holds a name and a password, which are not sent");
        }
        // The shards' own faults are told below.
        if self.url_of("shard", "slug").contains(['{', '}']) {
            section.error("url", "may hold {shard}, {instance} and {format}, and no other place in braces");
        } else if let Err(why) = url::check(&self.url_of("shard", "slug"), &["ws", "wss"]) {
            section.error("url", why);
        }
        if !self.url.contains("{instance}") {
            section.error("url", "must contain {instance}");
        }
        if self.shards.len() > 1 && !self.url.contains("{shard}") {
            section.error("url", "must contain {shard} where there is more than one shard");
        }
        if self.shards.is_empty() {
            section.error("shards", "must name at least one shard");
        }
        for (index, shard) in self.shards.iter().enumerate() {
            if shard.is_empty() || !shard.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
                section.error("shards", format_args!("`{shard}` is no name of a shard"));
            }
            if self.shards.iter().take(index).any(|earlier| earlier == shard) {
                section.error("shards", format_args!("names `{shard}` twice"));
            }
        }
        if self.max_links > MOST_LINKS {
            section.error("max_links", format_args!("must be at most {MOST_LINKS}"));
        }
        if self.max_links < self.min_links {
            section.error("max_links", "must be at least min_links");
        }
        if let Some(path) = &self.ca_file
            && let Err(why) = super::client_config(Some(path))
        {
            section.error("ca_file", format_args!("cannot be used: {why}"));
        }
    }

    /// Names `shard` among all instances: beside its name, where it is, which may depend on the instance.
    pub(super) fn key_of(&self, shard: &str, slug: &str) -> String {
        let url = self.url_of(shard, slug);
        let place = url.split_once("://").map_or(&*url, |(_, rest)| rest);
        format!("{shard} {}", place.split(['/', '?']).next().unwrap_or_default())
    }

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
    fn instances_share_a_shard_where_they_share_its_host() {
        let config = Config::default();
        assert_eq!(config.key_of("zeus", "a"), "zeus shard-zeus.ws.concertpos.com");
        assert_eq!(config.key_of("zeus", "a"), config.key_of("zeus", "b"));
        let one_host = Config { url: "ws://localhost:6001/{shard}/?instance={instance}".to_owned(), ..config.clone() };
        assert_ne!(one_host.key_of("zeus", "a"), one_host.key_of("exon", "a"));
        let host_each = Config { url: "wss://{instance}.example/{shard}".to_owned(), ..config };
        assert_ne!(host_each.key_of("zeus", "a"), host_each.key_of("zeus", "b"));
    }

    #[test]
    fn the_template_is_filled_and_a_slug_cannot_leave_its_place() {
        let url = Config::default().url_of("zeus", "a&b/ü");
        assert_eq!(url, "wss://shard-zeus.ws.concertpos.com/?instance=a%26b%2F%C3%BC&Content-Type=json");
    }
}
