//! The files of the page, as they were when the program was built.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::http::response::static_text::StaticText;

/// How each kind of file is served.
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    /// Its name under `/dashboard/`.
    pub(super) name: &'static str,
    /// How it is served.
    pub(super) media_type: &'static str,
    /// What it holds.
    pub(super) text: StaticText,
    /// Changes when the file does.
    pub(super) etag: String,
}

impl Asset {
    fn new(name: &'static str, media_type: &'static str, text: &'static str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { name, media_type, text: StaticText::plain(text), etag }
    }
}

static PAGE: LazyLock<Asset> = LazyLock::new(|| Asset::new("", HTML, include_str!("page.html")));

static PARTS: LazyLock<[Asset; 26]> = LazyLock::new(|| {
    [
        Asset::new("page.css", CSS, include_str!("page.css")),
        Asset::new("palette.css", CSS, include_str!("palette.css")),
        Asset::new("pages.css", CSS, include_str!("pages.css")),
        Asset::new("wall.css", CSS, include_str!("wall.css")),
        Asset::new("icon.svg", SVG, include_str!("icon.svg")),
        Asset::new("main.js", SCRIPT, include_str!("main.js")),
        Asset::new("api.js", SCRIPT, include_str!("api.js")),
        Asset::new("dom.js", SCRIPT, include_str!("dom.js")),
        Asset::new("attention.js", SCRIPT, include_str!("attention.js")),
        Asset::new("shards.js", SCRIPT, include_str!("shards.js")),
        Asset::new("replicas.js", SCRIPT, include_str!("replicas.js")),
        Asset::new("budget.js", SCRIPT, include_str!("budget.js")),
        Asset::new("facts.js", SCRIPT, include_str!("facts.js")),
        Asset::new("chart.js", SCRIPT, include_str!("chart.js")),
        Asset::new("findings.js", SCRIPT, include_str!("findings.js")),
        Asset::new("find.js", SCRIPT, include_str!("find.js")),
        Asset::new("rates.js", SCRIPT, include_str!("rates.js")),
        Asset::new("sign_in.js", SCRIPT, include_str!("sign_in.js")),
        Asset::new("wall.js", SCRIPT, include_str!("wall.js")),
        Asset::new("payments.js", SCRIPT, include_str!("payments.js")),
        Asset::new("settle.js", SCRIPT, include_str!("settle.js")),
        Asset::new("settle.css", CSS, include_str!("settle.css")),
        Asset::new("evidence.js", SCRIPT, include_str!("evidence.js")),
        Asset::new("exact.js", SCRIPT, include_str!("exact.js")),
        Asset::new("broadcasts.js", SCRIPT, include_str!("broadcasts.js")),
        Asset::new("stream.js", SCRIPT, include_str!("stream.js")),
    ]
});

/// The page itself.
pub(super) fn page() -> &'static Asset {
    &PAGE
}

/// The part of the page with this name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    PARTS.iter().find(|part| part.name == name)
}

/// Every part.
#[cfg(test)]
pub(super) fn parts() -> impl Iterator<Item = &'static Asset> {
    PARTS.iter()
}
