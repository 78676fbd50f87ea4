//! Promises of the HTTP server as a whole, asked of the real application. Its bridge knows no instance, so `unknown-instance`
//! is how a request says that it came all the way through.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_http::Request;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::test::TestRequest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::auth::{self, Auth, Mode, Scope};
use super::openapi::listed::ListedRoutes;
use super::problem::{MEDIA_TYPE, table};
use super::server::Parts;
use super::testing::{Answer, allowed, app, ask, ask_with, auth, bridge};
use super::{Config, openapi, run};

const PRODUCTS: &str = "/v1/instances/demo/points-of-sale/1/products";
const PAYMENTS: &str = "/v1/instances/demo/points-of-sale/1/payments";
const SALE: &str = r#"{"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn get(uri: &str) -> TestRequest {
    allowed(TestRequest::get().uri(uri))
}

fn post(uri: &str, body: &'static str) -> TestRequest {
    allowed(TestRequest::post().uri(uri)).insert_header(JSON).set_payload(body)
}

fn payment(body: &'static str) -> TestRequest {
    post(PAYMENTS, body).insert_header(("Idempotency-Key", "k1"))
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    assert_eq!(answer.header("content-type"), MEDIA_TYPE);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("/problems/{code}"));
    assert_eq!(body["request_id"], answer.header("x-request-id"));
    assert!(body["title"].is_string() && body["detail"].is_string() && body["retryable"].is_boolean(), "{body}");
}

#[actix_web::test]
async fn every_route_reaches_the_bridge_when_all_is_well() {
    for path in ["config", "deposit", "license", "points-of-sale", "version", "status"] {
        assert_problem(&ask(get(&format!("/v1/instances/demo/{path}"))).await, 404, "unknown-instance");
    }
    for path in ["payment-methods", "products", "transactions", "transactions?limit=5"] {
        let uri = format!("/v1/instances/demo/points-of-sale/1/{path}");
        assert_problem(&ask(get(&uri).insert_header(("X-POS-Password", "ü"))).await, 404, "unknown-instance");
    }
    assert_problem(&ask(payment(SALE)).await, 404, "unknown-instance");
    let check = post("/v1/instances/demo/points-of-sale/1/password-check", r#"{"password":"x"}"#);
    assert_problem(&ask(check).await, 404, "unknown-instance");
    let device = "/v1/instances/demo/devices/13e12ff5-c853-4049-acbc-b1307c00691d";
    assert_problem(&ask(post(device, r#"{"workplace":"1"}"#).method(Method::PUT)).await, 404, "unknown-instance");
    assert_problem(&ask(get(device).method(Method::PUT)).await, 404, "unknown-instance");
    assert_problem(&ask(post("/v1/instances/demo/commands/x_1?reply=X", "{}")).await, 404, "unknown-instance");
}

#[actix_web::test]
async fn an_unknown_path_is_a_problem_like_any_other() {
    for uri in ["/nowhere", "/v1", "/v1/instances/demo/nowhere", "/v1/instances/demo/points-of-sale/1", "/docs/nowhere"]
    {
        assert_problem(&ask(get(uri)).await, 404, "not-found");
    }
}

#[actix_web::test]
async fn a_method_the_path_does_not_have_is_told_which_it_has() {
    let rows = [
        (PRODUCTS, "GET, HEAD, OPTIONS"),
        (PAYMENTS, "POST, OPTIONS"),
        ("/v1/instances/demo/devices/x", "PUT, OPTIONS"),
        ("/v1/instances", "GET, HEAD, OPTIONS"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ];
    for (uri, allow) in rows {
        for method in [Method::DELETE, Method::from_bytes(b"BREW").unwrap()] {
            let answer = ask(get(uri).method(method)).await;
            assert_problem(&answer, 405, "method-not-allowed");
            assert_eq!(answer.header("allow"), allow, "{uri}");
        }
        let answer = ask(get(uri).method(Method::OPTIONS)).await;
        assert_eq!((answer.status, answer.header("allow")), (204, allow), "{uri}");
    }
}

#[actix_web::test]
async fn a_head_request_is_answered_as_a_get_is() {
    let answer = ask(TestRequest::default().method(Method::HEAD).uri("/openapi.json")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_problem(&ask(get(PRODUCTS).method(Method::HEAD)).await, 404, "unknown-instance");
    let allow = ask(get(PAYMENTS).method(Method::HEAD)).await;
    assert_eq!((allow.status, allow.header("allow")), (405, "POST, OPTIONS"));
}

#[actix_web::test]
async fn an_accept_header_without_json_is_refused_before_anything_is_sent() {
    for accept in ["text/html", "application/json;q=0", "application/xml, text/*"] {
        assert_problem(&ask(get(PRODUCTS).insert_header(("Accept", accept))).await, 406, "not-acceptable");
        assert_problem(&ask(payment(SALE).insert_header(("Accept", accept))).await, 406, "not-acceptable");
        assert_problem(&ask(get("/v1/instances").insert_header(("Accept", accept))).await, 406, "not-acceptable");
    }
    let coding = payment(SALE).insert_header(("Accept-Encoding", "identity;q=0, nothing"));
    assert_problem(&ask(coding).await, 406, "not-acceptable");
}

#[actix_web::test]
async fn a_body_too_large_is_refused_whether_announced_or_not() {
    let config = Config { max_body: 40, ..Config::default() };
    assert_problem(&ask_with(config.clone(), auth(), payment(SALE)).await, 413, "too-large");
    let announced = payment("{}").insert_header(("Content-Length", "41"));
    assert_problem(&ask_with(config.clone(), auth(), announced).await, 413, "too-large");
    let fits = payment("{}").insert_header(("Content-Length", "2"));
    assert_problem(&ask_with(config, auth(), fits).await, 400, "invalid-request");
}

#[actix_web::test]
async fn a_body_that_is_not_json_by_its_own_word_is_refused() {
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        let request = payment(SALE).insert_header(("Content-Type", kind));
        assert_problem(&ask(request).await, 415, "unsupported-media-type");
    }
    let unnamed = allowed(TestRequest::post().uri(PAYMENTS)).insert_header(("Idempotency-Key", "k")).set_payload(SALE);
    assert_problem(&ask(unnamed).await, 415, "unsupported-media-type");
    let packed = payment(SALE).insert_header(("Content-Encoding", "gzip"));
    assert_problem(&ask(packed).await, 415, "unsupported-media-type");
}

#[actix_web::test]
async fn malformed_json_is_told_where() {
    let rows = [
        ("", "is empty"),
        ("{", "line 1 column"),
        ("[]", "must be a JSON object"),
        ("7", "must be a JSON object"),
        (r#"{"PaymentMethod":1,}"#, "line 1 column"),
        (r#"{"a":1}{"#, "line 1 column"),
    ];
    for (body, words) in rows {
        let answer = ask(payment(body)).await;
        assert_problem(&answer, 400, "invalid-request");
        assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{body}: {:?}", answer.json());
    }
    let twice = ask(payment(r#"{"PaymentMethod":1,"PaymentMethod":2,"Products":[{"ID":1,"Amount":2}]}"#)).await;
    assert_problem(&twice, 400, "invalid-request");
    assert!(twice.json()["detail"].as_str().unwrap().contains("`PaymentMethod` is given twice"));
}

#[actix_web::test]
async fn a_sale_s_faults_are_all_pointed_at() {
    let answer = ask(payment(r#"{"PaymentMethod":-1,"Products":[{"ID":1,"Amount":0.5},{"ID":2}]}"#)).await;
    assert_problem(&answer, 400, "invalid-request");
    assert_eq!(
        answer.json()["errors"],
        json!([
            {"pointer": "/PaymentMethod", "detail": "must not be negative"},
            {"pointer": "/Products/0/Amount", "detail": "must not have a fraction"},
            {"pointer": "/Products/1/Amount", "detail": "is missing"},
        ])
    );
}

#[actix_web::test]
async fn a_payment_needs_one_idempotency_key() {
    assert_problem(&ask(post(PAYMENTS, SALE)).await, 400, "idempotency-key-missing");
    for key in ["", "a b", "\"open"] {
        let answer = ask(post(PAYMENTS, SALE).insert_header(("Idempotency-Key", key))).await;
        assert_problem(&answer, 400, "idempotency-key-missing");
    }
    let two = payment(SALE).append_header(("Idempotency-Key", "k2"));
    assert_problem(&ask(two).await, 400, "idempotency-key-missing");
    let quoted = post(PAYMENTS, SALE).insert_header(("Idempotency-Key", "\"k1\""));
    assert_problem(&ask(quoted).await, 404, "unknown-instance");
}

#[actix_web::test]
async fn a_body_that_contradicts_the_path_or_a_header_is_refused() {
    let other_place = r#"{"POSID":2,"PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
    let answer = ask(payment(other_place)).await;
    assert_problem(&answer, 400, "invalid-request");
    assert_eq!(answer.json()["errors"][0]["pointer"], "/POSID");
    let password = r#"{"posPassword":"a","PaymentMethod":1,"Products":[{"ID":1,"Amount":2}]}"#;
    let answer = ask(payment(password).insert_header(("X-POS-Password", "b"))).await;
    assert_problem(&answer, 400, "invalid-request");
    assert!(!answer.json().to_string().contains("\"b\""), "the password is not repeated");
    assert_problem(&ask(payment(password).insert_header(("X-POS-Password", "a"))).await, 404, "unknown-instance");
}

#[actix_web::test]
async fn what_stands_in_path_and_query_is_checked() {
    for pos_id in ["x", "-1", "01", "1.0", "9007199254740992", "1%2F2"] {
        let uri = format!("/v1/instances/demo/points-of-sale/{pos_id}/products");
        assert_problem(&ask(get(&uri)).await, 400, "invalid-request");
    }
    for limit in ["0", "-1", "x", "", "1&limit=2"] {
        let uri = format!("/v1/instances/demo/points-of-sale/1/transactions?limit={limit}");
        assert_problem(&ask(get(&uri)).await, 400, "invalid-request");
    }
    let device = format!("/v1/instances/demo/devices/{}", "d".repeat(65));
    assert_problem(&ask(get(&device).method(Method::PUT)).await, 400, "invalid-request");
}

#[test]
fn requests_are_checked_by_what_the_document_lists() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut listed = ListedRoutes::default();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = listed.0.entry(path.clone()).or_default();
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let queried = parameters.filter(|parameter| parameter["in"] == "query");
            let names = queried.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            methods.insert(method.to_uppercase(), names.collect());
        }
    }
    assert!(listed.0.len() > 20, "{listed:?}");
    assert_eq!(ListedRoutes::committed(), listed);
}

#[actix_web::test]
async fn a_name_in_the_query_that_the_route_does_not_take_is_refused_under_v1_and_ignored_elsewhere() {
    let document = serde_json::to_value(openapi::document()).unwrap();
    let mut routes = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in [Method::GET, Method::POST, Method::PUT] {
            let Some(operation) = item.get(method.as_str().to_lowercase()) else { continue };
            let uri = path.replace("{instance}", "demo").replace("{pos_id}", "1").replace(['{', '}'], "");
            let asked = async |query: &str| {
                let request = TestRequest::default().uri(&format!("{uri}?{query}")).method(method.clone());
                ask(allowed(request)).await
            };
            routes += 1;
            for query in ["xyz=1", "%78yz"] {
                let answer = asked(query).await;
                if path.starts_with("/v1/") {
                    assert_problem(&answer, 400, "invalid-request");
                    assert!(answer.json()["detail"].as_str().unwrap().contains("query"), "{method} {uri}?{query}");
                } else {
                    assert_eq!(answer.status, 200, "{method} {uri}?{query}");
                }
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in parameters.iter().filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap()) {
                let misspelled = asked(&format!("{}=1", name.to_uppercase())).await.json();
                assert!(misspelled["detail"].as_str().unwrap().contains(&format!("`{name}`")), "{misspelled}");
                let known = asked(&format!("{name}=1")).await.json();
                assert!(!known.to_string().contains("nearest"), "{method} {uri}?{name}: {known}");
            }
        }
    }
    assert!(routes >= 20, "{routes}");
    for uri in ["/livez?x", "/readyz?utm_source=a", "/?x=1", "/problems?x", "/docs/?x", "/openapi.json?v=2"] {
        assert_eq!(ask(TestRequest::get().uri(uri)).await.status, 200, "{uri}");
    }
    for query in ["=1", "xyz=1&xyz=2", "&&xyz"] {
        assert_problem(&ask(get(&format!("/v1/instances?{query}"))).await, 400, "invalid-request");
    }
    assert_eq!(ask(get("/v1/instances?&&")).await.status, 200);
    let stranger = ask(TestRequest::get().uri("/v1/instances?xyz=1")).await;
    assert_problem(&stranger, 401, "unauthenticated");
}

#[actix_web::test]
async fn a_device_s_workplace_and_a_checked_password_have_their_types() {
    for (body, method, uri, pointer) in [
        (r#"{"workplace":"bar"}"#, Method::PUT, "/v1/instances/demo/devices/d", "/workplace"),
        (r#"{"UUID":"e"}"#, Method::PUT, "/v1/instances/demo/devices/d", "/UUID"),
        ("{}", Method::POST, "/v1/instances/demo/points-of-sale/1/password-check", "/password"),
        (r#"{"password":1}"#, Method::POST, "/v1/instances/demo/points-of-sale/1/password-check", "/password"),
        (
            r#"{"password":"x","workplace":2}"#,
            Method::POST,
            "/v1/instances/demo/points-of-sale/1/password-check",
            "/workplace",
        ),
    ] {
        let answer = ask(post(uri, body).method(method)).await;
        assert_problem(&answer, 400, "invalid-request");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[actix_web::test]
async fn the_raw_door_is_closed_to_sales_and_to_what_is_no_name() {
    let answer = ask(post("/v1/instances/demo/commands/payitems", SALE)).await;
    assert_problem(&answer, 400, "invalid-request");
    assert!(answer.json()["detail"].as_str().unwrap().contains("/points-of-sale/{pos_id}/payments"));
    for name in ["PayItems", "pay-items", "pay%69tems%20", &"c".repeat(65)] {
        let answer = ask(post(&format!("/v1/instances/demo/commands/{name}"), "{}")).await;
        assert_problem(&answer, 400, "invalid-request");
    }
    assert_problem(&ask(post("/v1/instances/demo/commands/pay%69tems", SALE)).await, 400, "invalid-request");
    assert_problem(&ask(post("/v1/instances/demo/commands/x?reply=", "{}")).await, 400, "invalid-request");
}

#[actix_web::test]
async fn each_route_is_open_to_its_scope_alone() {
    let routes = [
        (Method::GET, "/v1/instances/demo/config", Scope::Read),
        (Method::GET, PRODUCTS, Scope::Read),
        (Method::GET, "/v1/instances/demo/points-of-sale/1/transactions", Scope::Read),
        (Method::POST, PAYMENTS, Scope::Pay),
        (Method::PUT, "/v1/instances/demo/devices/d", Scope::Devices),
        (Method::POST, "/v1/instances/demo/points-of-sale/1/password-check", Scope::Read),
        (Method::POST, "/v1/instances/demo/commands/x", Scope::Raw),
    ];
    for (method, uri, needed) in routes {
        for scope in Scope::ALL {
            let request = TestRequest::default().method(method.clone()).uri(uri);
            let answer = ask(request.insert_header(("Authorization", format!("Bearer {scope}")))).await;
            assert_eq!(answer.status == 403, scope != needed, "{method} {uri} with {scope}: {}", answer.status);
        }
        let stranger = ask(TestRequest::default().method(method.clone()).uri(uri)).await;
        assert_problem(&stranger, 401, "unauthenticated");
        assert!(stranger.header("www-authenticate").starts_with("Bearer"));
        let elsewhere = allowed(TestRequest::default().method(method).uri(&uri.replace("demo", "other")));
        assert_problem(&ask(elsewhere).await, 403, "forbidden");
    }
}

#[actix_web::test]
async fn the_gateway_s_own_key_is_a_token_for_its_instance() {
    let with_key = |uri: &str| TestRequest::get().uri(uri).insert_header(("Authorization", "Bearer gateway-secret"));
    assert_problem(&ask(with_key(PRODUCTS)).await, 404, "unknown-instance");
    assert_problem(&ask(with_key(&PRODUCTS.replace("demo", "other"))).await, 403, "forbidden");
}

#[actix_web::test]
async fn without_tokens_only_this_machine_is_answered() {
    let open =
        || Arc::new(Auth::new(&auth::Config { mode: Mode::None, ..auth::Config::default() }, &[].into()).unwrap());
    let here = TestRequest::get().uri(PRODUCTS).insert_header(("Host", "localhost:8080"));
    assert_problem(&ask_with(Config::default(), open(), here).await, 404, "unknown-instance");
    let rebound = TestRequest::get().uri(PRODUCTS).insert_header(("Host", "evil.example"));
    assert_problem(&ask_with(Config::default(), open(), rebound).await, 403, "forbidden");
    let page = TestRequest::post()
        .uri("/v1/instances/demo/commands/x")
        .insert_header(("Host", "localhost"))
        .insert_header(("Origin", "https://evil.example"));
    assert_problem(&ask_with(Config::default(), open(), page).await, 403, "forbidden");
}

#[actix_web::test]
async fn a_request_s_own_id_is_kept_if_sane() {
    let answer = ask(get("/livez").insert_header(("X-Request-Id", "till-7.42"))).await;
    assert_eq!(answer.header("x-request-id"), "till-7.42");
    let answer = ask(get("/nowhere").insert_header(("X-Request-Id", "<b>"))).await;
    assert_eq!(Uuid::parse_str(answer.header("x-request-id")).unwrap().get_version_num(), 7);
    assert_problem(&answer, 404, "not-found");
}

#[actix_web::test]
async fn a_problem_s_type_is_absolute_under_a_public_address() {
    let config = Config { public_url: Some("https://pos.example/bridge".into()), ..Config::default() };
    let answer = ask_with(config, auth(), get("/nowhere")).await;
    assert_eq!(answer.json()["type"], "https://pos.example/bridge/problems/not-found");
}

#[actix_web::test]
async fn the_document_names_the_public_address_with_its_path_as_the_server() {
    let server = async |public_url: Option<&str>| {
        let config = Config { public_url: public_url.map(str::to_owned), ..Config::default() };
        ask_with(config, auth(), get("/openapi.json")).await.json()["servers"][0]["url"].clone()
    };
    assert_eq!(server(None).await, "/");
    assert_eq!(server(Some("https://pos.example/bridge")).await, "https://pos.example/bridge");
    let config = Config { public_url: Some("https://pos.example/bridge".into()), ..Config::default() };
    let server = ask_with(config, auth(), get("/asyncapi.json")).await.json()["servers"]["bridge"].clone();
    assert_eq!(server, json!({"host": "pos.example", "protocol": "https", "pathname": "/bridge"}));
}

#[actix_web::test]
async fn every_page_forbids_frames_and_other_origins() {
    let html = |uri: &str| TestRequest::get().uri(uri).insert_header(("Accept", "text/html"));
    let pages = ["/", "/docs/", "/docs/index.html", "/docs/swagger-ui-bundle.js", "/problems", "/problems/forbidden"];
    for uri in pages {
        let page = ask(html(uri)).await;
        assert_eq!(page.status, 200, "{uri}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(page.header(name), value, "{uri}");
        }
        let policy = page.header("content-security-policy");
        for part in ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
            assert!(policy.split("; ").any(|given| given == part), "{uri}: {policy}");
        }
        let scripts = policy.split("; ").find(|part| part.starts_with("script-src"));
        assert!(scripts.is_none_or(|scripts| scripts == "script-src 'self'"), "{uri}: {policy}");
        assert!(!policy.contains('*') && !policy.contains("http"), "{uri}: {policy}");
    }
}

#[actix_web::test]
async fn without_tokens_a_page_of_another_origin_is_answered_on_no_route_unless_it_is_invited() {
    let open =
        || Arc::new(Auth::new(&auth::Config { mode: Mode::None, ..auth::Config::default() }, &[].into()).unwrap());
    let invited = || Config { cors_origins: vec!["https://shop.example".into()], ..Config::default() };
    let routes = ["/", "/docs/", "/problems", "/livez", "/readyz", "/openapi.json", "/metrics", "/nowhere", PRODUCTS];
    for uri in routes {
        for site in ["cross-site", "same-site"] {
            let page = || get(uri).insert_header(("Host", "localhost")).insert_header(("Sec-Fetch-Site", site));
            assert_problem(&ask_with(invited(), open(), page()).await, 403, "forbidden");
            let page = page().insert_header(("Origin", "https://shop.example"));
            assert_ne!(ask_with(invited(), open(), page).await.status, 403, "{uri}, invited");
        }
        for site in ["same-origin", "none"] {
            let own = get(uri).insert_header(("Host", "localhost")).insert_header(("Sec-Fetch-Site", site));
            assert_ne!(ask_with(invited(), open(), own).await.status, 403, "{uri}, {site}");
        }
    }
    let link = get("/docs/").insert_header(("Host", "localhost")).insert_header(("Sec-Fetch-Site", "cross-site"));
    let link = link.insert_header(("Sec-Fetch-Mode", "navigate")).insert_header(("Sec-Fetch-Dest", "document"));
    assert_eq!(ask_with(Config::default(), open(), link).await.status, 200);
    let asked = get("/openapi.json").insert_header(("Sec-Fetch-Site", "cross-site"));
    assert_eq!(ask(asked).await.status, 200, "with tokens a page may look, since it has none");
}

#[actix_web::test]
async fn every_problem_is_explained_to_people_and_to_programs() {
    for entry in table::TABLE {
        let uri = format!("/problems/{}", entry.code);
        let json = ask(TestRequest::get().uri(&uri).insert_header(("Accept", "application/json"))).await;
        assert_eq!((json.status, json.json()["advice"].as_str()), (200, Some(entry.advice)));
        let page = ask(TestRequest::get().uri(&uri).insert_header(("Accept", "text/html,*/*;q=0.8"))).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        assert!(std::str::from_utf8(&page.body).unwrap().contains(entry.code));
    }
    assert_problem(&ask(TestRequest::get().uri("/problems/nothing")).await, 404, "not-found");
    let list = ask(TestRequest::get().uri("/problems").insert_header(("Accept", "application/json"))).await;
    assert_eq!((list.status, list.json()["problems"].as_array().map(Vec::len)), (200, Some(table::TABLE.len())));
    let page = ask(TestRequest::get().uri("/problems").insert_header(("Accept", "text/html,*/*;q=0.8"))).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
}

#[actix_web::test]
async fn probes_ask_for_no_token_and_count_the_gateway_only_when_told_to() {
    for uri in ["/livez", "/readyz"] {
        assert_eq!(ask(TestRequest::get().uri(uri)).await.status, 200);
    }
    let answer = ask(TestRequest::get().uri("/readyz?require=gateway")).await;
    assert_problem(&answer, 503, "gateway-unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert_problem(&ask(TestRequest::get().uri("/readyz?require=x")).await, 400, "invalid-request");
}

#[actix_web::test]
async fn a_caller_is_shown_only_its_own_instances() {
    let answer = ask(get("/v1/instances")).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"instances": []})));
    assert_problem(&ask(TestRequest::get().uri("/v1/instances")).await, 401, "unauthenticated");
}

#[actix_web::test]
async fn the_document_has_a_tag_and_is_not_sent_twice() {
    for (uri, name, version) in [
        ("/openapi.json", "openapi", "3.1.0"),
        ("/openapi-3.2.json", "openapi", "3.2.0"),
        ("/asyncapi.json", "asyncapi", "3.0.0"),
    ] {
        let first = ask(TestRequest::get().uri(uri)).await;
        let tag = first.header("etag").to_owned();
        assert_eq!((first.status, first.json()[name].as_str()), (200, Some(version)));
        assert_eq!((first.header("cache-control"), first.header("content-type")), ("no-cache", "application/json"));
        let again = ask(TestRequest::get().uri(uri).insert_header(("If-None-Match", format!("\"x\", {tag}")))).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()));
    }
}

#[actix_web::test]
async fn the_browser_of_the_document_loads_nothing_from_elsewhere() {
    let redirect = ask(TestRequest::get().uri("/docs")).await;
    assert_eq!((redirect.status, redirect.header("location")), (308, "docs/"));
    for uri in ["/docs/", "/docs/index.html", "/docs/page.js", "/docs/page.css"] {
        let page = ask(TestRequest::get().uri(uri)).await;
        assert_eq!(page.status, 200, "{uri}");
        let text = std::str::from_utf8(&page.body).unwrap();
        assert!(!text.contains("http://") && !text.contains("https://"), "{uri}");
    }
    let small =
        ask(TestRequest::get().uri("/docs/swagger-ui.css").insert_header(("Accept-Encoding", "gzip, br"))).await;
    let plain = ask(TestRequest::get().uri("/docs/swagger-ui.css")).await;
    assert_eq!((small.header("content-encoding"), &small.body[..2]), ("gzip", &[0x1f, 0x8b][..]));
    assert!(plain.body.starts_with(b".swagger-ui") && plain.body.len() > 3 * small.body.len());
    for uri in ["/docs/nothing-here", "/docs/swagger-initializer.js", "/docs/favicon-32x32.png"] {
        assert_eq!(ask(TestRequest::get().uri(uri)).await.status, 404, "{uri}");
    }
    let script = ask(TestRequest::get().uri("/docs/page.js")).await;
    let text = std::str::from_utf8(&script.body).unwrap();
    assert!(text.contains("../openapi.json") && text.contains("validatorUrl: null"), "{text}");
}

#[actix_web::test]
async fn pages_of_other_origins_may_call_only_where_invited() {
    let preflight = || {
        TestRequest::default()
            .method(Method::OPTIONS)
            .uri(PAYMENTS)
            .insert_header(("Origin", "https://shop.example"))
            .insert_header(("Access-Control-Request-Method", "POST"))
            .insert_header((
                "Access-Control-Request-Headers",
                "authorization, idempotency-key, content-type, traceparent, tracestate, baggage",
            ))
    };
    let config = Config { cors_origins: vec!["https://shop.example".into()], ..Config::default() };
    let answer = ask_with(config.clone(), auth(), preflight()).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://shop.example"));
    assert_eq!(ask(preflight()).await.header("access-control-allow-origin"), "");
    let refused = ask_with(config, auth(), get("/nowhere").insert_header(("Origin", "https://shop.example"))).await;
    assert_problem(&refused, 404, "not-found");
    assert_eq!(refused.header("access-control-allow-origin"), "https://shop.example");
}

#[actix_web::test]
async fn answers_are_compressed_for_those_who_can_read_them() {
    for (accepted, coding) in [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("br", ""), ("", "")] {
        let answer = ask(TestRequest::get().uri("/openapi.json").insert_header(("Accept-Encoding", accepted))).await;
        assert_eq!(answer.header("content-encoding"), coding);
    }
}

/// A real server on a port of its own.
fn serve(config: Config) -> (std::net::SocketAddr, super::server::ServerHandle) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = super::server::Listeners { callers: listener, admin: None, cluster: None };
    let server =
        run(listeners, Parts { bridge: bridge(), auth: auth(), config, certificates: None, forwarding: None }, || ())
            .unwrap()
            .callers;
    let handle = server.handle();
    actix_web::rt::spawn(server.serve());
    (address, handle)
}

#[actix_web::test]
async fn on_both_listeners_what_is_written_is_sent_at_once() {
    let [callers, admin] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let known = [&callers, &admin].map(|listener| listener.try_clone().unwrap());
    let listeners = super::server::Listeners { callers, admin: Some(admin), cluster: None };
    let parts =
        Parts { bridge: bridge(), auth: auth(), config: Config::default(), certificates: None, forwarding: None };
    let servers = run(listeners, parts, || ()).unwrap();
    for server in [Some(servers.callers), servers.admin].into_iter().flatten() {
        let handle = server.handle();
        actix_web::rt::spawn(server.serve());
        handle.stop(false).await;
    }
    // Sockets take it from their listener. Without it the end of a long answer waits 40 ms for the peer.
    assert!(known.iter().all(|listener| rustix::net::sockopt::tcp_nodelay(listener).unwrap()));
}

#[actix_web::test]
async fn on_the_wire_a_head_has_the_length_of_the_body_and_no_body() {
    let (address, server) = serve(Config::default());
    let client = reqwest::Client::new();
    let url = format!("http://{address}/openapi.json");
    let get = client.get(&url).send().await.unwrap();
    let length = get.headers()["content-length"].clone();
    assert!(get.bytes().await.unwrap().len() > 1000);
    let head = client.head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &length));
    assert!(head.bytes().await.unwrap().is_empty());
    let again = client.get(&url).send().await.unwrap();
    assert_eq!(again.status(), 200, "the connection is still in step");
    server.stop(true).await;
    assert!(client.get(&url).send().await.is_err(), "a stopped server answers nobody");
}

#[actix_web::test]
async fn a_body_that_never_comes_is_answered_by_the_deadline() {
    let (address, server) = serve(Config { deadline: Duration::from_millis(50), ..Config::default() });
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {PAYMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ALL\r\nIdempotency-Key: k\r\n\
         Content-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = socket.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid-request"), "{answer}");
    server.stop(false).await;
}

/// What was logged while it was the thread's subscriber.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[actix_web::test]
async fn a_request_is_logged_in_one_line_that_holds_no_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    // While a process has one subscriber only, tracing lets whichever thread comes first decide for all threads
    // whether a line is wanted; the other tests' threads have none, and would decide that it is not.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    {
        let _guard = tracing::subscriber::set_default(subscriber);
        let request = get(&format!("{PRODUCTS}?access_token=hush")).insert_header(("X-POS-Password", "hush"));
        ask(request.insert_header(("X-Request-Id", "till-7"))).await;
    }
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("answered")).count(), 1, "{log}");
    let route = "route=\"/v1/instances/{instance}/points-of-sale/{pos_id}/products\"";
    for part in ["method=\"GET\"", route, "status=400", "duration_us=", "request_id=\"till-7\"", "caller=\"all\""] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("hush") && !log.contains("ALL"), "{log}");
}

#[actix_web::test]
async fn a_request_is_in_flight_until_its_answer_s_body_has_ended() {
    let auth = auth();
    let app = app(Config::default(), Arc::clone(&auth)).await;
    let in_flight = || auth.limiters()["all"][0].in_flight();
    let response = actix_web::test::call_service(&app, get("/v1/instances").to_request()).await;
    assert_eq!((response.status().as_u16(), in_flight()), (200, 1), "its body has not been read");
    let body = actix_web::body::to_bytes(response.into_body()).await.map_err(Into::<Box<dyn std::error::Error>>::into);
    assert!(body.is_ok());
    assert_eq!(in_flight(), 0);
}

/// Ten thousand listeners are as many connections.
#[actix_web::test]
async fn a_connection_has_no_room_for_more_than_a_cached_reply_waits_in() {
    fn room<S: Service<Request>>(_: &S) -> usize {
        size_of::<S::Future>()
    }
    let room = room(&app(Config::default(), auth()).await);
    assert!(room <= 768, "{room} bytes");
}
