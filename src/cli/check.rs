//! `weir check`: reads the configuration and says every fault.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::config;
use super::output::{self, Output};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print the effective configuration: file, environment and defaults put together; secrets are not shown
    #[arg(long)]
    print: bool,
}

pub(super) fn check(check: &Check, file: Option<&Path>, output: &mut Output) -> anyhow::Result<ExitCode> {
    let config = config::load(file)?;
    config.rules()?;
    config.users()?;
    let certificate = config.certificate()?;
    for warning in config.warnings.iter().chain(&certificate) {
        output::say(warning);
    }
    if check.print {
        output.text(&config.effective)?;
    } else {
        output.line(&format!("{}: no fault", config.origin))?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
