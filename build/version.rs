//! The commit that the program is built from, for `--version`.
//!
//! `GIT_COMMIT` names it where there is no repository, as while an image is built. Else git is asked, for release builds only: a
//! debug build would begin anew with every commit. Where neither knows, the version stands alone.
//!
//! Nothing but the standard library is used, so that a test can make a program of it.

use std::env;
use std::fs;
use std::process::Command;

/// Digits that are shown: enough to name a commit for as long as anybody looks for it.
const DIGITS: usize = 12;

/// Tells cargo.
pub fn tell() {
    println!("cargo::rerun-if-changed=build/version.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match given().or_else(of_repository) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=PROGRAM_VERSION={version}");
}

/// What the environment says. `unknown` is the Dockerfile's word for nothing.
fn given() -> Option<String> {
    let given = env::var("GIT_COMMIT").ok()?;
    let commit = short(&given);
    if commit.is_none() && !["", "unknown"].contains(&given.trim()) {
        println!("cargo::warning=GIT_COMMIT is no commit, and --version will not show it");
    }
    commit
}

/// The commit that is checked out here, and not that of a repository around the sources.
fn of_repository() -> Option<String> {
    let here = fs::canonicalize(env::var_os("CARGO_MANIFEST_DIR")?).ok()?;
    if env::var("PROFILE").ok()? != "release" || fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()? != here
    {
        return None;
    }
    // The first changes with the branch that is checked out, the second with each commit. One that is missing would count as
    // changed each time.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if fs::exists(here.join(&path)).unwrap_or_default() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    short(&git(&["rev-parse", "HEAD"])?)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(env::var_os("CARGO_MANIFEST_DIR")?).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The beginning of a commit's name; nothing where it is none.
fn short(commit: &str) -> Option<String> {
    let commit = commit.trim();
    let is_name = (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name.then(|| commit.chars().take(DIGITS).collect())
}
