//! Every error with its place, the environment over the file, nothing ignored.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::value::{Setting, Value};
use super::*;

/// Settings from the text of a file and variables, with the file's path cut from what they print.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment: Vec<_> = variables.iter().map(|(name, text)| (OsString::from(name), text.into())).collect();
    Settings::load(Some(file.path()), environment).map_err(|errors| cut(&errors))
}

fn cut(errors: &ConfigErrors) -> String {
    let cut = |error: &ConfigError| match &error.origin {
        Origin::File(_, line) => {
            ConfigError { origin: Origin::File(PathBuf::from("bridge.toml"), *line), ..error.clone() }
        }
        _ => error.clone(),
    };
    let lines: Vec<_> = errors.iter().map(|error| cut(error).to_string()).collect();
    lines.join("\n")
}

fn errors(settings: Settings) -> String {
    cut(&settings.finish().expect_err("the settings were accepted"))
}

#[test]
fn what_is_not_set_is_the_default_and_what_the_environment_sets_wins_over_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ndeadline = \"5m\"\n";
    let mut settings = load(text, &[("BRIDGE_SERVER__LISTEN", "[::]:2")]).unwrap();
    let mut root = settings.root();
    let mut server = root.section("server");
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(server.get("listen", address("127.0.0.1:3")), address("[::]:2"));
    assert_eq!(server.get("deadline", Duration::ZERO), Duration::from_mins(5));
    assert_eq!(server.get("workers", 7_u32), 7);
    assert_eq!(server.optional::<String>("public_url"), None);
    let printed = settings.finish().unwrap();
    let origins: Vec<_> = printed.iter().map(|entry| (entry.key.as_str(), entry.shown.as_deref())).collect();
    assert_eq!(
        origins,
        [
            ("server.listen", Some("\"[::]:2\"")),
            ("server.deadline", Some("\"5m\"")),
            ("server.workers", Some("7")),
            ("server.public_url", None),
        ]
    );
    let origins: Vec<_> = printed.iter().map(|entry| entry.origin.clone()).collect();
    assert_eq!(origins[0], Origin::Environment("BRIDGE_SERVER__LISTEN".into()));
    assert!(matches!(&origins[1], Origin::File(_, 3)));
    assert_eq!(origins[2], Origin::Default);
}

#[test]
fn every_error_is_reported_at_once_with_its_place() {
    let text = "[gateway]\nmin_links = \"two\"\nping = \"1s\"\n\n[gateway.url]\nx = 1\n\n[caches]\nfresh = 1\n";
    let mut settings = load(text, &[("BRIDGE_GATEWAY__MAX_LINKS", "-1")]).unwrap();
    let mut root = settings.root();
    let mut gateway = root.section("gateway");
    assert_eq!(gateway.get("min_links", 2_u32), 2, "the default stands in");
    gateway.get("max_links", 8_u32);
    gateway.get("url", String::new());
    gateway.get("ping_interval", Duration::ZERO);
    gateway.error("shards", "must not be empty");
    root.section("cache");
    assert_eq!(
        errors(settings),
        "bridge.toml:1: gateway.shards: must not be empty\n\
         bridge.toml:2: gateway.min_links: must be a whole number, not text\n\
         bridge.toml:3: gateway.ping: no such key; the nearest known is gateway.ping_interval\n\
         bridge.toml:5: gateway.url: is a value, and not a section\n\
         bridge.toml:8: caches: no such section; the nearest known is cache\n\
         environment BRIDGE_GATEWAY__MAX_LINKS: gateway.max_links: must be a whole number from 0 to 4294967295"
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let nearest = |text: &str, variables: &[(&str, &str)]| {
        let mut settings = load(text, variables).unwrap();
        let mut root = settings.root();
        let mut server = root.section("server");
        server.get("listen", String::new());
        server.get("max_body", 0_u32);
        let mut gateway = root.section("gateway");
        gateway.get("max_links", 0_u32);
        gateway.get("request_timeout", 0_u32);
        let error = errors(settings);
        error.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(nearest("[server]\nlsiten = 1", &[]), "server.listen");
    assert_eq!(nearest("[server]\nmax_bodies = 1", &[]), "server.max_body");
    assert_eq!(nearest("[server]\nrequest_timeout = 1", &[]), "gateway.request_timeout");
    assert_eq!(nearest("listen = 1", &[]), "server.listen");
    assert_eq!(nearest("[sever]\nlisten = 1", &[]), "server");
    assert_eq!(nearest("", &[("BRIDGE_GATEWAY__MAXLINKS", "1")]), "BRIDGE_GATEWAY__MAX_LINKS");
}

#[test]
fn every_error_of_the_grammar_is_told_with_its_line() {
    let found = load("[server]\na = \nb = 1\nb = 2\nc = secret\n", &[]).unwrap_err();
    let lines: Vec<_> = found.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("bridge.toml:2: this is not TOML")), "{found}");
    assert!(lines.iter().any(|line| line.starts_with("bridge.toml:4: this is not TOML")), "{found}");
    assert!(lines.iter().any(|line| line.starts_with("bridge.toml:5: this is not TOML")), "{found}");
    assert!(!found.contains("secret"), "{found}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_error_that_names_it() {
    let missing = Path::new("/nonexistent/bridge.toml");
    let found = Settings::load(Some(missing), []).unwrap_err().to_string();
    assert!(found.starts_with("/nonexistent/bridge.toml: cannot be read: "), "{found}");
}

#[test]
fn variables_of_other_programs_are_passed_over_and_ours_are_never_ignored() {
    let variables = [("BRIDGE_PORT", "tcp://10.0.0.1:80"), ("BRIDGE_PORT_80_TCP", "x"), ("OTHER__KEY", "x")];
    assert!(load("", &variables).unwrap().finish().is_ok());
    let found = errors(load("", &[("BRIDGE_A__", "x"), ("BRIDGE_CI__TOKEN", "x")]).unwrap());
    assert_eq!(
        found,
        "environment BRIDGE_A__: a.: a part of this name is empty; a setting is named BRIDGE_SECTION__KEY\n\
         environment BRIDGE_CI__TOKEN: ci: no such section"
    );
}

#[test]
fn a_value_that_is_also_a_section_is_refused_from_either_side() {
    let mut settings = load("[a]\nb = 1\n[c.d]\ne = 1\n", &[("BRIDGE_A__B__C", "1"), ("BRIDGE_C__D", "1")]).unwrap();
    settings.root().section("a").get("b", 0_u32);
    settings.root().section("c").section("d").get("e", 0_u32);
    assert_eq!(
        errors(settings),
        "environment BRIDGE_A__B__C: a.b.c: a part of this name is set as a value elsewhere, and is not a section\n\
         environment BRIDGE_C__D: c.d: is set as a section elsewhere, and cannot be a value as well"
    );
    let twice = errors(load("", &[("BRIDGE_A__B", "1"), ("BRIDGE_a__b", "2")]).unwrap());
    assert!(twice.contains("set twice"), "{twice}");
    let mut settings = load("a = 1", &[]).unwrap();
    settings.root().section("a").get("b", 0_u32);
    assert_eq!(errors(settings), "bridge.toml:1: a: is a section, and not a value");
}

#[test]
fn sections_named_by_the_operator_are_listed_and_a_value_among_them_is_refused() {
    let text = "[instances]\nstray = \"key\"\n[instances.beta]\nslug = \"b\"\n";
    let mut settings = load(text, &[("BRIDGE_INSTANCES__ALPHA__SLUG", "a")]).unwrap();
    let mut root = settings.root();
    let mut instances = root.section("instances");
    assert_eq!(instances.names(&["api_key"]), ["alpha", "beta"]);
    for name in ["alpha", "beta"] {
        instances.section(name).get("slug", String::new());
    }
    assert_eq!(errors(settings), "bridge.toml:2: instances.stray: is a value and must be a section: [instances.stray]");
}

#[test]
fn a_secret_is_seen_by_its_reader_and_by_nobody_else() {
    let text = "[a]\nkey = \"hush-1\"\nother = 7\nempty = \"\"\nlevel = \"hush-3\"\n";
    let mut settings = load(text, &[("BRIDGE_A__THIRD", " hush-2\n"), ("BRIDGE_A__N", "hush-4")]).unwrap();
    let mut root = settings.root();
    let mut section = root.section("a");
    assert_eq!(section.secret("key").unwrap().expose_secret(), "hush-1");
    assert_eq!(section.secret("third").unwrap().expose_secret(), "hush-2");
    assert!(section.secret("other").is_none());
    assert!(section.secret("empty").is_none());
    section.get("level", 0_u32);
    section.get("n", Duration::ZERO);
    assert!(!format!("{settings:?}").contains("hush"));
    let shown = EffectiveConfig { entries: settings.0.entries.clone(), warnings: Vec::new() }.to_string();
    assert!(shown.contains("a.key = (redacted)"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
    let found = errors(settings);
    assert!(!found.contains("hush"), "{found}");
    assert!(found.contains("bridge.toml:3: a.other: must be text in quotes"), "{found}");
    assert!(found.contains("bridge.toml:4: a.empty: is empty"), "{found}");
}

#[test]
fn an_empty_variable_takes_back_what_is_optional() {
    let mut settings = load("[a]\nb = \"x\"\nc = \"y\"\n", &[("BRIDGE_A__B", ""), ("BRIDGE_A__C", " ")]).unwrap();
    let mut root = settings.root();
    assert_eq!(root.section("a").optional::<String>("b"), None);
    assert!(root.section("a").secret("c").is_none());
    assert!(settings.finish().is_ok());
}

#[test]
fn every_type_reads_the_file_and_the_environment_alike() {
    fn both<T: Setting + PartialEq + std::fmt::Debug>(value: &Value, variable: &str, meant: &T) {
        assert_eq!(T::read(value).as_ref(), Ok(meant));
        assert_eq!(T::read(&Value::Untyped(variable.into())).as_ref(), Ok(meant));
    }
    let text = |text: &str| Value::Text(text.into());
    both(&Value::Truth(true), "true", &true);
    both(&Value::Whole(5), " 5 ", &5_u64);
    both(&Value::Whole(5), "5", &5_usize);
    both(&text("30d"), "30d", &Duration::from_hours(720));
    both(&text("a/b"), "a/b", &PathBuf::from("a/b"));
    both(&Value::List(vec![text("a"), text("b")]), "a, b", &vec!["a".to_owned(), "b".to_owned()]);
    both(&Value::List(vec![]), "", &Vec::<String>::new());
    assert_eq!(u32::read(&text("5")), Err("must be a whole number, not text".into()));
    assert_eq!(Vec::<u32>::read(&Value::Untyped("1,x".into())).unwrap_err()[..7], *"item 2 ");
    assert!(Duration::read(&Value::Whole(30)).unwrap_err().contains("with its unit"));
    assert!(Duration::read(&text("30")).is_err());
    assert!(Duration::read(&text("1000y")).is_err(), "an instant could overflow");
}

proptest! {
    #[test]
    fn a_duration_shown_is_read_as_itself(
        millis in 0_u64..36_500 * 86_400_000,
        nanos in prop_oneof![Just(0), 0_u32..1_000_000],
    ) {
        let duration = Duration::from_millis(millis) + Duration::from_nanos(nanos.into());
        let shown = duration.show();
        prop_assert_eq!(Duration::read(&Value::Text(shown.trim_matches('"').to_owned())), Ok(duration));
    }

    #[test]
    fn no_text_of_a_file_and_no_variable_brings_the_reader_down(
        text in "(\\[[a-c]\\]\n|[a-c] = ?(1|true|\"x\"|\\[1\\]|\\{a = 1\\})?\n|\\PC){0,8}",
        variables in prop::collection::vec(("BRIDGE_[A-C_]{1,6}", "\\PC{0,4}"), 0..4),
    ) {
        let variables: Vec<_> = variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        if let Ok(mut settings) = load(&text, &variables) {
            let mut root = settings.root();
            root.section("a").get("b", 0_u32);
            root.section("b").names(&[]);
            let _ = settings.finish();
        }
    }

    #[test]
    fn text_shown_is_toml_that_reads_as_itself(text: String) {
        let document = format!("a = {}", text.show());
        let read: toml::Table = document.parse().unwrap();
        prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
    }
}
