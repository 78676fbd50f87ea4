//! The URL of a connection: instance, format, and a listener's token. Pure.
//!
//! The gateway has several forms of URL, and a till keeps the one it was built with: the slug in the query, after `/`,
//! `/gateway` or a shard's name, or, older, the slug as the path. The bridge answers for every shard, so it makes no
//! difference which one is named. No URL is an error here: a browser shows a program nothing of a refused upgrade, so
//! errors are sent in the gateway's words once the connection is open.

use std::fmt;

use actix_web::web::Query;
use secrecy::SecretString;

use crate::protocol::Format;

/// A path that names neither an instance nor a shard.
const GATEWAY: &str = "gateway";

pub(super) struct Target {
    /// As the URL names it; empty where it names none.
    pub(super) instance: String,
    /// `None` where the URL names an unknown one.
    pub(super) format: Option<Format>,
    pub(super) access_token: Option<SecretString>,
}

/// The token is a secret.
impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Target {
    /// From the one segment of the path and the query. Of a name given twice the first counts, as at the gateway.
    pub(super) fn of(segment: &str, query: &str, shards: &[String]) -> Self {
        let pairs = Query::<Vec<(String, String)>>::from_query(query).map(Query::into_inner).unwrap_or_default();
        let first = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let in_path = !(segment.is_empty() || segment == GATEWAY || shards.iter().any(|shard| shard == segment));
        let named = first("instance").or(in_path.then_some(segment));
        let format = match first("Content-Type").map(str::to_ascii_lowercase).as_deref() {
            Some("json5") => Some(Format::Json5),
            // The vendor's own till leaves out the equals sign.
            None if first("Content-Typejson5").is_some() => Some(Format::Json5),
            None | Some("" | "json") => Some(Format::Json),
            Some(_) => None,
        };
        Self {
            instance: named.unwrap_or_default().to_owned(),
            format,
            access_token: first("access_token").map(SecretString::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn target(segment: &str, query: &str) -> Target {
        Target::of(segment, query, &["exon", "zeus"].map(str::to_owned))
    }

    fn read(segment: &str, query: &str) -> (String, Option<Format>) {
        let Target { instance, format, .. } = target(segment, query);
        (instance, format)
    }

    #[test]
    fn every_form_of_the_url_names_the_same_instance() {
        for (segment, query) in [
            ("", "instance=demo&Content-Type=json"),
            ("gateway", "Content-Type=json&instance=demo"),
            ("zeus", "instance=demo"),
            ("demo", ""),
            ("demo", "Content-Type="),
            // A shard that the bridge has not heard of.
            ("newshard", "instance=demo"),
        ] {
            assert_eq!(read(segment, query), ("demo".to_owned(), Some(Format::Json)), "/{segment}?{query}");
        }
        assert_eq!(read("", "").0, "");
        assert_eq!(read("exon", "").0, "");
        assert_eq!(read("", "instance=my%20fest&instance=other").0, "my fest");
    }

    #[test]
    fn json5_is_asked_for_with_and_without_the_equals_sign_and_other_types_do_not_exist() {
        for query in ["Content-Type=json5", "instance=demo&Content-Typejson5", "Content-Type=JSON5"] {
            assert_eq!(read("", query).1, Some(Format::Json5), "{query}");
        }
        assert_eq!(read("", "Content-Type=json&Content-Typejson5").1, Some(Format::Json));
        for query in ["Content-Type=xml", "Content-Type=json6"] {
            assert_eq!(read("", query).1, None, "{query}");
        }
    }

    #[test]
    fn a_token_is_found_and_never_shown() {
        let target = target("", "instance=demo&access_token=hush%2Bhush");
        assert_eq!(target.access_token.as_ref().unwrap().expose_secret(), "hush+hush");
        assert!(!format!("{target:?}").contains("hush"));
    }
}
