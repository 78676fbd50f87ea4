//! The document as it is served: written out once, under a tag.

use actix_web::web::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use utoipa::openapi::OpenApi;

use crate::http::response::static_text::StaticText;

#[derive(Debug)]
pub struct ServedDocument {
    /// Its text.
    pub json: StaticText,
    /// Changes when the text does.
    pub etag: String,
}

impl ServedDocument {
    /// Writes the document out once.
    #[must_use]
    pub fn new(document: &OpenApi) -> Self {
        let json = Bytes::from(document.to_json().unwrap_or_default());
        let digest: [u8; 32] = Sha256::digest(&json).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { json: StaticText::plain(json), etag }
    }
}
