//! What a simulated receiver is like: its limits, words, delays, mailboxes and hosts, and how they change with time.
//!
//! Written in TOML; every key has a default, an unknown one is an error, and the default as a whole is a receiver without limits
//! that answers at once. `docs/simulate.md` says each key for people.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::{WindowKind, WindowLimit};
use super::words::{Wording, Words};
use crate::types::nearest::nearest_of_error;
use crate::types::{ByteSize, Span, Timestamp};

/// Hosts, changes (repeated ones one by one) and troubles of a profile: more is a mistake.
const ENTRIES_MAX: usize = 1000;
/// Windows that hold together.
const WINDOWS_MAX: usize = 20;
/// A window is not shorter than this, and not longer than a month.
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(31 * 86_400);
/// A limit is multiplied by no more than this.
const SCALE_MAX: f64 = 1000.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Largest message taken; offered as SIZE.
    pub message_size: ByteSize,
    /// Where rates, reputation and blocks are said: `mail`, as mostly seen, already at `connect`, at `rcpt`, or only when the content
    /// is there (`data`).
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Windows of any other length or kind, all of which hold together with the rates above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Vec<WindowLimit>>,
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
    /// A refusal for a rate is followed by so long a time in which every message is refused, with `words.rate`; each refusal
    /// within it doubles it. None: no penalties.
    pub penalty: Option<Span>,
    /// It grows no longer than this.
    pub penalty_max: Span,
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
    /// It comes again after each such time …
    #[serde(default)]
    pub every: Option<Span>,
    /// … so often in all.
    #[serde(default)]
    pub times: Option<u32>,
    /// Rates and connections are this many times those written; 1.0 is as in the beginning.
    #[serde(default)]
    pub scale: Option<f64>,
    /// The scale that holds is multiplied by this.
    #[serde(default)]
    pub factor: Option<f64>,
    /// These take the place of those written, as long as nothing else does.
    #[serde(default)]
    pub limits: Limits,
    /// Every source is blocked for this long.
    #[serde(default)]
    pub block: Option<Span>,
    /// These troubles take the place of those before.
    #[serde(default)]
    pub trouble: Option<Vec<Trouble>>,
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
        profile.repeat_changes()?;
        profile.change.sort_by_key(|change| change.after);
        profile.check()?;
        Ok(profile)
    }

    /// The same with a share of all messages refused at MAIL by chance, on top of what the profile says: half of them with its
    /// words for a rate, half by a server that is busy. No real receiver is without.
    pub fn with_noise(mut self, share: f64) -> Profile {
        let replies = [self.words.rate.clone(), Wording::busy()];
        let noise = replies.map(|reply| Trouble { stage: Stage::Mail, share: share / 2.0, reply });
        let added = noise.iter().filter(|trouble| trouble.share > 0.0);
        let changed = self.change.iter_mut().filter_map(|change| change.trouble.as_mut());
        changed.chain([&mut self.trouble]).for_each(|troubles| troubles.extend(added.clone().cloned()));
        self
    }

    /// Writes each change that comes again once for each time.
    fn repeat_changes(&mut self) -> Result<(), ProfileError> {
        let times = |change: &Change| match (change.every, change.times) {
            (None, None) => Ok(1),
            (Some(every), Some(times)) if !every.0.is_zero() && times > 0 => Ok(times),
            _ => Err(fault("change.every", "write `every` and `times` together, each above 0".into())),
        };
        let mut all = 0_usize;
        for change in &self.change {
            all = all.saturating_add(times(change)? as usize);
        }
        at_most("change", all)?;
        let written = std::mem::take(&mut self.change);
        for change in written {
            let every = change.every.map_or(Duration::ZERO, |every| every.0);
            for time in 0..times(&change)? {
                let after = Span(change.after.0.saturating_add(every.saturating_mul(time)));
                self.change.push(Change { after, every: None, times: None, ..change.clone() });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ProfileError> {
        let share = |key, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(fault(key, format!("{value} is no share: write a number from 0 to 1"))),
        };
        share("latency.jitter", self.latency.jitter)?;
        share("mailboxes.unknown_share", self.mailboxes.unknown_share)?;
        share("mailboxes.full_share", self.mailboxes.full_share)?;
        let changed = self.change.iter().filter_map(|change| change.trouble.as_ref());
        changed.chain([&self.trouble]).flatten().try_for_each(|trouble| share("trouble.share", trouble.share))?;
        for (key, scale) in
            self.change.iter().flat_map(|change| [("change.scale", change.scale), ("change.factor", change.factor)])
        {
            if scale.is_some_and(|scale| !(0.0..=SCALE_MAX).contains(&scale)) {
                let scale = scale.unwrap_or_default();
                return Err(fault(key, format!("{scale} is not between 0 and {SCALE_MAX}")));
            }
        }
        at_most("host", self.host.len())?;
        at_most("trouble", self.trouble.len())?;
        self.all_limits().try_for_each(Limits::check)?;
        if self.reputation.forgives.0.is_zero() {
            return Err(fault("reputation.forgives", "0s: write how long one takes to be forgotten".into()));
        }
        if self.reputation.penalty.is_some_and(|penalty| penalty.0.is_zero()) {
            return Err(fault("reputation.penalty", "0s: leave it out, or write how long the first one is".into()));
        }
        Ok(())
    }

    /// Those of the beginning and of every change.
    fn all_limits(&self) -> impl Iterator<Item = &Limits> {
        self.change.iter().map(|change| &change.limits).chain([&self.limits])
    }

    /// How long anything counted can matter.
    pub(super) fn looks_back(&self) -> Duration {
        let spans = self.all_limits().flat_map(|limits| limits.windows().into_iter().map(|window| window.span.0));
        spans.max().unwrap_or(Duration::ZERO)
    }

    /// What holds at `now` for those whose reputation is good; `start` is when the receiver began.
    pub fn limits_at(&self, start: Timestamp, now: Timestamp) -> Limits {
        let mut limits = self.limits.clone();
        let mut scale = 1.0;
        for change in self.change.iter().take_while(|change| start + change.after.0 <= now) {
            limits = change.limits.over(limits);
            scale = change.scale.unwrap_or(scale) * change.factor.unwrap_or(1.0);
        }
        limits.scaled(scale)
    }

    /// What goes wrong by chance at `now`.
    pub fn troubles_at(&self, start: Timestamp, now: Timestamp) -> &[Trouble] {
        let changes = self.change.iter().take_while(|change| start + change.after.0 <= now);
        changes.filter_map(|change| change.trouble.as_ref()).last().unwrap_or(&self.trouble)
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

fn at_most(key: &'static str, entries: usize) -> Result<(), ProfileError> {
    match entries > ENTRIES_MAX {
        true => Err(fault(key, format!("{entries} entries: at most {ENTRIES_MAX} are read"))),
        false => Ok(()),
    }
}

impl Limits {
    /// Every window of time, those of the `per_…` keys last, each at the same place as long as the profile does not change.
    pub fn windows(&self) -> Vec<WindowLimit> {
        let mut windows = self.window.clone().unwrap_or_default();
        let rates = [(1, self.per_second), (60, self.per_minute), (3600, self.per_hour), (86_400, self.per_day)];
        let sliding = |(span, count): (u64, Option<u32>)| Some(WindowLimit::sliding(count?, Duration::from_secs(span)));
        windows.extend(rates.into_iter().filter_map(sliding));
        windows
    }

    fn check(&self) -> Result<(), ProfileError> {
        let windows = self.window.as_deref().unwrap_or_default();
        if windows.len() > WINDOWS_MAX {
            return Err(fault("limits.window", format!("{} entries: at most {WINDOWS_MAX} are read", windows.len())));
        }
        for window in windows {
            if !(WINDOW_MIN..=WINDOW_MAX).contains(&window.span.0) {
                return Err(fault("limits.window.span", "write a time from 1s to 31d".into()));
            }
            match (window.kind, window.depth) {
                (WindowKind::Bucket, None | Some(0)) => {
                    return Err(fault("limits.window.depth", "a bucket needs one, at least 1".into()));
                }
                (WindowKind::Sliding | WindowKind::Clock, Some(_)) => {
                    return Err(fault("limits.window.depth", "only a window of kind = \"bucket\" has one".into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its own values, else those of `below`.
    fn over(&self, below: Limits) -> Limits {
        Limits {
            connections: self.connections.or(below.connections),
            connections_per_source: self.connections_per_source.or(below.connections_per_source),
            per_second: self.per_second.or(below.per_second),
            per_minute: self.per_minute.or(below.per_minute),
            per_hour: self.per_hour.or(below.per_hour),
            per_day: self.per_day.or(below.per_day),
            messages_per_connection: self.messages_per_connection.or(below.messages_per_connection),
            recipients_per_message: self.recipients_per_message.or(below.recipients_per_message),
            window: self.window.clone().or(below.window),
        }
    }

    /// Rates and connections times `scale`, at least 1 where they were at least 1.
    fn scaled(mut self, scale: f64) -> Limits {
        let one = |limit: u32| if scale == 1.0 { limit } else { scaled(limit, scale).max(limit.min(1)) };
        let times = |limit: Option<u32>| limit.map(one);
        for window in self.window.iter_mut().flatten() {
            (window.count, window.depth) = (one(window.count), times(window.depth));
        }
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
    Span(Duration::from_secs(seconds))
}

/// A change that changes nothing, at the start.
impl Default for Change {
    fn default() -> Change {
        let (every, times, scale, factor, block, trouble) = (None, None, None, None, None, None);
        Change { after: seconds(0), every, times, scale, factor, limits: Limits::default(), block, trouble }
    }
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
            penalty: None,
            penalty_max: seconds(5 * 3600),
        }
    }
}
