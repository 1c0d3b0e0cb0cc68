//! Scenarios: TOML files that say what the receiver is like, what the relay is told of it, and how much mail waits.
//!
//! `docs/drain.md` tells every key. A key nobody knows is an error that names the nearest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use weir::simulate::Profile;
use weir::throttle::options::ProviderOptions;
use weir::types::nearest::nearest_of_error;
use weir::types::{Domain, Span};

use super::arrival::Arrival;
use super::world::{Faults, Mix};

/// As many as a world is meant for; what the core does not keep in memory it reads back.
pub const MESSAGES_MAX: usize = 1_000_000;
const HOURS_MAX: f64 = 24.0 * 30.0;
const SEEDS_DEFAULT: u64 = 3;
/// Domains and MX hosts are given addresses of 10.0.0.0/8; sources those of one /24.
const DOMAINS_MAX: usize = 10_000;
const MX_SETS_MAX: usize = 1_000;
const SOURCES_MAX: usize = 250;
/// Domains of the receiver that says nothing about them, each with an MX host of its own.
const DOMAINS: [&str; 4] = ["outlook.com", "hotmail.com", "live.com", "msn.com"];

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub family: Family,
    pub backlog: Backlog,
    pub mix: Mix,
    pub domains: Vec<Domain>,
    /// MX hosts; domains share them in turn.
    pub mx_sets: usize,
    /// Addresses the relay sends from.
    pub sources: usize,
    pub faults: Faults,
    pub clock: Vec<ClockStep>,
    pub seeds: u64,
    pub relay: ProviderOptions,
    pub receiver: Profile,
}

/// Which targets a scenario is held to; `score` says them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// The first receivers of the bench, and every scenario that says nothing.
    #[default]
    Old,
    /// Windows and buckets of any length, and days.
    Window,
    Day,
    /// Many in a second, and a small backlog.
    Fast,
    /// Refusals by chance.
    Noise,
    /// Limits that change all the time.
    Changing,
    /// Penalties that grow.
    Penalty,
    /// Pressing on is punished.
    Punishes,
    /// Blocks with ordinary mail.
    Block,
    /// Few messages, and a limit.
    Small,
    /// Few messages, and no limit.
    Free,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Old => "old",
            Family::Window => "window",
            Family::Day => "day",
            Family::Fast => "fast",
            Family::Noise => "noise",
            Family::Changing => "changing",
            Family::Penalty => "penalty",
            Family::Punishes => "punishes",
            Family::Block => "block",
            Family::Small => "small",
            Family::Free => "free",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Backlog {
    /// What the receiver could take in that time.
    Time(Duration),
    Messages(usize),
    /// What the receiver could take in the first of these times, arriving evenly over the second.
    Spread(Duration, Duration),
    Arrivals(Vec<Arrival>),
}

/// The relay's clock is set, and from then on goes ahead of the true time, or behind it.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockStep {
    pub after: Span,
    #[serde(default)]
    ahead: Option<Span>,
    #[serde(default)]
    behind: Option<Span>,
}

impl ClockStep {
    pub fn ahead_millis(&self) -> i64 {
        let millis = |span: Option<Span>| span.map_or(0, |span| i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX));
        millis(self.ahead) - millis(self.behind)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default)]
    family: Family,
    hours: Option<f64>,
    messages: Option<usize>,
    #[serde(default)]
    mix: Option<Mix>,
    arrives: Option<Span>,
    #[serde(default)]
    arrival: Vec<Arrival>,
    domains: Option<usize>,
    mx_sets: Option<usize>,
    sources: Option<usize>,
    #[serde(default)]
    faults: Faults,
    #[serde(default)]
    clock: Vec<ClockStep>,
    seeds: Option<u64>,
    #[serde(default)]
    relay: toml::Table,
    receiver: toml::Table,
}

impl Scenario {
    pub fn read(path: &Path) -> anyhow::Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Scenario::parse(&name, &text).with_context(|| format!("{} is no scenario", path.display()))
    }

    pub fn parse(name: &str, text: &str) -> anyhow::Result<Scenario> {
        let file: File = toml::from_str(text).map_err(explained)?;
        let backlog = file.backlog()?;
        let mix = file.mix.unwrap_or(Mix::NORMAL);
        mix.check().map_err(anyhow::Error::msg)?;
        file.faults.check().map_err(anyhow::Error::msg)?;
        let domains = number("domains", file.domains, DOMAINS.len(), DOMAINS_MAX)?;
        Ok(Scenario {
            name: name.into(),
            family: file.family,
            backlog,
            mix,
            mx_sets: number("mx_sets", file.mx_sets, domains.min(MX_SETS_MAX), MX_SETS_MAX.min(domains))?,
            domains: named(domains),
            sources: number("sources", file.sources, 1, SOURCES_MAX)?,
            faults: file.faults,
            clock: file.clock,
            seeds: file.seeds.unwrap_or(SEEDS_DEFAULT).max(1),
            relay: provider(file.relay).map_err(explained).context("[relay]")?,
            receiver: Profile::parse(&toml::to_string(&file.receiver)?).context("[receiver]")?,
            about: file.about,
        })
    }

    /// Do the limits stay as they are?
    pub fn is_steady(&self) -> bool {
        self.receiver.change.is_empty()
    }

    /// Does the receiver block, or may it?
    pub fn may_block(&self) -> bool {
        self.receiver.reputation.punishes || self.receiver.change.iter().any(|change| change.block.is_some())
    }

    /// The largest share of attempts that is refused by chance.
    pub fn noise(&self) -> f64 {
        self.receiver.trouble.iter().map(|trouble| trouble.share).fold(0.0, f64::max)
    }
}

impl File {
    fn backlog(&self) -> anyhow::Result<Backlog> {
        let in_range = |messages: usize| {
            ensure!((1..=MESSAGES_MAX).contains(&messages), "messages = {messages}: at most {MESSAGES_MAX}");
            Ok(messages)
        };
        Ok(match (self.hours, self.messages, &self.arrival[..]) {
            (Some(hours), None, []) => {
                ensure!(hours > 0.0 && hours <= HOURS_MAX, "hours = {hours}: write a number from 0 to {HOURS_MAX}");
                let time = Duration::from_secs_f64(hours * 3600.0);
                self.arrives.map_or(Backlog::Time(time), |over| Backlog::Spread(time, over.0))
            }
            (None, Some(messages), []) => match self.arrives {
                Some(over) => {
                    Backlog::Arrivals(vec![Arrival { messages: in_range(messages)?, over, ..Arrival::at_once(0) }])
                }
                None => Backlog::Messages(in_range(messages)?),
            },
            (None, None, arrivals @ [_, ..]) if self.arrives.is_none() => {
                in_range(arrivals.iter().map(|arrival| arrival.messages).fold(0, usize::saturating_add))?;
                Backlog::Arrivals(arrivals.to_vec())
            }
            _ => bail!("write one of `hours`, `messages` and [[arrival]]; `arrives` belongs to one of the first two"),
        })
    }
}

/// One of the keys that are numbers.
fn number(key: &str, value: Option<usize>, default: usize, most: usize) -> anyhow::Result<usize> {
    let value = value.unwrap_or(default);
    ensure!((1..=most).contains(&value), "{key} = {value}: write a number from 1 to {most}");
    Ok(value)
}

fn named(domains: usize) -> Vec<Domain> {
    let known = DOMAINS.iter().map(ToString::to_string);
    let names = known.chain((DOMAINS.len() + 1..).map(|n| format!("d{n}.outlook.test")));
    names.take(domains).map(|name| Domain::parse(&name).expect("a domain of the bench")).collect()
}

/// What the relay is told. By default nothing but whose replies it reads; and the growth guard is off: it is a policy of the
/// sender's own, and what is measured here is how the receiver's limits are found.
fn provider(mut table: toml::Table) -> Result<ProviderOptions, toml::de::Error> {
    table.entry("name").or_insert_with(|| "outlook".into());
    table.entry("growth").or_insert(toml::Value::Float(0.0));
    table.try_into()
}

/// Says which key was meant, if one is unknown.
fn explained(error: toml::de::Error) -> anyhow::Error {
    match nearest_of_error(error.message()).map(str::to_string) {
        Some(key) => anyhow::anyhow!("{}\nthe nearest key is `{key}`", error.to_string().trim_end()),
        None => error.into(),
    }
}

/// All scenario files of a folder, by name.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}
