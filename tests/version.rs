//! The commit in `--version`: what the build script tells cargo, with and without a repository.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// That part of the build script as a program of its own.
fn script(folder: &Path) -> PathBuf {
    let (program, source) = (folder.join("version"), folder.join("main.rs"));
    let part = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/version.rs");
    std::fs::copy(part, folder.join("version.rs")).unwrap();
    std::fs::write(&source, "mod version;\n\nfn main() {\n    version::tell();\n}\n").unwrap();
    let rustc = option_env!("RUSTC").unwrap_or("rustc");
    let built = Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(built.success());
    program
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let author = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
    let output = Command::new("git").args(author).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_version_names_the_commit_where_it_is_known_and_nothing_fails_where_it_is_not() {
    let tools = tempfile::tempdir().unwrap();
    let script = script(tools.path());
    let told = |sources: &Path, environment: &[(&str, &str)]| {
        let mut command = Command::new(&script);
        command.env_remove("GIT_COMMIT").env("CARGO_PKG_VERSION", "1.2.3").env("CARGO_MANIFEST_DIR", sources);
        let output = command.envs(environment.iter().copied()).current_dir(sources).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let version = |sources: &Path, environment: &[(&str, &str)]| {
        let told = told(sources, environment);
        told.lines().find_map(|line| line.strip_prefix("cargo::rustc-env=PROGRAM_VERSION=")).unwrap().to_owned()
    };
    let outside = tempfile::tempdir().unwrap();
    let release = ("PROFILE", "release");
    assert_eq!(version(outside.path(), &[release]), "1.2.3");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(version(outside.path(), &[release, ("GIT_COMMIT", commit)]), "1.2.3 (0123456789ab)");
    assert_eq!(version(outside.path(), &[release, ("GIT_COMMIT", "unknown")]), "1.2.3");
    assert!(told(outside.path(), &[release, ("GIT_COMMIT", "x\ny")]).contains("cargo::warning="));
    assert_eq!(version(outside.path(), &[release, ("PATH", "/nowhere")]), "1.2.3", "no git");

    let repository = tempfile::tempdir().unwrap();
    git(repository.path(), &["init", "--quiet"]);
    assert_eq!(version(repository.path(), &[release]), "1.2.3", "no commit yet");
    git(repository.path(), &["commit", "--quiet", "--allow-empty", "--message", "first"]);
    let head = git(repository.path(), &["rev-parse", "HEAD"]);
    let expected = format!("1.2.3 ({})", head.get(..12).unwrap());
    assert_eq!(version(repository.path(), &[release]), expected);
    assert_eq!(version(repository.path(), &[("PROFILE", "debug")]), "1.2.3", "no new build with each commit");
    let inside = repository.path().join("vendored");
    std::fs::create_dir(&inside).unwrap();
    assert_eq!(version(&inside, &[release]), "1.2.3", "not the commit of a repository around it");
    let told = told(repository.path(), &[release]);
    let watched: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).collect();
    assert_eq!(watched, ["build/version.rs", ".git/HEAD", ".git/logs/HEAD"]);
    assert!(watched.iter().skip(1).all(|file| repository.path().join(file).exists()));
}
