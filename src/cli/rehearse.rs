//! `weir rehearse`: how long a campaign will take, from what the lanes have learned. Sends nothing.
//!
//! What was learned is read from the data folder, beside a running relay too; what waits is asked of the relay, or read from the
//! folder where none runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::config::Config;
use super::output::Output;
use super::table::{self, Column};
use super::{Format, human, offline, relay, usage};
use crate::admin::{Filter, Request, StatusRecord};
use crate::clock::Clock;
use crate::rehearse::{self, Campaign, Course, plot};
use crate::server;
use crate::state;
use crate::throttle::{LaneName, LaneRecord, Profiles, Throttle};
use crate::types::{Domain, Mailbox, Priority, Span, Timestamp};

/// Shares together, in hundredths, may be off by so much: whoever writes thirds is understood.
const SHARES_OFF: f64 = 1.0;
const WHOLE: f64 = 100.0;
/// Domains that are named where their hosts were not found.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("mail").required(true).args(["count", "recipients"])))]
pub(super) struct Rehearse {
    /// So many recipients, shared out by --mix
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Which provider takes what share of them
    #[arg(long, value_name = "PROVIDER=SHARE%,…", value_delimiter = ',', value_parser = share, default_value = "outlook=100%")]
    mix: Vec<(String, f64)>,
    /// Their addresses, one a line; their domains' hosts are looked up in the DNS
    #[arg(long, value_name = "FILE", conflicts_with = "mix")]
    recipients: Option<PathBuf>,
    /// When it begins: a moment (2026-12-01T18:00:00Z) or a wait (2h). Default: now
    #[arg(long, value_name = "TIME")]
    start: Option<Start>,
    /// How urgent it is: high, normal or bulk
    #[arg(long, default_value = "normal")]
    class: Priority,
    /// Draw how it goes into this file (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    At(Timestamp),
    After(Span),
}

impl std::str::FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Start, String> {
        let after = || text.parse().map(Start::After).ok();
        Timestamp::parse_rfc3339(text)
            .map(Start::At)
            .or_else(after)
            .ok_or_else(|| format!("`{text}` is no time: write a moment as 2026-12-01T18:00:00Z, or a wait as 2h"))
    }
}

/// `outlook=60%`
fn share(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("`{text}` is no share: write PROVIDER=SHARE%, for example outlook=60%");
    let (provider, share) = text.split_once('=').ok_or_else(wrong)?;
    let share: f64 = share.strip_suffix('%').unwrap_or(share).trim().parse().map_err(|_| wrong())?;
    let is_fine = !provider.is_empty() && share > 0.0 && share <= WHOLE;
    if is_fine { Ok((provider.trim().to_string(), share)) } else { Err(wrong()) }
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Record<'a> {
    provider: &'a str,
    recipients: u64,
    done: Option<Timestamp>,
    held_by: &'a [String],
    /// False: `done` is the soonest it can be, its limits are not known yet.
    learned: bool,
    /// Seconds that an urgent message waits meanwhile at most.
    urgent_waits: Option<u64>,
}

pub(super) async fn rehearse(rehearse: Rehearse, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let start = match rehearse.start {
        None => now,
        Some(Start::After(wait)) => now + wait.0,
        Some(Start::At(at)) if at >= now => at,
        Some(Start::At(at)) => return Err(usage(format!("--start: {at} is past"))),
    };
    let mut throttle = learned(config, start)?;
    let (recipients, without_hosts) = match &rehearse.recipients {
        Some(file) => by_provider(count_domains(file)?, throttle.providers_by_domain(), config).await?,
        None => {
            let profiles = Profiles::new(&config.settings.provider);
            let names: Vec<&str> = profiles.iter().map(|profile| &*profile.name).collect();
            (shares(rehearse.count.unwrap_or(0), &rehearse.mix, &throttle, &names)?, Vec::new())
        }
    };
    let waiting = waiting(config).await?;
    let campaign = Campaign { recipients, waiting, start, class: rehearse.class };
    let courses = rehearse::rehearse(&mut throttle, &sources(config), &campaign);
    if let Some(file) = &rehearse.plot {
        std::fs::write(file, plot::svg(&courses, start)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if rehearse.format.json {
        for course in &courses {
            output.json(&record(course))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let width = output.width();
    output.text(&told(&courses, &campaign, now, width))?;
    if !without_hosts.is_empty() {
        let count = human::count(without_hosts.len() as u64, "domain");
        let named = without_hosts.iter().take(NAMED_MAX).cloned().collect::<Vec<String>>().join(", ");
        output.line(&format!("\n{count} without hosts that could be found, left out: {named}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn record(course: &Course) -> Record<'_> {
    Record {
        provider: &course.provider,
        recipients: course.recipients,
        done: course.done,
        held_by: &course.held_by,
        learned: course.is_learned,
        urgent_waits: course.urgent.map(|wait| wait.as_secs()),
    }
}

/// The lanes as the last run, or the running relay, has left them in the data folder.
fn learned(config: &Config, now: Timestamp) -> anyhow::Result<Throttle> {
    let settings = &config.settings;
    let mut throttle = Throttle::new(Profiles::new(&settings.provider), settings.delivery.max_connections, 1);
    let warm = settings.source.iter().flat_map(|source| {
        let lane =
            |provider: &String| LaneName { provider: provider.as_str().into(), source: source.name.as_str().into() };
        source.warm_up.iter().map(lane)
    });
    throttle.warm_up(warm.collect());
    let kept = state::read(&config.data_dir).map_err(anyhow::Error::msg)?;
    let record = |record: state::Record| LaneRecord {
        name: LaneName { provider: record.provider.into(), source: record.source.into() },
        state: record.state,
    };
    // What has blanks in place of a provider's name is of no lane (docs/spool.md).
    let of_lanes = kept.into_iter().filter(|record| !record.provider.contains(' '));
    throttle.restore(of_lanes.map(record).collect(), now);
    Ok(throttle)
}

fn sources(config: &Config) -> Vec<Arc<str>> {
    let named: Vec<Arc<str>> = config.settings.source.iter().map(|source| source.name.as_str().into()).collect();
    if named.is_empty() { vec!["default".into()] } else { named }
}

/// What waits, by the provider that takes it.
async fn waiting(config: &Config) -> anyhow::Result<BTreeMap<Arc<str>, u64>> {
    let mut waiting: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    if let Some(mut client) = relay::connect_if_running(config).await? {
        for record in client.all(&Request::Status).await? {
            if let StatusRecord::Lane(lane) = record
                && lane.domain.is_none()
            {
                // It is the provider's, and stands in each of its lanes.
                waiting.insert(lane.provider.as_str().into(), lane.waiting);
            }
        }
    } else if config.data_dir.join("spool.sqlite").exists() {
        let mut each = |record: crate::admin::QueueRecord| {
            if let Some(provider) = record.provider {
                *waiting.entry(provider.as_str().into()).or_default() += 1;
            }
            Ok(())
        };
        offline::queue(&config.data_dir, &Filter::default(), &mut each).await?;
    }
    Ok(waiting)
}

fn shares(
    count: u64,
    mix: &[(String, f64)],
    throttle: &Throttle,
    profiled: &[&str],
) -> anyhow::Result<BTreeMap<Arc<str>, u64>> {
    let whole: f64 = mix.iter().map(|(_, share)| share).sum();
    if (whole - WHOLE).abs() > SHARES_OFF {
        return Err(usage(format!("--mix: the shares make {whole} %, not 100 %")));
    }
    let mut recipients = BTreeMap::new();
    for (provider, share) in mix {
        if !throttle.knows(provider) && !profiled.contains(&provider.as_str()) {
            let known = profiled.join(", ");
            return Err(usage(format!(
                "--mix: no such provider: {provider}; there are {known}, and those of weir status"
            )));
        }
        // A cast from floating point saturates.
        *recipients.entry(provider.as_str().into()).or_default() += (count as f64 * share / whole).round() as u64;
    }
    Ok(recipients)
}

/// How many recipients each domain has.
fn count_domains(file: &Path) -> anyhow::Result<BTreeMap<Domain, u64>> {
    let name = file.display();
    let lines = BufReader::new(File::open(file).with_context(|| format!("cannot read {name}"))?).lines();
    let mut domains = BTreeMap::new();
    for (number, line) in (1..).zip(lines) {
        let line = line.with_context(|| format!("cannot read {name}, line {number}"))?;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let Ok(address) = Mailbox::parse(text.trim_start_matches('<').trim_end_matches('>')) else {
            bail!("{name}, line {number}: `{}` is no address; write one a line", human::clean(text));
        };
        *domains.entry(address.domain().clone()).or_default() += 1;
    }
    if domains.is_empty() {
        bail!("{name}: no address in it; write one a line");
    }
    Ok(domains)
}

/// By the provider of their hosts, and the domains without any.
async fn by_provider(
    domains: BTreeMap<Domain, u64>,
    known: BTreeMap<String, Arc<str>>,
    config: &Config,
) -> anyhow::Result<(BTreeMap<Arc<str>, u64>, Vec<String>)> {
    // Whose domain is in a profile need not be asked for.
    let of_profile = |domain: &Domain| known.get(domain.as_str()).cloned();
    let asked = domains.keys().filter(|domain| of_profile(domain).is_none()).cloned().collect();
    let mut found = server::providers_of(&config.settings, asked).await?;
    let (mut recipients, mut without) = (BTreeMap::new(), Vec::new());
    for (domain, count) in domains {
        match of_profile(&domain).or_else(|| found.remove(&domain)) {
            Some(provider) => *recipients.entry(provider).or_default() += count,
            None => without.push(domain.to_string()),
        }
    }
    Ok((recipients, without))
}

const COLUMNS: [Column; 5] = [
    Column::Left("PROVIDER"),
    Column::Right("RECIPIENTS"),
    Column::Right("AHEAD"),
    Column::Left("DONE"),
    Column::Left("URGENT MAIL WAITS"),
];

fn told(courses: &[Course], campaign: &Campaign, now: Timestamp, width: Option<usize>) -> String {
    let done = |course: &Course| match course.done {
        Some(at) if course.is_learned => at.about(now),
        Some(at) => format!("{} or later", at.about(now)),
        None => "not known".to_string(),
    };
    let row = |course: &Course| {
        vec![
            course.provider.to_string(),
            human::number(course.recipients),
            human::number(course.ahead),
            done(course),
            course.urgent.map(human::span).unwrap_or_default(),
        ]
    };
    let mut text = table::render_within(&COLUMNS, &courses.iter().map(row).collect::<Vec<_>>(), width);
    let lines = |text: &str| human::wrapped(text, width.unwrap_or(usize::MAX)).join("\n") + "\n";
    // Once for all whom it holds.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (course, reason) in courses.iter().flat_map(|course| course.held_by.iter().map(move |reason| (course, reason)))
    {
        match reasons.iter_mut().find(|(said, _)| said == reason) {
            Some((_, providers)) => providers.push(&course.provider),
            None => reasons.push((reason, vec![&course.provider])),
        }
    }
    for (reason, providers) in reasons {
        text.push('\n');
        text.push_str(&lines(&format!("{}: {reason}", providers.join(", "))));
    }
    let last = courses.iter().map(|course| course.done).collect::<Option<Vec<Timestamp>>>();
    let all: u64 = courses.iter().map(|course| course.recipients).sum();
    let end = match last.map(|ends| ends.into_iter().max()) {
        Some(Some(end)) => {
            let took = human::span(end.since(campaign.start));
            let begun = if campaign.start > now {
                format!(" after its start at {}", campaign.start.about(now))
            } else {
                String::new()
            };
            format!("all {}: {took}{begun}, about {}", human::count(all, "recipient"), end.about(now))
        }
        Some(None) => "there is nothing to send".to_string(),
        None => "when all of it is done cannot be told: see above".to_string(),
    };
    text.push('\n');
    text.push_str(&lines(&end));
    if courses.iter().any(|course| !course.is_learned && course.done.is_some()) {
        text.push_str(&lines("\"or later\": nothing was learned of this receiver's limits yet; it may take less"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_wrong_ones_are_named() {
        assert_eq!(share("outlook=60%"), Ok(("outlook".to_string(), 60.0)));
        assert_eq!(share("gmail=12.5"), Ok(("gmail".to_string(), 12.5)));
        for wrong in ["outlook", "=5%", "outlook=0%", "outlook=x", "outlook=101%", "outlook=-1%"] {
            assert!(share(wrong).unwrap_err().contains("PROVIDER=SHARE%"), "{wrong}");
        }
        let throttle = Throttle::new(Profiles::new(&[]), 10, 1);
        let names = ["outlook", "gmail"];
        let mix = |text: &str| text.split(',').map(|part| share(part).unwrap()).collect::<Vec<_>>();
        let made = shares(1000, &mix("outlook=60%,gmail=40%"), &throttle, &names).unwrap();
        assert_eq!(
            made.into_iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>(),
            ["gmail 400", "outlook 600"]
        );
        assert!(shares(1000, &mix("outlook=60%"), &throttle, &names).unwrap_err().to_string().contains("60 %"));
        assert!(shares(9, &mix("outlok=100%"), &throttle, &names).unwrap_err().to_string().contains("there are"));
    }

    #[test]
    fn a_list_is_counted_by_domain_and_a_wrong_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.txt");
        std::fs::write(&file, "# mine\na@Outlook.com\n\n<b@outlook.com>\r\nc@contoso.com\n").unwrap();
        let counted = count_domains(&file).unwrap();
        assert_eq!(
            counted.into_iter().map(|(d, n)| format!("{d} {n}")).collect::<Vec<_>>(),
            ["contoso.com 1", "outlook.com 2"]
        );
        for (text, part) in [("a@b.test\nnobody\n", "line 2: `nobody` is no address"), ("\n", "no address in it")] {
            std::fs::write(&file, text).unwrap();
            assert!(count_domains(&file).unwrap_err().to_string().contains(part));
        }
    }
}
