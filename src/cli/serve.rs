//! `serve`: the bridge.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use super::{Failure, load, until_stopped};
use crate::app::App;
use crate::telemetry;

pub(super) fn run(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let (config, _) = load(file)?;
    let filter = telemetry::filter(&config.telemetry.log).context("telemetry.log")?;
    telemetry::start(filter, config.telemetry.log_format);
    Ok(until_stopped(async |drain| App::build(config, drain)?.run().await)?)
}
