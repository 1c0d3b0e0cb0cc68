//! `weir report PROVIDER`: the text for the form in which a receiver is asked to lift a block.
//!
//! Put together from the configuration, the DNS and the event log; needs no running relay. What is not known is said to be
//! so, for the person who fills the form in knows it or can find it out.

mod host;
mod summary;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::Format;
use super::config::Config;
use super::output::Output;
use super::{human, output, providers};
use crate::clock::Clock;
use crate::event::history;
use crate::route::HickoryDns;
use crate::types::{Class, Timestamp};
use host::{Address, Authentication};
use summary::{Change, Refusal, Refusals, Summary, Volume};

/// Sender domains whose authentication is looked up.
const DOMAINS: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Report {
    /// The receiver, by the name it has in `weir status`: outlook, microsoft365, …
    provider: String,
    #[command(flatten)]
    format: Format,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Dossier<'a> {
    provider: &'a str,
    time: Timestamp,
    /// The page of the receiver's form; null if none is known.
    send_to: Option<&'a str>,
    addresses: Vec<Address>,
    authentication: Vec<Authentication>,
    /// What the refusals below are about.
    class: Option<Class>,
    first_refusal: Option<&'a Refusal>,
    last_refusal: Option<&'a Refusal>,
    volume: Volume,
    refused_percent: f64,
    days: Vec<Day<'a>>,
    sources: &'a std::collections::BTreeMap<String, Volume>,
    refusals: &'a std::collections::BTreeMap<String, Refusals>,
    changes: Vec<&'a Change>,
    changes_before: u64,
}

#[derive(Serialize)]
struct Day<'a> {
    day: &'a str,
    #[serde(flatten)]
    volume: Volume,
}

pub(super) async fn report(report: &Report, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let folder = config.data_dir.join("events");
    let mut summary = Summary::new(now);
    history::of_provider(&folder, &report.provider, |line| summary.add(line))
        .with_context(|| format!("cannot read the event log in {}", folder.display()))?;
    if summary.is_empty() {
        providers::known(&report.provider, config)?;
        output::say(&format!("{}: the event log tells nothing of {}", folder.display(), report.provider));
    }
    let dns = HickoryDns::new(&config.settings.dns)?;
    let rules = config.rules()?;
    let gravest = summary.gravest();
    let domains = summary.domains(DOMAINS);
    let (addresses, authentication) =
        tokio::join!(host::addresses(&config.settings, &dns), host::authentication(&domains, &dns));
    let dossier = Dossier {
        provider: &report.provider,
        time: now,
        send_to: rules.delisting(&report.provider),
        addresses,
        authentication,
        class: gravest.map(|(class, ..)| class),
        first_refusal: gravest.map(|(_, first, _)| first),
        last_refusal: gravest.map(|(.., last)| last),
        volume: summary.volume(),
        refused_percent: summary.volume().refused_percent(),
        days: summary.days.iter().map(|(day, volume)| Day { day, volume: *volume }).collect(),
        sources: &summary.sources,
        refusals: &summary.rules,
        changes: summary.changes.iter().collect(),
        changes_before: summary.changes_before,
    };
    if report.format.json {
        output.json(&dossier)?;
    } else {
        for line in lines(&dossier) {
            output.line(&human::clean(&line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lines(dossier: &Dossier<'_>) -> Vec<String> {
    let mut lines = vec![
        format!("Mail to {}: report of {}", dossier.provider, human::date(dossier.time)),
        match dossier.send_to {
            Some(page) => format!("Where to send it: {page}"),
            None => {
                "Where to send it: the refusal itself often names a page, else postmaster at the receiver".to_string()
            }
        },
    ];
    section(&mut lines, "Our sending addresses", dossier.addresses.iter().flat_map(address));
    let domains = dossier.authentication.iter().flat_map(authentication);
    section(&mut lines, "Authentication of the domains that send most", domains);
    let name = dossier.class.map_or("Refusals".to_string(), |class| format!("Refusals ({class}), word for word"));
    let first = dossier.first_refusal.map(|refusal| said("first", refusal));
    let last = dossier.last_refusal.map(|refusal| said("last", refusal));
    section(&mut lines, &name, first.into_iter().chain(last));
    section(&mut lines, "Volume of the last 7 days, by recipient and attempt", volume(dossier));
    section(&mut lines, "All refusals that the log holds, by rule", dossier.refusals.iter().map(by_rule));
    let earlier = (dossier.changes_before > 0).then(|| format!("({} before these)", dossier.changes_before));
    let changes =
        dossier.changes.iter().map(|change| format!("{}  {}  {}", human::date(change.time), change.event, change.text));
    section(&mut lines, "What the relay did", earlier.into_iter().chain(changes));
    lines
}

fn section(lines: &mut Vec<String>, name: &str, content: impl Iterator<Item = String>) {
    lines.extend([String::new(), format!("{name}:")]);
    let before = lines.len();
    lines.extend(content.map(|line| format!("  {line}")));
    if lines.len() == before {
        lines.push("  none".to_string());
    }
}

fn address(address: &Address) -> Vec<String> {
    let shown = address.address.map_or("not known".to_string(), |address| address.to_string());
    vec![
        format!("{shown} (source {}: {})", address.source, address.known_by),
        format!("  PTR:   {}", address.ptr),
        format!("  HELO:  {} -> {}", address.helo.as_deref().unwrap_or("not known"), address.helo_addresses),
    ]
}

fn authentication(found: &Authentication) -> Vec<String> {
    vec![
        format!("{} ({})", found.domain, human::count(found.messages, "attempt")),
        format!("  SPF:   {}", found.spf),
        format!("  DKIM:  {}", found.dkim),
        format!("  DMARC: {}", found.dmarc),
    ]
}

fn said(which: &str, refusal: &Refusal) -> String {
    let host = refusal.mx.as_deref().unwrap_or("the receiver");
    format!("{which}, {} by {host}: {}", human::date(refusal.time), refusal.reply)
}

fn volume(dossier: &Dossier<'_>) -> impl Iterator<Item = String> {
    let row = |name: &str, volume: Volume| {
        format!(
            "{name:<12}{:>12} delivered{:>12} refused{:>8.2} %",
            human::number(volume.delivered),
            human::number(volume.refused),
            volume.refused_percent()
        )
    };
    let mut rows: Vec<String> = dossier.days.iter().map(|day| row(day.day, day.volume)).collect();
    rows.push(row("in all", dossier.volume));
    if dossier.sources.len() > 1 {
        rows.extend(dossier.sources.iter().map(|(source, volume)| row(source, *volume)));
    }
    rows.into_iter()
}

fn by_rule((rule, refusals): (&String, &Refusals)) -> String {
    format!(
        "{rule} ({}): {}, from {} to {}",
        refusals.class,
        human::count(refusals.count, "time"),
        human::date(refusals.first.time),
        human::date(refusals.last.time)
    )
}
