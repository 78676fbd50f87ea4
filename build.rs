//! Tells the program which commit it is built from, for `--version`, and unpacks the library of the API browser.
//!
//! `GIT_COMMIT` names it where there is no repository, as while an image is built. Else git is asked, for release builds only: a
//! debug build would begin anew with every commit. Where neither knows, the version stands alone.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo so")]

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;
use zip::result::ZipError;

/// Digits that are shown: enough to name a commit for as long as anybody looks for it.
const DIGITS: usize = 12;

/// The files of the API browser's library that its page uses: two of eight.
const LIBRARY: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=GIT_COMMIT");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match given().or_else(of_repository) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=PROGRAM_VERSION={version}");
    unpack_library(Path::new(&env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?))
}

/// Writes each file of [`LIBRARY`] to `folder`, compressed.
fn unpack_library(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    let paths = archive.file_names().map(|path| Ok(path?.into_owned())).collect::<Result<Vec<_>, ZipError>>()?;
    for name in LIBRARY {
        let file = format!("/dist/{name}");
        let path = paths.iter().find(|path| path.ends_with(&file)).ok_or(name)?;
        let compressed = File::create(folder.join(format!("{name}.gz")))?;
        let mut encoder = GzEncoder::new(compressed, Compression::best());
        io::copy(&mut archive.by_name(path)?, &mut encoder)?;
        encoder.finish()?;
    }
    Ok(())
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
