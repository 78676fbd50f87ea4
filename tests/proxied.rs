//! nginx in front of the bridge: as docs/operating.md has it, HTTP/2 to callers and events as they come; and as a cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::program::free_address;
use support::{KEY, World, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child as Reader;
use tokio::time::timeout;

/// Well below a heartbeat, which would push out what is kept back.
const AT_ONCE: Duration = Duration::from_secs(5);

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one configuration of nginx in the operator's guide.
fn documented() -> &'static str {
    let guide = include_str!("../docs/operating.md");
    let (_, rest) = guide.split_once("```nginx\n").expect("nginx is in docs/operating.md");
    rest.split_once("```").unwrap().0
}

/// nginx with the documented settings, in front of `bridge`.
fn nginx(at: &Path, secure: &str, clear: &str, bridge: &str) -> Nginx {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(at.join("tls.pem"), made.cert.pem()).unwrap();
    std::fs::write(at.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let (folder, mut text) = (at.display(), documented().to_owned());
    for (documented, here) in [
        ("127.0.0.1:8080", bridge.to_owned()),
        ("listen 443 ssl http2;", format!("listen {secure} ssl http2; listen {clear};")),
        ("/etc/ssl/bridge.pem", format!("{folder}/tls.pem")),
        ("/etc/ssl/bridge.key", format!("{folder}/tls.key")),
    ] {
        assert!(text.contains(documented), "{documented}: {text}");
        text = text.replace(documented, &here);
    }
    run(at, &text)
}

/// nginx with these servers.
fn run(folder: &Path, servers: &str) -> Nginx {
    let folder = folder.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {folder}/{name};\n"));
    let text = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nuser root;\nevents {{}}\nhttp {{\naccess_log off;\n{}{servers}}}\n",
        temporary.concat()
    );
    let user = Command::new("id").arg("-u").output().unwrap();
    let text = if user.stdout.trim_ascii() == b"0" { text } else { text.replace("user root;\n", "") };
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, text).unwrap();
    let log = format!("{folder}/error.log");
    let nginx = Command::new("nginx").args(["-c", &file, "-e", &log]).stderr(Stdio::inherit()).spawn();
    Nginx(nginx.expect("nginx, from Debian's package nginx-light: see scripts/tools"))
}

/// curl, which trusts nginx's certificate only, and speaks HTTP/2.
fn curl(folder: &Path, secure: &str, path: &str) -> tokio::process::Command {
    let port = secure.rsplit_once(':').unwrap().1;
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--no-buffer", "--http2", "--cacert"]).arg(folder.join("tls.pem"));
    curl.args([
        "--resolve",
        &format!("localhost:{port}:127.0.0.1"),
        "--header",
        &format!("Authorization: Bearer {KEY}"),
    ]);
    curl.arg(format!("https://localhost:{port}{path}")).stdout(Stdio::piped()).kill_on_drop(true);
    curl
}

/// Waits for a line that begins so.
async fn line(lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>, begin: &str) -> String {
    let found = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the stream goes on");
            if line.starts_with(begin) {
                return line;
            }
        }
    };
    timeout(AT_ONCE, found).await.unwrap_or_else(|_| panic!("kept back: {begin}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_speaks_http_2_to_callers_and_passes_events_on_as_they_come() {
    let world = World::start().await;
    let (folder, secure, clear) = (tempfile::tempdir().unwrap(), free_address(), free_address());
    let _nginx = nginx(folder.path(), &secure, &clear, world.url.trim_start_matches("http://"));
    eventually("nginx serves", async || tokio::net::TcpStream::connect(&secure).await.is_ok()).await;
    let answer =
        curl(folder.path(), &secure, "/livez").args(["--output", "-", "--write-out", " %{http_version}"]).output();
    let answer = String::from_utf8(answer.await.unwrap().stdout).unwrap();
    assert!(answer.ends_with(" 2"), "{answer}");

    let path = "/v1/instances/demo/events";
    let mut listeners = Vec::new();
    for _ in 0..20 {
        let mut listener: Reader = curl(folder.path(), &secure, path).spawn().unwrap();
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        line(&mut lines, "event: ready").await;
        line(&mut lines, "data: ").await;
        listeners.push((listener, lines));
    }
    for number in 0..5 {
        let message = format!("news-{number}");
        let begun = Instant::now();
        world.gateway.broadcast("demo", &message, "{}").unwrap();
        for (_, lines) in &mut listeners {
            assert!(line(lines, "data: ").await.contains(&message));
        }
        println!("20 listeners heard it within {:?}", begun.elapsed());
    }

    // A till's connection passes too.
    let till = format!("ws://{clear}/?instance=demo");
    let (mut till, _) = tokio_tungstenite::connect_async(till).await.unwrap();
    let order = format!(r#"{{"command":"listpos","parameters":{{"api_key":"{KEY}"}}}}"#);
    futures_util::SinkExt::send(&mut till, tokio_tungstenite::tungstenite::Message::text(order)).await.unwrap();
    let reply = timeout(AT_ONCE, futures_util::StreamExt::next(&mut till)).await.unwrap().unwrap().unwrap();
    assert!(reply.into_text().unwrap().contains("\"event\":\"listpos\""));
}

/// nginx as a cache that keeps answers for a second, and then asks whether they are still true. It keeps `private` and
/// `no-cache` too, as the caches of clients do.
fn cache(folder: &Path, address: &str, bridge: &str) -> Nginx {
    let copies = folder.join("copies");
    run(
        folder,
        &format!(
            "proxy_cache_path {} keys_zone=copies:1m use_temp_path=off;
            server {{
              listen {address};
              location / {{
                proxy_pass http://{bridge};
                proxy_http_version 1.1;
                proxy_cache copies;
                proxy_ignore_headers Cache-Control;
                proxy_cache_valid 200 1s;
                proxy_cache_revalidate on;
                add_header Copy $upstream_cache_status always;
              }}
            }}\n",
            copies.display()
        ),
    )
}

/// What a client got through the cache.
struct Got {
    status: u16,
    /// What the cache did.
    copy: String,
    tag: String,
    text: String,
}

/// Asks as a client that can read no coding but `accepted`, and reads the answer as such.
async fn ask(url: &str, accepted: Option<&str>, known: &str) -> Got {
    let mut request = reqwest::Client::new().get(url).bearer_auth(KEY);
    if let Some(coding) = accepted {
        request = request.header("Accept-Encoding", coding);
    }
    if !known.is_empty() {
        request = request.header("If-None-Match", known);
    }
    let answer = request.send().await.unwrap();
    let field = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (status, copy, tag, coding) =
        (answer.status().as_u16(), field("copy"), field("etag"), field("content-encoding"));
    let body = answer.bytes().await.unwrap();
    if status == 200 {
        assert_eq!(coding, accepted.unwrap_or_default(), "not what this client can read ({copy})");
    }
    let text = match coding.as_str() {
        "gzip" => std::io::read_to_string(flate2::read::GzDecoder::new(&body[..])).unwrap(),
        _ => String::from_utf8(body.to_vec()).unwrap(),
    };
    Got { status, copy, tag, text }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_cache_each_client_gets_what_it_can_read_and_may_see() {
    let world = World::start().await;
    let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
    let _nginx = cache(folder.path(), &address, world.url.trim_start_matches("http://"));
    eventually("nginx serves", async || tokio::net::TcpStream::connect(&address).await.is_ok()).await;
    let products = |pos_id| format!("http://{address}/v1/instances/demo/points-of-sale/{pos_id}/products");
    let (url, clients) = (products(1), [Some("gzip"), None]);

    // Whoever asks first, and whatever the cache does: keep a copy, use it, or ask whether it is still true.
    for (pos_id, order) in [(1, clients), (2, [None, Some("gzip")])] {
        for one in order {
            let first = ask(&products(pos_id), one, "").await;
            assert_eq!((first.status, first.copy.as_str()), (200, "MISS"), "{one:?} of {order:?}");
        }
    }
    for (price, is_news) in [("4.50", false), ("177.25", true)] {
        if is_news {
            world.gateway.change_product("demo", 1, 1, &format!("{{Price: {price}}}")).unwrap();
            world.gateway.broadcast("demo", "updatepos", "{}").unwrap();
        }
        for one in clients {
            eventually("the cache has the price, asked again and was told that it is true", async || {
                let got = ask(&url, one, "").await;
                assert_eq!(got.status, 200, "{one:?}");
                got.copy == "REVALIDATED" && got.text.contains(price)
            })
            .await;
        }
    }

    // A client that keeps one copy itself, and asks with its tag for another coding.
    let (packed, plain) = (ask(&url, Some("gzip"), "").await, ask(&url, None, "").await);
    assert_eq!(packed.text, plain.text);
    for (accepted, own, other) in [(Some("gzip"), &packed, &plain), (None, &plain, &packed)] {
        assert_eq!(ask(&url, accepted, &own.tag).await.status, 304, "{accepted:?}");
        let got = ask(&url, accepted, &other.tag).await;
        assert_eq!((got.status, got.text), (200, own.text.clone()), "{accepted:?}");
    }

    let stranger = reqwest::Client::new().get(&url).send().await.unwrap();
    assert_eq!(stranger.status(), 401, "what is kept for one caller is for no other");
}
