//! `journal verify`: reads a payment journal whole and says what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::common::{BAD_USAGE, Failure, load};
use crate::journal::{self, OpenError};

/// Commands for the payment journal.
#[derive(Debug, Subcommand)]
pub(super) enum Journal {
    /// Read a journal whole and say what is wrong with it; exit with 0 if nothing is, with 1 if it is damaged
    Verify(Verify),
}

/// Which journal.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Verify {
    /// The configuration whose `payments.journal` is meant
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the journal, or of a copy
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

pub(super) fn run(command: &Journal) -> Result<ExitCode, Failure> {
    let Journal::Verify(Verify { config, journal }) = command;
    match journal {
        Some(directory) => Ok(verify(directory)),
        None => Ok(verify(load(config.as_deref())?.0.payments.directory())),
    }
}

fn verify(directory: &Path) -> ExitCode {
    match journal::verify(directory) {
        Ok(found) if found.faults.is_empty() => {
            println!("{} is sound: {} records, {} bytes compared", found.path.display(), found.records, found.bytes);
            ExitCode::SUCCESS
        }
        Ok(found) => {
            for fault in &found.faults {
                println!("{fault}");
            }
            eprintln!("{} is damaged: keep it, and restore the journal from a copy", found.path.display());
            ExitCode::FAILURE
        }
        Err(error @ OpenError::Damaged { .. }) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::from(error));
            ExitCode::from(BAD_USAGE)
        }
    }
}
