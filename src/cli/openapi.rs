//! `openapi`: prints the document.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use crate::http::openapi::{json, yaml};

/// Flags of `openapi`.
#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// Print YAML instead of JSON
    #[arg(long)]
    yaml: bool,
}

pub(super) fn run(flags: &Openapi) -> anyhow::Result<ExitCode> {
    let text = if flags.yaml { yaml() } else { json() };
    writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
