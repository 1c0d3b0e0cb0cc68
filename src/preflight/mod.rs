//! Preflight: how much of each sender domain a receiver took today, and when it is time to look whether SPF, DKIM and DMARC speak for that mail.
//!
//! Microsoft refuses what they do not speak for from the 5,000th message of a domain in a day on (`550 5.7.515`), Gmail and Yahoo ask the same: whoever
//! learns it by refusals has lost a campaign. Pure; the server counts, looks at the DNS and tells somebody (`server/preflight`).
//!
//! Rules that always hold:
//! - a domain is looked at early enough: at a fifth of what the receiver allows, and at each further fifth;
//! - what is missing is told from two fifths on, and holds mail (`preflight = "hold"`) from 19/20 on, before the first refusal;
//! - a day ends at midnight UTC, and with it everything that was counted or held for it;
//! - at most 10,000 domains of a receiver are counted; only mail that receivers took counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Preflight, Timestamp};

/// Domains of one receiver.
const DOMAINS_MAX: usize = 10_000;
const DAY_SECS: i64 = 86_400;

/// What one receiver asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Beyond so many recipients in a day; not 0.
    pub from: u32,
    pub mode: Preflight,
}

/// A domain to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub provider: Arc<str>,
    pub domain: String,
}

/// What to do after a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Tell somebody; false: and it was told before, all is well.
    pub alert: bool,
    /// Hold the domain's mail, or go on holding it.
    pub hold: bool,
    /// It is looked at again after a while.
    pub again: bool,
}

#[derive(Debug, Default)]
pub struct Tally {
    day: i64,
    plans: BTreeMap<Arc<str>, (Plan, BTreeMap<String, Count>)>,
    due: Vec<Due>,
}

#[derive(Debug, Default)]
struct Count {
    recipients: u32,
    /// Fifths that were looked at; the last step is 19/20.
    looked: u32,
    is_bad: bool,
}

impl Tally {
    /// What the receivers ask for from now on; what was counted stays.
    pub fn plan(&mut self, plans: impl IntoIterator<Item = (Arc<str>, Plan)>) {
        let mut before = std::mem::take(&mut self.plans);
        let wanted = plans.into_iter().filter(|(_, plan)| plan.from > 0 && plan.mode != Preflight::Off);
        self.plans = wanted
            .map(|(provider, plan)| {
                let counted = before.remove(&provider).map(|(_, counted)| counted).unwrap_or_default();
                (provider, (plan, counted))
            })
            .collect();
    }

    pub fn is_idle(&self) -> bool {
        self.plans.is_empty()
    }

    /// The receiver took a message for one recipient. True: there is a domain to look at.
    pub fn took(&mut self, provider: &str, sender: &str, now: Timestamp) -> bool {
        self.begin_day(now);
        let Some((provider, _)) = self.plans.get_key_value(provider) else { return false };
        let provider = provider.clone();
        let Some((plan, domains)) = self.plans.get_mut(&provider) else { return false };
        let Some(domain) = sender.rsplit_once('@').map(|(_, domain)| domain) else { return false };
        let is_lower = !domain.bytes().any(|octet| octet.is_ascii_uppercase());
        let key: &str = if is_lower { domain } else { &domain.to_ascii_lowercase() };
        if !domains.contains_key(key) {
            if domains.len() >= DOMAINS_MAX || key.starts_with('[') {
                return false;
            }
            domains.insert(key.to_string(), Count::default());
        }
        let Some(count) = domains.get_mut(key) else { return false };
        count.recipients = count.recipients.saturating_add(1);
        let step = plan.step(count.recipients);
        if step <= count.looked {
            return false;
        }
        count.looked = step;
        self.due.push(Due { provider, domain: key.to_string() });
        true
    }

    pub fn take_due(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.due)
    }

    /// How a look ended: `missing`: one of the three does not speak for the domain's mail.
    pub fn looked(&mut self, due: &Due, missing: bool, now: Timestamp) -> Step {
        self.begin_day(now);
        let Some((plan, domains)) = self.plans.get_mut(&due.provider) else { return Step::default() };
        let Some(count) = domains.get_mut(&due.domain) else { return Step::default() };
        count.is_bad = missing;
        let step = plan.step(count.recipients);
        Step {
            alert: missing && step >= 2,
            hold: missing && step >= LAST_STEP && plan.mode == Preflight::Hold,
            again: missing && step >= 2,
        }
    }

    /// Recipients of the domain today, and how many the receiver takes of whatever kind.
    pub fn of(&self, due: &Due) -> Option<(u32, u32)> {
        let (plan, domains) = self.plans.get(&due.provider)?;
        Some((domains.get(&due.domain)?.recipients, plan.from))
    }

    /// What of the last look still stands: nothing on a new day.
    pub fn is_bad(&mut self, due: &Due, now: Timestamp) -> bool {
        self.begin_day(now);
        let domains = self.plans.get(&due.provider).map(|(_, domains)| domains);
        domains.and_then(|domains| domains.get(&due.domain)).is_some_and(|count| count.is_bad)
    }

    fn begin_day(&mut self, now: Timestamp) {
        let day = now.secs().div_euclid(DAY_SECS);
        if self.day != day {
            self.day = day;
            self.due.clear();
            self.plans.values_mut().for_each(|(_, domains)| domains.clear());
        }
    }
}

/// 19/20 of what the receiver allows.
const LAST_STEP: u32 = 5;

impl Plan {
    /// How far a count has come: fifths, and 19/20 as the fifth of them.
    fn step(&self, recipients: u32) -> u32 {
        let (recipients, from) = (u64::from(recipients), u64::from(self.from));
        match recipients * 20 >= from * 19 {
            true => LAST_STEP,
            false => u32::try_from(recipients * 5 / from).unwrap_or(LAST_STEP).min(LAST_STEP - 1),
        }
    }
}

/// When the day of `now` ends.
pub fn day_end(now: Timestamp) -> Timestamp {
    Timestamp::from_secs((now.secs().div_euclid(DAY_SECS) + 1) * DAY_SECS)
}

/// When it began.
pub fn day_start(now: Timestamp) -> Timestamp {
    Timestamp::from_secs(now.secs().div_euclid(DAY_SECS) * DAY_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn tally(mode: Preflight) -> Tally {
        let mut tally = Tally::default();
        tally.plan([("outlook".into(), Plan { from: 5000, mode }), ("other".into(), Plan { from: 0, mode })]);
        tally
    }

    fn due() -> Due {
        Due { provider: "outlook".into(), domain: "shop.example".into() }
    }

    /// Counts up to so many; those at which a look was due.
    fn count(tally: &mut Tally, to: u32) -> Vec<u32> {
        let from = tally.of(&due()).map_or(0, |(recipients, _)| recipients);
        (from + 1..=to).filter(|_| tally.took("outlook", "app@Shop.example", NOON)).collect()
    }

    #[test]
    fn a_domain_is_looked_at_at_each_fifth_and_before_the_end() {
        let mut tally = tally(Preflight::Alert);
        assert_eq!(count(&mut tally, 20_000), [1000, 2000, 3000, 4000, 4750]);
        assert_eq!(tally.take_due(), vec![due(); 5]);
        assert!(!tally.took("other", "app@shop.example", NOON), "who asks for nothing is not counted for");
        assert!(!tally.took("outlook", "", NOON), "reports have no domain");
    }

    #[test]
    fn it_is_told_from_two_fifths_on_and_held_only_where_that_is_wanted() {
        for (mode, holds) in [(Preflight::Alert, false), (Preflight::Hold, true)] {
            let mut tally = tally(mode);
            count(&mut tally, 1000);
            assert_eq!(tally.looked(&due(), true, NOON), Step::default(), "early enough to say nothing");
            count(&mut tally, 2000);
            assert_eq!(tally.looked(&due(), true, NOON), Step { alert: true, hold: false, again: true });
            count(&mut tally, 4749);
            assert!(!tally.looked(&due(), true, NOON).hold);
            count(&mut tally, 4750);
            assert_eq!(tally.looked(&due(), true, NOON), Step { alert: true, hold: holds, again: true });
            assert!(tally.is_bad(&due(), NOON));
            assert_eq!(tally.looked(&due(), false, NOON), Step::default(), "well again");
        }
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let mut tally = tally(Preflight::Hold);
        count(&mut tally, 5000);
        tally.looked(&due(), true, NOON);
        let midnight = day_end(NOON);
        assert_eq!((midnight.secs() % 86_400, day_start(midnight)), (0, midnight));
        assert!(!tally.is_bad(&due(), midnight));
        assert!(!tally.took("outlook", "app@shop.example", midnight) && tally.take_due().is_empty());
        assert_eq!(tally.of(&due()), Some((1, 5000)));
    }

    #[test]
    fn another_plan_keeps_what_was_counted_and_none_counts_nothing() {
        let mut tally = tally(Preflight::Alert);
        count(&mut tally, 900);
        tally.plan([("outlook".into(), Plan { from: 1000, mode: Preflight::Hold })]);
        assert_eq!(tally.of(&due()), Some((900, 1000)));
        assert!(tally.took("outlook", "app@shop.example", NOON), "late, but before it is too late");
        tally.plan([("outlook".into(), Plan { from: 1000, mode: Preflight::Off })]);
        assert!(tally.is_idle() && !tally.took("outlook", "app@shop.example", NOON));
    }

    #[test]
    fn strangers_fill_no_memory() {
        let mut tally = tally(Preflight::Alert);
        for n in 0..DOMAINS_MAX + 10 {
            tally.took("outlook", &format!("a@d{n}.example"), NOON);
        }
        assert_eq!(tally.plans["outlook"].1.len(), DOMAINS_MAX);
    }
}
