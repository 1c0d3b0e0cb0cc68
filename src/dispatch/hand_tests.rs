//! The operator's hand in the simulated world: pauses of domains and of everything, and what is forgotten.

use std::time::Duration;

use super::core_tests::{CALM, Mood, World};
use super::message::*;
use crate::throttle::{LaneOrder, LaneRecord};
use crate::types::*;

const PAUSE: LaneOrder = LaneOrder::Pause;
const RESUME: LaneOrder = LaneOrder::Resume { force: false };
const TOO_FAST: &str = "421 RP-001 (mx) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again. We have \
                        limits for how many messages can be sent per hour and per day.";

const QUOTA: &str = "451 4.7.3 Organization queue quota exceeded.";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

impl World {
    fn order_domain(&mut self, name: &str, order: LaneOrder) -> Vec<String> {
        self.say_in(Duration::ZERO, Input::LaneDomain { ticket: 9, domain: domain(name), order });
        self.answered()
    }

    fn order_all(&mut self, order: LaneOrder) -> Vec<String> {
        self.say_in(Duration::ZERO, Input::LaneAll { ticket: 9, order });
        self.answered()
    }

    fn forget(&mut self, provider: &str, source: Option<&str>) -> Result<Vec<String>, String> {
        let source = source.map(Into::into);
        self.say_in(Duration::ZERO, Input::Forget { ticket: 9, provider: provider.into(), source });
        self.run_for(secs(0));
        self.lane_answers.pop().expect("an answer")
    }

    fn newest_records(&self) -> Vec<LaneRecord> {
        self.records.values().cloned().collect()
    }

    fn answered(&mut self) -> Vec<String> {
        self.run_for(secs(0));
        self.lane_answers.pop().expect("an answer").expect("carried out")
    }

    fn mail(&mut self, name: &str, count: usize) -> Vec<QueueId> {
        let from = self.ends.len();
        (from..from + count).map(|n| self.submit("s@sender.test", &[&format!("u{n}@{name}")])).collect()
    }

    fn waits_for(&self, id: QueueId) -> String {
        let id = DeliveryId { message: id, part: 0 };
        self.core.standing(id, self.now).expect("it waits").waits_for
    }
}

#[test]
fn mail_of_a_paused_domain_waits_and_other_mail_of_its_lane_goes_on() {
    let mut world = World::new(1, CALM);
    world.mail("a.test", 1);
    world.run_for(secs(60));
    world.log.clear();
    let said = world.order_domain("a.test", PAUSE);
    assert_eq!(said, ["mail to a.test: nothing is sent until an operator says `weir resume --domain a.test`"]);
    let (paused, other) = (world.mail("a.test", 5), world.mail("b.test", 5));
    world.run_for(secs(3600));
    assert_eq!(world.log, other);
    assert!(world.waits_for(paused[0]).contains("weir resume --domain a.test"), "{}", world.waits_for(paused[0]));
    let shown = world.core.snapshot(world.now).paused_domains;
    assert_eq!((shown[0].domain.as_str(), shown[0].waiting), ("a.test", 5));
    assert_eq!(world.order_domain("a.test", PAUSE), Vec::<String>::new(), "it is so already");
    assert_eq!(world.order_domain("b.test", RESUME), Vec::<String>::new(), "it was not");
    world.log.clear();
    world.order_domain("a.test", RESUME);
    world.run_for(secs(60));
    assert_eq!(world.log, paused);
    world.assert_all_ended_once(1);
}

#[test]
fn a_resumed_domain_asks_with_one_message_first_unless_it_is_forced() {
    let mut world = World::new(2, CALM);
    world.mail("office1.test", 1);
    world.run_for(secs(60));
    for (order, offered) in [(RESUME, 1), (LaneOrder::Resume { force: true }, 2)] {
        world.order_domain("office1.test", PAUSE);
        let ids = world.mail("office1.test", 3);
        world.run_for(secs(60));
        world.plans.clear();
        world.script = Some((Stage::Rcpt, QUOTA));
        world.order_domain("office1.test", order);
        world.run_for(secs(3));
        // Forced, as many as a host that has not greeted yet may have at a time.
        assert_eq!(world.plans.len(), offered, "{order:?}");
        world.script = None;
        world.run_for(secs(6 * 3600));
        assert!(ids.iter().all(|id| !world.spool.contains_key(id)), "{order:?}");
    }
}

#[test]
fn what_stood_in_the_line_when_its_domain_was_paused_stays_too() {
    let mut world = World::new(3, CALM);
    world.order("shared", PAUSE);
    let (first, second) = (world.mail("a.test", 300), world.mail("b.test", 20));
    world.run_for(secs(60));
    world.order_domain("a.test", PAUSE);
    world.order("shared", LaneOrder::Resume { force: true });
    world.run_for(secs(600));
    assert_eq!(world.log, second);
    world.order_domain("a.test", RESUME);
    world.run_for(secs(3600));
    assert_eq!(world.log[20..], first);
}

#[test]
fn a_hundred_thousand_messages_of_a_paused_domain_cost_nothing() {
    let mut world = World::new(4, CALM);
    world.order_domain("a.test", PAUSE);
    let message = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(10));
    let delivery = world.spool[&message].deliveries.values().next().unwrap().clone();
    let rows = (0..100_000).map(|n| Row {
        id: DeliveryId { message: world.ids.next(world.now), part: 0 },
        domain: delivery.domain.clone(),
        held: false,
        attempts: 0,
        next_attempt: None,
        lifetime: None,
        late_at: None,
        delay_reported: false,
        recipients: [n].into_iter().collect(),
        flow: 0,
        sender_domain: None,
        class: Priority::Normal,
        next_hop: None,
    });
    let rows: Vec<Row> = rows.collect();
    world.say_in(Duration::ZERO, Input::Loaded(rows));
    world.run_for(secs(1));
    let (acts, ticks) = (world.acts, world.ticks);
    world.mail("b.test", 10);
    world.run_for(secs(3600));
    assert_eq!(world.log.len(), 10);
    assert!(world.acts - acts < 200 && world.ticks - ticks < 300, "{} and {}", world.acts - acts, world.ticks - ticks);
    assert_eq!(world.core.snapshot(world.now).paused_domains[0].waiting, 100_001);
}

#[test]
fn nothing_is_looked_up_for_a_paused_domain_nor_returned_for_want_of_a_route() {
    let mut world = World::new(5, Mood { no_route: 1.0, ..CALM });
    world.order_domain("a.test", PAUSE);
    let id = world.mail("a.test", 1)[0];
    world.run_for(secs(86_400));
    assert_eq!((world.deferrals, world.spool[&id].deliveries.len()), (0, 1));
    world.mood = CALM;
    world.order_domain("a.test", RESUME);
    world.run_for(secs(60));
    assert_eq!(world.log, [id]);
}

#[test]
fn a_domain_whose_pause_was_forgotten_is_told_of_and_so_is_its_mail_that_is_about_to_expire() {
    let mut world = World::new(14, CALM);
    world.order_domain("a.test", PAUSE);
    world.mail("a.test", 1);
    world.run_for(secs(4 * 86_400 - 3600));
    let keys = |world: &World, raised: bool| -> Vec<String> {
        world.alerts.iter().filter(|alert| alert.raised == raised).map(|alert| alert.key.clone()).collect()
    };
    assert_eq!(
        keys(&world, true),
        ["paused mail to a.test 15 min", "paused mail to a.test 4 h", "paused mail to a.test 24 h", "expiring a.test"]
    );
    let text = &world.alerts.last().unwrap().text;
    assert_eq!(text, "1 delivery to a.test expires within 6 hours, and nothing goes out to there");
    world.order_domain("a.test", RESUME);
    world.run_for(secs(120));
    world.core.handle(Input::Tick, world.now);
    world.run_for(secs(0));
    assert_eq!(keys(&world, false)[2..], ["paused mail to a.test 24 h", "expiring a.test"]);
}

#[test]
fn a_pause_of_everything_stops_every_lane_and_lifts_no_other_pause() {
    let mut world = World::new(6, CALM);
    world.mail("a.test", 1);
    world.run_for(secs(60));
    world.log.clear();
    assert_eq!(world.order_all(RESUME), Vec::<String>::new(), "it was not paused");
    world.order("own", PAUSE);
    assert_eq!(world.order_all(PAUSE), ["everything: nothing is sent until an operator says `weir resume --all`"]);
    assert_eq!(world.order_all(PAUSE), Vec::<String>::new(), "it is so already");
    let (shared, own, new) = (world.mail("a.test", 3), world.mail("own1.test", 3), world.mail("many1.test", 1));
    world.run_for(secs(2 * 86_400));
    assert_eq!((world.log.len(), world.deferrals), (0, 0));
    let lanes = world.core.snapshot(world.now).lanes;
    assert_eq!((&*lanes[0].provider, &*lanes[0].source, lanes[0].state), ("*", "*", "paused"));
    assert!(lanes.iter().all(|lane| lane.state == "paused" && lane.connections_allowed == 0), "{lanes:?}");
    let raised: Vec<&str> = world.alerts.iter().filter(|a| a.raised).map(|a| a.key.as_str()).collect();
    assert_eq!(
        raised,
        [
            "paused * * 15 min",
            "paused own * 15 min",
            "paused * * 4 h",
            "paused own * 4 h",
            "paused * * 24 h",
            "paused own * 24 h"
        ]
    );
    let said = world.order_all(RESUME);
    assert_eq!(
        said,
        [
            "everything: mail goes out again, an operator says so",
            "1 lane: one message asks in each; if it is taken the rest follows, slowly at first",
            "own stays paused by itself: weir resume own",
        ]
    );
    world.run_for(secs(600));
    assert!(shared.iter().chain(&new).all(|id| world.log.contains(id)) && world.log.len() == 4, "{:?}", world.log);
    world.order("own", RESUME);
    world.run_for(secs(600));
    assert!(own.iter().all(|id| world.log.contains(id)));
}

#[test]
fn while_everything_is_paused_nothing_is_returned_for_want_of_a_route() {
    let mut world = World::new(7, Mood { no_route: 1.0, ..CALM });
    world.order_all(PAUSE);
    let ids = world.mail("a.test", 3);
    world.run_for(secs(86_400));
    assert_eq!((world.deferrals, world.spool.len()), (0, 3));
    world.mood = CALM;
    world.order_all(RESUME);
    world.run_for(secs(120));
    assert_eq!(world.log, ids);
}

#[test]
fn pauses_hold_over_a_restart() {
    let mut world = World::new(8, CALM);
    world.order_domain("a.test", PAUSE);
    world.order_all(PAUSE);
    let mut next = World::new(9, CALM);
    next.core.restore(world.newest_records(), next.now);
    next.mail("a.test", 1);
    next.mail("b.test", 1);
    next.run_for(secs(600));
    assert!(next.log.is_empty());
    assert_eq!(next.core.snapshot(next.now).paused_domains.len(), 1);
    next.order_all(LaneOrder::Resume { force: true });
    next.run_for(secs(600));
    assert_eq!(next.log.len(), 1, "the domain's own pause stands");
    next.order_domain("a.test", LaneOrder::Resume { force: true });
    next.run_for(secs(600));
    assert_eq!(next.log.len(), 2);
    // What was lifted is lifted over the next restart too.
    let mut third = World::new(10, CALM);
    third.core.restore(next.newest_records(), third.now);
    third.mail("a.test", 1);
    third.run_for(secs(600));
    assert_eq!(third.log.len(), 1);
}

#[test]
fn what_was_learned_of_a_provider_is_forgotten_at_once_and_for_good() {
    let mut world = World::new(11, CALM);
    world.mail("a.test", 10);
    world.run_for(secs(60));
    world.script = Some((Stage::Mail, TOO_FAST));
    world.mail("a.test", 1);
    world.run_for(secs(30));
    world.script = None;
    world.mail("a.test", 5);
    assert_eq!(world.core.snapshot(world.now).lanes[0].state, "paused");
    world.events.clear();
    let said = world.forget("shared", None).unwrap();
    assert!(said[0].starts_with("shared from default: forgotten, an operator says so: the pause until "), "{said:?}");
    assert_eq!(world.events, [EventKind::Resumed]);
    assert!(world.newest_records().iter().any(|record| record.state.contains("\"closed\":null")), "saved at once");
    world.run_for(secs(60));
    assert!(world.spool.is_empty(), "all of it went within a minute");
    assert_eq!(
        world.forget("shared", Some("default")).unwrap(),
        ["shared from default: nothing was learned of its limits"]
    );
}

#[test]
fn a_block_that_is_forgotten_takes_its_alert_back_and_an_operators_pause_stays() {
    let mut world = World::new(12, CALM);
    world.be_blocked();
    world.order("shared", PAUSE);
    let said = world.forget("shared", Some("default")).unwrap();
    assert!(said[0].contains("the block until "), "{said:?}");
    assert_eq!(said[1], "shared stays paused by an operator: weir resume shared");
    assert!(world.alerts.iter().any(|alert| !alert.raised && alert.key == "blocked shared default"));
    world.mail("a.test", 1);
    world.log.clear();
    world.run_for(secs(600));
    assert!(world.log.is_empty());
    assert_eq!(world.core.snapshot(world.now).lanes[0].state, "paused");
}

#[test]
fn a_provider_or_source_nobody_knows_is_an_error_with_the_names_there_are() {
    let mut world = World::new(13, CALM);
    world.mail("a.test", 1);
    world.run_for(secs(60));
    let said = world.forget("outlok", None).unwrap_err();
    assert!(
        said.starts_with("no such provider: outlok; there are gmail, microsoft365, outlook, own, shared"),
        "{said}"
    );
    let said = world.forget("shared", Some("b")).unwrap_err();
    assert_eq!(said, "no such source: b; there are default");
    assert_eq!(world.forget("gmail", None).unwrap(), Vec::<String>::new());
}
