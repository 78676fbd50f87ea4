//! The document and its browser. Both come from this process alone: an internal network has no other.

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, LOCATION};
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::http::problem::Problem;
use crate::http::server::Shared;

/// Adds the document and the browser.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    // The address is relative, so that the browser works behind a proxy that adds a prefix; without "none" it would
    // send the document to a validator on the internet.
    let browser = Config::new(["../openapi.json"]).validator_url("none");
    config.service(openapi).service(docs).service(SwaggerUi::new("/docs/{_:.*}").config(browser))
}

#[get("/openapi.json")]
async fn openapi(request: HttpRequest, shared: Data<Shared>) -> Result<HttpResponse, Problem> {
    let document = &shared.document;
    let known = request.headers().get_all(IF_NONE_MATCH).filter_map(|header| header.to_str().ok());
    let unchanged = known.flat_map(|tags| tags.split(',')).map(str::trim).any(|tag| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || Some(tag) == document.etag.strip_prefix("W/")
    });
    let mut response = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, document.etag.as_str())).insert_header((CACHE_CONTROL, "no-cache"));
    if unchanged {
        return Ok(response.finish());
    }
    Ok(response.content_type("application/json").body(document.json.clone()))
}

#[get("/docs")]
async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((LOCATION, "docs/")).finish()
}
