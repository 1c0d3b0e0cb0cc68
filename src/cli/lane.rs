//! `weir pause`, `weir resume` and `weir forget`: the operator's hand on the lanes of a provider, on the mail of one recipient
//! domain, on everything.

use std::process::ExitCode;

use clap::Args;

use super::config::Config;
use super::output::Output;
use super::{Format, human, relay};
use crate::admin::{Ordered, Request};
use crate::throttle::EVERYTHING;
use crate::types::Domain;

/// Whose mail is meant.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The provider, as in `weir status`
    provider: Option<String>,
    /// One recipient domain: its mail alone, whichever provider has it
    #[arg(long, value_name = "DOMAIN", value_parser = Domain::parse)]
    domain: Option<Domain>,
    /// Everything
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Pause {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Resume {
    #[command(flatten)]
    whom: Whom,
    /// Send without asking with one message first. Danger: a receiver that still blocks us counts every attempt
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The provider, as in `weir status`
    provider: String,
    /// Of one of our sources alone
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn pause(command: Pause, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (request, otherwise) = match command.whom {
        Whom { domain: Some(domain), .. } => {
            let otherwise = format!("was paused already: nothing goes there until `weir resume --domain {domain}`");
            (Request::PauseDomain { domain }, otherwise)
        }
        Whom { provider: Some(provider), .. } => {
            let otherwise = format!("was paused already: nothing goes there until `weir resume {provider}`");
            (Request::Pause { provider }, otherwise)
        }
        Whom { .. } => {
            (Request::PauseAll, "was paused already: nothing goes out until `weir resume --all`".to_string())
        }
    };
    order(&request, &otherwise, command.format, config, output).await
}

pub(super) async fn resume(command: Resume, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let force = command.force;
    let (request, otherwise) = match command.whom {
        Whom { domain: Some(domain), .. } => {
            (Request::ResumeDomain { domain, force }, "was not paused: nothing changed")
        }
        Whom { provider: Some(provider), .. } => {
            (Request::Resume { provider, force }, "was neither paused nor blocked: nothing changed")
        }
        Whom { .. } => (Request::ResumeAll { force }, "was not paused as a whole: nothing changed"),
    };
    order(&request, otherwise, command.format, config, output).await
}

pub(super) async fn forget(command: Forget, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let request = Request::Forget { provider: command.provider, source: command.source };
    order(&request, "was never sent to: there is nothing to forget", command.format, config, output).await
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
    let whom = match &ordered.domain {
        Some(domain) => format!("mail to {}", human::clean(domain)),
        None if ordered.provider == EVERYTHING => "everything".to_string(),
        None => human::clean(&ordered.provider),
    };
    if ordered.changes.is_empty() {
        text.push_str(&format!("{whom} {}\n", human::clean(otherwise)));
    }
    if ordered.waiting > 0 {
        text.push_str(&format!("{whom}: {}\n", human::waits(ordered.waiting)));
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
            domain: None,
            changes: vec!["outlook from a: paused".into(), "outlook from b: paused".into()],
            waiting: 12_400,
        };
        assert_eq!(render(&ordered, "-"), "outlook from a: paused\noutlook from b: paused\noutlook: 12,400 wait\n");
    }

    #[test]
    fn what_stood_like_that_before_is_said_too() {
        let ordered = Ordered { provider: "mx\n\x1b[2J".into(), ..Ordered::default() };
        assert_eq!(render(&ordered, "was paused already"), "mx ?[2J was paused already\n");
        let domain = Ordered { provider: "*".into(), domain: Some("a.test".into()), waiting: 1, ..Ordered::default() };
        assert_eq!(render(&domain, "was not paused"), "mail to a.test was not paused\nmail to a.test: 1 waits\n");
        let all = Ordered { provider: "*".into(), waiting: 2, ..Ordered::default() };
        assert_eq!(render(&all, "was not paused"), "everything was not paused\neverything: 2 wait\n");
    }
}
