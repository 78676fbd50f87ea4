//! The documents as they are served: each written out once, under a tag.

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

/// Every document that is served.
#[derive(Debug)]
pub struct ServedDocuments {
    pub openapi: ServedDocument,
    pub openapi_3_2: ServedDocument,
    pub asyncapi: ServedDocument,
}

impl ServedDocuments {
    /// Writes each document out once. `openapi` is the one for OpenAPI 3.1 with its servers, which the others get too.
    #[must_use]
    pub fn new(openapi: &OpenApi, public_url: Option<&str>) -> Self {
        let mut newer = super::document_3_2();
        newer.servers.clone_from(&openapi.servers);
        Self {
            openapi: ServedDocument::new(openapi.to_json().unwrap_or_default()),
            openapi_3_2: ServedDocument::new(newer.to_json().unwrap_or_default()),
            asyncapi: ServedDocument::new(super::asyncapi(public_url).to_string()),
        }
    }
}

impl ServedDocument {
    fn new(text: String) -> Self {
        let json = Bytes::from(text);
        let digest: [u8; 32] = Sha256::digest(&json).into();
        let etag = format!("\"{}\"", HEXLOWER.encode(digest.get(..8).unwrap_or_default()));
        Self { json: StaticText::plain(json), etag }
    }
}
