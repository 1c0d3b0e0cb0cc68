//! `weir pause` and `weir resume`: the operator's hand on the lanes of a provider.

use std::process::ExitCode;

use clap::Args;

use super::config::Config;
use super::output::Output;
use super::{Format, human, relay};
use crate::admin::{Ordered, Request};

#[derive(Debug, Args)]
pub(super) struct Pause {
    /// The provider, as in `weir status`
    provider: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The provider, as in `weir status`
    provider: String,
    /// Send without asking with one message first. Danger: a receiver that still blocks us counts every attempt
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn pause(command: Pause, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let request = Request::Pause { provider: command.provider };
    let otherwise = "was paused already: nothing goes there until `weir resume`";
    order(&request, otherwise, command.format, config, output).await
}

pub(super) async fn resume(command: Resume, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let request = Request::Resume { provider: command.provider, force: command.force };
    let otherwise = "was neither paused nor blocked: nothing changed";
    order(&request, otherwise, command.format, config, output).await
}

async fn order(
    request: &Request,
    otherwise: &str,
    format: Format,
    config: &Config,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let answers: Vec<Ordered> = relay::connect(config).await?.all(request).await?;
    let Some(ordered) = answers.first() else { anyhow::bail!("the relay did not say what it did: see `weir status`") };
    if format.json {
        output.json(ordered)?;
    } else {
        output.text(&render(ordered, otherwise))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render(ordered: &Ordered, otherwise: &str) -> String {
    let mut text = String::new();
    for change in &ordered.changes {
        text.push_str(&format!("{}\n", human::clean(change)));
    }
    let provider = human::clean(&ordered.provider);
    if ordered.changes.is_empty() {
        text.push_str(&format!("{provider} {otherwise}\n"));
    }
    if ordered.waiting > 0 {
        text.push_str(&format!("{provider}: {} wait\n", human::number(ordered.waiting)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_changed_and_what_waits() {
        let ordered = Ordered {
            provider: "outlook".into(),
            changes: vec!["outlook from a: paused".into(), "outlook from b: paused".into()],
            waiting: 12_400,
        };
        assert_eq!(render(&ordered, "-"), "outlook from a: paused\noutlook from b: paused\noutlook: 12,400 wait\n");
    }

    #[test]
    fn what_stood_like_that_before_is_said_too() {
        let ordered = Ordered { provider: "mx\n\x1b[2J".into(), changes: Vec::new(), waiting: 0 };
        assert_eq!(render(&ordered, "was paused already"), "mx ?[2J was paused already\n");
    }
}
