//! What the event log tells about a provider, summed up line by line.
//!
//! Pure, and of bounded size: however long the log, what is kept of it is a week of counts, one entry for each rule that
//! refused, and the last changes of the lanes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::event::history::Line;
use crate::types::{Class, EventKind, Timestamp};

/// The days for which volume is told.
pub(super) const DAYS: u32 = 7;
/// Rules are few; an operator's own may be more.
const RULES_MAX: usize = 256;
/// Sender domains that are counted; a relay for more of them tells of those it met first.
const DOMAINS_MAX: usize = 1000;
/// Changes of lanes that are told, the last ones.
const CHANGES_MAX: usize = 40;
/// Sources that are counted apart.
const SOURCES_MAX: usize = 256;

/// Attempts and how they ended, one for each recipient and attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Volume {
    pub(super) delivered: u64,
    /// Put off or refused for good by the receiver's own words.
    pub(super) refused: u64,
}

/// A refusal word for word.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Refusal {
    pub(super) time: Timestamp,
    pub(super) reply: String,
    pub(super) mx: Option<String>,
}

/// All refusals that one rule read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Refusals {
    pub(super) class: Class,
    pub(super) count: u64,
    pub(super) first: Refusal,
    pub(super) last: Refusal,
}

/// A lane was slowed, stopped or opened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Change {
    pub(super) time: Timestamp,
    pub(super) event: EventKind,
    pub(super) text: String,
}

/// The story of a provider.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    since: Timestamp,
    now: Timestamp,
    /// By UTC day, as `2026-11-21`.
    pub(super) days: BTreeMap<String, Volume>,
    pub(super) sources: BTreeMap<String, Volume>,
    /// By the rule that read them, over all that the log holds.
    pub(super) rules: BTreeMap<String, Refusals>,
    pub(super) changes: VecDeque<Change>,
    /// Changes before those that are kept.
    pub(super) changes_before: u64,
    domains: BTreeMap<String, u64>,
}

impl Summary {
    pub(super) fn new(now: Timestamp) -> Summary {
        let since = now - Duration::from_secs(u64::from(DAYS) * 86_400);
        Summary {
            since,
            now,
            days: BTreeMap::new(),
            sources: BTreeMap::new(),
            rules: BTreeMap::new(),
            changes: VecDeque::new(),
            changes_before: 0,
            domains: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, line: &Line<'_>) {
        match line.kind {
            EventKind::Delivered => self.count(line, true),
            EventKind::Deferred | EventKind::Bounced if is_receivers_word(line) => {
                self.count(line, false);
                self.refusal(line);
            }
            // What slows the lane counts no attempt of a message: it stands in these events alone.
            EventKind::Throttled | EventKind::Paused if line.reply.is_some() => {
                self.refusal(line);
                self.change(line);
            }
            EventKind::Throttled | EventKind::Blocked | EventKind::Paused | EventKind::Resumed => self.change(line),
            _ => {}
        }
    }

    fn count(&mut self, line: &Line<'_>, delivered: bool) {
        if line.time < self.since || line.time > self.now {
            return;
        }
        let day = line.time.to_string().get(..10).unwrap_or_default().to_string();
        // A week has eight dates at most.
        count_in(&mut self.days, &day, DAYS as usize + 1, delivered);
        count_in(&mut self.sources, line.source.as_deref().unwrap_or("default"), SOURCES_MAX, delivered);
        if let Some((_, domain)) = line.sender.as_deref().and_then(|sender| sender.rsplit_once('@')) {
            let domain = domain.to_ascii_lowercase();
            if self.domains.contains_key(&domain) || self.domains.len() < DOMAINS_MAX {
                *self.domains.entry(domain).or_default() += 1;
            }
        }
    }

    fn refusal(&mut self, line: &Line<'_>) {
        let (Some(class), Some(reply)) = (line.class, line.reply.as_deref()) else { return };
        let rule = line.rule.as_deref().unwrap_or(class.as_str());
        let said = Refusal { time: line.time, reply: reply.to_string(), mx: line.mx.as_deref().map(str::to_string) };
        if let Some(known) = self.rules.get_mut(rule) {
            known.count += 1;
            known.last = said;
        } else if self.rules.len() < RULES_MAX {
            let refusals = Refusals { class, count: 1, first: said.clone(), last: said };
            self.rules.insert(rule.to_string(), refusals);
        }
    }

    fn change(&mut self, line: &Line<'_>) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
            self.changes_before += 1;
        }
        let text = line.text.as_deref().or(line.reply.as_deref()).unwrap_or_default().to_string();
        self.changes.push_back(Change { time: line.time, event: line.kind, text });
    }

    /// What happened in the last week.
    pub(super) fn volume(&self) -> Volume {
        self.days.values().fold(Volume::default(), |sum, day| Volume {
            delivered: sum.delivered + day.delivered,
            refused: sum.refused + day.refused,
        })
    }

    /// The first and the last refusal of the gravest kind: what the receiver is asked about.
    pub(super) fn gravest(&self) -> Option<(Class, &Refusal, &Refusal)> {
        let class = self.rules.values().map(|refusals| refusals.class).min_by_key(|class| rank(*class))?;
        let of_class = || self.rules.values().filter(|refusals| refusals.class == class);
        let first = of_class().map(|refusals| &refusals.first).min_by_key(|refusal| refusal.time)?;
        let last = of_class().map(|refusals| &refusals.last).max_by_key(|refusal| refusal.time)?;
        Some((class, first, last))
    }

    /// The `most` sender domains with the most attempts of the week, those with most first.
    pub(super) fn domains(&self, most: usize) -> Vec<(&str, u64)> {
        let mut domains: Vec<(&str, u64)> = self.domains.iter().map(|(domain, n)| (domain.as_str(), *n)).collect();
        domains.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        domains.truncate(most);
        domains
    }

    pub(super) fn is_empty(&self) -> bool {
        self.days.is_empty() && self.rules.is_empty() && self.changes.is_empty()
    }
}

impl Volume {
    /// Refused attempts of all, in percent.
    pub(super) fn refused_percent(self) -> f64 {
        let all = self.delivered + self.refused;
        if all == 0 { 0.0 } else { self.refused as f64 * 100.0 / all as f64 }
    }
}

fn count_in(counts: &mut BTreeMap<String, Volume>, key: &str, max: usize, delivered: bool) {
    if !counts.contains_key(key) && counts.len() >= max {
        return;
    }
    let volume = counts.entry(key.to_string()).or_default();
    *if delivered { &mut volume.delivered } else { &mut volume.refused } += 1;
}

/// Did a host of the receiver say this? What weir finds itself (no such domain, no answer) has no code in front.
fn is_receivers_word(line: &Line<'_>) -> bool {
    let code = line.reply.as_deref().and_then(|reply| reply.as_bytes().get(..3));
    line.mx.is_some() && code.is_some_and(|code| code.iter().all(u8::is_ascii_digit))
}

/// The graver, the smaller: what stops all mail comes before what stops one message.
fn rank(class: Class) -> usize {
    let order = [
        Class::IpBlock,
        Class::SenderBlock,
        Class::RateLimit,
        Class::ConnectionLimit,
        Class::Authentication,
        Class::Content,
        Class::MessageLimit,
        Class::Protocol,
        Class::Other,
        Class::Temporary,
    ];
    order.iter().position(|&known| known == class).unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_293_220);

    fn line<'a>(kind: EventKind, hours_ago: u64, class: Class, reply: &'a str) -> Line<'a> {
        Line {
            time: NOW - Duration::from_secs(hours_ago * 3600),
            kind,
            sender: Some("news@Example.com".into()),
            provider: Some("outlook".into()),
            source: Some("a".into()),
            mx: Some("mx.example".into()),
            reply: Some(reply.into()),
            class: Some(class),
            rule: Some(class.as_str().into()),
            text: Some("a lane".into()),
        }
    }

    fn summary(lines: &[Line<'_>]) -> Summary {
        let mut summary = Summary::new(NOW);
        lines.iter().for_each(|line| summary.add(line));
        summary
    }

    #[test]
    fn a_week_is_counted_by_day_and_source_and_share() {
        let summary = summary(&[
            line(EventKind::Delivered, 1, Class::Delivered, "250 ok"),
            line(EventKind::Delivered, 2, Class::Delivered, "250 ok"),
            line(EventKind::Deferred, 3, Class::RateLimit, "451 4.7.650 slow"),
            line(EventKind::Bounced, 30, Class::IpBlock, "550 S3150"),
            line(EventKind::Delivered, 24 * 7 + 1, Class::Delivered, "250 ok"),
        ]);
        assert_eq!(summary.volume(), Volume { delivered: 2, refused: 2 });
        assert_eq!(summary.volume().refused_percent(), 50.0);
        assert_eq!(summary.days.len(), 2);
        assert_eq!(summary.sources["a"], Volume { delivered: 2, refused: 2 });
        assert_eq!(summary.domains(5), [("example.com", 4)]);
    }

    #[test]
    fn the_gravest_refusals_are_told_first_and_last_word_for_word() {
        let summary = summary(&[
            line(EventKind::Deferred, 240, Class::RateLimit, "421 RP-001"),
            line(EventKind::Bounced, 230, Class::IpBlock, "550 first S3150"),
            line(EventKind::Bounced, 5, Class::IpBlock, "550 last S3150"),
            line(EventKind::Deferred, 1, Class::RateLimit, "421 RP-001 again"),
        ]);
        let (class, first, last) = summary.gravest().unwrap();
        assert_eq!((class, &*first.reply, &*last.reply), (Class::IpBlock, "550 first S3150", "550 last S3150"));
        assert_eq!(summary.rules["rate-limit"].count, 2);
    }

    #[test]
    fn what_weir_found_itself_is_no_refusal_of_the_receiver() {
        let mut own = line(EventKind::Deferred, 1, Class::Temporary, "the host did not answer");
        let mut unheard = line(EventKind::Bounced, 1, Class::Other, "550 no such domain");
        unheard.mx = None;
        assert!(summary(&[own.clone(), unheard]).is_empty());
        own.kind = EventKind::Expired;
        assert!(summary(&[own]).is_empty());
    }

    #[test]
    fn nothing_grows_with_the_log() {
        let mut summary = Summary::new(NOW);
        for n in 0..3000u64 {
            let (sender, rule, source) = (format!("a@d{n}.example"), format!("r{n}"), format!("s{n}"));
            let mut line = line(EventKind::Bounced, n % 300, Class::Content, "550 no");
            (line.sender, line.rule, line.source) = (Some(sender.into()), Some(rule.into()), Some(source.into()));
            summary.add(&line);
            line.kind = EventKind::Blocked;
            summary.add(&line);
        }
        assert_eq!((summary.rules.len(), summary.sources.len()), (RULES_MAX, summary.sources.len().min(SOURCES_MAX)));
        assert!(summary.days.len() <= 8 && summary.domains.len() <= DOMAINS_MAX);
        assert_eq!((summary.changes.len() as u64 + summary.changes_before), 3000);
        assert_eq!(summary.changes.len(), CHANGES_MAX);
    }
}
