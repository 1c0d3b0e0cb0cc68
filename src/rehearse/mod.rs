//! How long a campaign will take: its lanes are played forward from what they have learned.
//!
//! ```text
//! recipients, what waits already -> provider -> its lanes (learned limits, pauses, growth guard, warm-up) -> when it is done
//! ```
//!
//! The lanes are the throttle's own, taken back from where it keeps them, and counted forward as the estimates of `status` are. Where
//! nothing was learned of a receiver its limits cannot be known: then the answer is the soonest it can be, and says so.
//!
//! Pure: what is known comes in, what is told comes out, and nothing is sent.

pub mod plot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::throttle::{Answer, LaneName, LaneStatus, Permit, Throttle};
use crate::types::words::{count, per_minute};
use crate::types::{Priority, Timestamp};

/// What a connection carries in a minute where nothing is known of the receiver: a message a second.
const PRESUMED: f64 = 60.0;
/// A course is told at so many moments.
const POINTS: u64 = 40;

/// Mail that is to be sent.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// By the receiver that takes it.
    pub recipients: BTreeMap<Arc<str>, u64>,
    /// What waits there already.
    pub waiting: BTreeMap<Arc<str>, u64>,
    pub start: Timestamp,
    pub class: Priority,
}

/// How it goes at one receiver.
#[derive(Clone, Debug)]
pub struct Course {
    pub provider: Arc<str>,
    pub recipients: u64,
    /// Of what waited there before, so many go first.
    pub ahead: u64,
    /// When the last one has gone; none: it cannot be told, `held_by` says why.
    pub done: Option<Timestamp>,
    /// What holds it, the first thing first.
    pub held_by: Vec<String>,
    /// Its limits were learned; else the answer is the soonest it can be.
    pub is_learned: bool,
    /// What an urgent message waits meanwhile at most.
    pub urgent: Option<Duration>,
    /// How many of the campaign have gone by then.
    pub points: Vec<(Timestamp, u64)>,
}

/// Plays all of it, each receiver for itself: they do not hold each other up before connections in all run short.
pub fn rehearse(throttle: &mut Throttle, sources: &[Arc<str>], campaign: &Campaign) -> Vec<Course> {
    let providers = campaign.recipients.iter().filter(|(_, recipients)| **recipients > 0);
    providers.map(|(provider, recipients)| course(throttle, sources, campaign, provider, *recipients)).collect()
}

fn course(
    throttle: &mut Throttle,
    sources: &[Arc<str>],
    campaign: &Campaign,
    provider: &Arc<str>,
    recipients: u64,
) -> Course {
    let start = campaign.start;
    // Lanes that do not exist yet come to be, with guard and warm-up, as with the first message; they last as long as the permit.
    let name = |source: &Arc<str>| LaneName { provider: provider.clone(), source: source.clone() };
    let permits: Vec<Permit> = sources
        .iter()
        .filter_map(|source| match throttle.permit(&name(source), true, start) {
            Answer::Granted(permit) => Some(permit),
            _ => None,
        })
        .collect();
    let lanes = throttle.status_of(provider, start);
    let is_learned = throttle.knows_limits(provider);
    let most = throttle.profile(provider).max_connections.min(throttle.max_connections());
    let allowed = lanes.iter().map(|lane| lane.connections_allowed).sum::<usize>();
    let connections = if is_learned { allowed.min(most) } else { most }.max(1);
    let each = connections as f64 * PRESUMED / sources.len().max(1) as f64;
    let forecast = throttle.forecast(provider, start).map(|forecast| forecast.presuming(each));
    let waiting = campaign.waiting.get(provider).copied().unwrap_or(0);
    // Urgent mail goes before all that waits; other mail shares with what is there, and the last of it comes last.
    let ahead = if campaign.class == Priority::High { 0 } else { waiting };
    let done_by = |count: u64| forecast.clone()?.done_by(usize::try_from(count).unwrap_or(usize::MAX), start);
    let done = done_by(ahead + recipients);
    let part = |n: u64| (u128::from(recipients) * u128::from(n)).div_ceil(u128::from(POINTS));
    let part = |n: u64| u64::try_from(part(n)).unwrap_or(u64::MAX);
    let point = |n: u64| Some((done_by(ahead + part(n))?, part(n)));
    let points = if done.is_some() { (1..=POINTS).filter_map(point).collect() } else { Vec::new() };
    let opens = lanes.iter().map(|lane| lane.until.unwrap_or(start)).min().unwrap_or(start);
    let urgent = done.map(|done| {
        let pace = done.since(opens).div_f64((ahead + recipients).max(1) as f64);
        opens.since(start) + pace
    });
    let held_by = held_by(throttle, &lanes, provider, connections, start);
    permits.into_iter().for_each(|permit| throttle.release(permit));
    Course { provider: provider.clone(), recipients, ahead, done, held_by, is_learned, urgent, points }
}

fn held_by(
    throttle: &Throttle,
    lanes: &[LaneStatus],
    provider: &str,
    connections: usize,
    start: Timestamp,
) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let reason = |lane: &LaneStatus| lane.reason.clone().unwrap_or_else(|| lane.state.to_string());
    match lanes.iter().find(|lane| lane.connections_allowed == 0 || lane.until.is_some_and(|until| until > start)) {
        Some(lane) if lane.until.is_none() => reasons.push(format!("{}: {}", lane.state, reason(lane))),
        Some(lane) => {
            let until = lane.until.unwrap_or(start);
            reasons.push(format!("{} until {}: {}", lane.state, until.about(start), reason(lane)));
        }
        None => {}
    }
    let guard = throttle.restraint(provider, start).map(|restraint| restraint.because);
    let rate = lanes.iter().map(|lane| lane.rate_allowed).sum::<Option<f64>>().filter(|_| !lanes.is_empty());
    match (guard, rate) {
        (Some(guard), _) => reasons.push(guard),
        (None, Some(rate)) => {
            let learned = lanes.iter().find_map(|lane| lane.reason.clone()).filter(|_| reasons.is_empty());
            reasons.push(learned.unwrap_or_else(|| format!("at most {}, as learned", per_minute(rate))));
        }
        (None, None) => reasons.push(format!(
            "nothing is known of its limits: {} at once, a message a second on each",
            count(connections, "connection")
        )),
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::{LaneOrder, Profiles};

    const START: Timestamp = Timestamp::from_secs(1_794_960_000);

    fn throttle() -> Throttle {
        Throttle::new(Profiles::new(&[]), 2000, 1)
    }

    fn campaign(provider: &str, recipients: u64) -> Campaign {
        Campaign {
            recipients: [(provider.into(), recipients)].into(),
            waiting: BTreeMap::new(),
            start: START,
            class: Priority::Normal,
        }
    }

    fn only(throttle: &mut Throttle, campaign: &Campaign) -> Course {
        let mut all = rehearse(throttle, &["default".into()], campaign);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_new_address_is_held_by_the_guard_and_that_is_said() {
        let course = only(&mut throttle(), &campaign("outlook", 3000));
        let hours = course.done.unwrap().since(START).as_secs_f64() / 3600.0;
        assert!((1.5..4.0).contains(&hours), "{hours} h");
        assert!(course.held_by[0].contains("growth"), "{:?}", course.held_by);
        assert!(!course.is_learned);
        assert!(course.points.is_sorted() && course.points.len() == 40, "{:?}", course.points);
        assert_eq!(course.points.last(), Some(&(course.done.unwrap(), 3000)));
    }

    #[test]
    fn where_nothing_holds_it_connections_do() {
        let course = only(&mut throttle(), &campaign("mx.small.test", 600));
        assert!(course.done.is_some() && !course.is_learned, "{course:?}");
        let urgent = course.urgent.unwrap();
        assert!(urgent <= course.done.unwrap().since(START), "{urgent:?}");
    }

    #[test]
    fn what_waits_there_goes_first_but_before_no_urgent_mail() {
        let done = |waiting: u64, class| {
            let waiting = [("outlook".into(), waiting)].into();
            only(&mut throttle(), &Campaign { waiting, class, ..campaign("outlook", 1000) }).done.unwrap()
        };
        assert!(done(1000, Priority::Normal) > done(0, Priority::Normal));
        assert_eq!(done(1000, Priority::High), done(0, Priority::Normal));
        assert_eq!(done(1000, Priority::Normal), only(&mut throttle(), &campaign("outlook", 2000)).done.unwrap());
    }

    #[test]
    fn a_pause_by_hand_has_no_end_and_is_named() {
        let mut throttle = throttle();
        throttle.order("outlook", LaneOrder::Pause, START);
        let course = only(&mut throttle, &campaign("outlook", 10));
        assert_eq!((course.done, course.urgent, course.points.len()), (None, None, 0));
        assert!(course.held_by[0].contains("paused"), "{:?}", course.held_by);
    }
}
