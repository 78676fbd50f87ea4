//! The sections `instances.NAME`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::settings::Section;

/// Paths at the root, which the native endpoint shares with instances and shards: such a name would be ambiguous.
const ROOT_PATHS: [&str; 10] =
    ["v1", "livez", "readyz", "metrics", "openapi", "asyncapi", "docs", "problems", "gateway", "dashboard"];

/// What each section has.
const KEYS: [&str; 4] = ["slug", "api_key", "api_key_file", "accept_gateway_key"];

/// One instance of ConcertPOS.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name at the gateway.
    pub slug: String,
    pub api_key: SecretString,
    /// Whether callers may present that key as their token.
    pub accept_gateway_key: bool,
}

pub(super) fn read(section: &mut Section<'_>, shards: &[String]) -> BTreeMap<String, Instance> {
    let names = section.names(&KEYS);
    if names.is_empty() {
        refuse_none(section);
    }
    let mut instances = BTreeMap::new();
    for name in names {
        let mut one = section.section(&name);
        if !is_name(&name) {
            one.error("", "must be named with a-z, 0-9, - and _, beginning with a letter or a digit");
        }
        if shards.contains(&name) || ROOT_PATHS.contains(&name.as_str()) {
            one.error("", "is named like a shard or a path of the bridge; name it otherwise and set its slug");
        }
        let instance = Instance {
            slug: one.get("slug", name.clone()),
            api_key: api_key(&mut one),
            accept_gateway_key: one.get("accept_gateway_key", true),
        };
        if instance.slug.is_empty() {
            one.error("slug", "is empty");
        }
        instances.insert(name, instance);
    }
    refuse_shared_slugs(section, &instances);
    instances
}

/// Nothing is served without an instance. A variable that looks like a key and is ignored may be why.
fn refuse_none(section: &mut Section<'_>) {
    let is_key = |name: &&String| name.ends_with("_KEY") || name.ends_with("_KEY_FILE");
    let ignored: Vec<_> = section.ignored_variables().iter().filter(is_key).map(String::as_str).collect();
    let suffix = match ignored.as_slice() {
        [] => String::new(),
        names => format!(" (ignored, for want of two underscores: {})", names.join(", ")),
    };
    let message = "names no instance: set instances.NAME.api_key, or BRIDGE_INSTANCES__NAME__API_KEY";
    section.error("", format_args!("{message}{suffix}"));
}

/// Two names of one instance of the gateway would have two budgets and two records of its payments.
fn refuse_shared_slugs(section: &mut Section<'_>, instances: &BTreeMap<String, Instance>) {
    let mut bearers: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, Instance { slug, .. }) in instances {
        if let Some(first) = bearers.get(slug.as_str()) {
            let message = format_args!(
                "{slug:?} is the slug of instances.{first} already: the gateway has one instance of that name"
            );
            section.section(name).error("slug", message);
        } else {
            bearers.insert(slug, name);
        }
    }
}

fn api_key(section: &mut Section<'_>) -> SecretString {
    let errors_before = section.errors();
    let given = section.secret("api_key");
    let file: Option<PathBuf> = section.optional("api_key_file");
    match (given, file) {
        (Some(key), None) => return key,
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => {
                section.warn_of_readers("api_key_file", &path);
                return text.trim().into();
            }
            Ok(_) => section.error("api_key_file", format_args!("{} is empty", path.display())),
            Err(why) => section.error("api_key_file", format_args!("{} cannot be read: {why}", path.display())),
        },
        (Some(_), Some(_)) => section.error("api_key_file", "is set beside api_key; set one of them"),
        (None, None) if section.errors() == errors_before => {
            section.error("api_key", "is missing; set it or api_key_file");
        }
        // It is set, and its error was reported.
        (None, None) => {}
    }
    SecretString::default()
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.bytes().next().is_some_and(plain) && name.bytes().all(|byte| plain(byte) || b"-_".contains(&byte))
}
