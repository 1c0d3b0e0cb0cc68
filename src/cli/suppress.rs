//! `weir suppress`: the list of recipients who are not written to any more; here what changes it.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::config::Config;
use super::import::{self, Import};
use super::output::Output;
use super::suppressed::{self, Check, Count, Export, List, describe};
use super::{Format, human, relay};
use crate::admin::{Changed, Removed, Request, SuppressFilter, SuppressRecord};
use crate::clock::Clock;
use crate::suppress::Source;
use crate::types::{Class, Domain, Mailbox, Span, Timestamp};

#[derive(Debug, Subcommand)]
pub(super) enum Suppress {
    /// List the entries, or the waves that wait for a decision; also without a running relay
    List(List),
    /// Print the entry of one address, or that there is none (exit code 1); also without a running relay
    Check(Check),
    /// Say how many entries there are, or how many the options choose; also without a running relay
    Count(Count),
    /// Put addresses onto the list
    Add(Add),
    /// Take addresses off the list, or all entries that the options choose (a wave: undo it)
    Remove(Remove),
    /// Keep what a wave of refusals put onto the list provisionally
    Confirm(Confirm),
    /// Read a list: an address a line, `address,reason`, CSV with names, the export of another service, or what `export` wrote; also without a running
    /// relay
    Import(Import),
    /// Write the list, one JSON object a line, or as CSV; also without a running relay
    Export(Export),
}

/// Which entries are meant: all that is given must hold.
#[derive(Debug, Default, Args)]
pub(super) struct Chosen {
    /// Entries of this domain
    #[arg(long, value_name = "DOMAIN", value_parser = Domain::parse)]
    domain: Option<Domain>,
    /// Why: recipient-unknown, recipient-disabled, mailbox-full, recipient-policy, other
    #[arg(long)]
    class: Option<Class>,
    /// How they came onto the list: bounce, wave, complaint, unsubscribe, manual, import
    #[arg(long)]
    source: Option<Source>,
    /// A part of the receiver's words
    #[arg(long, value_name = "TEXT")]
    reply: Option<String>,
    /// The receiver's own label in its words, e.g. S775
    #[arg(long)]
    tag: Option<String>,
    /// Whose refusals, e.g. outlook
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// The wave they came with
    #[arg(long)]
    wave: Option<String>,
    /// Held back for mail from this domain alone
    #[arg(long, value_name = "DOMAIN", value_parser = Domain::parse)]
    sender_domain: Option<Domain>,
    /// Refused last at or after this time (2027-01-31T00:00:00Z), or so long ago (7d)
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Refused last before this time, or longer ago
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

impl Chosen {
    pub(super) fn filter(self, now: Timestamp) -> SuppressFilter {
        let Chosen { domain, class, source, reply, tag, provider, wave, sender_domain, since, until } = self;
        SuppressFilter {
            domain,
            class,
            source: source.map(|source| source.to_string()),
            reply,
            tag,
            provider,
            wave,
            sender_domain,
            since: since.map(|when| when.ago(now)),
            until: until.map(|when| when.ago(now)),
            ..SuppressFilter::default()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[arg(value_name = "ADDRESS", value_parser = Mailbox::parse, required = true)]
    recipients: Vec<Mailbox>,
    /// Why, in your words: senders read it in the refusal
    #[arg(long, value_name = "TEXT", default_value = "put on the list by the operator")]
    reason: String,
    /// As what it is kept, e.g. recipient-unknown
    #[arg(long)]
    class: Option<Class>,
    /// When it ends: a duration from now (90d) or a time (2027-01-31T00:00:00Z). Default: when it is removed
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    #[arg(value_name = "ADDRESS", value_parser = Mailbox::parse)]
    recipients: Vec<Mailbox>,
    #[command(flatten)]
    chosen: Chosen,
    /// Only say how many entries the options choose
    #[arg(long, conflicts_with = "recipients")]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Confirm {
    /// As `suppress list --waves` names it
    wave: String,
    #[command(flatten)]
    format: Format,
}

/// A time, said as such or from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    In(Span),
    At(Timestamp),
}

impl When {
    fn ahead(self, now: Timestamp) -> Timestamp {
        match self {
            When::In(span) => now + span.0,
            When::At(moment) => moment,
        }
    }

    pub(super) fn ago(self, now: Timestamp) -> Timestamp {
        match self {
            When::In(span) => now - span.0,
            When::At(moment) => moment,
        }
    }
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if let Ok(span) = text.parse() {
            return Ok(When::In(span));
        }
        Timestamp::parse_rfc3339(text)
            .map(When::At)
            .ok_or_else(|| "expected a duration (90d) or a time (2027-01-31T00:00:00Z)".to_string())
    }
}

pub(super) async fn suppress(command: Suppress, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Suppress::List(command) => suppressed::list(command, config, output).await?,
        Suppress::Check(command) => return suppressed::check(command, config, output).await,
        Suppress::Count(command) => suppressed::count(command, config, output).await?,
        Suppress::Add(command) => add(command, config, output).await?,
        Suppress::Remove(command) => remove(command, config, output).await?,
        Suppress::Confirm(command) => confirm(command, config, output).await?,
        Suppress::Import(command) => return import::import(command, config, output).await,
        Suppress::Export(command) => return suppressed::export(command, config, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(command: Add, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let expires = command.expires.map(|when| when.ahead(now));
    let Add { recipients, reason, class, format, .. } = command;
    let mut client = relay::connect(config).await?;
    for (place, recipient) in recipients.into_iter().enumerate() {
        let request = Request::SuppressAdd { recipient, class, reason: reason.clone(), expires };
        let records: Vec<SuppressRecord> = client.all(&request).await?;
        let Some(record) = records.first() else { bail!("the relay did not confirm the entry: see its log") };
        if format.json {
            output.json(record)?;
        } else {
            output.text(if place > 0 { "\n" } else { "" })?;
            output.text(&describe(record, now))?;
        }
    }
    Ok(())
}

async fn remove(command: Remove, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let Remove { recipients, chosen, dry_run, format } = command;
    let filter = chosen.filter(Clock::system().now());
    match (recipients.is_empty(), filter.is_everything()) {
        (true, true) => {
            bail!("say what is to be removed: addresses, or options that choose entries (--wave, --class, …)")
        }
        (false, false) => bail!("either addresses or options that choose entries: each alone says what is meant"),
        (false, true) => remove_addresses(recipients, &format, config, output).await,
        (true, false) => {
            let request = Request::SuppressSweep { filter, dry_run };
            let changed = one_changed(&request, config).await?;
            if format.json {
                return output.json(&changed);
            }
            let words = if dry_run { "would be removed" } else { "removed" };
            output.line(&format!("{} {words}", entries(changed.entries)))
        }
    }
}

async fn remove_addresses(
    recipients: Vec<Mailbox>,
    format: &Format,
    config: &Config,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut client = relay::connect(config).await?;
    // Addresses by the hundred, so that a list of any length fits into its requests.
    for recipients in recipients.chunks(100) {
        let request = Request::SuppressRemove { recipients: recipients.to_vec() };
        let mut records = client.ask(&request).await?;
        while let Some(record) = records.next::<Removed>().await? {
            if format.json {
                output.json(&record)?;
                continue;
            }
            let words = if record.removed { "is off the list" } else { "was not on the list" };
            output.line(&format!("{} {words}", record.recipient.as_str()))?;
        }
    }
    Ok(())
}

pub(super) fn entries(count: u64) -> String {
    human::count_of(count, "entry", "entries")
}

/// A walk through ten million entries says nothing until its end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1800);

async fn one_changed(request: &Request, config: &Config) -> anyhow::Result<Changed> {
    let mut client = relay::connect(config).await?.with_patience(PATIENCE);
    let records: Vec<Changed> = client.all(request).await?;
    Ok(records.first().copied().unwrap_or_default())
}

async fn confirm(command: Confirm, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let Confirm { wave, format } = command;
    let changed = one_changed(&Request::SuppressConfirm { wave: wave.clone() }, config).await?;
    if changed.entries == 0 {
        bail!("no wave {wave} waits for a decision: see weir suppress list --waves");
    }
    if format.json {
        return output.json(&changed);
    }
    output.line(&format!("wave {wave} is confirmed: {} to stay on the list", entries(changed.entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_when_it_is_said_to() {
        assert_eq!("90d".parse(), Ok(When::In(Span(std::time::Duration::from_secs(90 * 86_400)))));
        let moment = Timestamp::parse_rfc3339("2027-01-31T00:00:00Z").unwrap();
        let day = When::In(Span(std::time::Duration::from_secs(86_400)));
        assert_eq!((day.ahead(moment).since(moment), moment.since(day.ago(moment))), (day_of(day), day_of(day)));
        assert_eq!("2027-01-31T00:00:00Z".parse(), Ok(When::At(moment)));
        assert!("tomorrow".parse::<When>().is_err());
    }

    fn day_of(when: When) -> std::time::Duration {
        match when {
            When::In(span) => span.0,
            When::At(_) => std::time::Duration::ZERO,
        }
    }
}
