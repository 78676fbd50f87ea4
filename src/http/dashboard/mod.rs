//! The dashboard at `/`, for the operator.
//!
//! It is a client like any other: it holds no secret, needs no token to be loaded, and gets everything it shows from `/v1`
//! with the token that a person enters. All of it is in this program, in files of its own, so that the policy can forbid
//! everything else: no inline script or style, no other host, no frame around it, no text ever taken for markup.
//!
//! It shows nothing that `/v1` does not answer, and keeps a token no longer than the tab. A WebSocket upgrade at `/` is for
//! the native protocol.

mod assets;

use actix_web::guard;
use actix_web::http::header::{CACHE_CONTROL, ETAG};
use actix_web::web::{self, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use super::problem::{Problem, table};
use crate::http::response::page_headers;
use crate::http::upgrade::is_upgrade;
use assets::Asset;

/// Everything comes from here, and nothing that is not a file of its own is run, drawn or asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

/// Adds the page and its parts.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    let page = web::resource("/").guard(guard::Get()).guard(guard::Not(guard::fn_guard(is_upgrade)));
    config.service(page.to(page_itself)).service(web::resource("/dashboard/{name}").guard(guard::Get()).to(part))
}

async fn page_itself(request: HttpRequest) -> HttpResponse {
    answer(&request, assets::page())
}

async fn part(request: HttpRequest, name: Path<String>) -> Result<HttpResponse, Problem> {
    let asset = assets::find(&name).ok_or_else(|| Problem::new(&table::NOT_FOUND))?;
    Ok(answer(&request, asset))
}

fn answer(request: &HttpRequest, asset: &'static Asset) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((ETAG, asset.etag.as_str())).insert_header((CACHE_CONTROL, "no-cache"));
    page_headers::guard(&mut response, POLICY);
    response.content_type(asset.media_type);
    asset.text.answer(request, &mut response)
}

#[cfg(test)]
mod tests;
