//! A status in the making: the core is walked over a few places at a time, between its other work.
//!
//! ```text
//! Domains   -> what waits, by provider
//! Targets   -> why it does not go, where it is not the lane
//! Lanes     -> a line for each
//! Providers -> those with mail: what a forecast needs; a line where there is no lane yet
//! ```
//!
//! Rules that always hold:
//! - a step looks at so many places at most, whatever there is, so that whoever asks how things stand holds up nothing;
//! - forecasts are made by `Facts::finish`, away from the loop that decides: one may take thousands of steps;
//! - what is told of one place is true at one moment; of two places, at two moments of the walk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::core::Core;
use super::destination::Target;
use super::status::{Estimate, Outlook, Snapshot};
use crate::throttle::LaneName;
use crate::types::Timestamp;

/// Providers whose lanes are played forward, those with most mail; for the others the pace must do.
const PLAYED_MAX: usize = 1000;

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What waits, without lanes and forecasts.
    Counts,
    All,
}

/// A walk over the core that is not over yet.
#[derive(Debug)]
pub struct Survey {
    depth: Depth,
    now: Timestamp,
    stage: Stage,
    /// Before a domain's hosts are known, as after a restart, the profiles know those of the large providers.
    by_domain: BTreeMap<String, Arc<str>>,
    facts: Facts,
    /// So much mail and more: the provider is played forward.
    played_from: usize,
    played: usize,
}

/// Where the walk goes on.
#[derive(Debug)]
enum Stage {
    Domains(usize),
    Targets(usize),
    Lanes(Option<LaneName>),
    Providers(Option<Arc<str>>),
    Done,
}

/// All that was found: the rest is arithmetic.
#[derive(Clone, Debug)]
pub struct Facts {
    now: Timestamp,
    snapshot: Snapshot,
    outlooks: Vec<(Arc<str>, usize, Outlook)>,
}

impl Facts {
    /// Makes the forecasts.
    pub fn finish(self) -> Snapshot {
        let Facts { now, mut snapshot, outlooks } = self;
        snapshot.estimates = outlooks
            .into_iter()
            .map(|(provider, waiting, outlook)| {
                let pace = outlook.pace();
                (provider, Estimate { waiting, pace, empty_at: outlook.after(waiting, now) })
            })
            .collect();
        snapshot
    }
}

impl Survey {
    pub fn facts(self) -> Facts {
        self.facts
    }
}

impl Core {
    pub fn begin_survey(&self, depth: Depth, now: Timestamp) -> Survey {
        let snapshot = Snapshot {
            deliveries: self.queue.len(),
            active: self.queue.active(),
            held: self.queue.held(),
            connections: self.throttle.open(),
            lanes: self.throttle.line_of_everything().into_iter().collect(),
            waiting: BTreeMap::new(),
            waits_for: BTreeMap::new(),
            estimates: BTreeMap::new(),
            port_shut: self.port25.is_shut(),
            paused_domains: Vec::new(),
        };
        Survey {
            depth,
            now,
            stage: Stage::Domains(0),
            by_domain: self.throttle.providers_by_domain(),
            facts: Facts { now, snapshot, outlooks: Vec::new() },
            played_from: 0,
            played: 0,
        }
    }

    /// Looks at `count` places more; true: that was all.
    pub fn survey(&self, survey: &mut Survey, count: usize) -> bool {
        let stage = std::mem::replace(&mut survey.stage, Stage::Done);
        survey.stage = match stage {
            Stage::Domains(from) => self.survey_domains(survey, from, count),
            Stage::Targets(from) => self.survey_targets(survey, from, count),
            Stage::Lanes(after) => self.survey_lanes(survey, after.as_ref(), count),
            Stage::Providers(after) => self.survey_providers(survey, after, count),
            Stage::Done => Stage::Done,
        };
        matches!(survey.stage, Stage::Done)
    }

    fn survey_domains(&self, survey: &mut Survey, from: usize, count: usize) -> Stage {
        for (_, domain) in self.places.domains.slice(from, count).filter(|(_, d)| d.deliveries > 0) {
            let target = domain.target.and_then(|t| self.places.targets.get(t));
            let guess = || survey.by_domain.get(domain.name.as_str()).filter(|_| domain.next_hop.is_none()).cloned();
            let provider = target.map(|target| target.provider.clone()).or_else(guess);
            *survey.facts.snapshot.waiting.entry(provider).or_insert(0) += domain.deliveries as usize;
        }
        let next = from.saturating_add(count);
        match (next < self.places.domains.places(), survey.depth) {
            (true, _) => Stage::Domains(next),
            (false, Depth::Counts) => Stage::Done,
            (false, Depth::All) => Stage::Targets(0),
        }
    }

    fn survey_targets(&self, survey: &mut Survey, from: usize, count: usize) -> Stage {
        let waits_for = &mut survey.facts.snapshot.waits_for;
        let is_down = |target: &Target| target.down_until.is_some_and(|until| until > survey.now);
        let waits = |(_, target): &(u32, &Target)| !target.line.is_empty() || is_down(target);
        for (_, target) in self.places.targets.slice(from, count).filter(waits) {
            if !waits_for.contains_key(&target.provider)
                && let Some(what) = self.line_waits_for(target, survey.now)
            {
                waits_for.insert(target.provider.clone(), what.into());
            }
        }
        let next = from.saturating_add(count);
        match next < self.places.targets.places() {
            true => Stage::Targets(next),
            false => Stage::Lanes(None),
        }
    }

    fn survey_lanes(&self, survey: &mut Survey, after: Option<&LaneName>, count: usize) -> Stage {
        let mut lanes = self.throttle.status_after(after, count, survey.now);
        lanes.iter_mut().for_each(|lane| self.put_in_words(lane, survey.now));
        let last = lanes.last().filter(|_| lanes.len() == count);
        let next = last.map(|lane| LaneName { provider: lane.provider.clone(), source: lane.source.clone() });
        survey.facts.snapshot.lanes.append(&mut lanes);
        if next.is_some() {
            return Stage::Lanes(next);
        }
        survey.facts.snapshot.lanes.append(&mut self.throttle.lines_of_pauses());
        let domains = self.throttle.domains_paused().map(|(name, since)| self.paused_domain(name, since));
        survey.facts.snapshot.paused_domains = domains.collect();
        survey.played_from = least_of_most(survey.facts.snapshot.waiting.values().copied().collect());
        Stage::Providers(None)
    }

    fn survey_providers(&self, survey: &mut Survey, after: Option<Arc<str>>, count: usize) -> Stage {
        let Facts { snapshot: Snapshot { waiting, lanes, .. }, outlooks, .. } = &mut survey.facts;
        let mut last = None;
        // Those whose provider is not known come first of all.
        for (provider, waiting) in waiting.range((Bound::Excluded(after), Bound::Unbounded)).take(count) {
            let Some(provider) = provider else { continue };
            let is_played = *waiting >= survey.played_from && survey.played < PLAYED_MAX;
            survey.played += usize::from(is_played);
            let outlook = self.outlook(provider, is_played, survey.now);
            if !outlook.has_lanes()
                && let Some(source) = self.sources.first()
            {
                lanes.push(self.throttle.line_without_lane(source.lane(provider), survey.now));
            }
            outlooks.push((provider.clone(), *waiting, outlook));
            last = Some(provider.clone());
        }
        if last.is_some() { Stage::Providers(last) } else { Stage::Done }
    }
}

/// The least mail of those providers that have most.
fn least_of_most(mut waiting: Vec<usize>) -> usize {
    if waiting.len() <= PLAYED_MAX {
        return 0;
    }
    let place = waiting.len() - PLAYED_MAX;
    *waiting.select_nth_unstable(place).1
}
