//! Random receivers, faults and clocks.

use std::time::Duration;

use weir::queue::options::Queue as QueueOptions;
use weir::simulate::{Change, Limits, Profile, Stage, Trouble, Wording};
use weir::throttle::options::ProviderOptions;
use weir::types::{Domain, Span};

use crate::world::{Faults, Mix, Plan, START, Setting, World};

/// Each seed is a world of its own.
const SEEDS: u64 = 12;
const SEEDS_LONG: u64 = 600;
/// Where something stood still once. 53: a lane's rest ended while the one connection of the whole relay was another's.
const FOUND: [u64; 1] = [53];
const MESSAGES: usize = 120;
/// The clock is set so often, by up to so much either way.
const CLOCK_STEPS: usize = 6;
const CLOCK_OFF_MAX: Duration = Duration::from_secs(2 * 3600);
/// Within the time a message is tried.
const END: Duration = Duration::from_secs(3 * 86_400);

struct Chance(fastrand::Rng);

impl Chance {
    fn maybe(&mut self, least: u32, most: u32) -> Option<u32> {
        self.0.bool().then(|| self.0.u32(least..=most))
    }

    fn span(&mut self, most_millis: u64) -> Span {
        Span(Duration::from_millis(self.0.u64(0..=most_millis)))
    }

    fn share(&mut self, most: f64) -> f64 {
        if self.0.bool() { self.0.f64() * most } else { 0.0 }
    }

    fn limits(&mut self) -> Limits {
        Limits {
            connections_per_source: self.maybe(1, 30),
            per_minute: self.maybe(5, 200),
            per_hour: self.maybe(60, 2000),
            messages_per_connection: self.maybe(1, 20),
            ..Limits::default()
        }
    }

    fn change(&mut self) -> Change {
        let after = self.span(6 * 3_600_000);
        match self.0.u8(0..3) {
            0 => Change { after, scale: Some(self.0.f64() + 0.1), ..Change::default() },
            1 => Change { after, limits: self.limits(), ..Change::default() },
            _ => Change { after, block: Some(self.span(3_600_000)), ..Change::default() },
        }
    }

    fn trouble(&mut self) -> Trouble {
        let replies = [
            "421 4.3.2 Service not available",
            "451 4.7.500 Server busy. Please try again later from [{source}].",
            "452 4.3.1 Insufficient system resources",
            "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
            "550 5.7.1 Message content rejected",
        ];
        let reply = replies[self.0.usize(..replies.len())];
        let stage = [Stage::Mail, Stage::Rcpt, Stage::Data][self.0.usize(..3)];
        Trouble { stage, share: self.0.f64() * 0.05, reply: Wording::parse(reply).expect("a reply") }
    }

    fn profile(&mut self) -> Profile {
        let mut profile = Profile { limits: self.limits(), ..Profile::default() };
        profile.latency.connect = self.span(2000);
        profile.latency.command = self.span(500);
        profile.latency.data = self.span(3000);
        profile.latency.jitter = self.0.f64();
        profile.reputation.punishes = self.0.bool();
        profile.mailboxes.unknown_share = self.share(0.1);
        profile.refuses_at = if self.0.u8(0..4) == 0 { Stage::Connect } else { Stage::Mail };
        profile.change = (0..self.0.usize(..4)).map(|_| self.change()).collect();
        profile.change.sort_by_key(|change| change.after);
        profile.trouble = (0..self.0.usize(..3)).map(|_| self.trouble()).collect();
        profile
    }

    fn faults(&mut self) -> Faults {
        Faults {
            unreachable: self.share(0.1),
            lost: self.share(0.05),
            doubt: self.share(0.05),
            idle_closed: self.share(0.5),
        }
    }

    fn setting(&mut self, number: usize) -> Setting {
        let domains: Vec<Domain> = (0..self.0.usize(1..4))
            .map(|n| Domain::parse(&format!("d{n}.p{number}.test")).expect("a domain"))
            .collect();
        Setting {
            provider: format!("p{number}").into(),
            profile: self.profile(),
            mx_sets: domains.len(),
            domains,
            addresses: self.0.u8(1..4),
            faults: self.faults(),
        }
    }
}

fn seeds() -> u64 {
    if std::env::var("WEIR_TEST").is_ok_and(|kind| kind == "long") { SEEDS_LONG } else { SEEDS }
}

#[test]
fn whatever_receivers_and_clocks_do_no_promise_is_broken_and_all_mail_comes_to_its_end() {
    for seed in (0..seeds()).chain(FOUND) {
        let seen = std::panic::catch_unwind(|| one_world(seed));
        assert!(seen.is_ok(), "seed {seed}: see above");
    }
}

fn one_world(seed: u64) {
    let mut chance = Chance(fastrand::Rng::with_seed(seed));
    let sites: Vec<Setting> = (0..chance.0.usize(1..4)).map(|number| chance.setting(number)).collect();
    let provider = |setting: &Setting, ceiling| ProviderOptions {
        name: setting.provider.to_string(),
        max_connections: Some(ceiling),
        initial_connections: Some(ceiling),
        ..ProviderOptions::default()
    };
    let ceilings: Vec<usize> = sites.iter().map(|_| chance.0.usize(1..=40)).collect();
    let all = chance.0.usize(1..=60);
    let providers = sites.iter().zip(&ceilings).map(|(setting, ceiling)| provider(setting, *ceiling)).collect();
    let mut world =
        World::new(Plan { sites, providers, sources: 1, max_connections: all, queue: QueueOptions::default(), seed });
    (0..ceilings.len()).for_each(|site| world.submit(site, MESSAGES, Mix::BULK));
    for _ in 0..CLOCK_STEPS {
        let pause = Duration::from_secs(chance.0.u64(1..3600));
        world.run(world.now() + pause);
        let most = i64::try_from(CLOCK_OFF_MAX.as_millis()).unwrap_or(i64::MAX);
        world.set_clock(chance.0.i64(-most..most));
    }
    world.set_clock(0);
    world.run(START + END);
    for (site, ceiling) in world.sites.iter().zip(&ceilings) {
        let most = *ceiling.min(&all);
        assert!(site.peak <= most, "{} connections at {}, the ceiling is {most}", site.peak, site.provider());
        assert_eq!(site.judgement().retransmitted, 0, "sent again after a 5xx");
    }
    assert!(world.post.is_empty(), "{} messages stand still", world.post.len());
    let ends = world.post.ends;
    assert_eq!(ends.expired, 0, "something stood still until it expired");
    assert_eq!(ends.delivered + ends.bounced, MESSAGES * ceilings.len());
}
