//! What the plots of the page show: counts and states in steps, for an hour, a day and thirty days. Pure: the time comes in.
//!
//! Each span has steps of its own length. A step holds the counts of its time together and of states the mean, of ages the
//! greatest. What was not recorded (the relay did not run) is no zero: it is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::types::{Class, Event, EventKind, Timestamp};

/// How often a sample is taken; each step of a span is so many of them.
pub const SAMPLE_SECS: i64 = 20;
/// Lanes in one point; those beyond have next to no mail.
const LANES_MAX: usize = 24;

/// A stretch of time that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    Hour,
    Day,
    Month,
}

impl Span {
    pub const ALL: [Span; 3] = [Span::Hour, Span::Day, Span::Month];

    /// As it stands in a request.
    pub fn parse(text: &str) -> Option<Span> {
        Some(match text {
            "1h" => Span::Hour,
            "24h" => Span::Day,
            "30d" => Span::Month,
            _ => return None,
        })
    }

    /// Seconds of one step.
    pub fn step_secs(self) -> i64 {
        match self {
            Span::Hour => SAMPLE_SECS,
            Span::Day => 300,
            Span::Month => 7200,
        }
    }

    pub fn steps(self) -> i64 {
        match self {
            Span::Hour => 180,
            Span::Day => 288,
            Span::Month => 360,
        }
    }

    fn step_of(self, at: Timestamp) -> i64 {
        at.secs().div_euclid(self.step_secs())
    }
}

/// Events counted between two samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    accepted: u64,
    delivered: u64,
    deferred: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
    bounced: BTreeMap<String, u64>,
}

impl Tally {
    /// An answer put a message off with its lane.
    pub fn throttled(&mut self, class: Class) {
        *self.throttled.entry(class.as_str().to_string()).or_default() += 1;
    }

    pub fn add(&mut self, event: &Event) {
        let class = || event.class.map_or("other", |class| class.as_str()).to_string();
        match event.kind {
            EventKind::Accepted => self.accepted += 1,
            EventKind::Delivered => self.delivered += 1,
            EventKind::Deferred => *self.deferred.entry(class()).or_default() += 1,
            EventKind::Bounced => *self.bounced.entry(class()).or_default() += 1,
            EventKind::Expired => *self.bounced.entry("expired".to_string()).or_default() += 1,
            _ => {}
        }
    }
}

/// How things stand at the moment of a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Messages in the queue.
    pub queue: u64,
    pub oldest_seconds: f64,
    pub lanes: Vec<LaneState>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaneState {
    pub provider: String,
    pub source: String,
    pub connections: u64,
    pub allowed: u64,
    pub ceiling: u64,
    pub rate: f64,
}

/// One step of a span, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Samples in it.
    n: u32,
    accepted: u64,
    delivered: u64,
    deferred: BTreeMap<String, u64>,
    throttled: BTreeMap<String, u64>,
    bounced: BTreeMap<String, u64>,
    queue: u64,
    oldest: f64,
    lanes: Vec<LanePoint>,
}

/// Sums over the samples, but for the ceiling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LanePoint {
    provider: String,
    source: String,
    n: u32,
    connections: u64,
    allowed: u64,
    ceiling: u64,
    rate: f64,
}

impl Point {
    fn add(&mut self, tally: &Tally, state: &State) {
        self.n += 1;
        self.accepted += tally.accepted;
        self.delivered += tally.delivered;
        add_counts(&mut self.deferred, &tally.deferred);
        add_counts(&mut self.throttled, &tally.throttled);
        add_counts(&mut self.bounced, &tally.bounced);
        self.queue += state.queue;
        self.oldest = self.oldest.max(state.oldest_seconds);
        for lane in &state.lanes {
            self.add_lane(lane);
        }
    }

    fn add_lane(&mut self, lane: &LaneState) {
        let place = self.lanes.iter().position(|known| known.provider == lane.provider && known.source == lane.source);
        let place = match place {
            Some(place) => place,
            None if self.lanes.len() < LANES_MAX => {
                let (provider, source) = (lane.provider.clone(), lane.source.clone());
                self.lanes.push(LanePoint { provider, source, ..LanePoint::default() });
                self.lanes.len() - 1
            }
            None => return,
        };
        let point = &mut self.lanes[place];
        point.n += 1;
        point.connections += lane.connections;
        point.allowed += lane.allowed;
        point.ceiling = lane.ceiling;
        point.rate += lane.rate;
    }
}

fn add_counts(to: &mut BTreeMap<String, u64>, from: &BTreeMap<String, u64>) {
    for (class, count) in from {
        *to.entry(class.clone()).or_default() += count;
    }
}

/// The steps of all spans.
#[derive(Clone, Debug, Default)]
pub struct History {
    spans: [BTreeMap<i64, Point>; 3],
}

impl History {
    /// Takes back what was kept.
    pub fn restore(&mut self, span: Span, step: i64, point: Point) {
        self.spans[span as usize].insert(step, point);
    }

    /// Takes a sample into each span; gives the steps that changed, and forgets those that are too old.
    pub fn add(&mut self, tally: &Tally, state: &State, now: Timestamp) -> Vec<(Span, i64, Point)> {
        let mut changed = Vec::with_capacity(Span::ALL.len());
        for span in Span::ALL {
            let (points, step) = (&mut self.spans[span as usize], span.step_of(now));
            let point = points.entry(step).or_default();
            point.add(tally, state);
            changed.push((span, step, point.clone()));
            // What lies ahead was written by a clock that has been set back since.
            points.retain(|at, _| (step - span.steps() + 1..=step).contains(at));
        }
        changed
    }

    /// The first step of each span that is still kept.
    pub fn kept_from(span: Span, now: Timestamp) -> i64 {
        span.step_of(now) - span.steps() + 1
    }

    /// The plots of a span, as the API gives them: null where nothing was recorded.
    pub fn plots(&self, span: Span, now: Timestamp) -> Value {
        let points = &self.spans[span as usize];
        let (first, last) = (History::kept_from(span, now), span.step_of(now));
        let series = |value: &dyn Fn(&Point) -> Option<f64>| -> Vec<Option<f64>> {
            (first..=last).map(|step| points.get(&step).and_then(value)).collect()
        };
        let by_class = |counts: fn(&Point) -> &BTreeMap<String, u64>| -> BTreeMap<String, Vec<Option<f64>>> {
            let classes: BTreeSet<&String> = points.values().flat_map(|point| counts(point).keys()).collect();
            let of = |class: &String| series(&|point| Some(counts(point).get(class).copied().unwrap_or(0) as f64));
            classes.into_iter().map(|class| (class.clone(), of(class))).collect()
        };
        let named = |point: &Point| {
            point.lanes.iter().map(|lane| (lane.provider.clone(), lane.source.clone())).collect::<Vec<_>>()
        };
        let names: BTreeSet<(String, String)> = points.values().flat_map(named).collect();
        let lanes: Vec<Value> = names
            .iter()
            .map(|(provider, source)| {
                let is_it = |lane: &&LanePoint| lane.provider == *provider && lane.source == *source;
                let of = |value: fn(&LanePoint) -> f64| {
                    series(&|point| point.lanes.iter().find(is_it).map(|lane| value(lane) / f64::from(lane.n.max(1))))
                };
                let ceiling = points.values().rev().find_map(|point| point.lanes.iter().find(is_it)).map(|l| l.ceiling);
                json!({
                    "provider": provider,
                    "source": source,
                    "connections": of(|lane| lane.connections as f64),
                    "allowed": of(|lane| lane.allowed as f64),
                    "ceiling": ceiling,
                    "rate": of(|lane| lane.rate),
                })
            })
            .collect();
        json!({
            "from": Timestamp::from_secs(first * span.step_secs()),
            "step_seconds": span.step_secs(),
            "points": span.steps(),
            "accepted": series(&|point| Some(point.accepted as f64)),
            "delivered": series(&|point| Some(point.delivered as f64)),
            "deferred": by_class(|point| &point.deferred),
            "throttled": by_class(|point| &point.throttled),
            "bounced": by_class(|point| &point.bounced),
            "queue": series(&|point| Some(point.queue as f64 / f64::from(point.n.max(1)))),
            "oldest_seconds": series(&|point| Some(point.oldest)),
            "lanes": lanes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn tally(delivered: usize) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..delivered {
            tally.add(&Event::new(NOON, EventKind::Delivered));
        }
        tally.add(&Event { class: Some(Class::RateLimit), ..Event::new(NOON, EventKind::Deferred) });
        tally.throttled(Class::ConnectionLimit);
        tally
    }

    fn state(queue: u64, connections: u64) -> State {
        let lane = LaneState {
            provider: "outlook".into(),
            source: "a".into(),
            connections,
            allowed: 20,
            ceiling: 500,
            rate: 30.0,
        };
        State { queue, oldest_seconds: queue as f64, lanes: vec![lane] }
    }

    #[test]
    fn a_step_holds_counts_together_and_states_in_the_mean() {
        let mut history = History::default();
        for n in 0..30 {
            history.add(&tally(2), &state(n, n), NOON + Duration::from_secs(n * 20));
        }
        let now = NOON + Duration::from_secs(29 * 20);
        let day = history.plots(Span::Day, now);
        let last = |key: &str| day[key].as_array().unwrap()[286..].to_vec();
        assert_eq!(last("delivered"), [json!(30.0), json!(30.0)]);
        assert_eq!(last("queue"), [json!(7.0), json!(22.0)]);
        assert_eq!(last("oldest_seconds"), [json!(14.0), json!(29.0)]);
        assert_eq!(day["deferred"]["rate-limit"][287], json!(15.0));
        assert_eq!(day["throttled"]["connection-limit"][287], json!(15.0));
        assert_eq!((&day["lanes"][0]["connections"][287], &day["lanes"][0]["ceiling"]), (&json!(22.0), &json!(500)));
        assert_eq!(day["delivered"][0], Value::Null);
        let hour = history.plots(Span::Hour, now);
        assert_eq!((hour["delivered"].as_array().unwrap().len(), &hour["delivered"][179]), (180, &json!(2.0)));
    }

    #[test]
    fn what_is_too_old_or_lies_ahead_is_forgotten() {
        let mut history = History::default();
        history.add(&tally(1), &state(0, 0), NOON + Duration::from_secs(7200));
        history.add(&tally(1), &state(0, 0), NOON);
        assert_eq!(history.spans[0].len(), 1);
        history.add(&tally(1), &state(0, 0), NOON + Duration::from_secs(3580));
        assert_eq!(history.spans[0].len(), 2);
        history.add(&tally(1), &state(0, 0), NOON + Duration::from_secs(3600));
        assert_eq!(history.spans[0].len(), 2);
    }

    #[test]
    fn a_point_comes_back_as_it_was_and_an_unknown_key_harms_nothing() {
        let mut history = History::default();
        let (span, step, point) = history.add(&tally(1), &state(3, 4), NOON).remove(0);
        let text = serde_json::to_string(&point).unwrap();
        let mut again = History::default();
        again.restore(span, step, serde_json::from_str(&text.replacen('{', "{\"new\":1,", 1)).unwrap());
        assert_eq!(again.plots(Span::Hour, NOON), history.plots(Span::Hour, NOON));
    }

    #[test]
    fn lanes_have_a_bound() {
        let mut history = History::default();
        let lane = |n: usize| LaneState { provider: n.to_string(), ..LaneState::default() };
        let state = State { lanes: (0..1000).map(lane).collect(), ..State::default() };
        history.add(&Tally::default(), &state, NOON);
        assert_eq!(history.plots(Span::Hour, NOON)["lanes"].as_array().unwrap().len(), LANES_MAX);
    }
}
