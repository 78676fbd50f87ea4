//! The document and its browser. Both come from this process alone: an internal network has no other.

use std::io::Read;

use actix_web::http::header::{
    AcceptEncoding, CACHE_CONTROL, CONTENT_ENCODING, ContentEncoding, ETAG, Encoding, Header, LOCATION, VARY,
};
use actix_web::web::{Bytes, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};
use flate2::read::GzDecoder;
use utoipa_swagger_ui::{Config, serve};

use crate::http::page;
use crate::http::problem::{Problem, table};
use crate::http::server::Shared;

/// The browser is files of its own, but for the styles that its script sets and its pictures.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the document and the browser.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    // The address is relative, so that the browser works behind a proxy that adds a prefix; without "none" it would
    // send the document to a validator on the internet.
    let browser = Config::new(["../openapi.json"]).validator_url("none");
    config.app_data(Data::new(browser)).service(openapi).service(docs).service(browser_file)
}

#[get("/openapi.json")]
async fn openapi(shared: Data<Shared>) -> HttpResponse {
    let document = &shared.document;
    let mut response = HttpResponse::Ok();
    response.insert_header((ETAG, document.etag.as_str())).insert_header((CACHE_CONTROL, "no-cache"));
    response.content_type("application/json").body(document.json.clone())
}

#[get("/docs")]
async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// A file of the browser. They are in the program compressed, which makes it three megabytes smaller, and are sent so.
#[get("/docs/{_:.*}")]
async fn browser_file(
    request: HttpRequest,
    path: Path<String>,
    config: Data<Config<'static>>,
) -> Result<HttpResponse, Problem> {
    let file = serve(&path, config.into_inner()).map_err(|_| Problem::new(&table::INTERNAL_ERROR))?;
    let file = file.ok_or_else(|| Problem::new(&table::NOT_FOUND))?;
    let mut response = HttpResponse::Ok();
    page::guard(&mut response, POLICY);
    response.content_type(file.content_type).insert_header((VARY, "Accept-Encoding"));
    if !file.gzpipped {
        return Ok(response.body(Bytes::from(file.bytes.into_owned())));
    }
    if takes_gzip(&request) {
        return Ok(response.insert_header(ContentEncoding::Gzip).body(Bytes::from(file.bytes.into_owned())));
    }
    let mut plain = Vec::new();
    GzDecoder::new(&*file.bytes).read_to_end(&mut plain).map_err(|_| Problem::new(&table::INTERNAL_ERROR))?;
    // Said, so that no layer compresses anew what was asked for as it is.
    Ok(response.insert_header((CONTENT_ENCODING, "identity")).body(plain))
}

/// Whether the caller reads gzip. Who names no coding may read none.
fn takes_gzip(request: &HttpRequest) -> bool {
    let gzip = Encoding::gzip();
    let accepted = AcceptEncoding::parse(request);
    accepted.is_ok_and(|accepted| accepted.negotiate([gzip.clone(), Encoding::identity()].iter()) == Some(gzip))
}
