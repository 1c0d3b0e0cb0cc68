//! What the core says about itself, in the simulated world: forecasts, reasons, alerts.

use std::time::Duration;

use super::core_tests::{CALM, World, start};
use crate::types::*;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn much_mail_that_waits_for_the_growth_guard_is_told_of_once_with_its_end() {
    let mut world = World::new(1, CALM);
    for n in 0..3000 {
        world.submit("s@sender.test", &[&format!("u{n}@office1.test")]);
    }
    world.run_for(secs(120));
    let of = |world: &World, raised: bool| -> Vec<Alert> {
        let own = world.alerts.iter().filter(|alert| alert.key == "held back microsoft365" && alert.raised == raised);
        own.cloned().collect()
    };
    let told = of(&world, true);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains(" wait for microsoft365: done about "), "{}", told[0].text);
    assert!(told[0].text.ends_with("times what the busiest took; `growth = 0` lifts it"), "{}", told[0].text);
    let estimate = |world: &World| {
        let estimates = world.core.snapshot(world.now).estimates;
        estimates
            .iter()
            .find(|(provider, _)| &***provider == "microsoft365")
            .and_then(|(_, estimate)| estimate.empty_at)
    };
    // The doubling is played: at today's pace it would be six hours.
    let first = estimate(&world).unwrap().since(start());
    let (mut halfway, mut took) = (None, None);
    for minute in 3..400 {
        world.run_for(secs(60));
        if minute == 90 {
            halfway = estimate(&world);
        }
        if world.spool.is_empty() {
            took.get_or_insert(world.now.since(start()));
        }
    }
    let took = took.expect("all of it goes");
    let halfway = halfway.unwrap().since(start());
    for told in [first, halfway] {
        let ratio = told.as_secs_f64() / took.as_secs_f64();
        assert!((0.85..1.15).contains(&ratio), "told {told:?}, took {took:?}");
    }
    assert!(took < secs(4 * 3600), "{took:?}");
    assert_eq!((of(&world, true).len(), of(&world, false).len()), (1, 1), "raised once, taken back once");
}

#[test]
fn a_little_mail_that_waits_for_the_growth_guard_is_no_alert() {
    let mut world = World::new(2, CALM);
    for n in 0..400 {
        world.submit("s@sender.test", &[&format!("u{n}@office1.test")]);
    }
    world.run_for(secs(1800));
    assert_eq!(world.alerts, []);
}
