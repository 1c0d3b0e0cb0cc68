//! `weir report PROVIDER`: the text for the form in which a receiver is asked to lift a block.

use std::process::ExitCode;

use clap::Args;

use super::Format;
use super::config::Config;
use super::output::Output;
use super::{human, output, providers};
use crate::clock::Clock;
use crate::report;
use crate::route::HickoryDns;

#[derive(Debug, Args)]
pub(super) struct Report {
    /// The receiver, by the name it has in `weir status`: outlook, microsoft365, …
    provider: String,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn report(asked: &Report, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let dns = HickoryDns::new(&config.settings.dns)?;
    let now = Clock::system().now();
    let report = report::report(&asked.provider, &config.settings, &config.rules()?, &dns, now).await?;
    if report.is_empty() {
        providers::known(&asked.provider, config)?;
        let folder = config.data_dir.join("events");
        output::say(&format!("{}: the event log tells nothing of {}", folder.display(), asked.provider));
    }
    if asked.format.json {
        output.json(&report.json())?;
    } else {
        for line in report.lines() {
            output.line(&human::clean(&line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
