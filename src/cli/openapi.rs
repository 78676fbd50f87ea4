//! `openapi`: prints the document.

use std::process::ExitCode;

use clap::Args;

use super::common::print;
use crate::http::openapi::served::{json, yaml};

/// Flags of `openapi`.
#[derive(Debug, Args)]
pub(super) struct Openapi {
    /// Print YAML instead of JSON
    #[arg(long)]
    yaml: bool,
}

pub(super) fn run(flags: &Openapi) -> anyhow::Result<ExitCode> {
    let text = if flags.yaml { yaml()? } else { json()? };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}
