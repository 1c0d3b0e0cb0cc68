//! `weir explain`: what a reply of a receiver means, in weir's reading, and by which rules it reads.
//!
//! Reads by the rules of the configuration, as the relay does; asks nobody. The same words stand in bounces and in the
//! events. Whose rules those are is said; where nobody says whose reply it is, its words may tell.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Format;
use super::config::Config;
use super::output::Output;
use crate::throttle::Profiles;
use crate::types::{Class, Scope, Stage, Verdict};
use crate::verdict::{Explained, Listed, Rules, USUAL, explained};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The reply, word for word; further lines behind line feeds
    #[arg(required_unless_present = "rules")]
    reply: Option<String>,
    /// Who said it: a provider with rules of its own, or any name. Default: whom its words name, else outlook
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Where it was said: connect, ehlo, mail, rcpt or data. Default: where the rule expects it, else rcpt
    #[arg(long)]
    stage: Option<Stage>,
    /// List the rules that read the provider's replies, in the order in which they are asked
    #[arg(long, conflicts_with_all = ["reply", "stage"])]
    rules: bool,
    #[command(flatten)]
    format: Format,
}

/// A rule as `--rules --json` prints it.
#[derive(Serialize)]
struct RuleLine<'a> {
    rule: &'a str,
    provider: &'a str,
    /// The table in which it stands.
    rules: &'a str,
    class: Class,
    scope: Scope,
    suppress: bool,
    breaker: bool,
    /// In units of the provider's `pause`; null: the usual one.
    wait: Option<f64>,
    /// Refusals of different messages within an hour before anything is held back.
    after: u8,
    probe: Option<&'a str>,
    cause: &'a str,
    remedy: &'a str,
    source: &'a str,
}

pub(super) fn explain(explain: &Explain, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let rules = config.rules()?;
    match &explain.reply {
        Some(text) => one(explain, text, &rules, config, output)?,
        None => list(explain, &rules, output)?,
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn one(explain: &Explain, text: &str, rules: &Rules, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let profiles = Profiles::new(&config.settings.provider);
    let pause = |provider: &str| profiles.get(provider).pause;
    let explained = explained(rules, text, explain.provider.as_deref(), explain.stage, pause).map_err(super::usage)?;
    if explain.format.json {
        return output.json(&explained);
    }
    lines(&explained).iter().try_for_each(|line| output.line(line))
}

fn lines(explained: &Explained) -> Vec<String> {
    let verdict = match explained.verdict {
        Verdict::Delivered => "delivered",
        Verdict::Retry => "put off",
        Verdict::Bounce => "refused for good",
    };
    let rows = [
        ("reads as", format!("{}, {verdict}; concerns the {}", explained.class, explained.scope)),
        ("cause", explained.cause.clone()),
        ("whose", explained.whose.to_string()),
        ("weir does", explained.does.clone()),
        ("what to do", explained.remedy.clone()),
        ("rule", format!("{}, {}", explained.rule, table_in_words(explained))),
        ("rules of", rules_of(explained)),
    ];
    let said = rows.iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| format!("{:<12}{text}", format!("{name}:"))).collect()
}

/// Whose rule it is.
fn table_in_words(explained: &Explained) -> String {
    match explained.rules.as_str() {
        "certain" => "one of those for words that cannot be mistaken, whoever says them".to_string(),
        "default" => "one of those for receivers of all kinds".to_string(),
        "own" => "one of your own".to_string(),
        "none" => "none".to_string(),
        table => format!("one of {table}'s"),
    }
}

/// As whose reply, and why.
fn rules_of(explained: &Explained) -> String {
    let provider = match explained.provider.as_str() {
        "default" => "a receiver without rules of its own".to_string(),
        name => format!("{name}'s"),
    };
    match explained.chosen {
        "words" => format!("{provider}, by its words; --provider NAME reads it as another's"),
        "default" => format!("{provider}: nothing in it says whose it is; --provider NAME reads it as another's"),
        _ => provider,
    }
}

fn list(explain: &Explain, rules: &Rules, output: &mut Output) -> anyhow::Result<()> {
    let provider = explain.provider.as_deref().unwrap_or(USUAL);
    for rule in rules.list(provider) {
        if explain.format.json {
            output.json(&rule_line(&rule, provider))?;
        } else {
            let row = format!("{:<30} {:<20} {:<17} {}", rule.name, rule.class, rule.scope, asks(&rule));
            output.line(row.trim_end())?;
        }
    }
    Ok(())
}

fn rule_line<'a>(rule: &Listed<'a>, provider: &'a str) -> RuleLine<'a> {
    RuleLine {
        rule: rule.name,
        provider,
        rules: rule.table,
        class: rule.class,
        scope: rule.scope,
        suppress: rule.suppress,
        breaker: rule.breaker,
        wait: rule.effects.wait.map(|hundredths| f64::from(hundredths) / 100.0),
        after: rule.effects.after.max(1),
        probe: rule.effects.probe_early.then_some("early"),
        cause: rule.cause,
        remedy: rule.remedy,
        source: rule.source,
    }
}

/// What a rule asks for beside class and scope.
fn asks(rule: &Listed<'_>) -> String {
    let mut asks = Vec::new();
    if rule.suppress {
        asks.push("suppress".to_string());
    }
    if rule.breaker {
        asks.push("breaker".to_string());
    }
    if let Some(hundredths) = rule.effects.wait {
        asks.push(format!("wait {}", f64::from(hundredths) / 100.0));
    }
    if rule.effects.after > 1 {
        asks.push(format!("after {}", rule.effects.after));
    }
    if rule.effects.probe_early {
        asks.push("probe early".to_string());
    }
    asks.join(", ")
}
