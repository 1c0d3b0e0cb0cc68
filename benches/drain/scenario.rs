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

/// The core keeps so many in memory; more would be read back, and that is the engine's business.
pub const MESSAGES_MAX: usize = 200_000;
const HOURS_MAX: f64 = 24.0 * 30.0;
const SEEDS_DEFAULT: u64 = 3;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub backlog: Backlog,
    pub seeds: u64,
    pub relay: ProviderOptions,
    pub receiver: Profile,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backlog {
    /// What the receiver could take in that time.
    Time(Duration),
    Messages(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    hours: Option<f64>,
    messages: Option<usize>,
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
        let File { about, hours, messages, seeds, relay, receiver } = toml::from_str(text).map_err(explained)?;
        let backlog = match (hours, messages) {
            (Some(hours), None) => {
                ensure!(hours > 0.0 && hours <= HOURS_MAX, "hours = {hours}: write a number from 0 to {HOURS_MAX}");
                Backlog::Time(Duration::from_secs_f64(hours * 3600.0))
            }
            (None, Some(messages)) => {
                ensure!((1..=MESSAGES_MAX).contains(&messages), "messages = {messages}: at most {MESSAGES_MAX}");
                Backlog::Messages(messages)
            }
            _ => bail!("write either `hours` or `messages`"),
        };
        Ok(Scenario {
            name: name.into(),
            about,
            backlog,
            seeds: seeds.unwrap_or(SEEDS_DEFAULT).max(1),
            relay: provider(relay).map_err(explained).context("[relay]")?,
            receiver: Profile::parse(&toml::to_string(&receiver)?).context("[receiver]")?,
        })
    }

    /// Do the limits stay as they are?
    pub fn is_steady(&self) -> bool {
        self.receiver.change.is_empty()
    }
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
