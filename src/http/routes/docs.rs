//! The documents of the API and a browser for the one of OpenAPI 3.1, both from this process alone: an internal network may reach no other.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use actix_web::web::{Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};

use crate::http::openapi::served::ServedDocument;
use crate::http::problem::{Problem, table};
use crate::http::response::page_headers;
use crate::http::response::static_text::StaticText;
use crate::http::state::AppState;

/// Everything is a file of its own, but for the pictures in the browser's styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the documents and the browser.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(openapi).service(openapi_3_2).service(asyncapi).service(docs).service(browser_file)
}

#[get("/openapi.json")]
async fn openapi(request: HttpRequest, shared: Data<AppState>) -> HttpResponse {
    answer(&request, &shared.documents.openapi)
}

#[get("/openapi-3.2.json")]
async fn openapi_3_2(request: HttpRequest, shared: Data<AppState>) -> HttpResponse {
    answer(&request, &shared.documents.openapi_3_2)
}

#[get("/asyncapi.json")]
async fn asyncapi(request: HttpRequest, shared: Data<AppState>) -> HttpResponse {
    answer(&request, &shared.documents.asyncapi)
}

fn answer(request: &HttpRequest, document: &ServedDocument) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((ETAG, document.etag.as_str())).insert_header((CACHE_CONTROL, "no-cache"));
    response.content_type("application/json");
    document.json.answer(request, &mut response)
}

#[get("/docs")]
async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}

/// One file of the browser.
#[derive(Debug)]
struct File {
    media_type: &'static str,
    text: StaticText,
}

impl File {
    fn own(media_type: &'static str, text: &'static str) -> Self {
        Self { media_type, text: StaticText::plain(text) }
    }

    /// A file of the library, as `build.rs` left it: in the program compressed, and sent so.
    fn of_library(media_type: &'static str, compressed: &'static [u8]) -> Self {
        Self { media_type, text: StaticText::gzip(compressed) }
    }
}

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

static PAGE: LazyLock<File> = LazyLock::new(|| File::own(HTML, include_str!("docs/page.html")));
static SCRIPT: LazyLock<File> = LazyLock::new(|| File::own(JAVASCRIPT, include_str!("docs/page.js")));
static STYLE: LazyLock<File> = LazyLock::new(|| File::own(CSS, include_str!("docs/page.css")));
static LIBRARY_SCRIPT: LazyLock<File> = LazyLock::new(|| {
    File::of_library(JAVASCRIPT, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz")))
});
static LIBRARY_STYLE: LazyLock<File> =
    LazyLock::new(|| File::of_library(CSS, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"))));

#[get("/docs/{_:.*}")]
async fn browser_file(request: HttpRequest, path: Path<String>) -> Result<HttpResponse, Problem> {
    let file = match path.as_str() {
        "" | "index.html" => &PAGE,
        "page.js" => &SCRIPT,
        "page.css" => &STYLE,
        "swagger-ui-bundle.js" => &LIBRARY_SCRIPT,
        "swagger-ui.css" => &LIBRARY_STYLE,
        _ => return Err(Problem::new(&table::NOT_FOUND)),
    };
    let mut response = HttpResponse::Ok();
    page_headers::guard(&mut response, POLICY);
    response.content_type(file.media_type);
    Ok(file.text.answer(&request, &mut response))
}
