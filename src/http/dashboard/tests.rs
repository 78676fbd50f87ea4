//! What the page promises before a browser has seen it.

use actix_web::http::Method;
use actix_web::test::TestRequest;

use super::assets;
use crate::http::testing::ask;

fn text(asset: &assets::Asset) -> &str {
    std::str::from_utf8(asset.text.text()).unwrap()
}

fn get(uri: &str) -> TestRequest {
    TestRequest::get().uri(uri)
}

#[actix_web::test]
async fn the_page_and_its_parts_are_open_to_all_and_let_nothing_else_in() {
    let paths = assets::parts().map(|part| (format!("/dashboard/{}", part.name), part.media_type));
    for (path, media_type) in paths.chain([("/".to_owned(), "text/html; charset=utf-8")]) {
        let answer = ask(get(&path)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media_type), "{path}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.split("; ").any(|given| given == part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    }
}

#[actix_web::test]
async fn a_browser_that_has_a_part_is_told_so() {
    for path in ["/", "/dashboard/page.css"] {
        let etag = ask(get(path)).await.header("etag").to_owned();
        assert!(etag.len() > 10, "{path}: {etag}");
        let again = ask(get(path).insert_header(("If-None-Match", etag.as_str()))).await;
        assert_eq!((again.status, again.header("etag"), again.body.len()), (304, etag.as_str(), 0));
        assert!(again.header("content-security-policy").contains("default-src 'none'"));
        assert_eq!(ask(get(path).insert_header(("If-None-Match", "\"other\""))).await.status, 200);
    }
}

#[actix_web::test]
async fn only_what_is_there_is_served() {
    for path in ["/dashboard", "/dashboard/", "/dashboard/mod.rs", "/dashboard/..%2fmod.rs", "/page.css"] {
        let answer = ask(get(path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not-found"), "{path}");
    }
    let answer = ask(get("/").method(Method::POST)).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD, OPTIONS"));
}

#[actix_web::test]
async fn an_upgrade_at_the_root_is_not_answered_with_the_page() {
    for upgrade in ["websocket", "WebSocket"] {
        let answer = ask(get("/").insert_header(("Connection", "Upgrade")).insert_header(("Upgrade", upgrade))).await;
        assert_ne!(answer.status, 200);
    }
    assert_eq!(ask(get("/").insert_header(("Upgrade", "h2c"))).await.status, 200);
}

#[test]
fn the_files_hold_nothing_that_the_policy_forbids() {
    let page = text(assets::page());
    for forbidden in ["<style", "style=", "onclick", "javascript:", "//"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<script").count(), 1, "one script, from a file");
    for part in assets::parts() {
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"] {
            assert!(!text(part).contains(forbidden), "{forbidden} in {}", part.name);
        }
    }
}
