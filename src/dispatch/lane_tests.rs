//! What refusals of a lane, classes, probes and orders mean for deliveries, in the simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core_tests::{CALM, World};
use super::message::*;
use crate::outbound::options::TlsMode;
use crate::throttle::LaneOrder;
use crate::throttle::options::ProviderOptions;
use crate::types::*;

const TOO_FAST: &str = "421 RP-001 (mx) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again. We have \
                        limits for how many messages can be sent per hour and per day.";
const TOO_MANY: &str = "421 RP-003 The mail server IP connecting to Outlook.com server has exceeded the connection limit allowed. \
                        Reason for limitation is related to IP/domain reputation.";
const BANNED: &str = "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit \
                      https://sender.office.com/ and follow the directions.";

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl World {
    pub(super) fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        self.run(until);
        self.now = self.now.max(until);
    }

    pub(super) fn only_delivery(&self, id: QueueId) -> &Delivery {
        self.spool.get(&id).and_then(|message| message.deliveries.values().next()).expect("it waits")
    }

    /// One message meets a block of our address.
    pub(super) fn be_blocked(&mut self) -> QueueId {
        let hit = self.submit("", &["hit@a.test"]);
        self.script = Some((Stage::Rcpt, BANNED));
        self.run_for(secs(60));
        self.script = None;
        assert_eq!(self.log.pop(), Some(hit));
        hit
    }

    pub(super) fn order(&mut self, provider: &str, order: LaneOrder) {
        self.say_in(Duration::ZERO, Input::Lane { ticket: 9, provider: provider.into(), order });
        self.run_for(secs(0));
    }

    pub(super) fn row(&self, id: QueueId) -> Row {
        let delivery = self.only_delivery(id);
        Row {
            id: delivery.id,
            domain: delivery.domain.clone(),
            held: delivery.state == DeliveryState::Held,
            attempts: delivery.attempts,
            next_attempt: delivery.next_attempt,
            lifetime: None,
            late_at: None,
            delay_reported: false,
            recipients: delivery.recipients.iter().map(|r| super::key_of(&r.address)).collect(),
            flow: 0,
            sender_domain: None,
            class: Priority::Normal,
            next_hop: delivery.next_hop.clone(),
        }
    }
}

#[test]
fn a_refusal_of_the_lane_costs_no_attempt_and_no_place() {
    for (stage, reply) in
        [(Stage::Mail, TOO_FAST), (Stage::Rcpt, TOO_FAST), (Stage::Data, TOO_FAST), (Stage::Connect, TOO_MANY)]
    {
        let mut world = World::new(1, CALM);
        let ids: Vec<QueueId> = (0..6).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
        world.script = Some((stage, reply));
        world.run_for(secs(3 * 3600));
        assert_eq!(world.deferrals, 0, "{stage}: a deferral was counted");
        for id in &ids {
            assert_eq!(
                (world.only_delivery(*id).attempts, world.only_delivery(*id).next_attempt),
                (0, None),
                "{stage}"
            );
        }
        let refused: std::collections::BTreeSet<QueueId> = world.log.iter().copied().collect();
        assert!(world.updates <= refused.len(), "{stage}: written {} times", world.updates);
        if stage != Stage::Connect {
            let said = &world.only_delivery(ids[0]).refusal;
            assert!(said.as_ref().is_some_and(|refusal| refusal.reply.contains("RP-001")), "{stage}: {said:?}");
        }
        assert!(world.log.len() < 20, "{stage}: pressed on, {} times", world.log.len());
        world.script = None;
        world.log.clear();
        world.run_for(secs(86_400));
        assert_eq!(world.log, ids, "{stage}");
        world.assert_all_ended_once(1);
    }
}

#[test]
fn what_was_accepted_before_the_lane_was_refused_is_not_sent_again() {
    let mut world = World::new(2, CALM);
    // Three at once is the most; the rest meets the refusal.
    let id = world.submit("s@sender.test", &["u1@a.test", "u2@a.test", "u3@a.test", "u4@a.test", "u5@a.test"]);
    while world.log.len() < 2 {
        let next = world.now + Duration::from_millis(100);
        world.run(next);
        world.now = next;
        if world.log.len() == 1 {
            world.script = Some((Stage::Mail, TOO_FAST));
        }
    }
    world.run_for(secs(10));
    assert_eq!(world.only_delivery(id).recipients.len(), 2);
    assert_eq!(world.only_delivery(id).attempts, 0);
    world.script = None;
    world.run_for(secs(86_400));
    assert_eq!(world.deferrals, 0);
    world.assert_all_ended_once(2);
}

#[test]
fn a_hundred_thousand_due_messages_in_a_stopped_lane_cost_nothing() {
    let mut world = World::new(3, CALM);
    world.be_blocked();
    let sample = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(30));
    let message = world.spool.get(&sample).expect("it waits");
    let (envelope, delivery) = (message.envelope.clone(), world.only_delivery(sample).clone());
    let committed: Vec<crate::spool::Committed> = (0..100_000)
        .map(|n| {
            let id = world.ids.next(world.now);
            let address = Mailbox::parse(&format!("u{n}@a.test")).unwrap();
            let recipient = Recipient { address, orcpt: None, notify: Notify::default() };
            let id = DeliveryId { message: id, part: 0 };
            crate::spool::Committed {
                envelope: Envelope { id: id.message, ..Envelope::clone(&envelope) }.into(),
                deliveries: vec![Delivery { id, recipients: vec![recipient], ..delivery.clone() }],
                body: Body::Inline(bytes::Bytes::new()),
            }
        })
        .collect();
    world.core.handle(Input::Accepted(committed), world.now);
    world.run_for(secs(2));
    (world.acts, world.ticks) = (0, 0);
    world.run_for(secs(1800));
    // The sweep looks once a minute, the spool is asked every ten.
    assert!(world.ticks <= 40 && world.acts <= 10, "{} ticks, {} actions", world.ticks, world.acts);
    assert_eq!(world.core.snapshot(world.now).deliveries, 100_001);
}

#[test]
fn urgent_mail_goes_first_when_the_lane_opens() {
    let mut world = World::new(4, CALM);
    world.be_blocked();
    let bulk: Vec<QueueId> =
        (0..5).map(|n| world.submit_as(Priority::Bulk, "news@list.test", &[&format!("b{n}@a.test")])).collect();
    world.run_for(secs(10));
    let normal = world.submit("s@sender.test", &["n@a.test"]);
    let high = world.submit_as(Priority::High, "login@sender.test", &["h@a.test"]);
    world.run_for(secs(10));
    world.order("shared", LaneOrder::Resume { force: true });
    world.run_for(secs(3600));
    assert_eq!(world.log[..2], [high, normal]);
    assert_eq!(world.log[2..], bulk);
}

#[test]
fn a_block_is_probed_with_bulk_mail_and_never_with_an_urgent_message() {
    let mut world = World::new(5, CALM);
    world.be_blocked();
    assert!(
        world
            .alerts
            .iter()
            .any(|a| a.raised && a.key == "blocked shared default" && a.remedy.contains("weir report shared"))
    );
    let urgent = world.submit_as(Priority::High, "s@sender.test", &["n@a.test"]);
    world.run_for(secs(3 * 3600));
    assert!(world.log.is_empty(), "an urgent message was risked");
    let bulk = world.submit_as(Priority::Bulk, "news@list.test", &["b@a.test"]);
    let later = world.submit_as(Priority::Bulk, "news@list.test", &["c@a.test"]);
    world.script = Some((Stage::Rcpt, BANNED));
    world.run_for(secs(3600));
    assert_eq!(world.log, [bulk], "one probe, and it is the one nearest its expiry");
    world.script = None;
    world.run_for(secs(86_400));
    assert_eq!(world.log[..2], [bulk, later]);
    assert!(world.log.contains(&urgent));
    assert!(world.alerts.iter().any(|a| !a.raised && a.key == "blocked shared default"));
}

#[test]
fn a_short_block_is_over_with_the_first_probe_whatever_waits() {
    let mut world = World::new(21, CALM);
    world.be_blocked();
    let urgent = world.submit_as(Priority::High, "login@sender.test", &["h@a.test"]);
    let ids: Vec<QueueId> = (0..20).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
    world.run_for(secs(66 * 60));
    assert_eq!(world.log[..2], [ids[0], urgent], "ordinary mail asks, urgent mail follows first");
    world.run_for(secs(600));
    world.assert_all_ended_once(21);
}

#[test]
fn where_only_urgent_mail_waits_a_person_is_told_and_one_is_risked_after_the_third_wait() {
    let mut world = World::new(22, CALM);
    world.be_blocked();
    let urgent = [1, 2].map(|n| world.submit_as(Priority::High, "login@sender.test", &[&format!("h{n}@a.test")]));
    let told = |world: &World, raised| {
        world.alerts.iter().filter(|a| a.raised == raised && a.key == "only urgent shared default").count()
    };
    world.run_for(secs(45 * 60));
    assert_eq!(told(&world, true), 0);
    world.run_for(secs(6 * 3600));
    assert_eq!((told(&world, true), told(&world, false), world.log.len()), (1, 0, 0));
    let lane = world.core.snapshot(world.now).lanes.into_iter().find(|lane| lane.state == "probing").unwrap();
    let reason = lane.reason.unwrap();
    assert!(reason.starts_with("only urgent mail waits") && reason.ends_with("directions."), "{reason}");
    assert!(lane.until.is_some_and(|until| until > world.now) && lane.connections == 0);
    world.run_for(secs(3600));
    assert_eq!(world.log, urgent);
    assert_eq!(told(&world, false), 1);
}

#[test]
fn after_a_restart_a_blocked_lane_asks_as_before() {
    let mut world = World::new(23, CALM);
    world.be_blocked();
    world.run_for(secs(6));
    let records = world.last_remembered.clone();
    assert!(!records.is_empty());
    // The first wait ends while nobody runs.
    for (down, expected) in [(600, 0), (2 * 3600, 1)] {
        let mut next = World::new(24, CALM);
        next.now = world.now + secs(down);
        next.core.restore(records.clone(), next.now);
        next.submit("s@sender.test", &["n@a.test"]);
        next.run_for(secs(30));
        assert_eq!(next.log.len(), expected, "{down} s after the block");
        next.run_for(secs(3600));
        next.assert_all_ended_once(24);
    }
}

#[test]
fn a_block_that_may_be_about_one_sender_s_mail_ends_where_there_is_no_other_sender() {
    let mut world = World::new(25, CALM);
    // Of the empty sender: no report to it asks in its place.
    let hit = world.submit("", &["hit@a.test"]);
    world.script = Some((Stage::Mail, "550 SC-001 (mx) Unfortunately, messages from 192.0.2.1 weren't sent."));
    world.run_for(secs(30));
    world.script = None;
    let same = world.submit("", &["u@a.test"]);
    world.run_for(secs(50 * 60));
    assert_eq!(of(&world, &[hit, same]), [hit], "another sender's mail is waited for");
    let other = world.submit("t@sender.test", &["v@a.test"]);
    world.run_for(secs(120));
    assert_eq!(of(&world, &[hit, same, other]), [hit, other, same]);

    let mut world = World::new(26, CALM);
    let hit = world.submit("", &["hit@a.test"]);
    world.script = Some((Stage::Mail, "550 SC-001 (mx) Unfortunately, messages from 192.0.2.1 weren't sent."));
    world.run_for(secs(30));
    world.script = None;
    let same = world.submit("", &["u@a.test"]);
    world.run_for(secs(66 * 60));
    assert_eq!(of(&world, &[hit, same]), [hit, same]);
}

#[test]
fn a_probe_whose_hosts_cannot_be_reached_does_not_keep_the_block() {
    let mut world = World::new(27, CALM);
    world.be_blocked();
    world.dead_hosts.insert("mx1.c.test".into());
    world.dead_hosts.insert("mx2.c.test".into());
    world.dead_hosts.insert("mx3.c.test".into());
    // The nearest to its expiry, and at a dead host of the same provider.
    let dead = world.submit_as(Priority::Bulk, "s@sender.test", &["u@c.test"]);
    let alive = world.submit_as(Priority::Bulk, "s@sender.test", &["u@a.test"]);
    world.run_for(secs(70 * 60));
    assert_eq!(of(&world, &[dead, alive]), [alive]);
}

/// What was offered of these, in order.
pub(super) fn of(world: &World, ids: &[QueueId]) -> Vec<QueueId> {
    world.log.iter().filter(|id| ids.contains(id)).copied().collect()
}

#[test]
fn an_operator_can_have_the_next_message_tried() {
    let mut world = World::new(6, CALM);
    world.be_blocked();
    let urgent = world.submit("s@sender.test", &["n@a.test"]);
    world.run_for(secs(600));
    world.order("shared", LaneOrder::Resume { force: false });
    world.run_for(secs(60));
    assert_eq!(world.log, [urgent]);
    world.order("nobody", LaneOrder::Pause);
    assert!(
        world.lane_answers.iter().any(|answer| answer.as_ref().is_err_and(|text| text.contains("no such provider")))
    );
}

#[test]
fn a_pause_holds_everything_until_it_is_lifted() {
    let mut world = World::new(7, CALM);
    world.order("shared", LaneOrder::Pause);
    let ids: Vec<QueueId> = (0..3).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
    world.run_for(secs(86_400));
    assert!(world.log.is_empty() && world.deferrals == 0);
    world.order("shared", LaneOrder::Resume { force: true });
    world.run_for(secs(600));
    assert_eq!(world.log, ids);
}

#[test]
fn a_canary_is_risked_before_anybody_s_mail() {
    let profile = ProviderOptions { name: "shared".into(), canary: Some("canary@a.test".into()), ..Default::default() };
    let mut world = World::with(8, CALM, vec![profile]);
    world.be_blocked();
    let bulk = world.submit_as(Priority::Bulk, "news@list.test", &["b@a.test"]);
    world.run_for(secs(2 * 3600));
    assert_eq!(world.rcpts.get("canary@a.test"), Some(&1));
    assert_eq!(world.log.iter().position(|id| *id == bulk), Some(1), "{:?}", world.log);
}

#[test]
fn rerouted_mail_leaves_a_blocked_lane_and_remembers_its_way() {
    let mut world = World::new(9, CALM);
    world.be_blocked();
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(60));
    let hop: NextHop = "127.0.0.1:2600".parse().unwrap();
    world.script = Some((Stage::Rcpt, "450 4.2.0 try later"));
    let rows = vec![world.row(id)];
    world.say_in(Duration::ZERO, Input::Reroute { ticket: 3, to: hop.clone(), rows });
    world.run_for(secs(20));
    assert_eq!(world.answers, [(3, 0)]);
    assert_eq!((world.log.as_slice(), world.only_delivery(id).next_hop.as_ref()), (&[id][..], Some(&hop)));
    assert_eq!(world.only_delivery(id).attempts, 1);

    // After a restart it goes there too.
    let mut next = World::new(10, CALM);
    let row = Row { next_attempt: None, ..world.row(id) };
    next.core.handle(Input::Loaded(vec![row]), next.now);
    let asked = next.core.actions();
    assert!(matches!(&asked[..], [Action::ResolveHop { hop: to, .. }] if *to == hop), "{asked:?}");
}

#[test]
fn mail_at_the_wrong_host_is_routed_afresh_once_and_then_waits() {
    let mut world = World::new(11, CALM);
    let id = world.submit("s@sender.test", &["u@office.test"]);
    let reply = "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35.";
    world.script = Some((Stage::Rcpt, reply));
    world.run_for(secs(30));
    assert_eq!((world.resolved_afresh, world.log.len(), world.deferrals), (1, 2, 1));
    assert_eq!(world.only_delivery(id).attempts, 1);
}

#[test]
fn a_host_that_asks_for_tls_gets_it_on_the_next_connection() {
    let mut world = World::new(12, CALM);
    let id = world.submit("s@sender.test", &["u@outlook.com"]);
    world.script = Some((Stage::Mail, "451 5.7.3 STARTTLS is required to send mail"));
    world.run_for(secs(60));
    let modes: Vec<TlsMode> = world.plans.iter().map(|plan| plan.security.tls).collect();
    assert_eq!(modes.first(), Some(&TlsMode::Opportunistic));
    assert!(modes[1..].contains(&TlsMode::Encrypt), "{modes:?}");
    // Whoever always says so is an ordinary deferral in the end.
    assert_eq!((world.log.len(), world.only_delivery(id).attempts), (3, 1));
}

#[test]
fn targets_of_one_lane_take_turns_at_its_pace() {
    let rate = "60/min".parse().unwrap();
    let profile = ProviderOptions { name: "own".into(), max_rate: Some(rate), ..Default::default() };
    let mut world = World::with(13, CALM, vec![profile]);
    let mut of = BTreeMap::new();
    for target in 0..4 {
        for n in 0..30 {
            let id = world.submit(&format!("s{target}@sender.test"), &[&format!("u{n}@own{target}.test")]);
            of.insert(id, target);
        }
    }
    world.run_for(secs(60));
    world.log.clear();
    world.ticks = 0;
    world.run_for(secs(40));
    let mut counts = [0; 4];
    world.log.iter().for_each(|id| counts[of[id]] += 1);
    let gone = world.log.len();
    assert!((36..=44).contains(&gone), "{gone} in 40 seconds at 60 a minute");
    assert!(counts.iter().all(|count| (7..=13).contains(count)), "{counts:?}");
    assert!(world.ticks <= 4 * gone, "{} ticks for {gone} messages", world.ticks);
}

#[test]
fn what_lanes_learn_is_kept_soon_and_a_block_at_once() {
    let mut world = World::new(14, CALM);
    world.be_blocked();
    assert!(world.remembered >= 1);
    let before = world.remembered;
    world.order("shared", LaneOrder::Resume { force: true });
    assert!(world.remembered > before);
}

const TOO_MANY_HERE: &str = "451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections.";
const SENDER_BLOCKED: &str = "550 5.7.1 Service unavailable, MailFrom domain is listed in Spamhaus. To request \
                              removal from this list see https://www.spamhaus.org/query/lookup/ (S8002)";
const QUOTA: &str = "451 4.7.3 Organization queue quota exceeded.";

#[test]
fn a_connection_that_is_told_of_too_many_carries_nothing_more_and_the_wait_does_not_grow_of_itself() {
    let mut world = World::new(15, CALM);
    let ids: Vec<QueueId> = (0..40).map(|n| world.submit("s@sender.test", &[&format!("u{n}@a.test")])).collect();
    world.run_for(secs(2));
    world.script = Some((Stage::Mail, TOO_MANY_HERE));
    world.run_for(secs(20));
    assert!(world.open.is_empty(), "{} connections are still open", world.open.len());
    let offered = world.log.len();
    assert!(offered <= 2 * 7, "pressed on: {offered} times");
    world.script = None;
    world.run_for(secs(1800));
    for id in &ids {
        assert!(!world.spool.contains_key(id), "{id} still waits after half an hour");
    }
    assert_eq!(world.deferrals, 0);
}

#[test]
fn mail_of_a_refused_sender_domain_waits_and_that_of_others_goes_on() {
    let mut world = World::new(16, CALM);
    let hit = world.submit("news@bad.test", &["hit@a.test"]);
    world.script = Some((Stage::Mail, SENDER_BLOCKED));
    world.run_for(secs(30));
    world.script = None;
    assert_eq!(world.log[0], hit);
    let held: Vec<QueueId> = (0..5).map(|n| world.submit("news@bad.test", &[&format!("h{n}@a.test")])).collect();
    let other = world.submit("s@good.test", &["o@a.test"]);
    // Reports to the sender go their own way.
    let of = |world: &World| -> Vec<QueueId> {
        world.log.iter().filter(|id| **id == hit || **id == other || held.contains(id)).copied().collect()
    };
    world.run_for(secs(1800));
    assert_eq!(of(&world), [hit, other], "only the other's mail goes");
    let held_alerts = world.alerts.iter().filter(|alert| alert.raised && alert.key.starts_with("held ")).count();
    assert_eq!(held_alerts, 1, "{:?}", world.alerts);

    // The hold ends: one message asks, is refused, and no other was risked.
    world.script = Some((Stage::Mail, SENDER_BLOCKED));
    world.run_for(secs(3600));
    assert_eq!(of(&world), [hit, other, held[0]]);
    // The next one is accepted, and sets the others free.
    world.script = None;
    world.run_for(secs(2 * 3600));
    assert_eq!(of(&world)[3..], held[1..]);
    assert_eq!(world.deferrals, 0, "held mail counts no attempt");
}

#[test]
fn mail_to_a_domain_that_refuses_waits_and_one_message_asks_for_all() {
    let mut world = World::new(17, CALM);
    let to_full: Vec<QueueId> =
        (0..5).map(|n| world.submit("s@sender.test", &[&format!("u{n}@office1.test")])).collect();
    world.script = Some((Stage::Rcpt, QUOTA));
    world.run_for(secs(3));
    let before = world.log.len();
    assert!(before >= 1, "one has met it");
    let other = world.submit("s@sender.test", &["o@office2.test"]);
    world.script = None;
    world.run_for(secs(60));
    assert!(world.log.contains(&other), "other domains go on");
    world.run_for(secs(86_400));
    for id in &to_full {
        assert!(!world.spool.contains_key(id), "{id} still waits");
    }
    world.assert_all_ended_once(17);
}

#[test]
fn a_long_pause_is_one_alert_at_a_time() {
    let mut world = World::new(18, CALM);
    world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(60));
    world.order("shared", LaneOrder::Pause);
    world.submit("s@sender.test", &["v@a.test"]);
    world.run_for(secs(25 * 3600));
    let of = |raised: bool| -> Vec<&str> {
        let own = world.alerts.iter().filter(|alert| alert.raised == raised && alert.key.starts_with("paused shared "));
        own.filter_map(|alert| alert.key.split("default ").nth(1)).collect()
    };
    assert_eq!((of(true), of(false)), (vec!["15 min", "4 h", "24 h"], vec!["15 min", "4 h"]));
    world.order("shared", LaneOrder::Resume { force: true });
    world.run_for(secs(10));
    world.now = world.now + secs(60);
    world.core.handle(Input::Tick, world.now);
    world.run_for(secs(0));
    assert!(
        world.alerts.last().is_some_and(|alert| !alert.raised && alert.key.ends_with("24 h")),
        "{:?}",
        world.alerts
    );
}

#[test]
fn a_lane_that_is_resumed_says_so_once_when_mail_is_accepted() {
    let mut world = World::new(19, CALM);
    world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(60));
    world.order("shared", LaneOrder::Pause);
    world.submit("s@sender.test", &["v@a.test"]);
    world.events.clear();
    world.script = Some((Stage::Connect, "421 4.3.2 closing down"));
    world.order("shared", LaneOrder::Resume { force: false });
    assert_eq!(world.events, [], "nothing is accepted yet");
    world.script = None;
    world.run_for(secs(1800));
    let resumed = world.events.iter().filter(|kind| **kind == EventKind::Resumed).count();
    assert_eq!(resumed, 1, "{:?}", world.events);
    // By force there is nothing to wait for.
    world.order("shared", LaneOrder::Pause);
    world.events.clear();
    world.order("shared", LaneOrder::Resume { force: true });
    assert_eq!(world.events, [EventKind::Resumed]);
}

#[test]
fn an_operators_pause_is_written_again_every_day() {
    let mut world = World::new(20, CALM);
    world.order("shared", LaneOrder::Pause);
    world.submit("s@sender.test", &["u@a.test"]);
    let before = world.remembered;
    world.run_for(secs(3 * 86_400 + 3600));
    assert_eq!(world.remembered - before, 3);
}

#[test]
fn a_shortage_of_our_own_counts_no_attempt_and_is_no_fault_of_the_receivers() {
    let mut world = World::new(3, CALM);
    world.short = 30;
    let id = world.submit("", &["u@a.test"]);
    world.run_for(secs(1800));
    assert_eq!((world.short, world.deferrals, world.log.as_slice()), (0, 0, &[id][..]));
    assert_eq!(world.plans.len(), 31, "each of them was one opening");
    assert!(world.alerts.is_empty(), "{:?}", world.alerts);
}
