//! A relay with mail for very many destinations, none of which can be reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::core_tests::{CALM, World, committed};
use super::message::*;
use super::survey::Depth;
use crate::outbound::{OpenError, OpenStage};
use crate::route::{Host, Route};
use crate::spool::{Committed, Stored};
use crate::throttle::LaneOrder;
use crate::types::*;

#[expect(clippy::disallowed_methods, reason = "measures")]
fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

/// Connections in all.
const PLACES: usize = 2000;

/// Nobody answers in it. Its books hold nothing of what waits, so that what the process grows by is the core's.
struct Desert {
    core: Core,
    now: Timestamp,
    ids: Arc<QueueIds>,
    sample: Committed,
    coming: BTreeMap<(Timestamp, u64), Input>,
    sequence: u64,
    opened: usize,
    committed: usize,
    wakes: usize,
    longest: Duration,
}

fn addressed(sample: &Committed, id: QueueId, received: Timestamp, to: &str) -> Committed {
    let mut message = sample.clone();
    message.envelope = Envelope { id, received, ..Envelope::clone(&message.envelope) }.into();
    let delivery = &mut message.deliveries[0];
    delivery.id = DeliveryId { message: id, part: 0 };
    delivery.recipients[0].address = Mailbox::parse(to).unwrap();
    delivery.domain = delivery.recipients[0].address.domain().clone();
    message
}

impl Desert {
    fn new() -> Desert {
        let World { core, now, ids, .. } = World::sized(1, CALM, Vec::new(), PLACES);
        let sample = committed(1, 10);
        Desert {
            core,
            now,
            ids,
            sample,
            coming: BTreeMap::new(),
            sequence: 0,
            opened: 0,
            committed: 0,
            wakes: 0,
            longest: Duration::ZERO,
        }
    }

    /// `each` messages to each of so many domains, each with hosts and a provider of its own.
    fn with_mail(domains: usize, each: usize) -> Desert {
        let mut desert = Desert::new();
        for n in 0..domains {
            let messages = (0..each).map(|k| desert.message_to(&format!("u{k}@many{n}.test"))).collect();
            desert.handle(Input::Accepted(messages));
        }
        desert
    }

    fn message_to(&self, to: &str) -> Committed {
        addressed(&self.sample, self.ids.next(self.now), self.now, to)
    }

    fn handle(&mut self, input: Input) {
        let begin = instant();
        self.core.handle(input, self.now);
        self.longest = self.longest.max(begin.elapsed());
        loop {
            let actions = self.core.actions();
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    fn say_in(&mut self, millis: u64, input: Input) {
        self.sequence += 1;
        self.coming.insert((self.now + Duration::from_millis(millis), self.sequence), input);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve(domain) => {
                let result = Ok(self.route(&domain));
                self.say_in(5, Input::Routed { domain, result });
            }
            Action::Open { connection, .. } => {
                self.opened += 1;
                let error = OpenError { stage: OpenStage::Connect, reply: None, text: "connection refused".into() };
                self.say_in(20, Input::OpenFailed { connection, error });
            }
            Action::Fetch { id } => {
                let stored = self.stored(id).map(|stored| Box::new(Fetched { stored, excerpt: Excerpt::default() }));
                self.say_in(1, Input::Fetched { id, stored });
            }
            Action::Commit(changes) => self.committed += changes.len(),
            _ => {}
        }
    }

    fn route(&self, domain: &Domain) -> Route {
        let host = |n: u8| Host {
            name: format!("mx{n}.{domain}").into(),
            preference: 10,
            addresses: vec![([192, 0, 2, n], 25).into()],
            provider: domain.as_str().into(),
        };
        Route {
            hosts: vec![host(1)],
            valid_until: self.now + Duration::from_secs(300),
            fixed: false,
            limits_named: false,
            access: None,
            demand: None,
            sts: None,
        }
    }

    fn stored(&self, id: DeliveryId) -> Option<Stored> {
        let entry = self.core.queue.get(id)?;
        let domain = &self.core.places.domains.get(entry.domain)?.name;
        let message = self.message_to(&format!("u@{domain}"));
        let envelope = Envelope { id: id.message, ..Envelope::clone(&message.envelope) };
        let delivery = Delivery { id, attempts: entry.attempts, ..message.deliveries[0].clone() };
        Some(Stored { envelope: envelope.into(), delivery, body: message.body })
    }

    fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let next = self.coming.first_key_value().map(|(key, _)| *key);
            let wake = self.core.next_wake().max(self.now);
            if next.map_or(wake, |(at, _)| at.min(wake)) > until {
                break;
            }
            self.wakes += 1;
            match next {
                Some(key) if key.0 <= wake => {
                    self.now = self.now.max(key.0);
                    let input = self.coming.remove(&key).expect("seen above");
                    self.handle(input);
                }
                _ => {
                    self.now = wake;
                    self.handle(Input::Tick);
                }
            }
        }
        self.now = until;
    }
}

/// So many turns or looks in one input are a few milliseconds.
const FEW: usize = 600;

impl World {
    /// One message to each of so many domains with hosts and a provider of their own.
    fn mail_to_many(&mut self, domains: usize) {
        let sample = committed(1, 10);
        let message = |n| addressed(&sample, self.ids.next(self.now), self.now, &format!("u@many{n}.test"));
        let messages: Vec<Committed> = (0..domains).map(message).collect();
        messages.iter().for_each(|message| self.keep(message));
        self.core.handle(Input::Accepted(messages), self.now);
    }

    /// Turns given in the input that takes most of them, from this one until `span` is over.
    fn most_steps_in(&mut self, first: Input, span: Duration) -> usize {
        let until = self.now + span;
        let before = self.core.steps;
        self.core.handle(first, self.now);
        let mut most = self.core.steps - before;
        loop {
            let coming = self.coming.first_key_value().map(|((at, _), _)| *at);
            let next = self.core.next_wake().min(coming.unwrap_or(Timestamp::NEVER)).max(self.now);
            if next > until {
                return most;
            }
            self.now = next;
            let before = self.core.steps;
            match coming {
                Some(_) => self.run(next),
                None => self.core.handle(Input::Tick, next),
            }
            most = most.max(self.core.steps - before);
        }
    }
}

#[test]
fn a_status_that_is_made_in_steps_says_what_one_look_at_everything_says() {
    let mut world = World::sized(50, CALM, Vec::new(), 20);
    for n in 0..40 {
        world.submit("s@sender.test", &[&format!("u@many{n}.test"), "v@own1.test"]);
    }
    world.run_for(Duration::from_secs(20));
    world.order("own", LaneOrder::Pause);
    world.say_in(
        Duration::ZERO,
        Input::LaneDomain { ticket: 8, domain: Domain::parse("many3.test").unwrap(), order: LaneOrder::Pause },
    );
    for n in 30..60 {
        world.submit("s@sender.test", &[&format!("w@many{n}.test")]);
    }
    world.run_for(Duration::from_secs(3));
    let at_once = world.core.snapshot(world.now);
    let (mut survey, mut steps) = (world.core.begin_survey(Depth::All, world.now), 1);
    while !world.core.survey(&mut survey, 7) {
        steps += 1;
    }
    assert!(steps > 10, "{steps}");
    let in_steps = survey.facts().finish();
    assert!(at_once.lanes.len() > 40 && at_once.estimates.len() > 1 && !at_once.paused_domains.is_empty());
    assert_eq!(format!("{in_steps:?}"), format!("{at_once:?}"));
}

#[test]
fn a_status_costs_each_destination_once() {
    let mut world = World::sized(51, CALM, Vec::new(), PLACES);
    world.checks = false;
    world.mail_to_many(3000);
    world.run_for(Duration::from_secs(30));
    world.mail_to_many(3000);
    let places = world.core.places.targets.places() + world.core.places.domains.places();
    let (mut survey, mut steps) = (world.core.begin_survey(Depth::All, world.now), 1);
    while !world.core.survey(&mut survey, 100) {
        steps += 1;
    }
    let lanes = world.core.snapshot(world.now).lanes.len();
    assert!(lanes >= 3000, "{lanes}");
    assert!(steps <= (places + 2 * lanes) / 100 + 8, "{steps} steps for {places} places and {lanes} lanes");
}

#[test]
fn however_many_wait_an_order_is_carried_out_a_few_at_a_time() {
    let mut world = World::sized(52, CALM, Vec::new(), PLACES);
    world.checks = false;
    let pause = |order| Input::LaneAll { ticket: 1, order };
    assert!(world.most_steps_in(pause(LaneOrder::Pause), Duration::ZERO) == 0);
    world.mail_to_many(3000);
    world.run_for(Duration::from_secs(60));
    let most = world.most_steps_in(pause(LaneOrder::Resume { force: true }), Duration::from_secs(30));
    assert!(most <= FEW, "{most} turns in one input");
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.log.len(), 3000);
}

#[test]
fn what_comes_due_at_once_is_taken_a_few_at_a_time() {
    let mut desert = Desert::new();
    let messages: Vec<Committed> = (0..2000).map(|n| desert.message_to(&format!("u@many{n}.test"))).collect();
    desert.core.handle(Input::Accepted(messages), desert.now);
    let asked = desert.core.actions().len();
    assert!((1..=FEW).contains(&asked), "{asked} look-ups in one input");
    assert!(desert.core.next_wake() <= desert.now, "the rest follows at once");
}

#[test]
fn hosts_that_nobody_reaches_are_asked_ever_more_rarely_and_cost_little() {
    let mut desert = Desert::with_mail(100, 10);
    desert.run_for(Duration::from_secs(2 * 3600));
    let before = desert.opened;
    desert.run_for(Duration::from_secs(12 * 3600));
    let each = (desert.opened - before) / 100;
    assert!((20..=32).contains(&each), "each was asked {each} times in 12 hours");
    assert_eq!(desert.core.queue.len(), 1000, "nothing is lost");
    assert_eq!(desert.core.throttle.status(desert.now).len(), 0, "no lane is kept of whom nobody has heard");
    let told = desert.core.snapshot(desert.now);
    assert_eq!(told.lanes.len(), 100, "each has its line all the same");
    assert!(told.waits_for["many7.test"].starts_with("many7.test: no host could be reached; again at "));
    let sizes = (size_of::<super::destination::Target>(), size_of::<super::destination::DomainState>());
    assert!(sizes <= (256, 128), "{sizes:?}");
}

#[test]
fn hosts_that_answer_again_are_asked_soon_the_next_time_they_do_not() {
    let mut world = World::new(53, CALM);
    world.dead_hosts = (1..=3).map(|n| format!("mx{n}.many1.test").as_str().into()).collect();
    world.submit("s@sender.test", &["u@many1.test"]);
    world.run_for(Duration::from_secs(6 * 3600));
    let dead = std::mem::take(&mut world.dead_hosts);
    world.run_for(Duration::from_secs(6 * 3600));
    world.assert_all_ended_once(53);
    world.dead_hosts = dead;
    let id = world.submit("s@sender.test", &["v@many1.test"]);
    world.run_for(Duration::from_secs(30));
    world.dead_hosts.clear();
    world.run_for(Duration::from_secs(90));
    assert_eq!(world.log.last(), Some(&id), "it was asked again after a minute");
}

/// Bytes that the process holds.
fn rss() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What it costs, for those who work on it: `DOMAINS=100000 EACH=10 cargo test --lib -- --ignored --nocapture what_it_costs`.
#[test]
#[ignore = "measures"]
fn what_it_costs() {
    let number = |name: &str, usual: usize| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (domains, each) = (number("DOMAINS", 5000), number("EACH", 1));
    let before = rss();
    let begin = instant();
    let mut desert = Desert::with_mail(domains, each);
    println!("taken in {:?}, {} MiB", begin.elapsed(), (rss() - before) >> 20);
    for minute in 0..number("MINUTES", 30) {
        let begin = instant();
        let (opened, committed, wakes) = (desert.opened, desert.committed, desert.wakes);
        desert.run_for(Duration::from_secs(60));
        println!(
            "minute {minute}: {:?}, {} opened, {} commits, {} wakes, longest {:?}, {} deliveries, {} MiB, {} B a domain",
            begin.elapsed(),
            desert.opened - opened,
            desert.committed - committed,
            desert.wakes - wakes,
            std::mem::take(&mut desert.longest),
            desert.core.queue.len(),
            (rss() - before) >> 20,
            (rss() - before) / domains
        );
    }
    let begin = instant();
    let mut survey = desert.core.begin_survey(Depth::All, desert.now);
    let mut longest = Duration::ZERO;
    loop {
        let begin = instant();
        let is_done = desert.core.survey(&mut survey, 256);
        longest = longest.max(begin.elapsed());
        if is_done {
            break;
        }
    }
    let facts = survey.facts();
    println!("survey: {:?}, the longest step {longest:?}", begin.elapsed());
    let begin = instant();
    println!("forecasts: {} lanes in {:?}", facts.finish().lanes.len(), begin.elapsed());
    for (what, input) in [
        ("pause of everything", Input::LaneAll { ticket: 1, order: LaneOrder::Pause }),
        ("its end", Input::LaneAll { ticket: 2, order: LaneOrder::Resume { force: false } }),
        ("pause of one", Input::Lane { ticket: 3, provider: "many7.test".into(), order: LaneOrder::Pause }),
        (
            "its end",
            Input::Lane { ticket: 4, provider: "many7.test".into(), order: LaneOrder::Resume { force: false } },
        ),
        ("an unknown one", Input::Lane { ticket: 5, provider: "nobody.test".into(), order: LaneOrder::Pause }),
        ("stop", Input::Stop),
    ] {
        let begin = instant();
        desert.handle(input);
        println!("{what}: {:?}", begin.elapsed());
        let begin = instant();
        desert.longest = Duration::ZERO;
        desert.run_for(Duration::from_secs(2));
        println!("  and 2 s after it: {:?}, the longest turn {:?}", begin.elapsed(), desert.longest);
    }
}
