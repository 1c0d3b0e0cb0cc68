//! What a lane that is held back must not do: delay others, make work while it waits, or let everything loose when it opens.

use std::time::Duration;

use weir::queue::options::Queue as QueueOptions;
use weir::simulate::{Change, Limits, Profile};
use weir::throttle::options::ProviderOptions;
use weir::types::{Domain, Span, Timestamp};

use crate::world::{Faults, Mix, Plan, START, Setting, World};

const MINUTE: Duration = Duration::from_secs(60);

fn setting(provider: &str, profile: Profile) -> Setting {
    Setting {
        provider: provider.into(),
        profile,
        domains: vec![Domain::parse(&format!("{provider}.test")).expect("a domain")],
        mx_sets: 1,
        addresses: 2,
        faults: Faults::default(),
    }
}

fn world(sites: Vec<Setting>) -> World {
    let told = |setting: &Setting| ProviderOptions { name: setting.provider.to_string(), ..ProviderOptions::default() };
    let providers = sites.iter().map(told).collect();
    World::new(Plan { sites, providers, sources: 1, max_connections: 1000, queue: QueueOptions::default(), seed: 1 })
}

/// Takes a second a message, and nothing at all until `blocked` is over.
fn slow(blocked: Option<Duration>) -> Profile {
    let mut profile = Profile::default();
    profile.latency.data = Span(Duration::from_secs(1));
    profile.change = blocked.map(|span| Change { block: Some(Span(span)), ..Change::default() }).into_iter().collect();
    profile
}

#[test]
fn a_steady_receiver_is_not_delayed_by_one_that_blocks_or_limits() {
    const MESSAGES: usize = 2000;
    let last = |world: &World| world.sites[0].accepted.iter().max().copied().unwrap_or(Timestamp::NEVER).since(START);
    let mut alone = world(vec![setting("steady", slow(None))]);
    alone.submit(0, MESSAGES, Mix::BULK);
    alone.run(START + Duration::from_secs(3600));
    assert_eq!(alone.sites[0].accepted.len(), MESSAGES);
    let limited = Profile { limits: Limits { per_minute: Some(5), ..Limits::default() }, ..slow(None) };
    let hard = setting("hard", slow(Some(Duration::from_secs(86_400))));
    let mut among = world(vec![setting("steady", slow(None)), hard, setting("limited", limited)]);
    (0..3).for_each(|site| among.submit(site, MESSAGES, Mix::BULK));
    among.run(START + Duration::from_secs(3600));
    assert_eq!(among.sites[0].accepted.len(), MESSAGES);
    assert!(last(&among) <= last(&alone) + Duration::from_secs(2), "{:?}, alone {:?}", last(&among), last(&alone));
}

#[test]
fn a_paused_lane_with_a_hundred_thousand_due_messages_does_no_work_and_opens_slowly() {
    const MESSAGES: usize = 100_000;
    let mut world = world(vec![setting("big", slow(Some(30 * MINUTE)))]);
    world.submit(0, MESSAGES, Mix::BULK);
    world.run(START + MINUTE);
    let lost = world.sites[0].lost.len();
    assert!(lost > 0, "the receiver blocks, and nobody noticed");

    // The block is known; the lane waits.
    let (work, lines) = (world.work, world.post.ends.lines);
    let minutes = 20;
    world.run(world.now() + minutes * MINUTE);
    // One alert, after a quarter of an hour.
    assert!(world.post.ends.lines <= lines + 1, "{} lines while nothing happens", world.post.ends.lines - lines);
    assert_eq!(world.sites[0].lost.len(), lost, "sent to a receiver that blocks");
    let (wakes, actions) = (world.work.wakes - work.wakes, world.work.actions - work.actions);
    assert!(wakes <= 10 * minutes as usize, "woken {wakes} times in {minutes} minutes");
    assert!(actions <= 5 * minutes as usize, "{actions} actions in {minutes} minutes");

    // It opens, and goes 1, 2, 4, 8: never more connections than twice what was accepted since.
    while world.sites[0].accepted.len() < 500 {
        world.run(world.now() + Duration::from_millis(200));
        let (open, accepted) = (world.sites[0].open(), world.sites[0].accepted.len());
        assert!(open <= 1 + 2 * accepted, "{open} connections after {accepted} messages");
        assert!(world.now() < START + Duration::from_secs(86_400), "it never opens");
    }
}
