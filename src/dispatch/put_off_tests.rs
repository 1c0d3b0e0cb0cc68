//! What waits after a refusal: the lane, one delivery, or one mailbox; in the simulated world.

use super::core_tests::{CALM, World};
use super::lane_tests::{of, secs};
use super::message::Input;
use crate::types::*;
use crate::verdict::Rules;

const GREYLISTED: &str =
    "450 4.2.0 <g@a.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/a.test.html";
const MAILBOX_LIMIT: &str = "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded";

fn wait_of(world: &World, id: QueueId) -> u64 {
    world.only_delivery(id).next_attempt.unwrap().since(world.now).as_secs()
}

#[test]
fn greylisting_puts_off_one_delivery_and_nothing_else_of_its_domain() {
    for (reply, from, to) in [
        (GREYLISTED, 300, 330),
        ("450 4.7.1 <g@a.test>: Recipient address rejected: try again in 120 seconds", 120, 132),
        ("451 4.7.1 Greylisting in action, please come back in 00:20:00", 1200, 1320),
        ("451 4.7.1 Greylisted, come back in 2 seconds", 60, 66),
    ] {
        let mut world = World::new(41, CALM);
        world.says.insert("g@a.test".into(), reply);
        let grey = world.submit("s@sender.test", &["g@a.test"]);
        world.run_for(secs(20));
        let wait = wait_of(&world, grey);
        assert!((from - 20..=to).contains(&wait), "{reply}: {wait}");
        let others: Vec<QueueId> = (0..10).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
        world.run_for(secs(30));
        assert_eq!(of(&world, &others), others, "{reply}");
        assert_eq!((world.deferrals, of(&world, &[grey]).len()), (1, 1));
        // It is taken when it comes again, and was not asked sooner.
        world.says.clear();
        world.run_for(secs(from - 51));
        assert_eq!(of(&world, &[grey]).len(), 1, "{reply}");
        world.run_for(secs(to - from + 10));
        assert_eq!(of(&world, &[grey]).len(), 2, "{reply}");
        world.run_for(secs(60));
        world.assert_all_ended_once(41);
    }
}

#[test]
fn one_greylisted_recipient_of_several_waits_alone_and_by_its_own_time() {
    let mut world = World::new(42, CALM);
    world.says.insert("g@a.test".into(), GREYLISTED);
    let id = world.submit("s@sender.test", &["g@a.test", "u@a.test"]);
    world.run_for(secs(10));
    assert_eq!(world.only_delivery(id).recipients.len(), 1);
    assert!((290..=330).contains(&wait_of(&world, id)));
    // Together with one that was put off for another reason it comes by the schedule.
    world.says.insert("t@a.test".into(), "451 4.3.0 Temporary lookup failure");
    let id = world.submit("s@sender.test", &["g@a.test", "t@a.test"]);
    world.run_for(secs(10));
    assert!(wait_of(&world, id) <= 66, "{}", wait_of(&world, id));
}

#[test]
fn whoever_greylists_for_ever_is_asked_by_the_schedule() {
    let mut world = World::new(43, CALM);
    world.says.insert("g@a.test".into(), "450 4.7.1 try again in 60 seconds");
    world.submit("s@sender.test", &["g@a.test"]);
    world.run_for(secs(86_400));
    assert!((12..=24).contains(&world.deferrals), "{} attempts in a day", world.deferrals);
}

#[test]
fn the_limit_of_one_mailbox_holds_what_is_for_it_and_one_message_goes_ahead() {
    let mut world = World::new(44, CALM);
    // It is known to be there, so that nothing else makes its mail wait for another's answer.
    world.submit("s@sender.test", &["m@a.test"]);
    world.run_for(secs(20));
    world.log.clear();
    world.says.insert("m@a.test".into(), MAILBOX_LIMIT);
    let hit = world.submit("s@sender.test", &["m@a.test"]);
    world.run_for(secs(10));
    let held: Vec<QueueId> = (0..5).map(|n| world.submit(&format!("s{n}@sender.test"), &["m@a.test"])).collect();
    let others: Vec<QueueId> = (0..5).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
    world.run_for(secs(500));
    assert_eq!(of(&world, &others), others, "other mailboxes go on");
    assert_eq!((of(&world, &held).len(), of(&world, &[hit]).len(), world.deferrals), (0, 1, 1), "nobody else asks");
    let standing = world.core.standing(DeliveryId { message: held[0], part: 0 }, world.now).unwrap();
    assert!(standing.waits_for.starts_with("the mailbox, which takes no more before"), "{}", standing.waits_for);
    // One asks when the rest is over, and the others hear nothing of it.
    world.run_for(secs(200));
    assert_eq!(of(&world, &held).len() + of(&world, &[hit]).len(), 2);
    assert_eq!(world.deferrals, 2);
    world.says.clear();
    world.run_for(secs(3 * 3600));
    world.assert_all_ended_once(44);
}

#[test]
fn what_no_lane_waits_for_is_not_offered_again_and_again() {
    // A refusal of our address that the lane has no wait for: dispatch once thought that it had one.
    let rule = "name = 'no-lever'\nmatch = [{ any = ['no lever'] }]\nclass = 'ip-block'\nscope = 'source'\ncause = 'c'";
    let rule: toml::Table = rule.parse().unwrap();
    let mut world = World::new(45, CALM);
    world.core.rules = Rules::with_own([("shared", [rule].as_slice())]).unwrap();
    let id = world.submit("s@sender.test", &["u@a.test"]);
    for (stage, reply) in [(Stage::Mail, "451 4.7.1 no lever"), (Stage::Connect, "421 4.7.1 no lever")] {
        world.script = Some((stage, reply));
        let (offers, plans) = (world.log.len(), world.plans.len());
        world.run_for(secs(3600));
        let (offers, plans) = (world.log.len() - offers, world.plans.len() - plans);
        assert!(offers <= 15 && plans <= 45, "{stage}: offered {offers} times by {plans} connections in an hour");
    }
    assert!(world.only_delivery(id).attempts >= 3);
}

#[test]
fn the_throttle_says_what_waits_and_dispatch_obeys() {
    for (reply, waits) in [
        ("421 RP-001 (mx) Unfortunately, some messages from 192.0.2.1 weren't sent.", true),
        ("421 RP-002 (mx) too many messages", true),
        ("451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections.", true),
        ("451 4.3.0 Temporary lookup failure", false),
        (GREYLISTED, false),
        (MAILBOX_LIMIT, false),
    ] {
        let mut world = World::new(46, CALM);
        let id = world.submit("s@sender.test", &["u@a.test"]);
        world.script = Some((Stage::Mail, reply));
        world.run_for(secs(20));
        let delivery = world.only_delivery(id);
        assert_eq!((delivery.attempts == 0, delivery.next_attempt.is_none()), (waits, waits), "{reply}");
    }
}

#[test]
fn what_a_stop_has_given_up_is_due_at_the_next_start() {
    let mut world = World::new(47, CALM);
    world.script = Some((Stage::Mail, "451 4.3.0 later"));
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(20));
    assert_eq!(world.only_delivery(id).attempts, 1);
    // The next connection on its way is given up, as a stop does it.
    world.short = 1;
    while world.plans.len() < 2 {
        world.run_for(std::time::Duration::from_millis(1));
    }
    assert!(world.only_delivery(id).next_attempt.unwrap() > world.now + secs(60), "planned before the try");
    world.core.handle(Input::Stop, world.now);
    world.run_for(secs(10));
    assert!(world.core.is_quiet());
    let delivery = world.only_delivery(id);
    assert!(delivery.next_attempt.unwrap() <= world.now && delivery.attempts == 1, "{delivery:?}");
}
