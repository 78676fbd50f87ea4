//! The page at `/`: the bridge as its operator watches it, on a wall or on a phone.
//!
//! It is a page like any other client: it holds no secret, is open to all, and gets everything it shows from `/v1` with
//! the token that a person gives it. All of it is in this program, in files of its own, so that the policy can forbid
//! everything else: no inline script or style, no other host, no frame around it, no text ever taken for markup.
//!
//! What it refuses to do: know more than `/v1` tells; keep a token longer than the tab; share its path with the gateway's
//! protocol, whose WebSocket upgrade at `/` is left to others.

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
