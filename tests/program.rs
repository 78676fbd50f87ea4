//! The built program, as an operator meets it: its commands, its exit status, its signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod running;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use concertpos_bridge::internals::journal::{Config, Journal, Key, Reserve, Sale};
use running::{Running, free_address, run, text, wait_until};

#[test]
fn help_and_version_are_complete_and_bad_usage_exits_with_2() {
    let version = text(&run(&["--version"], &[]).stdout);
    let version = version.trim().strip_prefix("concertpos-bridge ").unwrap();
    let (number, commit) = version.split_once(" (").unwrap_or((version, "0)"));
    assert_eq!(number, env!("CARGO_PKG_VERSION"));
    assert!(commit.strip_suffix(')').unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
    let help = text(&run(&["--help"], &[]).stdout);
    for command in [
        "serve",
        "demo",
        "simulate",
        "validate",
        "openapi",
        "token",
        "journal",
        "migrate",
        "healthcheck",
        "payments",
        "man",
    ] {
        assert!(help.contains(command), "{command}");
    }
    assert_eq!(run(&["serve", "--nonsense"], &[]).status.code(), Some(2));
    assert_eq!(run(&[], &[]).status.code(), Some(2));
}

#[test]
fn a_bad_configuration_exits_with_2_and_names_every_fault_on_standard_error() {
    let output = run(&["serve"], &[("BRIDGE_GATEWAY__FORMAT", "xml"), ("BRIDGE_GATEWAY__MAX_LINKS", "0")]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    for part in ["BRIDGE_GATEWAY__FORMAT", "BRIDGE_GATEWAY__MAX_LINKS", "instances"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn whoever_reads_only_the_beginning_of_what_is_printed_breaks_nothing() {
    for arguments in [&["openapi"][..], &["openapi", "--yaml"], &["validate", "--print"]] {
        let mut program = Running::start(arguments, &[("BRIDGE_INSTANCES__DEMO__API_KEY", "key")]);
        drop(program.0.stdout.take());
        assert_eq!(program.end(Duration::from_secs(20)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn where_it_cannot_begin_it_says_once_what_and_where() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = free_address();
    let told = |arguments: &[&str], journal: &str| {
        let environment = [
            ("BRIDGE_INSTANCES__DEMO__API_KEY", "key"),
            ("BRIDGE_SERVER__LISTEN", &free),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_PAYMENTS__JOURNAL", journal),
        ];
        let output = run(arguments, &environment);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        text(&output.stderr)
    };
    for arguments in [
        &["simulate", "--listen", &address][..],
        &["simulate", "--listen", &free, "--control", &address],
        &["demo", "--control", &address],
    ] {
        assert!(told(arguments, "").contains(&format!("cannot listen on {address}: ")), "{arguments:?}");
    }
    // Nobody can make a folder there, which no configuration tells.
    let journal = "/proc/nowhere";
    let said = told(&["serve"], journal);
    assert!(said.contains(journal), "{said}");
    assert_eq!(said.matches("os error").count(), 1, "{said}");
}

#[tokio::test]
async fn several_replicas_never_begin_beside_a_journal_whose_keys_would_be_new() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s".repeat(64)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let directory = folder.path().join("journal");
    let place = directory.to_str().unwrap().to_owned();
    let settings = [
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "k"),
        ("BRIDGE_AUTH__MODE", "none"),
        ("BRIDGE_PAYMENTS__JOURNAL", &place),
        ("BRIDGE_SERVER__LISTEN", "127.0.0.1:0"),
        // Nobody listens there.
        ("BRIDGE_CLUSTER__DATABASE", "postgres://bridge@127.0.0.1:9/bridge"),
        ("BRIDGE_CLUSTER__LISTEN", "127.0.0.1:9191"),
        ("BRIDGE_CLUSTER__SECRET_FILE", secret.to_str().unwrap()),
    ];
    let told = |command: &str| {
        let output = run(&[command], &settings);
        (output.status.code(), text(&output.stderr))
    };
    // Without a journal there is nothing to lose, and none is made.
    assert_eq!(told("validate"), (Some(0), String::new()));
    let (status, error) = told("serve");
    assert!(status == Some(1) && error.contains("the schema of the database"), "{status:?} {error}");
    assert!(!directory.exists(), "nothing is made");

    let config = Config::new(&directory, Config::LEAST_KEEP).unwrap();
    let journal = Journal::open(&config).unwrap();
    journal.close().await;
    drop(journal);
    assert_eq!(told("validate").0, Some(0), "an empty journal holds no key");

    let journal = Journal::open(&config).unwrap();
    let key = Key { instance: "demo".into(), caller: "till".into(), idempotency_key: "k1".into() };
    let sale = Sale { pos_id: 1, payment_method: "1".into(), products: vec![(1, 1)] };
    let Reserve::Fresh(reservation) = journal.reserve(key, sale).await else { unreachable!("it is new") };
    drop(journal.dispatch(reservation).await.unwrap());
    journal.close().await;
    drop(journal);
    let before = std::fs::read(directory.join("payments.redb")).unwrap();
    for command in ["validate", "serve"] {
        let (status, error) = told(command);
        assert!(error.contains("holds 1 record"), "{error}");
        assert!(error.contains(&format!("concertpos-bridge migrate --import {place}")), "{error}");
        assert_eq!(status, Some(2), "{command}");
    }
    assert_eq!(std::fs::read(directory.join("payments.redb")).unwrap(), before, "it is left as it was");
}

#[test]
fn a_journal_that_is_missing_is_refused_by_validate_and_serve_alike_and_a_new_one_is_warned_of() {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let journal = folder.path().join("journal");
    let settings = |create| {
        [
            ("BRIDGE_PAYMENTS__JOURNAL", journal.to_str().unwrap()),
            ("BRIDGE_PAYMENTS__CREATE", create),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_SERVER__LISTEN", &listen),
            ("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/?instance={instance}"),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", "key"),
        ]
    };
    let refused_alike = |create, word: &str| {
        for command in ["validate", "serve"] {
            let output = run(&[command], &settings(create));
            let said = text(&output.stderr);
            assert!(output.status.code() == Some(1) && said.contains(word), "{command}: {said}");
        }
    };
    let until_ready = |create: &'static str| {
        let bridge = Running::start(&["serve"], &settings(create));
        wait_until("it is ready", || run(&["healthcheck", "--address", &listen], &[]).status.success());
        bridge.signal("-TERM");
        let (status, log) = bridge.end(Duration::from_secs(15));
        assert_eq!(status, Some(0), "{log}");
        log
    };
    refused_alike("never", "payments.create");
    assert!(!journal.exists());
    assert_eq!(run(&["validate"], &settings("if-empty")).status.code(), Some(0));
    assert!(!journal.exists(), "validate makes nothing");
    assert!(until_ready("if-empty").contains("new journal: every key is new"));
    assert!(!until_ready("never").contains("new journal"));
    std::fs::rename(journal.join("payments.redb"), folder.path().join("aside")).unwrap();
    refused_alike("if-empty", "missing");
    assert!(!journal.join("payments.redb").exists());
}

#[test]
fn healthcheck_reads_addresses_as_the_bridge_does() {
    let port = free_address().rsplit_once(':').unwrap().1.to_owned();
    for listen in [format!(" 127.0.0.1:{port} "), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let data = tempfile::tempdir().unwrap();
        let environment = [
            ("BRIDGE_PAYMENTS__JOURNAL", data.path().to_str().unwrap()),
            ("BRIDGE_CACHE__STORE", ""),
            ("BRIDGE_SERVER__LISTEN", listen.as_str()),
            ("BRIDGE_SERVER__ADMIN_LISTEN", " "),
            ("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/?instance={instance}"),
            ("BRIDGE_INSTANCES__DEMO__API_KEY", "key"),
        ];
        let bridge = Running::start(&["serve"], &environment);
        wait_until("it is ready", || run(&["healthcheck"], &environment).status.success());
        bridge.signal("-TERM");
        assert_eq!(bridge.end(Duration::from_secs(15)).0, Some(0), "{listen:?}");
    }
    let output = run(&["healthcheck"], &[("BRIDGE_SERVER__LISTEN", "nowhere")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("BRIDGE_SERVER__LISTEN"), "{}", text(&output.stderr));
}

#[test]
fn credentials_in_a_url_are_not_printed() {
    let environment = [
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "key"),
        ("BRIDGE_GATEWAY__URL", "wss://me:hush@{shard}.example/?instance={instance}&access_token=hush"),
        ("BRIDGE_TELEMETRY__OTLP_ENDPOINT", "https://me:hush@collector.example:4318"),
    ];
    let output = run(&["validate", "--print"], &environment);
    let (printed, warnings) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{warnings}");
    assert!(
        printed.contains("wss://(redacted)@{shard}.example/?instance={instance}&access_token=(redacted)"),
        "{printed}"
    );
    assert!(printed.contains("https://(redacted)@collector.example:4318"), "{printed}");
    assert!(!printed.contains("hush") && !warnings.contains("hush"));
    for key in ["gateway.url", "telemetry.otlp_endpoint"] {
        assert!(warnings.contains(&format!("{key}: holds a name and a password")), "{warnings}");
    }
}

#[test]
fn a_secret_that_every_user_of_the_machine_may_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = write("tls.pem", &made.cert.pem(), 0o644);
    let told = |mode: u32| {
        let tls_key = write("tls.key", &made.signing_key.serialize_pem(), mode);
        let key = write("demo.key", "the-key", mode);
        let config = write("bridge.toml", "[instances.other]\napi_key = \"another-key\"\n", mode);
        let journal = folder.path().join("journal");
        std::fs::create_dir_all(&journal).unwrap();
        write("journal/payments.redb", "", mode);
        let environment = [
            ("BRIDGE_SERVER__TLS__CERTIFICATE", certificate.as_str()),
            ("BRIDGE_SERVER__TLS__KEY", &tls_key),
            ("BRIDGE_INSTANCES__DEMO__API_KEY_FILE", &key),
            ("BRIDGE_PAYMENTS__JOURNAL", journal.to_str().unwrap()),
        ];
        let output = run(&["validate", "--config", &config], &environment);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert_eq!(told(0o640), "", "a group may be meant");
    let warnings = told(0o644);
    for name in ["tls.key", "demo.key", "bridge.toml", "payments.redb"] {
        assert!(warnings.contains(&format!("{name} may be read by every user")), "{name}: {warnings}");
    }
    assert_eq!(warnings.lines().count(), 4, "the certificate is for everybody: {warnings}");
    assert!(!warnings.contains("the-key") && !warnings.contains("another-key"));
}

#[test]
fn journal_verify_reads_a_closed_journal_whole_and_says_by_its_exit_status_whether_it_is_sound() {
    let (listen, folder) = (free_address(), tempfile::tempdir().unwrap());
    let journal = folder.path().join("journal");
    let settings = folder.path().join("bridge.toml");
    let gateway = "url = \"ws://127.0.0.1:9/{shard}/?instance={instance}\"";
    let text_of = format!(
        "[server]\nlisten = \"{listen}\"\n[gateway]\n{gateway}\n[instances.demo]\napi_key = \"k\"\n[cache]\nstore = \
         \"\"\n[payments]\njournal = \"{}\"\n",
        journal.display()
    );
    std::fs::write(&settings, text_of).unwrap();
    let settings = settings.to_str().unwrap();
    let by_folder = ["journal", "verify", "--journal", journal.to_str().unwrap()];
    let verify = |arguments: &[&str]| {
        let output = run(arguments, &[]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(verify(&["journal", "verify"]).0, Some(2));
    assert_eq!(verify(&by_folder).0, Some(2));
    assert!(!journal.exists());
    let bridge = Running::start(&["serve", "--config", settings], &[]);
    wait_until("it is ready", || run(&["healthcheck", "--address", &listen], &[]).status.success());
    let (status, said) = verify(&by_folder);
    assert!(status == Some(2) && said.contains("in use"), "{said}");
    bridge.signal("-TERM");
    let (status, log) = bridge.end(Duration::from_secs(15));
    assert!(status == Some(0) && log.contains("the payment journal was verified"), "{log}");
    let (status, said) = verify(&["journal", "verify", "--config", settings]);
    assert!(status == Some(0) && said.contains("is sound: 0 records"), "{said}");
    let file = journal.join("payments.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let name = b"concertpos-bridge/journal";
    let places: Vec<_> = bytes.windows(name.len()).enumerate().filter(|(_, at)| at == name).map(|(at, _)| at).collect();
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&file, &bytes).unwrap();
    let (status, said) = verify(&by_folder);
    assert!(status == Some(1) && said.contains("damaged") && said.contains("list of tables"), "{said}");
    assert!(std::fs::read(&file).unwrap() == bytes, "it was changed");
}

#[test]
fn validate_dials_each_shard_once_and_prints_what_is_in_force() {
    let gateway = free_address();
    let simulator = Running::start(&["simulate", "--listen", &gateway], &[]);
    wait_until("the gateway listens", || std::net::TcpStream::connect(&gateway).is_ok());
    let url = format!("ws://{gateway}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
    let environment =
        [("BRIDGE_GATEWAY__URL", url.as_str()), ("BRIDGE_INSTANCES__DEMO__API_KEY", "the-secret-of-this-test")];
    let output = run(&["validate", "--dial", "--print"], &environment);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for shard in ["exon", "cyton", "zeus"] {
        assert!(printed.contains(&format!("demo on {shard}: open")), "{printed}");
    }
    assert!(printed.contains("gateway.min_links") && printed.contains("BRIDGE_GATEWAY__URL"), "{printed}");
    assert!(!printed.contains("the-secret-of-this-test"));
    drop(simulator);
    assert_eq!(run(&["validate", "--dial"], &environment).status.code(), Some(1));
}

#[test]
fn validate_asks_the_gateway_with_each_key_and_tells_a_wrong_one_from_one_that_could_not_be_tried() {
    let gateway = free_address();
    let start = |fault: &str| {
        let arguments = ["simulate", "--listen", &gateway, "--session-event", "--fault", fault];
        let simulator = Running::start(&arguments, &[]);
        wait_until("the gateway listens", || std::net::TcpStream::connect(&gateway).is_ok());
        simulator
    };
    let url = format!("ws://{gateway}/{{shard}}/?instance={{instance}}&Content-Type={{format}}");
    let told = |keys: &[(&str, &str)], arguments: &[&str]| {
        let environment = [&[("BRIDGE_GATEWAY__URL", url.as_str())], keys].concat();
        let output = run(&[&["validate", "--key"], arguments].concat(), &environment);
        (output.status.code(), text(&output.stdout))
    };
    let right = ("BRIDGE_INSTANCES__DEMO__API_KEY", "demo-key");
    let wrong = ("BRIDGE_INSTANCES__DEMO__API_KEY", "a-secret-that-is-wrong");
    let elsewhere = ("BRIDGE_INSTANCES__OTHER__API_KEY", "a-secret-of-nowhere");
    let simulator = start("getlicense:error=getlicense:0");
    assert_eq!(told(&[right], &[]), (Some(0), "demo: the gateway accepts the key\n".to_owned()));
    let (status, said) = told(&[wrong], &["--dial"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("demo on exon: open") && said.contains("demo: the gateway refuses the key: api_key_"),
        "{said}"
    );
    assert!(!said.contains("a-secret"), "{said}");
    let (status, said) = told(&[right, elsewhere], &[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("demo: the gateway accepts the key\n"), "{said}");
    assert!(said.contains("other: the key could not be tried") && said.contains("invalid_instance"), "{said}");
    // One shard that is away tells nothing of a key.
    let first_away = [right, ("BRIDGE_GATEWAY__SHARDS", "nowhere,exon")];
    assert_eq!(told(&first_away, &[]).0, Some(0));
    drop(simulator);
    let (status, said) = told(&[right], &[]);
    assert!(status == Some(1) && said.contains("could not be tried"), "{said}");
    let _simulator = start("getlicense:error=getlicense");
    let (status, said) = told(&[right], &[]);
    assert!(status == Some(1) && said.contains("licence is invalid"), "{said}");
}

#[test]
fn the_token_as_json_is_the_same_as_in_the_lines() {
    let arguments = ["token", "new", "--name", "shop", "--instances", "demo,other", "--scopes", "read,pay", "--json"];
    let made: serde_json::Value = serde_json::from_slice(&run(&arguments, &[]).stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("cpb_"));
    assert_eq!(made["sha256"], digest(token));
    let rest = (&made["name"], &made["instances"], &made["scopes"]);
    let expected =
        (serde_json::json!("shop"), serde_json::json!(["demo", "other"]), serde_json::json!(["read", "pay"]));
    assert_eq!(rest, (&expected.0, &expected.1, &expected.2));
}

/// What a configuration holds of a token.
fn digest(token: &str) -> String {
    use data_encoding::HEXLOWER;
    use sha2::{Digest, Sha256};
    HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

#[test]
fn completions_and_manual_pages_know_every_command_and_the_shell_reads_them() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell], &[]);
        let script = text(&output.stdout);
        assert!(output.status.success() && script.contains("uncordon") && script.contains("token-file"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    assert!(run(&["man", pages.to_str().unwrap()], &[]).status.success());
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("concertpos-bridge.1").contains("payments"));
    let settle = page("concertpos-bridge-payments-settle.1");
    for part in ["BRIDGE_TOKEN_FILE", "Exit status", "reason"] {
        assert!(settle.contains(part), "{part}: {settle}");
    }
    assert!(run(&["man", "/proc/nowhere"], &[]).status.code() == Some(1));
    assert_eq!(run(&["completions", "tcsh"], &[]).status.code(), Some(2));
    let script = folder.path().join("completions.bash");
    std::fs::write(&script, run(&["completions", "bash"], &[]).stdout).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
}

#[test]
fn the_token_is_printed_once_and_the_lines_hold_only_its_digest() {
    let printed =
        text(&run(&["token", "new", "--name", "shop", "--instances", "demo", "--scopes", "read,pay"], &[]).stdout);
    let token = printed.lines().find_map(|line| line.trim().strip_prefix("cpb_")).unwrap().to_owned();
    assert_eq!(printed.matches(&token).count(), 1);
    let lines: String = printed.lines().skip_while(|line| !line.starts_with('[')).collect::<Vec<_>>().join("\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, format!("[instances.demo]\napi_key = \"k\"\n{lines}\n")).unwrap();
    let output = run(&["validate", "--config", path.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_demo_listens_and_every_line_that_it_prints_works_and_sigterm_ends_it_with_0() {
    let listen = free_address();
    let mut demo = Running::start(&["demo", "--listen", &listen], &[]);
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<String> = lines.take_while(|line| !line.starts_with("The API")).collect();
    wait_until("it is ready", || run(&["healthcheck", "--address", &listen], &[]).status.success());
    let script = printed.join("\n").replace("\\\n", "");
    let requests: Vec<&str> = script.lines().map(str::trim).filter(|line| line.starts_with("curl")).collect();
    assert!(requests.len() >= 5, "{printed:?}");
    assert!(script.contains("--control"), "how to stop a shard: {printed:?}");
    for request in requests {
        let output = Command::new("bash").args(["-c", &format!("{request} --no-progress-meter")]).output().unwrap();
        let answer = text(&output.stdout);
        let expected = match request {
            line if line.contains("nowhere") => "HTTP/1.1 404",
            line if line.contains("payments") => "HTTP/1.1 201",
            _ => "HTTP/1.1 200",
        };
        assert!(answer.starts_with(expected), "{request}\n{answer}");
    }
    demo.signal("-TERM");
    let (status, log) = demo.end(Duration::from_secs(15));
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn in_a_demo_with_a_control_endpoint_a_shard_can_be_stopped_and_reads_and_sales_go_on_by_the_printed_lines() {
    let (listen, control) = (free_address(), free_address());
    let mut demo = Running::start(&["demo", "--listen", &listen, "--control", &control], &[]);
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<String> = lines.take_while(|line| !line.starts_with("The API")).collect();
    wait_until("it is ready", || run(&["healthcheck", "--address", &listen], &[]).status.success());
    let script = printed.join("\n").replace("\\\n", "");
    let request_with = |part: &str| {
        let line = script.lines().map(str::trim).find(|line| line.starts_with("curl") && line.contains(part)).unwrap();
        text(&Command::new("bash").args(["-c", &format!("{line} --no-progress-meter")]).output().unwrap().stdout)
    };
    let links_to_exon = || {
        let answer = Command::new("curl").args(["-s", &format!("http://{listen}/v1/bridge")]).output().unwrap().stdout;
        let status: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let shards = status["instances"][0]["shards"].as_array().unwrap();
        let exon = shards.iter().find(|shard| shard["shard"] == "exon").unwrap();
        exon["links"].as_array().unwrap().len()
    };
    wait_until("exon has a link", || links_to_exon() > 0);
    let stopped = request_with("{\"alive\": false}");
    assert!(stopped.starts_with("HTTP/1.1 200") && stopped.contains("{\"alive\":false}"), "{stopped}");
    wait_until("the bridge has no link to exon", || links_to_exon() == 0);
    assert!(request_with("/points-of-sale/1/products").starts_with("HTTP/1.1 200"));
    assert!(request_with("/payments").starts_with("HTTP/1.1 201"));
    assert!(request_with("/counts").contains("payitems"));
    let started = request_with("{\"alive\": true}");
    assert!(started.starts_with("HTTP/1.1 200") && started.contains("{\"alive\":true}"), "{started}");
    demo.signal("-TERM");
    assert_eq!(demo.end(Duration::from_secs(15)).0, Some(0));
}

#[test]
fn the_demo_can_ask_for_the_token_that_it_prints() {
    let listen = free_address();
    let mut demo = Running::start(&["demo", "--listen", &listen, "--token"], &[]);
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let printed: Vec<String> = lines.take_while(|line| !line.starts_with("The API")).collect();
    let token = printed.iter().find_map(|line| line.strip_prefix("Token of this run: ")).unwrap();
    wait_until("it is ready", || run(&["healthcheck", "--address", &listen], &[]).status.success());
    let status = |token: &str| {
        let (url, header) = (format!("http://{listen}/v1/bridge"), format!("Authorization: Bearer {token}"));
        let asked = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url];
        text(&Command::new("curl").args(asked).output().unwrap().stdout)
    };
    assert_eq!((status(token), status("another")), ("200".to_owned(), "401".to_owned()));
}

#[test]
fn a_whole_bridge_runs_from_the_environment_alone_and_healthcheck_tells_whether_it_is_ready() {
    let (listen, data) = (free_address(), tempfile::tempdir().unwrap());
    let environment = [
        ("BRIDGE_PAYMENTS__JOURNAL", data.path().to_str().unwrap()),
        ("BRIDGE_CACHE__STORE", ""),
        ("BRIDGE_SERVER__LISTEN", listen.as_str()),
        // Nobody listens there: a gateway that is away does not make the bridge unready.
        ("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/?instance={instance}"),
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "the-secret-of-this-test"),
        ("BRIDGE_TELEMETRY__LOG_FORMAT", "json"),
        ("BRIDGE_TELEMETRY__LOG", "debug"),
    ];
    assert_eq!(run(&["healthcheck"], &environment).status.code(), Some(1));
    let bridge = Running::start(&["serve"], &environment);
    wait_until("it is ready", || run(&["healthcheck"], &environment).status.success());
    bridge.signal("-INT");
    let (status, log) = bridge.end(Duration::from_secs(15));
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("the-secret-of-this-test"), "the log shows the key");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line of the log is JSON");
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn a_token_in_the_query_of_a_stream_is_in_no_line_of_the_log() {
    let (listen, data) = (free_address(), tempfile::tempdir().unwrap());
    let environment = [
        ("BRIDGE_PAYMENTS__JOURNAL", data.path().to_str().unwrap()),
        ("BRIDGE_CACHE__STORE", ""),
        ("BRIDGE_SERVER__LISTEN", listen.as_str()),
        ("BRIDGE_GATEWAY__URL", "ws://127.0.0.1:9/{shard}/?instance={instance}"),
        ("BRIDGE_INSTANCES__DEMO__API_KEY", "the-secret-of-this-test"),
        ("BRIDGE_TELEMETRY__LOG", "trace"),
    ];
    let bridge = Running::start(&["serve"], &environment);
    wait_until("it is ready", || run(&["healthcheck"], &environment).status.success());
    for token in ["the-secret-of-this-test", "a-guess-of-this-test"] {
        let url = format!("http://{listen}/v1/instances/demo/events?access_token={token}");
        let answer = Command::new("curl").args(["-s", &url]).output().unwrap();
        assert!(text(&answer.stdout).contains("\"code\""), "a problem");
        assert!(!text(&answer.stdout).contains(token));
    }
    bridge.signal("-TERM");
    let (status, log) = bridge.end(Duration::from_secs(15));
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("/v1/instances/{instance}/events"), "the requests are in it: {log}");
    assert!(!log.contains("of-this-test"), "the log shows a token");
}
