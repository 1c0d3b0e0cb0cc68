//! `weir run`: the relay, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use super::config::{self, Config};

/// `hidden`: variables that are in the environment no more.
pub(super) fn run(config: Config, file: Option<PathBuf>, hidden: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    crate::log::init(&config.settings.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let reload = move || {
        let (settings, _, _, warnings) = config::read(file.as_deref(), &hidden).map_err(|faults| {
            // One line of the log.
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(settings)
    };
    crate::server::run(config.settings, config.files, Box::new(reload))?;
    Ok(ExitCode::SUCCESS)
}
