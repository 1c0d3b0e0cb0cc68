//! The text for the form in which a receiver is asked to lift a block.
//!
//! Put together from the configuration, the DNS and the event log; needs no running relay. What is not known is said to be
//! so, for the person who fills the form in knows it or can find it out.

mod host;
mod summary;

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::config::Config;
use crate::event::history;
use crate::route::dns::Dns;
use crate::types::words::{Grouped, count, date};
use crate::types::{Class, Timestamp};
use crate::verdict::Rules;
use host::{Address, Authentication};
use summary::{Change, Refusal, Refusals, Summary, Volume};

/// Sender domains whose authentication is looked up.
const DOMAINS: usize = 5;

/// All that is known.
#[derive(Debug)]
pub struct Report {
    provider: String,
    time: Timestamp,
    send_to: Option<String>,
    addresses: Vec<Address>,
    authentication: Vec<Authentication>,
    summary: Summary,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Dossier<'a> {
    provider: &'a str,
    time: Timestamp,
    /// The page of the receiver's form; null if none is known.
    send_to: Option<&'a str>,
    addresses: &'a [Address],
    authentication: &'a [Authentication],
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

/// Reads the log, which may be long, and asks the DNS.
pub async fn report(
    provider: &str,
    config: &Config,
    rules: &Rules,
    dns: &dyn Dns,
    now: Timestamp,
) -> anyhow::Result<Report> {
    let (folder, name): (PathBuf, String) = (config.data_dir.join("events"), provider.to_string());
    let read = tokio::task::spawn_blocking(move || {
        let mut summary = Summary::new(now);
        let read = history::of_provider(&folder, &name, |line| summary.add(line));
        read.map(|()| summary).with_context(|| format!("cannot read the event log in {}", folder.display()))
    });
    let summary = read.await??;
    let domains = summary.domains(DOMAINS);
    let (addresses, authentication) =
        tokio::join!(host::addresses(config, dns), host::authentication(&domains, config, dns));
    let send_to = rules.delisting(provider).map(str::to_string);
    Ok(Report { provider: provider.to_string(), time: now, send_to, addresses, authentication, summary })
}

impl Report {
    /// The log tells nothing of such a provider.
    pub fn is_empty(&self) -> bool {
        self.summary.is_empty()
    }

    /// For programs.
    pub fn json(&self) -> impl Serialize + '_ {
        self.dossier()
    }

    /// For people, and for the form.
    pub fn lines(&self) -> Vec<String> {
        lines(&self.dossier())
    }

    fn dossier(&self) -> Dossier<'_> {
        let summary = &self.summary;
        let gravest = summary.gravest();
        Dossier {
            provider: &self.provider,
            time: self.time,
            send_to: self.send_to.as_deref(),
            addresses: &self.addresses,
            authentication: &self.authentication,
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
        }
    }
}

fn lines(dossier: &Dossier<'_>) -> Vec<String> {
    let mut lines = vec![
        format!("Mail to {}: report of {}", dossier.provider, date(dossier.time)),
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
        dossier.changes.iter().map(|change| format!("{}  {}  {}", date(change.time), change.event, change.text));
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
        format!("{} ({})", found.domain, count(found.messages, "attempt")),
        format!("  SPF:   {}", found.spf),
        format!("  DKIM:  {}", found.dkim),
        format!("  DMARC: {}", found.dmarc),
    ]
}

fn said(which: &str, refusal: &Refusal) -> String {
    let host = refusal.mx.as_deref().unwrap_or("the receiver");
    format!("{which}, {} by {host}: {}", date(refusal.time), refusal.reply)
}

fn volume(dossier: &Dossier<'_>) -> impl Iterator<Item = String> {
    let row = |name: &str, volume: Volume| {
        format!(
            "{name:<12}{:>12} delivered{:>12} refused{:>8.2} %",
            Grouped(volume.delivered).to_string(),
            Grouped(volume.refused).to_string(),
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
        count(refusals.count, "time"),
        date(refusals.first.time),
        date(refusals.last.time)
    )
}
