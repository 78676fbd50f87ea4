//! Texts that need no token, such as the document and the pages: compressed once, and one copy for all answers.
//!
//! The compressing layer would do it anew for each request, in a thread of its own and with some hundred kilobytes of
//! memory.

use std::io::{Read, Write};
use std::sync::OnceLock;

use actix_web::http::header::{AcceptEncoding, CONTENT_ENCODING, ContentEncoding, Encoding, Header, VARY};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// One text, in either coding.
#[derive(Debug, Default)]
pub struct StaticText {
    plain: OnceLock<Bytes>,
    gzip: OnceLock<Bytes>,
}

impl StaticText {
    /// A text as it is.
    #[must_use]
    pub fn plain(text: impl Into<Bytes>) -> Self {
        Self { plain: OnceLock::from(text.into()), gzip: OnceLock::new() }
    }

    /// A text as gzip made it.
    #[must_use]
    pub fn gzip(compressed: impl Into<Bytes>) -> Self {
        Self { plain: OnceLock::new(), gzip: OnceLock::from(compressed.into()) }
    }

    /// The text itself. Empty where what was given is not what it was said to be.
    pub fn text(&self) -> &Bytes {
        self.plain.get_or_init(|| {
            let mut plain = Vec::new();
            let compressed = self.gzip.get().map_or(&[][..], |gzip| &gzip[..]);
            GzDecoder::new(compressed).read_to_end(&mut plain).map_or_else(|_| Bytes::new(), |_| plain.into())
        })
    }

    fn compressed(&self) -> &Bytes {
        self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            // Writing to memory cannot fail.
            let _ = encoder.write_all(self.text());
            encoder.finish().unwrap_or_default().into()
        })
    }

    /// The text as the body of `response`, compressed for those who can read it.
    pub fn answer(&self, request: &HttpRequest, response: &mut HttpResponseBuilder) -> HttpResponse {
        response.insert_header((VARY, "Accept-Encoding"));
        if takes_gzip(request) {
            return response.insert_header(ContentEncoding::Gzip).body(self.compressed().clone());
        }
        // Said, so that no layer compresses it anew.
        response.insert_header((CONTENT_ENCODING, "identity")).body(self.text().clone())
    }
}

/// Whether the caller accepts gzip. One that names no coding may read none.
fn takes_gzip(request: &HttpRequest) -> bool {
    let gzip = Encoding::gzip();
    let accepted = AcceptEncoding::parse(request);
    accepted.is_ok_and(|accepted| accepted.negotiate([gzip.clone(), Encoding::identity()].iter()) == Some(gzip))
}
