//! What a cached read costs, beside a bare actix-web handler that returns the same bytes and headers, and beside nginx
//! serving the same body from its `proxy_cache`.
//!
//! All three are loaded in turn by the same `wrk` with one thread and 64 connections, so that a machine that is slow for
//! a while is slow for all; a round's ratios are taken within the round, and the median round is told. Logging is off in
//! all three.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a bench")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{App, HttpResponse, HttpServer, web};
use support::{Aim, KEY, Report, Row, Running, Scene, free_address, median, wrk};

const PATH: &str = "/v1/instances/demo/points-of-sale/1/products";
const ROUNDS: usize = 5;
/// Says to this program that it is the bare handler, and where.
const BARE: &str = "BENCH_BARE";

/// One answer of the bridge, to be given again.
async fn answer_of(bridge: &str) -> (Bytes, Vec<(String, String)>) {
    let http = reqwest::Client::new();
    let ask = || http.get(format!("http://{bridge}{PATH}")).bearer_auth(KEY).send();
    ask().await.unwrap();
    let answer = ask().await.unwrap();
    let by_server = ["content-length", "date"];
    let headers = answer.headers().iter().filter(|(name, _)| !by_server.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.bytes().await.unwrap(), headers)
}

/// The bare handler: the least that this framework can do for this answer.
fn serve_bare(setup: &str) {
    let setup: serde_json::Value = serde_json::from_str(setup).unwrap();
    let body = Bytes::from(setup["body"].as_str().unwrap().to_owned());
    let mut headers = HeaderMap::new();
    for pair in setup["headers"].as_array().unwrap() {
        let text = |at: usize| pair[at].as_str().unwrap();
        headers.insert(HeaderName::try_from(text(0)).unwrap(), HeaderValue::from_str(text(1)).unwrap());
    }
    let server = HttpServer::new(move || {
        let (body, headers) = (body.clone(), headers.clone());
        let handler = move || {
            let mut response = HttpResponse::Ok().body(body.clone());
            for (name, value) in &headers {
                response.headers_mut().insert(name.clone(), value.clone());
            }
            async { response }
        };
        App::new().route(PATH, web::get().to(handler))
    });
    let listen = setup["listen"].as_str().unwrap().to_owned();
    actix_web::rt::System::new().block_on(async { server.workers(2).bind(listen).unwrap().run().await.unwrap() });
}

/// nginx with its cache in `folder`, in front of the bare handler.
fn start_nginx(folder: &Path, listen: &str, upstream: &str) -> Running {
    let folder = folder.display();
    let configuration = format!(
        "worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; keepalive_requests 1000000000; default_type application/json;
           client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
           uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
           proxy_cache_path {folder}/cache keys_zone=c:1m;
           server {{
             listen {listen};
             location / {{
               proxy_pass http://{upstream}; proxy_cache c; proxy_cache_valid 200 1h;
               proxy_ignore_headers Cache-Control Vary Expires;
             }}
           }}
         }}"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    Running::start(Command::new("nginx").args(["-c", &file, "-e", &format!("{folder}/error.log")]))
}

/// Requests a second.
fn rate(address: &str, seconds: u64) -> f64 {
    wrk::load(&format!("http://{address}{PATH}"), seconds, &[]).per_second
}

#[tokio::main]
async fn main() {
    if let Ok(setup) = std::env::var(BARE) {
        return tokio::task::spawn_blocking(move || serve_bare(&setup)).await.unwrap();
    }
    let scene = Scene::set(&[], &[("BRIDGE_CACHE__LISTPRODUCTS__FRESH", "1h")]).await;
    let (bridge, bare, nginx) = (scene.bridge.address.clone(), free_address(), free_address());
    let (body, headers) = answer_of(&bridge).await;
    let setup = serde_json::json!({"listen": bare, "body": String::from_utf8_lossy(&body), "headers": headers});
    let itself = std::env::current_exe().unwrap();
    let _bare = Running::start(Command::new(itself).env(BARE, setup.to_string()));
    let _nginx = start_nginx(scene.bridge.data.path(), &nginx, &bare);
    let http = reqwest::Client::new();
    for address in [&bare, &nginx] {
        while http.get(format!("http://{address}{PATH}")).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let served = http.get(format!("http://{address}{PATH}")).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(served, body, "{address} serves something else");
    }
    measure(&scene, &bare, &nginx).tell();
}

/// Loads all three in turn.
fn measure(scene: &Scene, bare: &str, nginx: &str) -> Report {
    let (bridge, program) = (&scene.bridge.address, &scene.bridge.process);
    let (mut rounds, mut per_second) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let seconds = if round == 0 { 1 } else { 3 };
        let bare = rate(bare, seconds);
        let (used, begun) = (program.processor_seconds(), Instant::now());
        let itself = rate(bridge, seconds);
        let requests = itself * begun.elapsed().as_secs_f64();
        let used = program.processor_seconds() - used;
        // The first round warms all up.
        if round > 0 {
            rounds.push([bare, itself, rate(nginx, seconds)]);
            per_second.push(requests / used);
        } else {
            rate(nginx, seconds);
        }
    }
    let of = |of: usize| median(rounds.iter().map(|rates| rates[of]).collect());
    let ratio = |of: usize| median(rounds.iter().map(|rates| rates[1] / rates[of]).collect());
    let mut report = Report::new();
    let row = Row::new("cached", "cached read, requests a second", of(1), "/s");
    report.add(row.beside("a bare actix-web handler", of(0)).ratio(ratio(0)).aim(Aim::AtLeast(0.9)));
    let row = Row::new("cached-nginx", "cached read, requests a second", of(1), "/s");
    report.add(row.beside("nginx `proxy_cache`", of(2)).ratio(ratio(2)).aim(Aim::AtLeast(1.0)));
    report.add(Row::new("cached-per-core", "cached reads a second of processor time", median(per_second), "/s"));
    report
}
