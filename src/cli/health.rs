//! `weir health`: one line and an exit code, for the probes of containers and service managers.
//!
//! Without `--ready` it says that the relay lives: it answered. With `--ready` it says that mail is taken and delivered; a
//! full disk makes a relay unready, never dead, or a restart loop would come on top of it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::config::Config;
use super::output::Output;
use super::{Format, human, relay};
use crate::admin::{RelayRecord, Request};

/// Probes are killed after a few seconds: the answer comes before.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Health {
    /// Fail also when the relay lives but takes or delivers no mail
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn health(health: Health, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut client = relay::connect(config).await?.with_patience(PATIENCE);
    let records: Vec<RelayRecord> = client.all(&Request::Health { ready: health.ready }).await?;
    let Some(record) = records.first() else { anyhow::bail!("the relay did not say how it is: see its log") };
    if health.format.json {
        output.json(record)?;
    } else {
        output.line(&line(record, health.ready))?;
    }
    Ok(if record.ready || !health.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(record: &RelayRecord, ready: bool) -> String {
    if !ready {
        return "alive".to_string();
    }
    let word = if record.ready { "ready" } else { "not ready" };
    if record.problems.is_empty() {
        word.to_string()
    } else {
        format!("{word}: {}", human::clean(&record.problems.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::relay_record;

    #[test]
    fn one_line_says_it() {
        let full = RelayRecord { ready: false, problems: vec!["disk full:\nfree some".into()], ..relay_record() };
        assert_eq!(line(&full, true), "not ready: disk full: free some");
        assert_eq!(line(&full, false), "alive");
        assert_eq!(line(&relay_record(), true), "ready");
    }
}
