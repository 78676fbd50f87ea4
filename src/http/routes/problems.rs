//! What an error means and what to do: the page that a problem's `type` points to, and a list of them all.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, VARY};
use actix_web::web::{Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};
use serde_json::{Value, json};

use crate::http::problem::{Entry, Problem, table};
use crate::http::request::accept;
use crate::http::response::page_headers;

/// The page runs nothing, and loads the dashboard's styles alone.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Adds the pages.
pub fn configure(config: &mut ServiceConfig) -> &mut ServiceConfig {
    config.service(list).service(explain)
}

#[get("/problems")]
async fn list(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let known = || json!({ "problems": table::TABLE.iter().map(|entry| described(entry)).collect::<Vec<_>>() });
    answer(&request, index, known)
}

#[get("/problems/{code}")]
async fn explain(request: HttpRequest, code: Path<String>) -> Result<HttpResponse, Problem> {
    let entry = table::find(&code)
        .ok_or_else(|| Problem::new(&table::NOT_FOUND).detail("The bridge has no problem of this code."))?;
    answer(&request, || page(entry), || described(entry))
}

/// As HTML for people, as JSON for programs.
fn answer(
    request: &HttpRequest,
    page: impl FnOnce() -> String,
    described: impl FnOnce() -> Value,
) -> Result<HttpResponse, Problem> {
    let mut response = HttpResponse::Ok();
    // A page of a few kilobytes that needs no token is not worth the work of compressing it for each request.
    let plain = (CONTENT_ENCODING, "identity");
    response.insert_header((CACHE_CONTROL, "no-cache")).insert_header((VARY, "Accept")).insert_header(plain);
    page_headers::guard(&mut response, POLICY);
    if accept::prefers_html(request.headers()) {
        return Ok(response.content_type("text/html; charset=utf-8").body(page()));
    }
    if !accept::accepts(request.headers(), "application/json") {
        return Err(Problem::new(&table::NOT_ACCEPTABLE));
    }
    Ok(response.json(described()))
}

fn described(entry: &Entry) -> Value {
    let Entry { code, status, title, retryable, explanation, advice, .. } = entry;
    json!({
        "code": code,
        "status": status,
        "title": title,
        "retryable": retryable,
        "explanation": explanation,
        "advice": advice,
    })
}

fn index() -> String {
    let rows: String = table::TABLE.iter().map(|entry| row(entry)).collect();
    let body = format!(
        "<h1>Problems</h1>\n<p>What can go wrong, and what to do about it.</p>\n<ul class=\"problems\">\n{rows}</ul>\n"
    );
    document("Problems", "", &body)
}

fn row(entry: &Entry) -> String {
    let (Entry { code, status, .. }, title) = (entry, html(entry.title));
    format!("<li><a href=\"problems/{code}\">{title}</a> <code>{status} {code}</code></li>\n")
}

fn page(entry: &Entry) -> String {
    let [title, explanation, advice] = [entry.title, entry.explanation, entry.advice].map(html);
    let retryable = if entry.retryable {
        "Yes: the same request is safe to repeat and may succeed. An answer may say otherwise in its own \
         <code>retryable</code>."
    } else {
        "No: repeating the request unchanged does not help."
    };
    let Entry { code, status, .. } = entry;
    let body = format!(
        "<p><code>{status} {code}</code></p>\n<h1>{title}</h1>\n\
         <h2>What happened</h2>\n<p>{explanation}</p>\n<h2>What to do</h2>\n<p>{advice}</p>\n\
         <h2>Is it worth repeating?</h2>\n<p>{retryable}</p>\n"
    );
    document(&title, "../", &body)
}

/// A whole page around `body`; both texts are HTML already. `root` leads from the page to `/`: links are relative, as the
/// bridge may lie under a path of a proxy.
fn document(title: &str, root: &str, body: &str) -> String {
    let home = if root.is_empty() { "./" } else { root };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{plain} – ConcertPOS bridge</title>\n\
         <link rel=\"icon\" href=\"{root}dashboard/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"{root}dashboard/palette.css\">\n\
         <link rel=\"stylesheet\" href=\"{root}dashboard/pages.css\">\n</head>\n<body class=\"text\">\n\
         <header class=\"place\"><a href=\"{home}\">ConcertPOS bridge</a> <a href=\"{root}problems\">Problems</a> \
         <a href=\"{root}docs/\">API</a></header>\n<main>\n{body}</main>\n</body>\n</html>\n",
        plain = title.replace("<code>", "").replace("</code>", ""),
    )
}

/// The table's texts as HTML: escaped, and what stands between backticks as code.
fn html(words: &str) -> String {
    let escaped = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut page = String::with_capacity(escaped.len());
    for (index, part) in escaped.split('`').enumerate() {
        match index {
            0 => {}
            odd if odd % 2 == 1 => page.push_str("<code>"),
            _ => page.push_str("</code>"),
        }
        page.push_str(part);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_whole() {
        for entry in table::TABLE {
            let page = page(entry);
            assert!(index().contains(&format!("href=\"problems/{}\"", entry.code)));
            assert!(!page.contains('`'), "{}", entry.code);
            assert_eq!(page.matches("<code>").count(), page.matches("</code>").count(), "{}", entry.code);
        }
        assert_eq!(html("a `b<c>` & d"), "a <code>b&lt;c&gt;</code> &amp; d");
    }
}
