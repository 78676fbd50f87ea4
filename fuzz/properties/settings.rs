//! The configuration: any file and any environment is settings or faults, the same each time, and no secret is shown.
//!
//! The message is cut at each zero byte: the first part is the file, each other one a variable, `NAME=VALUE`.

use std::ffi::OsString;
use std::path::Path;

use concertpos_bridge::internals::config::Config;
use secrecy::ExposeSecret;

/// Words that stand in every print, and of which a secret may be made.
const SHORTEST_SECRET: usize = 12;

pub(crate) fn check(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let file = parts.next().unwrap_or_default().into_owned();
    let variables: Vec<(OsString, OsString)> =
        parts.filter_map(|part| part.split_once('=').map(|(name, value)| (name.into(), value.into()))).collect();
    // Files that a configuration names are read: those are not to be found by chance.
    let spelled = format!("{file}{variables:?}").to_lowercase();
    if ["_file", "tls", "certificate"].iter().any(|word| spelled.contains(word)) {
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, &file).unwrap();
    let (first, secrets) = load(&path, &variables);
    assert_eq!(load(&path, &variables).0, first);
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        // One that is also the name of something says nothing.
        let other = file.matches(secret.as_str()).count() + spelled.matches(&secret.to_lowercase()).count() > 2;
        assert!(other || !first.contains(secret.as_str()), "{secret:?} is shown in {first}");
    }
}

/// What is told of a configuration, and the secrets in it.
fn load(path: &Path, variables: &[(OsString, OsString)]) -> (String, Vec<String>) {
    match Config::load(Some(path), variables.iter().cloned()) {
        Ok((config, printed)) => {
            let secrets = config.instances.values().map(|instance| instance.api_key.expose_secret().to_owned());
            (format!("{config:?}\n{printed}"), secrets.collect())
        }
        Err(faults) => {
            let told = faults.to_string();
            assert!(!told.is_empty(), "a fault without words");
            (told, Vec::new())
        }
    }
}
