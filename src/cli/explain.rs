//! `weir explain`: what a reply means, whose fault it is, what weir does about it, and what a person should do.
//!
//! Needs no running relay. The same words stand in reports, in `queue show` and in the events.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Format;
use super::output::Output;
use crate::types::{Class, Reply, Scope, Stage, Verdict};
use crate::verdict::Rules;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The reply, word for word; further lines behind line feeds
    reply: String,
    /// Who said it: a provider with rules of its own, or any name
    #[arg(long, default_value = "outlook", value_name = "NAME")]
    provider: String,
    /// Where it was said: connect, ehlo, mail, rcpt or data. Default: where the rule expects it, else rcpt
    #[arg(long)]
    stage: Option<Stage>,
    #[command(flatten)]
    format: Format,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Explained<'a> {
    code: u16,
    enhanced: Option<String>,
    tag: Option<&'a str>,
    provider: &'a str,
    stage: Stage,
    class: Class,
    scope: Scope,
    verdict: Verdict,
    suppress: bool,
    breaker: bool,
    cause: &'a str,
    remedy: &'a str,
    rule: &'a str,
}

pub(super) fn explain(explain: &Explain, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Some(reply) = Reply::parse(&explain.reply) else {
        return Err(super::usage("the reply must begin with its three-digit code, as in \"550 5.1.1 no such user\""));
    };
    let (reading, stage) = Rules::shipped().explain(&explain.provider, explain.stage, &reply);
    let explained = Explained {
        code: reply.code(),
        enhanced: reply.enhanced().map(|enhanced| enhanced.to_string()),
        tag: reading.tag.as_deref(),
        provider: &explain.provider,
        stage,
        class: reading.class,
        scope: reading.scope,
        verdict: reading.verdict,
        suppress: reading.suppress,
        breaker: reading.breaker,
        cause: &reading.cause,
        remedy: &reading.remedy,
        rule: &reading.rule,
    };
    if explain.format.json {
        output.json(&explained)?;
    } else {
        for line in lines(&explained) {
            output.line(&line)?;
        }
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn lines(explained: &Explained<'_>) -> Vec<String> {
    let message = match explained.verdict {
        Verdict::Delivered => "delivered",
        Verdict::Retry => "stays queued and is tried again",
        Verdict::Bounce => "is returned to its sender; no other try",
    };
    let recipient = if explained.suppress { "comes onto the suppression list" } else { "stays as it is" };
    let mut lines = vec![
        format!("reads as:   {} (concerns the {}), rule {}", explained.class, explained.scope, explained.rule),
        format!("message:    {message}"),
        format!("recipient:  {recipient}"),
    ];
    if explained.breaker {
        lines.push(format!("lane:       stops: nothing more goes to {} from this source for now", explained.provider));
    }
    if !explained.cause.is_empty() {
        lines.push(format!("cause:      {}", explained.cause));
    }
    if !explained.remedy.is_empty() {
        lines.push(format!("what to do: {}", explained.remedy));
    }
    lines
}
