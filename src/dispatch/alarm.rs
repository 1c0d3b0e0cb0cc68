//! What a person should know of: blocks, long pauses, a closed port, mail that is about to expire behind a block.
//!
//! An alert is raised once when its state begins and taken back when it ends; how often it is repeated meanwhile is the
//! business of whoever is told. Each one that is raised is an `alert` in the event log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::doubt::MANY;
use super::lanes::Said;
use super::message::Action;
use crate::queue::Place;
use crate::spool::Change;
use crate::throttle::{EVERYTHING, HoldBegan, LaneName, LaneStatus, Mining, SLOWED_FOR};
use crate::types::words::{Grouped, count_of, span};
use crate::types::{ALL_CLEAR, Alert, DeliveryId, Domain, Event, EventKind, Submitter, Timestamp};

/// A lane that stands still is told of after each of these.
const PAUSE_STEPS: [(Duration, &str); 3] = [
    (Duration::from_secs(15 * 60), "15 min"),
    (Duration::from_secs(4 * 3600), "4 h"),
    (Duration::from_secs(24 * 3600), "24 h"),
];
/// Mail behind a block is about to expire when it has less than this to live.
const EXPIRY_NEAR: Duration = Duration::from_secs(6 * 3600);
/// Deliveries looked at in one search for mail about to expire.
const EXAMINED_MAX: usize = 100_000;
pub(super) const PORT_KEY: &str = "port 25";

/// Whoever may not send from a domain is told again after this, if it is still so.
const HELD_FOR: Duration = Duration::from_secs(3600);
const EXPIRING: &str = "expiring ";
const PAUSED_DOMAIN: &str = "paused mail to ";
const SAME_WORDS_FOR: Duration = Duration::from_secs(86_400);
const IPV6_FOR: Duration = Duration::from_secs(86_400);

pub(super) fn wave_key(id: &str) -> String {
    format!("wave {id}")
}

pub(super) fn blocked_key(lane: &LaneName) -> String {
    format!("blocked {} {}", lane.provider, lane.source)
}

fn ipv6_key(lane: &LaneName) -> String {
    format!("ipv6 {} {}", lane.provider, lane.source)
}

impl Core {
    pub(super) fn raise(&mut self, alert: Alert, now: Timestamp) {
        if !self.raised.insert(alert.key.clone()) {
            return;
        }
        self.raised_at.insert(alert.key.clone(), now);
        let mut event = Event::new(now, EventKind::Alert);
        event.provider = alert.provider.clone();
        event.text = Some(alert.text.clone());
        event.remedy = Some(alert.remedy.clone());
        self.act(Action::Commit(vec![Change::Note(event)]));
        self.act(Action::Alert(alert));
    }

    /// The state is over.
    pub(super) fn over(&mut self, key: &str) {
        self.take_back(key, String::new());
    }

    /// The state is over: told in these words, with how long it lasted.
    pub(super) fn over_with(&mut self, key: &str, words: &str, now: Timestamp) {
        let lasted =
            self.raised_at.get(key).map(|since| format!(" after {}", span(now.since(*since)))).unwrap_or_default();
        self.take_back(key, format!("{ALL_CLEAR}{words}{lasted}"));
    }

    fn take_back(&mut self, key: &str, text: String) {
        if self.raised.remove(key) {
            self.raised_at.remove(key);
            let alert = Alert { key: key.to_string(), raised: false, text, remedy: String::new(), provider: None };
            self.act(Action::Alert(alert));
        }
    }

    /// Whatever the receiver had said about the lane is forgotten.
    pub(super) fn over_for(&mut self, lane: &LaneName, now: Timestamp) {
        let is_held = |key: &str| key.starts_with("held ") && key.ends_with(&format!(" {}", lane.provider));
        let own = [blocked_key(lane), ipv6_key(lane)];
        let keys: Vec<String> = self.raised.iter().filter(|key| own.contains(key) || is_held(key)).cloned().collect();
        let words = format!("{lane}: mail goes again, an operator has what was learned forgotten,");
        for key in keys {
            self.ending_alerts.remove(&key);
            self.over_with(&key, &words, now);
        }
    }

    /// The state goes on, and another alert tells of it from now on.
    fn give_way(&mut self, key: &str, longer: &str) {
        self.take_back(key, format!("{ALL_CLEAR}{key}: it goes on, for over {longer} by now"));
    }

    pub(super) fn raise_block(&mut self, lane: &LaneName, text: &str, said: Option<Said<'_>>, now: Timestamp) {
        let provider = &lane.provider;
        let (mut text, mut remedy) = (text.to_string(), String::new());
        if let Some(Said { reply, reading, .. }) = said {
            let tag = reading.tag.as_ref().map(|tag| format!(" ({tag})")).unwrap_or_default();
            text.push_str(&format!(". {}{tag}. The receiver said: {reply}", reading.cause.trim_end_matches('.')));
            remedy.push_str(&reading.remedy);
            remedy.push(' ');
        }
        remedy.push_str(&format!("`weir report {provider}` writes what the receiver's form asks for."));
        let key = blocked_key(lane);
        self.raise(Alert { key, raised: true, text, remedy, provider: Some(provider.clone()) }, now);
    }

    /// The receiver refuses our IPv6 address; the mail goes over IPv4.
    pub(super) fn raise_ipv6(&mut self, lane: &LaneName, text: &str, said: Option<Said<'_>>, now: Timestamp) {
        let words = said_words(said);
        let alert = Alert {
            key: ipv6_key(lane),
            raised: true,
            text: format!("{text}{words}"),
            remedy: said.map(|said| said.reading.remedy.to_string()).unwrap_or_default(),
            provider: Some(lane.provider.clone()),
        };
        self.raise_until(alert, now + IPV6_FOR, now);
    }

    /// Mail of one of our sender domains is not wanted there.
    pub(super) fn raise_held(
        &mut self,
        lane: &LaneName,
        held: &HoldBegan,
        text: &str,
        said: Option<Said<'_>>,
        now: Timestamp,
    ) {
        let alert = Alert {
            key: format!("held {} {}", held.domain, lane.provider),
            raised: true,
            text: format!("{text}{}", said_words(said)),
            remedy: said.map(|said| said.reading.remedy.to_string()).unwrap_or_default(),
            provider: Some(lane.provider.clone()),
        };
        self.raise_until(alert, held.held.until + HELD_FOR, now);
    }

    pub(super) fn raise_wave(&mut self, lane: &LaneName, id: &str, text: &str, now: Timestamp) {
        let remedy = format!(
            "Look at the list that is being mailed. Are the addresses wrong: weir suppress confirm {id}. Is the receiver wrong: weir suppress remove --wave {id}"
        );
        let provider = Some(lane.provider.clone());
        self.raise(Alert { key: wave_key(id), raised: true, text: text.to_string(), remedy, provider }, now);
    }

    /// One wording refuses everybody there: it is about us, whatever it says.
    pub(super) fn raise_same_words(&mut self, receiver: &Arc<str>, reply: &str, taken_off: usize, now: Timestamp) {
        let undone = match taken_off {
            0 => String::new(),
            1 => " One who was listed for it was taken off the suppression list again.".to_string(),
            n => format!(" {n} who were listed for it were taken off the suppression list again."),
        };
        let alert = Alert {
            key: same_words_key(receiver),
            raised: true,
            text: format!(
                "{receiver} refuses {MANY} different recipients with the same words and takes nobody: \"{reply}\". \
                 That is about us and not about them: nobody is listed for it.{undone}"
            ),
            remedy: "Read the words: they may mean a block, a limit or a policy. `weir pause` keeps further mail from being returned; \
                     a [[provider.rule]] teaches weir to read them (docs/rules.md)."
                .to_string(),
            provider: Some(receiver.clone()),
        };
        self.raise_until(alert, now + SAME_WORDS_FOR, now);
    }

    pub(super) fn same_words_over(&mut self, receiver: &str, now: Timestamp) {
        let key = same_words_key(receiver);
        if self.ending_alerts.remove(&key).is_some() {
            self.over_with(&key, &format!("{receiver}: recipients are taken there again,"), now);
        }
    }

    /// A user or client of ours writes to names that do not exist: it is slowed down and named.
    pub(super) fn raise_mining(&mut self, who: Submitter, mining: &Mining, now: Timestamp) {
        let (text, until) = (mining.to_string(), now + SLOWED_FOR);
        self.act(Action::Slow { who, reason: text.clone(), until });
        let remedy =
            "Find out what it sends and to which list; its mail is taken again ten minutes after the last such hit.";
        let alert = Alert {
            key: format!("mining {}", mining.client),
            raised: true,
            text: format!("{text}; it is slowed down"),
            remedy: remedy.to_string(),
            provider: None,
        };
        self.raise_until(alert, until + SLOWED_FOR, now);
    }

    /// As `raise`, for what ends by itself when it was not heard of again until then.
    fn raise_until(&mut self, alert: Alert, until: Timestamp, now: Timestamp) {
        self.ending_alerts.insert(alert.key.clone(), until);
        self.raise(alert, now);
    }

    /// Looks at everything that comes of itself as time passes.
    pub(super) fn watch(&mut self, now: Timestamp) {
        let ended: Vec<String> =
            self.ending_alerts.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.ending_alerts.remove(&key);
            self.over(&key);
        }
        let stopped = Stopped::new(self.throttle.stopped(now));
        self.watch_pauses(&stopped, now);
        self.watch_paused_domains(now);
        self.watch_expiry(&stopped, now);
        self.watch_restraint(&stopped, now);
        self.watch_port(now);
    }

    fn watch_pauses(&mut self, stopped: &Stopped, now: Timestamp) {
        let key = |lane: &LaneName, step: &str| format!("paused {} {} {step}", lane.provider, lane.source);
        let goes: Vec<LaneName> =
            self.stopped_since.keys().filter(|lane| !stopped.0.contains_key(lane)).cloned().collect();
        for lane in goes {
            let since = self.stopped_since.remove(&lane).unwrap_or(now);
            let words = if *lane.provider == *EVERYTHING {
                "mail goes again".to_string()
            } else {
                format!("{lane}: mail goes again")
            };
            for (_, step) in PAUSE_STEPS {
                let own = key(&lane, step);
                // It had stood for longer than the alert has.
                if let Some(at) = self.raised_at.get_mut(&own) {
                    *at = since.min(*at);
                }
                self.over_with(&own, &words, now);
            }
        }
        for (lane, status) in &stopped.0 {
            let seen = *self.stopped_since.entry(lane.clone()).or_insert(now);
            let since = status.since.unwrap_or(seen);
            let why = status.reason.as_deref().unwrap_or("no reason given");
            let reached = PAUSE_STEPS.iter().rposition(|(after, _)| now.since(since) >= *after);
            if let Some((_, step)) = reached.and_then(|reached| PAUSE_STEPS.get(reached)) {
                let alert = Alert {
                    key: key(lane, step),
                    raised: true,
                    text: format!("{lane}: nothing goes out for over {step}: {why}"),
                    remedy: format!("`weir status` tells more; `weir resume {}` tries it now.", lane.provider),
                    provider: Some(lane.provider.clone()),
                };
                let longest = alert.key.clone();
                self.raise(alert, now);
                // One alert a pause: what was said of the shorter time is not repeated beside it.
                for shorter in PAUSE_STEPS.iter().map(|(_, step)| key(lane, step)).filter(|key| *key != longest) {
                    self.give_way(&shorter, step);
                }
            }
        }
    }

    /// The mail of a domain that an operator has paused and may have forgotten.
    fn watch_paused_domains(&mut self, now: Timestamp) {
        let key = |domain: &str, step: &str| format!("{PAUSED_DOMAIN}{domain} {step}");
        let paused: Vec<(Domain, Timestamp)> =
            self.throttle.domains_paused().map(|(domain, since)| (domain.clone(), since)).collect();
        let is_over = |own: &&String| {
            let domain = own.strip_prefix(PAUSED_DOMAIN).and_then(|rest| rest.split(' ').next());
            domain.is_some_and(|domain| !paused.iter().any(|(paused, _)| paused.as_str() == domain))
        };
        let ended: Vec<String> = self.raised.iter().filter(is_over).cloned().collect();
        ended.iter().for_each(|key| self.over_with(key, "mail of a paused domain goes again", now));
        for (domain, since) in paused {
            let reached = PAUSE_STEPS.iter().rposition(|(after, _)| now.since(since) >= *after);
            let Some((_, step)) = reached.and_then(|reached| PAUSE_STEPS.get(reached)) else { continue };
            let alert = Alert {
                key: key(domain.as_str(), step),
                raised: true,
                text: format!("mail to {domain}: paused by an operator for over {step}"),
                remedy: format!("`weir resume --domain {domain}` lets it go again; it expires as other mail does."),
                provider: None,
            };
            let longest = alert.key.clone();
            self.raise(alert, now);
            let others = PAUSE_STEPS.iter().map(|(_, step)| (key(domain.as_str(), step), step));
            for (shorter, step) in others.filter(|(key, _)| *key != longest) {
                self.give_way(&shorter, step);
            }
        }
    }

    fn watch_expiry(&mut self, stopped: &Stopped, now: Timestamp) {
        let counts = self.about_to_expire(stopped, now);
        let standing: Vec<String> = self.raised.iter().filter(|key| key.starts_with(EXPIRING)).cloned().collect();
        for old in standing {
            if !counts.keys().any(|whom| whom.key() == old) {
                let whom = old.trim_start_matches(EXPIRING).to_string();
                self.over_with(&old, &format!("{whom}: no mail is about to expire there any more,"), now);
            }
        }
        for (whom, count) in counts {
            let hours = EXPIRY_NEAR.as_secs() / 3600;
            let deliveries = count_of(count, "delivery", "deliveries");
            let expire = if count == 1 { "expires" } else { "expire" };
            let alert = Alert {
                key: whom.key(),
                raised: true,
                text: format!("{deliveries} to {whom} {expire} within {hours} hours, and nothing goes out to there"),
                remedy: whom.remedy(),
                provider: whom.provider(),
            };
            self.raise(alert, now);
        }
    }

    /// What nothing is sent of, and has little time left, by whom it waits for.
    fn about_to_expire(&self, stopped: &Stopped, now: Timestamp) -> BTreeMap<Whom, usize> {
        let mut counts = BTreeMap::new();
        let everything = self.throttle.everything_paused().is_some();
        if stopped.0.is_empty() && !everything && self.throttle.domains_paused().next().is_none() {
            return counts;
        }
        let is_near = |id: DeliveryId, lifetime| self.retry.expires(id.message, lifetime) <= now + EXPIRY_NEAR;
        // Ids rise with the time of acceptance.
        let old = self.queue.iter().take_while(|(id, _)| is_near(*id, None)).take(EXAMINED_MAX);
        for (_, entry) in old.filter(|(_, entry)| matches!(entry.place, Place::Ready | Place::Unrouted)) {
            let Some(domain) = self.places.domains.get(entry.domain) else { continue };
            if self.throttle.domain_paused(&domain.name).is_some() {
                *counts.entry(Whom::Domain(domain.name.clone())).or_insert(0) += 1;
                continue;
            }
            let target = domain.target.and_then(|target| self.places.targets.get(target));
            let Some(target) = target.filter(|_| entry.place == Place::Ready) else { continue };
            if everything || stopped.has(&target.provider) {
                *counts.entry(Whom::Provider(target.provider.clone())).or_insert(0) += 1;
            }
        }
        counts
    }

    /// More waits for growth guard or warm-up than they let through in their hour or day: whoever sends should know.
    fn watch_restraint(&mut self, stopped: &Stopped, now: Timestamp) {
        let restrained = self.throttle.restrained(now);
        let mut waiting: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        if !restrained.is_empty() {
            // By domain: what is just asking the DNS again stands in no line.
            for (_, domain) in self.places.domains.iter().filter(|(_, domain)| domain.deliveries > 0) {
                let target = domain.target.and_then(|target| self.places.targets.get(target));
                if let Some(target) = target.filter(|target| restrained.contains_key(&target.provider)) {
                    *waiting.entry(target.provider.clone()).or_default() += domain.deliveries as usize;
                }
            }
        }
        let key = |provider: &str| format!("held back {provider}");
        let standing = self.raised.iter().filter_map(|key| key.strip_prefix("held back ")).map(str::to_string);
        for provider in standing.collect::<Vec<_>>() {
            let count = waiting.get(&*provider).copied().unwrap_or(0);
            if restrained.get(&*provider).is_none_or(|restraint| count <= restraint.worth) {
                let words = format!("{provider}: no more waits than the growth guard and the warm-up let through,");
                self.over_with(&key(&provider), &words, now);
            }
        }
        for (provider, restraint) in restrained {
            // What a receiver or an operator has stopped does not wait for us.
            let count = waiting.get(&provider).copied().unwrap_or(0);
            if count <= restraint.worth || stopped.has(&provider) {
                continue;
            }
            let done = self.after(&provider, count, now).map_or_else(
                || "when they will be gone cannot be told".to_string(),
                |done| format!("done about {} at this pace", done.about(now)),
            );
            let text = format!("{} wait for {provider}: {done}, because {}", Grouped(count as u64), restraint.because);
            let remedy = format!(
                "Nothing, if the mail may take so long: the volume grows by itself. `weir status` tells more, and \
                 `weir queue reroute --provider {provider}` sends it another way."
            );
            self.raise(Alert { key: key(&provider), raised: true, text, remedy, provider: Some(provider) }, now);
        }
    }

    pub(super) fn watch_port(&mut self, now: Timestamp) {
        if !self.port25.is_shut() {
            return self.over_with(PORT_KEY, "receivers can be reached on port 25 again,", now);
        }
        let alert = Alert {
            key: PORT_KEY.to_string(),
            raised: true,
            text: "no receiver can be reached on port 25: it seems to be closed from this network".to_string(),
            remedy: "Ask the provider to open it for outgoing mail, or set a [[route]].".to_string(),
            provider: None,
        };
        self.raise(alert, now);
    }
}

fn same_words_key(receiver: &str) -> String {
    format!("same words {receiver}")
}

/// The lanes through which nothing goes.
struct Stopped(BTreeMap<LaneName, LaneStatus>);

impl Stopped {
    fn new(lanes: Vec<LaneStatus>) -> Stopped {
        let name = |lane: &LaneStatus| LaneName { provider: lane.provider.clone(), source: lane.source.clone() };
        Stopped(lanes.into_iter().map(|lane| (name(&lane), lane)).collect())
    }

    fn has(&self, provider: &Arc<str>) -> bool {
        let first = LaneName { provider: provider.clone(), source: "".into() };
        self.0.range(first..).next().is_some_and(|(lane, _)| lane.provider == *provider)
    }
}

/// Whose mail is about to expire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Provider(Arc<str>),
    /// An operator has paused it.
    Domain(Domain),
}

impl Whom {
    fn key(&self) -> String {
        format!("{EXPIRING}{self}")
    }

    fn remedy(&self) -> String {
        let (provider, resume) = match self {
            Whom::Provider(provider) => (provider, format!("try the lane (weir resume {provider})")),
            Whom::Domain(domain) => {
                return format!(
                    "`weir resume --domain {domain}` lets it go again; else its senders are told that it did not arrive."
                );
            }
        };
        format!(
            "Send them another way (weir queue reroute --provider {provider} --to HOST:PORT), or {resume}; else their senders are \
             told that they did not arrive."
        )
    }

    fn provider(&self) -> Option<Arc<str>> {
        match self {
            Whom::Provider(provider) => Some(provider.clone()),
            Whom::Domain(_) => None,
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whom::Provider(provider) => f.write_str(provider),
            Whom::Domain(domain) => write!(f, "{domain}"),
        }
    }
}

fn said_words(said: Option<Said<'_>>) -> String {
    said.map(|said| format!(". The receiver said: {}", said.reply)).unwrap_or_default()
}
