//! One run: a backlog, a receiver, and the relay (or a naive one) between them.

use std::time::Duration;

use anyhow::Context;
use weir::queue::options::Queue as QueueOptions;
use weir::throttle::Profiles;
use weir::types::Span;

use super::arrival::Arrival;
use super::ideal::Ideal;
use super::naive::{self, Policy};
use super::scenario::{Backlog, MESSAGES_MAX, Scenario};
use super::score::{Score, Targets};
use super::trace::Trace;
use super::world::site::{Pace, Watch};
use super::world::{Plan, START, Setting, Site, World};

/// Addresses of each host.
const ADDRESSES: u8 = 2;
/// Connections of the relay to everybody.
const CONNECTIONS_MAX: usize = 2000;
/// What takes so many times as long as the ideal sender is not waited for.
const PATIENCE: f64 = 4.0;
/// A run is looked at so many times in the ideal sender's time, but not more often than each second and not more rarely than each minute.
const LOOKS: u32 = 200;
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(60);

/// What all runs of a scenario have in common.
pub struct Course<'a> {
    pub scenario: &'a Scenario,
    pub messages: usize,
    arrivals: Vec<Arrival>,
    ceiling: usize,
    /// What the ideal sender takes.
    pub best: Duration,
    /// Later than that nobody is waited for.
    end: Duration,
}

impl<'a> Course<'a> {
    pub fn new(scenario: &'a Scenario) -> anyhow::Result<Course<'a>> {
        let ceiling = Profiles::new(std::slice::from_ref(&scenario.relay)).get(&scenario.relay.name).max_connections;
        let mut course =
            Course { scenario, messages: 0, arrivals: Vec::new(), ceiling, best: Duration::ZERO, end: Duration::ZERO };
        course.arrivals = scenario.backlog.arrivals(&mut course.ideal())?;
        course.messages = course.arrivals.iter().map(|arrival| arrival.messages).sum();
        let best = course.ideal().time_for(course.messages).context("the receiver never takes the backlog")?;
        course.best = best;
        course.end = best.mul_f64(PATIENCE) + Duration::from_secs(3600);
        Ok(course)
    }

    pub fn ideal(&self) -> Ideal<'a> {
        Ideal::new(&self.scenario.receiver, Pace::of(&self.scenario.receiver), self.ceiling, self.scenario.sources)
            .with(&self.arrivals)
    }

    fn setting(&self) -> Setting {
        Setting {
            provider: self.scenario.relay.name.as_str().into(),
            profile: self.scenario.receiver.clone(),
            domains: self.scenario.domains.clone(),
            mx_sets: self.scenario.mx_sets,
            addresses: ADDRESSES,
            faults: self.scenario.faults,
        }
    }

    fn score(&self, site: &Site, left: usize) -> Score {
        Score::of(site, self.messages, left, self.ceiling, self.scenario, &mut self.ideal())
    }

    /// The relay's own core.
    pub fn drain(&self, seed: u64, trace: Option<&mut Trace>) -> Score {
        self.play(&mut self.world(seed), trace)
    }

    /// The same, and how long nobody tried.
    pub fn drain_watched(&self, seed: u64) -> (Score, Watch) {
        let mut world = self.world(seed);
        world.sites[0].watch(START);
        let score = self.play(&mut world, None);
        let watch = world.sites[0].watched().expect("it was asked for");
        (score, watch)
    }

    fn world(&self, seed: u64) -> World {
        World::new(Plan {
            sites: vec![self.setting()],
            providers: vec![self.scenario.relay.clone()],
            sources: self.scenario.sources,
            max_connections: CONNECTIONS_MAX,
            // Nothing expires while it is measured.
            queue: QueueOptions { expire: Span(self.end * 2), ..QueueOptions::default() },
            seed,
        })
    }

    fn play(&self, world: &mut World, mut trace: Option<&mut Trace>) -> Score {
        let targets = Targets::of(self.scenario, self.messages, self.best);
        let mut estimates = Estimates { at: targets.estimates_at, said: Vec::new() };
        let look_every = (self.best / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
        self.set_going(world);
        while world.has_mail() && world.now() < START + self.end {
            let next = world.now() + look_every;
            world.run(next);
            estimates.look(world, self.messages);
            if let Some(trace) = &mut trace {
                trace.look(world);
            }
        }
        let mut score = self.score(&world.sites[0], world.left());
        let is_done = score.left == 0 && self.scenario.is_steady();
        score.estimate = is_done.then(|| estimates.off_at_worst(world)).flatten();
        score
    }

    /// Plans what comes from outside: mail, and the clock's steps.
    fn set_going(&self, world: &mut World) {
        for (after, count) in self.arrivals.iter().flat_map(Arrival::batches) {
            world.submit_at(START + after, 0, count, self.scenario.mix);
        }
        for step in &self.scenario.clock {
            world.set_clock_at(START + step.after.0, step.ahead_millis());
        }
    }

    /// A relay as it is found elsewhere.
    pub fn drain_naively(&self, policy: Policy, seed: u64) -> Score {
        let mut site = Site::new(self.setting(), 0, seed, START);
        let left = naive::drain(policy, &mut site, &self.arrivals, START + self.end);
        self.score(&site, left)
    }
}

impl Backlog {
    /// The mail, by the time it comes.
    fn arrivals(&self, ideal: &mut Ideal<'_>) -> anyhow::Result<Vec<Arrival>> {
        let mut taken_in = |span: Duration| {
            let messages = ideal.within(span);
            anyhow::ensure!(
                (1..=MESSAGES_MAX).contains(&messages),
                "the receiver takes {messages} messages in that time; write a number from 1 to {MESSAGES_MAX}"
            );
            Ok(Arrival::at_once(messages))
        };
        Ok(match self {
            Backlog::Messages(messages) => vec![Arrival::at_once(*messages)],
            Backlog::Time(span) => vec![taken_in(*span)?],
            Backlog::Spread(span, over) => vec![Arrival { over: Span(*over), ..taken_in(*span)? }],
            Backlog::Arrivals(arrivals) => arrivals.clone(),
        })
    }
}

/// The receiver has refused something, and the relay has found out what that was about.
fn knows_a_limit(world: &World) -> bool {
    let lanes = world.snapshot().lanes;
    let goes = lanes.iter().all(|lane| matches!(lane.state, "open" | "growing"));
    goes && world.sites[0].judgement().refused.attempts() > 0
}

/// What the relay said about when it will be done, and when it said so.
struct Estimates {
    /// It is asked when these shares of the messages are accepted.
    at: &'static [f64],
    said: Vec<(Duration, Duration)>,
}

impl Estimates {
    fn look(&mut self, world: &World, messages: usize) {
        let wanted = self.at.get(self.said.len()).map(|share| share * messages as f64);
        if wanted.is_some_and(|wanted| world.sites[0].accepted.len() as f64 >= wanted)
            && let Some(left) = world.empty_in(0)
            && knows_a_limit(world)
        {
            self.said.push((world.now().since(START), left));
        }
    }

    /// As a share of what was left to wait; while nothing was refused nobody can know it.
    fn off_at_worst(&self, world: &World) -> Option<f64> {
        let end = world.sites[0].accepted.iter().max()?.since(START);
        let off = self.said.iter().map(|(at, left)| {
            let true_left = end.saturating_sub(*at).as_secs_f64().max(1.0);
            (left.as_secs_f64() - true_left).abs() / true_left
        });
        off.reduce(f64::max)
    }
}
