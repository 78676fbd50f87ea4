//! The documents of the API and a browser for the one of OpenAPI 3.1, both from this process alone: an internal network may reach no other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use actix_web::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use actix_web::web::{Bytes, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};
use utoipa_swagger_ui::{Config, serve};

use crate::http::openapi::served::ServedDocument;
use crate::http::problem::{Problem, table};
use crate::http::response::page_headers;
use crate::http::response::static_text::StaticText;
use crate::http::state::AppState;

/// Everything is a file of its own, but for the pictures in the browser's styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the library that the page uses.
const LIBRARY: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

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

/// The library's files that were asked for.
static FILES: RwLock<BTreeMap<String, Arc<File>>> = RwLock::new(BTreeMap::new());

/// One file of the browser.
#[derive(Debug)]
struct File {
    media_type: String,
    text: StaticText,
}

impl File {
    fn own(media_type: &str, text: &'static str) -> Self {
        Self { media_type: media_type.to_owned(), text: StaticText::plain(text) }
    }
}

static PAGE: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::own("text/html; charset=utf-8", include_str!("docs/page.html"))));
static SCRIPT: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::own("text/javascript; charset=utf-8", include_str!("docs/page.js"))));
static STYLE: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::own("text/css; charset=utf-8", include_str!("docs/page.css"))));

#[get("/docs/{_:.*}")]
async fn browser_file(request: HttpRequest, path: Path<String>) -> Result<HttpResponse, Problem> {
    let file = find(&path)?.ok_or_else(|| Problem::new(&table::NOT_FOUND))?;
    let mut response = HttpResponse::Ok();
    page_headers::guard(&mut response, POLICY);
    response.content_type(file.media_type.as_str());
    Ok(file.text.answer(&request, &mut response))
}

fn find(path: &str) -> Result<Option<Arc<File>>, Problem> {
    match path {
        "" | "index.html" => Ok(Some(Arc::clone(&PAGE))),
        "page.js" => Ok(Some(Arc::clone(&SCRIPT))),
        "page.css" => Ok(Some(Arc::clone(&STYLE))),
        library if LIBRARY.contains(&library) => of_library(library),
        _ => Ok(None),
    }
}

/// A file of the library. They are in the program compressed, which makes it three megabytes smaller, and are sent so.
fn of_library(path: &str) -> Result<Option<Arc<File>>, Problem> {
    if let Some(file) = FILES.read().unwrap_or_else(PoisonError::into_inner).get(path) {
        return Ok(Some(Arc::clone(file)));
    }
    let found = serve(path, Arc::new(Config::from(""))).map_err(|_| Problem::new(&table::INTERNAL_ERROR))?;
    Ok(found.map(|found| {
        let bytes = match found.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let text = if found.gzpipped { StaticText::gzip(bytes) } else { StaticText::plain(bytes) };
        let file = Arc::new(File { media_type: found.content_type, text });
        let mut files = FILES.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(path.to_owned()).or_insert(file))
    }))
}
