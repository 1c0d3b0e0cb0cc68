//! What `weir rehearse` says of a campaign, held against the campaign: from what a backlog has taught, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use weir::queue::options::Queue as QueueOptions;
use weir::rehearse::{Campaign, rehearse};
use weir::throttle::options::ProviderOptions;
use weir::throttle::{Profiles, Throttle};
use weir::types::Priority;

use crate::drain::scenario::Scenario;
use crate::world::{Faults, Mix, Plan, START, Setting, World};

const HOUR: Duration = Duration::from_secs(3600);
const OFF_MAX: f64 = 0.2;

/// What a campaign took, as a part of what was told before it began.
fn took_of_told(limits: &str, first: usize, then: usize) -> f64 {
    let text = format!(
        "about = 'x'\nhours = 1\n[receiver.limits]\n{limits}\n\
         [receiver.latency]\nconnect = '100ms'\ncommand = '50ms'\ndata = '300ms'\njitter = 0.3"
    );
    let scenario = Scenario::parse("rehearsed", &text).expect("a scenario");
    let told = ProviderOptions { name: "rehearsed".into(), growth: Some(0.0), ..ProviderOptions::default() };
    let setting = Setting {
        provider: "rehearsed".into(),
        profile: scenario.receiver.clone(),
        domains: scenario.domains.clone(),
        mx_sets: 1,
        addresses: 2,
        faults: Faults::default(),
    };
    let plan = Plan {
        sites: vec![setting],
        providers: vec![told.clone()],
        sources: 1,
        max_connections: 1000,
        queue: QueueOptions::default(),
        seed: 7,
    };
    let mut world = World::new(plan);
    let drain = |world: &mut World, count: usize| {
        world.submit(0, count, Mix::BULK);
        let begin = world.now();
        while world.has_mail() {
            world.run(world.now() + Duration::from_secs(10));
            assert!(world.now() < START + 200 * HOUR, "it is never done");
        }
        world.now().since(begin)
    };
    drain(&mut world, first);
    // What is kept is written a moment later.
    world.run(world.now() + Duration::from_secs(120));

    let mut throttle = Throttle::new(Profiles::new(&[told]), 1000, 1);
    throttle.restore(world.remembered(), world.now());
    let campaign = Campaign {
        recipients: [("rehearsed".into(), then as u64)].into(),
        waiting: BTreeMap::new(),
        start: world.now(),
        class: Priority::Bulk,
    };
    let courses = rehearse(&mut throttle, &["default".into()], &campaign);
    assert!(courses[0].is_learned, "{courses:?}");
    let told = courses[0].done.expect("an answer").since(world.now());
    drain(&mut world, then).as_secs_f64() / told.as_secs_f64()
}

#[test]
fn a_campaign_takes_as_long_as_was_told() {
    let mut campaigns = vec![
        ("per_minute = 60", 2400, 1800),
        ("per_hour = 600", 1500, 1200),
        ("window = [{ count = 600, span = '10m', kind = 'sliding' }]", 3600, 2400),
        ("window = [{ count = 60, span = '1m', kind = 'bucket', depth = 100 }]", 2400, 1800),
    ];
    if std::env::var_os("WEIR_TEST").is_some_and(|value| value == "long") {
        campaigns.push(("per_minute = 1000", 60_000, 30_000));
    }
    for (limits, first, then) in campaigns {
        let ratio = took_of_told(limits, first, then);
        eprintln!("{limits}: took {ratio:.2} of what was told");
        assert!((1.0 - OFF_MAX..=1.0 + OFF_MAX).contains(&ratio), "{limits}: took {ratio:.2} of what was told");
    }
}
