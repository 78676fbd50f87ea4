//! `completions` and `man`: what a package installs beside the program, made from the same table as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use super::common::print;

/// Flags of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where the pages are written, one for each command; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn completions(mut program: Command, flags: &Completions) -> anyhow::Result<ExitCode> {
    let (name, mut script) = (program.get_name().to_owned(), Vec::new());
    clap_complete::generate(flags.shell, &mut program, name, &mut script);
    print(&String::from_utf8(script)?).context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(program: Command, flags: &Man) -> anyhow::Result<ExitCode> {
    let named = || flags.directory.display().to_string();
    std::fs::create_dir_all(&flags.directory).with_context(named)?;
    clap_mangen::generate_to(program, &flags.directory).with_context(named)?;
    Ok(ExitCode::SUCCESS)
}
