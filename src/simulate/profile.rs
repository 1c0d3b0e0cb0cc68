//! What a simulated receiver is like: its limits, words, delays, mailboxes and hosts, and how they change with time.
//!
//! Written in TOML; every key has a default, an unknown one is an error, and the default as a whole is a receiver without limits
//! that answers at once. `docs/simulate.md` says each key for people.

use serde::{Deserialize, Serialize};

use super::words::{Wording, Words};
use crate::types::nearest::nearest_of_error;
use crate::types::{ByteSize, Span, Timestamp};

/// Hosts, changes and troubles of a profile: more is a mistake.
const ENTRIES_MAX: usize = 1000;
/// A limit is multiplied by no more than this.
const SCALE_MAX: f64 = 1000.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Largest message taken; offered as SIZE.
    pub message_size: ByteSize,
    /// Where rates, reputation and blocks are said: `mail`, as mostly seen, or already at `connect`.
    pub refuses_at: Stage,
    /// Names without a dot are refused at EHLO: `501 5.5.4 Invalid domain name`.
    pub strict_helo: bool,
    pub limits: Limits,
    pub words: Words,
    pub latency: Latency,
    pub reputation: Reputation,
    pub mailboxes: Mailboxes,
    /// MX hosts with more to say about them than "it works"; hosts not named here are up.
    pub host: Vec<Host>,
    /// What changes at which time after the start, in order.
    pub change: Vec<Change>,
    pub trouble: Vec<Trouble>,
}

/// How much is taken; none: without limit, 0: nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time, over all hosts and sources.
    pub connections: Option<u32>,
    /// Connections at a time of one source address, over all hosts.
    pub connections_per_source: Option<u32>,
    /// Recipients of one source in any second: for trials that cannot wait for minutes.
    pub per_second: Option<u32>,
    /// Recipients of one source in any 60 seconds.
    pub per_minute: Option<u32>,
    /// Recipients of one source in any 60 minutes.
    pub per_hour: Option<u32>,
    /// Recipients of one source in any 24 hours.
    pub per_day: Option<u32>,
    /// MAIL commands on one connection.
    pub messages_per_connection: Option<u32>,
    /// Recipients of one transaction, before it is split with 452 4.5.3.
    pub recipients_per_message: Option<u32>,
}

/// How long it takes to answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// From the connection to the greeting.
    pub connect: Span,
    /// For each command.
    pub command: Span,
    /// From the end of data to its answer.
    pub data: Span,
    /// Up to this share of each delay more or less, drawn by chance; 0 to 1.
    pub jitter: f64,
}

/// What becomes of those who go on though they were refused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reputation {
    /// Whether pressing on has consequences at all; it is counted in any case.
    pub punishes: bool,
    /// After the first refusal of a series: attempts that were under way already are not held against the sender.
    pub grace: Span,
    /// An attempt refused within this time of the last refusal is pressing on.
    pub quiet: Span,
    /// So many of them, and the source is limited: every message is refused with `words.limited`.
    pub limit_after: u32,
    pub limited: Span,
    /// So many, and it is blocked: every message is refused with `words.block`.
    pub block_after: u32,
    pub blocked: Span,
    /// One is forgotten in this time.
    pub forgives: Span,
}

/// Who does not exist, and whose mailbox is full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mailboxes {
    /// Share of addresses that do not exist, 0 to 1: the same ones for the same seed.
    pub unknown_share: f64,
    /// These do not exist; letter case does not matter.
    pub unknown: Vec<String>,
    pub full_share: f64,
    pub full: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The whole name, or its first label.
    pub name: String,
    pub state: HostState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    #[default]
    Up,
    /// Takes the connection and never says a word.
    Silent,
    /// Nobody listens there.
    Refusing,
}

/// From a moment on, something is different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// After the start.
    pub after: Span,
    /// Rates and connections are this many times those written; 1.0 is as in the beginning.
    pub scale: Option<f64>,
    /// These take the place of those written, as long as nothing else does.
    #[serde(default)]
    pub limits: Limits,
    /// Every source is blocked for this long.
    pub block: Option<Span>,
}

/// A reply that comes now and then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    pub stage: Stage,
    /// How often, 0 to 1.
    pub share: f64,
    pub reply: Wording,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Connect,
    #[default]
    Mail,
    Rcpt,
    Data,
}

/// Why a profile cannot be used; the text says where and what.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("{}{}", .0.to_string().trim_end(), meant(.0))]
    Toml(#[from] toml::de::Error),
    #[error("{key}: {fault}")]
    Value { key: &'static str, fault: String },
}

impl Profile {
    /// Reads TOML. Changes are brought into the order of their times.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let mut profile: Profile = toml::from_str(text)?;
        profile.change.sort_by_key(|change| change.after);
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let share = |key, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(fault(key, format!("{value} is no share: write a number from 0 to 1"))),
        };
        share("latency.jitter", self.latency.jitter)?;
        share("mailboxes.unknown_share", self.mailboxes.unknown_share)?;
        share("mailboxes.full_share", self.mailboxes.full_share)?;
        self.trouble.iter().try_for_each(|trouble| share("trouble.share", trouble.share))?;
        for scale in self.change.iter().filter_map(|change| change.scale) {
            if !(0.0..=SCALE_MAX).contains(&scale) {
                return Err(fault("change.scale", format!("{scale} is not between 0 and {SCALE_MAX}")));
            }
        }
        for (key, entries) in
            [("host", self.host.len()), ("change", self.change.len()), ("trouble", self.trouble.len())]
        {
            if entries > ENTRIES_MAX {
                return Err(fault(key, format!("{entries} entries: at most {ENTRIES_MAX} are read")));
            }
        }
        if self.reputation.forgives.0.is_zero() {
            return Err(fault("reputation.forgives", "0s: write how long one takes to be forgotten".into()));
        }
        Ok(())
    }

    /// What holds at `now` for those whose reputation is good; `start` is when the receiver began.
    pub fn limits_at(&self, start: Timestamp, now: Timestamp) -> Limits {
        let mut limits = self.limits;
        let mut scale = 1.0;
        for change in self.change.iter().take_while(|change| start + change.after.0 <= now) {
            limits = change.limits.over(limits);
            scale = change.scale.unwrap_or(scale);
        }
        limits.scaled(scale)
    }

    /// Until when every source is blocked by the schedule.
    pub fn blocked_until(&self, start: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let blocks = self.change.iter().filter_map(|change| {
            let from = start + change.after.0;
            Some((from, from + change.block?.0))
        });
        blocks.filter(|(from, until)| *from <= now && now < *until).map(|(_, until)| until).max()
    }

    /// When limits or blocks change next.
    pub fn next_change(&self, start: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let moments = self.change.iter().flat_map(|change| {
            let from = start + change.after.0;
            [Some(from), change.block.map(|block| from + block.0)]
        });
        moments.flatten().filter(|moment| *moment > now).min()
    }

    pub(super) fn host_state(&self, name: &str) -> HostState {
        let first_label = name.split('.').next().unwrap_or(name);
        let is_meant = |host: &&Host| [name, first_label].iter().any(|name| host.name.eq_ignore_ascii_case(name));
        self.host.iter().find(is_meant).map_or(HostState::Up, |host| host.state)
    }
}

/// Which key was meant, if one is unknown.
fn meant(error: &toml::de::Error) -> String {
    nearest_of_error(error.message()).map_or(String::new(), |key| format!("\nthe nearest key is `{key}`"))
}

fn fault(key: &'static str, fault: String) -> ProfileError {
    ProfileError::Value { key, fault }
}

impl Limits {
    /// Its own values, else those of `below`.
    fn over(self, below: Limits) -> Limits {
        Limits {
            connections: self.connections.or(below.connections),
            connections_per_source: self.connections_per_source.or(below.connections_per_source),
            per_second: self.per_second.or(below.per_second),
            per_minute: self.per_minute.or(below.per_minute),
            per_hour: self.per_hour.or(below.per_hour),
            per_day: self.per_day.or(below.per_day),
            messages_per_connection: self.messages_per_connection.or(below.messages_per_connection),
            recipients_per_message: self.recipients_per_message.or(below.recipients_per_message),
        }
    }

    /// Rates and connections times `scale`, at least 1 where they were at least 1.
    fn scaled(self, scale: f64) -> Limits {
        let times = |limit: Option<u32>| {
            limit.map(|limit| if scale == 1.0 { limit } else { scaled(limit, scale).max(limit.min(1)) })
        };
        Limits {
            connections: times(self.connections),
            connections_per_source: times(self.connections_per_source),
            per_second: times(self.per_second),
            per_minute: times(self.per_minute),
            per_hour: times(self.per_hour),
            per_day: times(self.per_day),
            ..self
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range first")]
fn scaled(limit: u32, scale: f64) -> u32 {
    (f64::from(limit) * scale).round().clamp(0.0, f64::from(u32::MAX)) as u32
}

const fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            // As the consumer hosts offer it: 49283072.
            message_size: ByteSize(47 << 20),
            refuses_at: Stage::Mail,
            strict_helo: false,
            limits: Limits::default(),
            words: Words::default(),
            latency: Latency::default(),
            reputation: Reputation::default(),
            mailboxes: Mailboxes::default(),
            host: Vec::new(),
            change: Vec::new(),
            trouble: Vec::new(),
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { connect: seconds(0), command: seconds(0), data: seconds(0), jitter: 0.0 }
    }
}

impl Default for Reputation {
    fn default() -> Reputation {
        Reputation {
            punishes: false,
            grace: seconds(10),
            quiet: seconds(60),
            limit_after: 20,
            limited: seconds(30 * 60),
            block_after: 60,
            blocked: seconds(2 * 3600),
            forgives: seconds(5 * 60),
        }
    }
}
