//! The documents that the program carries: the committed ones, as they are served and printed. Nothing of what makes them is in
//! the program.

use std::io::{self, Read};
use std::sync::LazyLock;

use actix_web::web::Bytes;
use data_encoding::HEXLOWER;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::response::static_text::StaticText;

/// A document as `build.rs` left it.
macro_rules! committed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

const OPENAPI: &[u8] = committed!("openapi.json");
const OPENAPI_YAML: &[u8] = committed!("openapi.yaml");
const OPENAPI_3_2: &[u8] = committed!("openapi-3.2.json");
const ASYNCAPI: &[u8] = committed!("asyncapi.json");

/// The document for OpenAPI 3.1, as JSON.
pub fn json() -> io::Result<String> {
    text(OPENAPI)
}

/// The same as YAML.
pub fn yaml() -> io::Result<String> {
    text(OPENAPI_YAML)
}

fn text(compressed: &[u8]) -> io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(compressed).read_to_string(&mut text)?;
    Ok(text)
}

#[derive(Debug)]
pub struct ServedDocument {
    /// Its text.
    pub json: StaticText,
    /// Changes when the text does.
    pub etag: String,
}

/// One that is prepared when it is first asked for: most bridges are never asked.
pub type LazyDocument = LazyLock<ServedDocument, Box<dyn FnOnce() -> ServedDocument + Send>>;

/// Every document that is served.
#[derive(Debug)]
pub struct ServedDocuments {
    pub openapi: LazyDocument,
    pub openapi_3_2: LazyDocument,
    pub asyncapi: LazyDocument,
}

impl ServedDocuments {
    /// For callers who reach the bridge at `public_url`.
    #[must_use]
    pub fn at(public_url: Option<&str>) -> Self {
        Self {
            openapi: ServedDocument::lazy(OPENAPI, public_url, openapi_at),
            openapi_3_2: ServedDocument::lazy(OPENAPI_3_2, public_url, openapi_at),
            asyncapi: ServedDocument::lazy(ASYNCAPI, public_url, asyncapi_at),
        }
    }
}

impl ServedDocument {
    fn lazy(committed: &'static [u8], public_url: Option<&str>, at: fn(&str, &str) -> String) -> LazyDocument {
        let public_url = public_url.map(str::to_owned);
        LazyLock::new(Box::new(move || {
            let text = StaticText::gzip(committed);
            let Some(url) = public_url else { return Self::new(text, committed) };
            let changed = Bytes::from(at(&String::from_utf8_lossy(text.text()), &url));
            Self::new(StaticText::plain(changed.clone()), &changed)
        }))
    }

    fn new(json: StaticText, bytes: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { json, etag }
    }
}

/// The document with the place of the bridge: behind a proxy that adds a path, `/` would lead beside it.
fn openapi_at(text: &str, public_url: &str) -> String {
    text.replacen(r#""url": "/""#, &format!(r#""url": {}"#, Value::from(public_url)), 1)
}

/// The document with the place of the bridge, which it cannot name without one.
fn asyncapi_at(text: &str, public_url: &str) -> String {
    let Some((protocol, rest)) = public_url.split_once("://") else { return text.to_owned() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let server = json!({"host": host, "protocol": protocol, "pathname": format!("/{path}")});
    text.replacen('{', &format!("{{\n  \"servers\": {{\"bridge\": {server}}},"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_carried_is_what_the_code_makes() {
        assert_eq!(json().unwrap(), openapi::json());
        assert_eq!(yaml().unwrap(), openapi::yaml());
        assert_eq!(text(OPENAPI_3_2).unwrap(), openapi::json_3_2());
        assert_eq!(text(ASYNCAPI).unwrap(), openapi::asyncapi_json());
    }

    #[test]
    fn a_place_changes_the_servers_and_nothing_else() {
        let url = r#"https://pos.example/a "bridge""#;
        for committed in [OPENAPI, OPENAPI_3_2] {
            let committed = text(committed).unwrap();
            let (mut plain, placed) = (value(&committed), value(&openapi_at(&committed, url)));
            plain["servers"][0]["url"] = url.into();
            assert_eq!(placed, plain);
        }
        let committed = text(ASYNCAPI).unwrap();
        let (mut plain, placed) = (value(&committed), value(&asyncapi_at(&committed, url)));
        plain["servers"] = json!({"bridge": {"host": "pos.example", "protocol": "https", "pathname": "/a \"bridge\""}});
        assert_eq!(placed, plain);
    }
}
