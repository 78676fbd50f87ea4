//! The documents as they are served: each written out once, under a tag.

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

/// Every document that is served.
#[derive(Debug)]
pub struct ServedDocuments {
    pub openapi: ServedDocument,
    pub openapi_3_2: ServedDocument,
    pub asyncapi: ServedDocument,
}

impl ServedDocument {
    #[must_use]
    pub fn new(text: String) -> Self {
        let json = Bytes::from(text);
        let digest: [u8; 32] = Sha256::digest(&json).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { json: StaticText::plain(json), etag }
    }
}
