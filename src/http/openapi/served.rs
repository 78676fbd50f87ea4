//! The documents as they are served: each written out once, under a tag.

use std::sync::LazyLock;

use actix_web::web::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::http::response::static_text::StaticText;

#[derive(Debug)]
pub struct ServedDocument {
    /// Its text.
    pub json: StaticText,
    /// Changes when the text does.
    pub etag: String,
}

/// One that is made when it is first asked for: most bridges are never asked, and it takes megabytes.
pub type LazyDocument = LazyLock<ServedDocument, Box<dyn FnOnce() -> ServedDocument + Send>>;

/// Every document that is served.
#[derive(Debug)]
pub struct ServedDocuments {
    pub openapi: LazyDocument,
    pub openapi_3_2: LazyDocument,
    pub asyncapi: LazyDocument,
}

impl ServedDocument {
    /// The document whose text this gives.
    #[must_use]
    pub fn lazy(text: impl FnOnce() -> String + Send + 'static) -> LazyDocument {
        LazyLock::new(Box::new(|| Self::new(text())))
    }

    fn new(text: String) -> Self {
        let json = Bytes::from(text);
        let digest: [u8; 32] = Sha256::digest(&json).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { json: StaticText::plain(json), etag }
    }
}
