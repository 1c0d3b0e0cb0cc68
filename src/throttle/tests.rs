//! The throttle as its askers see it: permits, grants, and what each kind of refusal does to them.

use std::time::Duration;

use super::options::ProviderOptions;
use super::*;
use crate::types::{Class, Effects, Reading, Scope, Span, Verdict};
use proptest::prelude::*;

fn throttle(ceiling: usize, all: usize) -> Throttle {
    let provider = ProviderOptions {
        name: "p".into(),
        max_connections: Some(ceiling),
        initial_connections: Some(ceiling),
        ..Default::default()
    };
    Throttle::new(Profiles::new(&[provider]), all, 1)
}

fn lane(source: &str) -> LaneName {
    LaneName { provider: "p".into(), source: source.into() }
}

const NOW: Timestamp = Timestamp::from_secs(1000);

#[test]
fn the_ceiling_holds_over_all_sources() {
    let mut throttle = throttle(3, 100);
    let mut permits = Vec::new();
    for source in ["a", "b", "a", "b", "c"] {
        if let Answer::Granted(permit) = throttle.permit(&lane(source), false, NOW) {
            permits.push(permit);
        }
    }
    assert_eq!(permits.len(), 3);
    throttle.release(permits.pop().unwrap());
    assert!(matches!(throttle.permit(&lane("z"), false, NOW), Answer::Granted(_)));
}

#[test]
fn a_new_ceiling_holds_for_lanes_that_are_known_and_what_they_learned_stays() {
    let mut throttle = throttle(2, 100);
    let take = |throttle: &mut Throttle| match throttle.permit(&lane("a"), false, NOW) {
        Answer::Granted(permit) => permit,
        answer => panic!("no permit: {answer:?}"),
    };
    let mut permits = vec![take(&mut throttle), take(&mut throttle)];
    let options = |max| ProviderOptions { name: "p".into(), max_connections: Some(max), ..Default::default() };
    throttle.reconfigure(Profiles::new(&[options(4)]), 100);
    for _ in 0..2 {
        for permit in &mut permits {
            assert!(matches!(throttle.grant(permit, 1, NOW), Answer::Granted(_)));
        }
        for _ in 0..2 {
            throttle.report(
                &lane("a"),
                &Signal::Accepted { recipients: 1, started: NOW, about: About::default() },
                NOW,
            );
        }
        permits.push(take(&mut throttle));
    }
    assert!(matches!(throttle.permit(&lane("a"), false, NOW), Answer::Full));
    throttle.reconfigure(Profiles::new(&[options(3)]), 100);
    let spent = permits.pop().map(|mut permit| (throttle.grant(&mut permit, 1, NOW), permit));
    let Some((Answer::Spent, permit)) = spent else { panic!("above the new ceiling: {spent:?}") };
    throttle.release(permit);
    assert!(matches!(throttle.permit(&lane("a"), false, NOW), Answer::Full));
    assert!(matches!(throttle.grant(&mut permits[0], 1, NOW), Answer::Granted(_)));
    permits.into_iter().for_each(|permit| throttle.release(permit));
}

#[test]
fn a_connection_is_spent_after_its_messages() {
    let mut throttle = throttle(3, 100);
    let Answer::Granted(mut permit) = throttle.permit(&lane("a"), false, NOW) else { panic!("no permit") };
    for _ in 0..50 {
        assert!(matches!(throttle.grant(&mut permit, 1, NOW), Answer::Granted(_)));
    }
    assert!(matches!(throttle.grant(&mut permit, 1, NOW), Answer::Spent));
    throttle.release(permit);
}

proptest! {
    #[test]
    fn permits_never_exceed_a_limit(steps in prop::collection::vec((any::<bool>(), 0usize..3), 0..300), ceiling in 1usize..8, all in 1usize..12) {
        let mut throttle = throttle(ceiling, all);
        let mut permits: Vec<Permit> = Vec::new();
        for (take, n) in steps {
            if take {
                if let Answer::Granted(permit) = throttle.permit(&lane(["a", "b", "c"][n]), false, NOW) {
                    permits.push(permit);
                }
            } else if !permits.is_empty() {
                throttle.release(permits.swap_remove(n % permits.len()));
            }
            prop_assert!(permits.len() <= ceiling.min(all));
            prop_assert_eq!(throttle.open(), permits.len());
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn reading(class: Class, scope: Scope) -> Reading {
    Reading {
        verdict: Verdict::Retry,
        class,
        scope,
        suppress: false,
        breaker: false,
        rule: "test".into(),
        tag: None,
        cause: "".into(),
        remedy: "".into(),
        effects: Effects::default(),
    }
}

fn block() -> Reading {
    Reading { verdict: Verdict::Bounce, breaker: true, ..reading(Class::IpBlock, Scope::Source) }
}

/// A lane and the connections it has, with the time at hand.
struct Bench {
    throttle: Throttle,
    now: Timestamp,
    permits: Vec<Permit>,
    guarded: bool,
}

impl Bench {
    fn new(initial: usize) -> Bench {
        let provider = ProviderOptions {
            name: "p".into(),
            initial_connections: Some(initial),
            pause: Some(Span(MINUTE * 10)),
            probe_block: Some(Span(MINUTE * 60)),
            ..Default::default()
        };
        Bench {
            throttle: Throttle::new(Profiles::new(&[provider]), 1000, 7),
            now: Timestamp::from_secs(1_800_000_000),
            permits: Vec::new(),
            guarded: false,
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// Opens what may be opened; returns what the throttle said to the last question.
    fn open(&mut self) -> Answer<Permit> {
        for _ in 0..2000 {
            match self.throttle.permit(&lane("a"), self.guarded, self.now) {
                Answer::Granted(permit) => self.permits.push(permit),
                answer => return answer,
            }
        }
        panic!("there is no end of permits");
    }

    fn grant(&mut self, n: usize) -> Answer<Grant> {
        let named = self.permits[n].named;
        self.throttle.let_in(&mut self.permits[n], named);
        self.throttle.grant(&mut self.permits[n], 1, self.now)
    }

    fn accept(&mut self, recipients: u32) -> Option<Change> {
        let signal = Signal::Accepted { recipients, started: self.now, about: About::default() };
        self.permits.iter_mut().for_each(|permit| self.throttle.ended(permit));
        self.throttle.report(&lane("a"), &signal, self.now).change
    }

    /// The transaction of one connection is over and accepted; the others go on.
    fn accept_on(&mut self, n: usize) {
        self.throttle.ended(&mut self.permits[n]);
        let signal = Signal::Accepted { recipients: 1, started: self.now, about: About::default() };
        self.throttle.report(&lane("a"), &signal, self.now);
    }

    fn refuse(&mut self, reading: &Reading, carried: u32) -> Option<Change> {
        let about = About { carried, ..About::default() };
        self.permits.iter_mut().for_each(|permit| self.throttle.ended(permit));
        let signal = Signal::Refused { reading, reply: "4xx words", started: self.now, about };
        self.throttle.report(&lane("a"), &signal, self.now).change
    }

    fn close_all(&mut self) {
        self.permits.drain(..).for_each(|permit| self.throttle.release(permit));
    }

    fn status(&self) -> LaneStatus {
        self.throttle.status(self.now).remove(0)
    }

    /// The first moment at which a new connection is permitted.
    fn wait_for_permit(&mut self) -> Duration {
        let from = self.now;
        for _ in 0..10_000 {
            match self.throttle.permit(&lane("a"), self.guarded, self.now) {
                Answer::Granted(permit) => {
                    self.permits.push(permit);
                    return self.now.since(from);
                }
                Answer::At(at) | Answer::Rests(at) => self.now = at,
                answer => panic!("{answer:?}"),
            }
        }
        panic!("no permit in 10,000 questions");
    }
}

/// A lane that has 20 connections open and has taken 600 recipients in the last minute.
fn busy() -> Bench {
    let mut bench = Bench::new(20);
    bench.open();
    for _ in 0..60 {
        bench.accept(10);
        bench.pass(Duration::from_secs(1));
    }
    bench
}

/// The next refusal, of something begun after the last one.
fn refuse_again(bench: &mut Bench, reading: &Reading, carried: u32) -> Option<Change> {
    bench.pass(Duration::from_millis(1));
    bench.refuse(reading, carried)
}

#[test]
fn a_refusal_for_the_rate_stops_the_lane_for_seconds_and_touches_nothing_else() {
    let mut bench = busy();
    let before = bench.status();
    let refusal = reading(Class::RateLimit, Scope::Source);
    assert!(matches!(bench.refuse(&refusal, 0), Some(Change::Paused { .. })));
    assert_eq!(bench.status().state, "paused");
    assert!(matches!(bench.grant(0), Answer::At(_)), "no new MAIL on a standing connection");
    bench.close_all();
    let wait = bench.wait_for_permit();
    assert!(wait >= Duration::from_secs(6) && wait <= Duration::from_secs(7), "{wait:?}");
    assert_eq!(bench.status().state, "probing");
    assert!(matches!(bench.open(), Answer::Full), "one probe");
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    assert!(matches!(bench.grant(0), Answer::Full), "one probe");
    assert_eq!(bench.accept(1), Some(Change::Resumed));
    let after = bench.status();
    assert_eq!(after.connections_allowed, before.connections_allowed, "connections are another lever");
    assert_eq!(after.rate_allowed, None, "one refusal proves no limit");
    assert_eq!(bench.throttle.lanes[&lane("a")].recipients(), 100);
    assert!(!bench.throttle.lanes[&lane("a")].is_spent(49, bench.now));
}

/// Lets a lane ask until it has been refused so often, and gives the waits in seconds.
fn refused_questions(bench: &mut Bench, times: usize) -> Vec<u64> {
    let refusal = reading(Class::RateLimit, Scope::Source);
    bench.refuse(&refusal, 0);
    bench.close_all();
    let mut waits = Vec::new();
    for n in 0..=times {
        waits.push(bench.wait_for_permit().as_secs());
        assert!(matches!(bench.grant(0), Answer::Granted(_)));
        if n < times {
            assert!(matches!(bench.refuse(&refusal, 0), Some(Change::Paused { .. })));
            bench.close_all();
        }
    }
    waits
}

#[test]
fn questions_come_when_ten_minutes_and_an_hour_have_room() {
    let mut bench = busy();
    let began = bench.now - MINUTE;
    let waits = refused_questions(&mut bench, 3);
    let since = bench.now.since(began).as_secs();
    assert!((6..=7).contains(&waits[0]), "{waits:?}");
    assert!((590..=680).contains(&since), "ten minutes after the first message: {since} {waits:?}");
    bench.refuse(&reading(Class::RateLimit, Scope::Source), 0);
    bench.close_all();
    bench.wait_for_permit();
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    let since = bench.now.since(began).as_secs();
    assert!((3500..=4100).contains(&since), "an hour after the first message: {since} {waits:?}");
    assert_eq!(bench.accept(1), Some(Change::Resumed));
    let rate = bench.status().rate_allowed.unwrap();
    assert!((8.0..=16.0).contains(&rate), "600 in an hour, or a little more: {rate}");
}

#[test]
fn no_wait_is_longer_than_a_day() {
    let mut bench = busy();
    let waits = refused_questions(&mut bench, 12);
    assert!(waits.iter().all(|wait| *wait <= 95_100), "{waits:?}");
    assert!(waits.last().is_some_and(|wait| *wait >= 86_000), "{waits:?}");
}

#[test]
fn a_burst_of_refusals_counts_once() {
    let mut bench = busy();
    let refusal = reading(Class::RateLimit, Scope::Source);
    let Some(Change::Paused { until }) = bench.refuse(&refusal, 0) else { panic!("no pause") };
    for _ in 0..19 {
        assert_eq!(bench.refuse(&refusal, 0), None);
    }
    assert_eq!(bench.status().until, Some(until));
}

#[test]
fn rules_may_ask_for_a_longer_wait() {
    let mut bench = busy();
    let mut refusal = reading(Class::RateLimit, Scope::Source);
    refusal.effects.wait = Some(400);
    bench.refuse(&refusal, 0);
    bench.close_all();
    let wait = bench.wait_for_permit();
    assert!(wait >= MINUTE * 4 && wait <= MINUTE * 5, "{wait:?}");
}

#[test]
fn a_connection_that_is_refused_once_changes_no_limit() {
    let mut bench = busy();
    let refusal = reading(Class::ConnectionLimit, Scope::Source);
    let Some(Change::Throttled { text }) = bench.refuse(&refusal, 0) else { panic!("it is said") };
    assert!(text.contains("may be chance"), "{text}");
    assert_eq!(bench.status().connections_allowed, 20);
    let permit = bench.permits.pop().unwrap();
    bench.throttle.release(permit);
    let wait = bench.wait_for_permit();
    assert!(wait >= Duration::from_secs(12) && wait <= Duration::from_secs(14), "none for a while: {wait:?}");
}

#[test]
fn a_connection_that_is_refused_twice_at_one_number_makes_it_the_limit_and_touches_nothing_else() {
    let mut bench = busy();
    let refusal = reading(Class::ConnectionLimit, Scope::Source);
    bench.refuse(&refusal, 0);
    assert!(matches!(refuse_again(&mut bench, &refusal, 0), Some(Change::Throttled { .. })));
    let status = bench.status();
    assert_eq!((status.connections_allowed, status.rate_allowed), (19, None));
    assert!(matches!(bench.grant(0), Answer::Spent), "above the limit a connection ends with its transaction");
    let permit = bench.permits.remove(0);
    bench.throttle.release(permit);
    assert!(matches!(bench.grant(0), Answer::Granted(_)), "the others go on");
    // As many as were good are refused now: it has fallen.
    refuse_again(&mut bench, &refusal, 0);
    refuse_again(&mut bench, &refusal, 0);
    assert_eq!(bench.status().connections_allowed, 9);
    assert!(!bench.throttle.lanes[&lane("a")].is_spent(49, bench.now) || bench.permits.len() > 9);
}

#[test]
fn of_many_opened_at_once_those_that_were_let_in_are_the_limit() {
    let mut bench = Bench::new(20);
    bench.open();
    bench.accept(1);
    for round in 0..2 {
        bench.pass(Duration::from_secs(200));
        bench.open();
        // Two are let in and take a message while the others are refused one after another.
        for n in 0..2 {
            assert!(matches!(bench.grant(n), Answer::Granted(_)));
        }
        while bench.permits.len() > 2 {
            bench.refuse(&reading(Class::ConnectionLimit, Scope::Source), 0);
            bench.throttle.release(bench.permits.pop().unwrap());
            bench.accept_on(0);
        }
        assert_eq!(bench.status().connections_allowed, [20, 2][round]);
        bench.close_all();
    }
}

#[test]
fn while_no_connection_is_opened_that_is_said_and_those_that_are_open_go_on() {
    let mut bench = busy();
    bench.refuse(&reading(Class::ConnectionLimit, Scope::Source), 0);
    let permit = bench.permits.pop().unwrap();
    bench.throttle.release(permit);
    assert!(bench.throttle.rests(&lane("a"), bench.now));
    let Answer::Rests(until) = bench.open() else { panic!("no new one for a while") };
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    bench.now = until;
    assert!(!bench.throttle.rests(&lane("a"), bench.now));
    assert!(matches!(bench.open(), Answer::Full), "the one that was given back is open again");
    assert_eq!(bench.permits.len(), 20);
}

#[test]
fn while_new_connections_wait_another_comes_in_the_place_of_one_that_was_let_in() {
    let mut bench = busy();
    let last = bench.permits.len() - 1;
    (0..last).for_each(|n| bench.throttle.let_in(&mut bench.permits[n], NamedLimits::default()));
    bench.refuse(&reading(Class::ConnectionLimit, Scope::Source), 0);
    for n in [last, 0] {
        assert!(matches!(bench.open(), Answer::Rests(_)));
        let permit = bench.permits.remove(n);
        bench.throttle.release(permit);
    }
    assert!(matches!(bench.open(), Answer::Rests(_)));
    assert_eq!(bench.permits.len(), last);
}

#[test]
fn what_is_being_opened_or_takes_leave_is_no_connection_that_goes_well() {
    let mut bench = Bench::new(20);
    for _ in 0..2 {
        bench.pass(Duration::from_secs(200));
        bench.open();
        // Its first transaction is planned before a connection is opened.
        let (throttle, now) = (&mut bench.throttle, bench.now);
        bench.permits.drain(12..).for_each(|permit| throttle.release(permit));
        for (n, permit) in bench.permits.iter_mut().enumerate() {
            assert!(matches!(throttle.grant(permit, 1, now), Answer::Granted(_)));
            if n < 11 {
                throttle.let_in(permit, NamedLimits::default());
            }
        }
        throttle.leaves(&mut bench.permits[10]);
        bench.accept_on(0);
        bench.refuse(&reading(Class::ConnectionLimit, Scope::Source), 0);
        bench.close_all();
    }
    assert_eq!(bench.status().connections_allowed, 11);
}

#[test]
fn a_rest_for_want_of_connections_is_no_time_in_which_a_rate_was_tried() {
    let rate = reading(Class::RateLimit, Scope::Source);
    let mut found = Vec::new();
    for rests in [false, true] {
        let mut bench = Bench::new(5);
        bench.open();
        for _ in 0..2 {
            for _ in 0..40 {
                assert!(matches!(bench.grant(0), Answer::Granted(_)));
                bench.pass(Duration::from_millis(100));
                bench.accept_on(0);
            }
            let until = bench.now + Duration::from_secs(30);
            if rests {
                bench.throttle.lanes.get_mut(&lane("a")).unwrap().wanted(until, bench.now);
            }
            bench.now = until;
            assert!(matches!(bench.grant(0), Answer::Granted(_)));
            bench.refuse(&rate, 0);
            bench.close_all();
            bench.wait_for_permit();
            assert!(matches!(bench.grant(0), Answer::Granted(_)));
            bench.accept(1);
            bench.open();
        }
        found.push(bench.status().rate_allowed.unwrap());
    }
    assert!(found[0] < 80.0 && found[1] > 200.0, "40 messages in 4 s: {found:?}");
}

#[test]
fn connections_that_may_carry_nothing_make_one_message_the_limit() {
    let mut bench = busy();
    let refusal = reading(Class::MessageLimit, Scope::Connection);
    bench.refuse(&refusal, 0);
    let Some(Change::Throttled { text }) = refuse_again(&mut bench, &refusal, 0) else { panic!("a limit") };
    assert!(text.contains("at most 1 message on a connection"), "{text}");
}

#[test]
fn two_connections_ended_after_as_many_messages_make_it_the_limit_and_nothing_else_changes() {
    let mut bench = busy();
    let before = bench.status().connections_allowed;
    let refusal = reading(Class::MessageLimit, Scope::Connection);
    let Some(Change::Throttled { text }) = bench.refuse(&refusal, 10) else { panic!("it is said") };
    assert!(text.contains("may be chance"), "{text}");
    assert!(matches!(refuse_again(&mut bench, &refusal, 10), Some(Change::Throttled { .. })));
    for _ in 0..2 {
        let ended = bench.permits.pop().unwrap();
        bench.throttle.release(ended);
    }
    let status = bench.status();
    assert_eq!((status.connections_allowed, status.rate_allowed), (before, None));
    assert!(matches!(bench.grant(0), Answer::Granted(_)), "other connections go on");
    let wait = bench.wait_for_permit();
    assert!(wait >= Duration::from_secs(29) && wait <= MINUTE, "{wait:?}");
    let last = bench.permits.len() - 1;
    for _ in 0..9 {
        assert!(matches!(bench.grant(last), Answer::Granted(_)));
        bench.accept(1);
    }
    bench.grant(last);
    assert!(matches!(bench.grant(last), Answer::Spent), "ten messages");
}

#[test]
fn what_the_receiver_names_bounds_a_connection_before_anything_is_refused_and_never_below_one() {
    let granted = |answer: Answer<Grant>| match answer {
        Answer::Granted(Grant { recipients }) => Some(recipients),
        _ => None,
    };
    for (messages, recipients, most) in
        [(Some(2), Some(3), 3), (Some(1), None, 100), (Some(0), Some(0), 1), (None, Some(500), 100)]
    {
        let mut bench = Bench::new(5);
        bench.open();
        bench.permits[0].named = NamedLimits { messages, recipients };
        let carried = (0..10).take_while(|_| granted(bench.grant(0)) == Some(most)).count();
        assert_eq!(carried, messages.map_or(10, |messages| messages.max(1) as usize), "{messages:?} {recipients:?}");
        assert_eq!(granted(bench.grant(1)), Some(100), "the others go on as before");
    }
}

#[test]
fn too_many_recipients_halves_them_and_nothing_else() {
    let mut bench = busy();
    let before = bench.status().connections_allowed;
    let refusal = reading(Class::TooManyRecipients, Scope::Message);
    for expected in [50, 25, 12, 6, 3, 1, 1] {
        bench.refuse(&refusal, 0);
        let Answer::Granted(grant) = bench.grant(0) else { panic!("no grant") };
        assert_eq!(grant.recipients, expected);
    }
    assert_eq!((bench.status().connections_allowed, bench.status().rate_allowed), (before, None));
}

#[test]
fn a_block_stops_the_lane_and_is_probed_ever_more_rarely() {
    let mut bench = busy();
    assert!(matches!(bench.refuse(&block(), 0), Some(Change::Blocked { .. })));
    assert_eq!(bench.refuse(&block(), 0), None, "one block");
    assert_eq!(bench.status().state, "blocked");
    bench.close_all();
    let mut hours = Vec::new();
    for _ in 0..7 {
        hours.push(bench.wait_for_permit().as_secs() / 3600);
        assert_eq!(bench.throttle.probe(&lane("a"), bench.now), Some(Probe::Expendable));
        assert!(matches!(bench.grant(0), Answer::Granted(_)));
        bench.refuse(&block(), 0);
        bench.close_all();
    }
    assert!(
        hours.iter().zip([1, 2, 4, 8, 16, 24, 24]).all(|(wait, least)| (least..=least + 2).contains(wait)),
        "{hours:?}"
    );
    bench.wait_for_permit();
    bench.grant(0);
    assert_eq!(bench.accept(1), Some(Change::Resumed));
    assert!(bench.status().rate_allowed.is_some_and(|rate| rate < 60.0), "slow start: {:?}", bench.status());
}

#[test]
fn a_block_that_answers_the_question_about_a_rate_leaves_no_question_behind() {
    let mut bench = busy();
    bench.refuse(&reading(Class::RateLimit, Scope::Source), 0);
    bench.close_all();
    bench.wait_for_permit();
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    assert!(matches!(bench.refuse(&block(), 0), Some(Change::Blocked { .. })));
    bench.close_all();
    bench.wait_for_permit();
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    assert_eq!(bench.accept(1), Some(Change::Resumed));
    let first = bench.status().rate_allowed.unwrap();
    for _ in 0..20 {
        bench.pass(MINUTE);
        let _ = bench.open();
    }
    let rate = bench.status().rate_allowed;
    assert!(rate.is_none_or(|rate| rate > 8.0 * first), "the way back goes on: {first}, then {rate:?}");
}

#[test]
fn questions_that_are_accepted_come_sooner() {
    let mut bench = busy();
    let mut waits = Vec::new();
    for _ in 0..6 {
        for _ in 0..30 {
            bench.pass(Duration::from_secs(30));
            bench.accept(40);
        }
        bench.refuse(&reading(Class::RateLimit, Scope::Source), 0);
        bench.close_all();
        waits.push(bench.wait_for_permit().as_secs_f64());
        bench.grant(0);
        assert_eq!(bench.accept(1), Some(Change::Resumed));
        bench.pass(Duration::from_secs(1));
    }
    assert!(waits[0] >= 6.0 && waits.iter().all(|wait| *wait >= 0.5), "{waits:?}");
    assert!(waits[1..].iter().any(|wait| *wait < 4.0), "{waits:?}");
}

#[test]
fn a_small_pause_never_makes_a_wait_shorter_than_an_answer() {
    let mut bench = busy();
    let options = ProviderOptions {
        name: "p".into(),
        pause: Some(Span(Duration::from_secs(2))),
        initial_connections: Some(20),
        ..Default::default()
    };
    bench.throttle.reconfigure(Profiles::new(&[options]), 100);
    bench.refuse(&reading(Class::RateLimit, Scope::Source), 0);
    bench.close_all();
    let wait = bench.wait_for_permit();
    assert!(wait >= Duration::from_millis(200) && wait <= Duration::from_millis(230), "{wait:?}");
}

#[test]
fn a_block_that_may_be_about_content_is_probed_early_with_mail_of_another_sender() {
    let mut bench = busy();
    let mut refusal = block();
    refusal.effects.probe_early = true;
    bench.refuse(&refusal, 0);
    bench.close_all();
    let wait = bench.wait_for_permit();
    assert!(wait >= MINUTE * 6 && wait <= MINUTE * 7, "{wait:?}");
    assert_eq!(bench.throttle.probe(&lane("a"), bench.now), Some(Probe::OtherSender));
}

#[test]
fn a_refused_name_stops_the_lane_until_it_changes_or_a_person_says_so() {
    let mut bench = busy();
    let refusal = Reading { class: Class::Protocol, ..block() };
    assert_eq!(bench.refuse(&refusal, 0), Some(Change::Blocked { until: Timestamp::NEVER }));
    assert_eq!((bench.status().state, bench.status().until), ("stopped", None));
    bench.close_all();
    bench.pass(Duration::from_secs(90 * 86_400));
    assert!(matches!(bench.open(), Answer::At(Timestamp::NEVER)));
    bench.throttle.renamed(bench.now);
    assert_eq!(bench.wait_for_permit(), Duration::ZERO);
}

#[test]
fn an_answer_that_was_lost_or_is_about_something_else_leaves_the_lane_probing() {
    let mut bench = busy();
    bench.refuse(&block(), 0);
    bench.close_all();
    bench.wait_for_permit();
    bench.grant(0);
    bench.throttle.report(&lane("a"), &Signal::Broken { about: About::default() }, bench.now);
    assert!(matches!(bench.grant(0), Answer::Granted(_)), "the next one asks");
    bench.refuse(&reading(Class::RecipientUnknown, Scope::Recipient), 0);
    assert_eq!(bench.status().state, "probing");
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
}

#[test]
fn a_lane_without_history_sends_one_message_first() {
    let mut bench = Bench { guarded: true, ..Bench::new(5) };
    assert!(matches!(bench.open(), Answer::Full));
    assert_eq!(bench.permits.len(), 1);
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    assert!(matches!(bench.grant(0), Answer::Full));
    bench.accept(1);
    bench.open();
    assert_eq!(bench.permits.len(), 5);
    bench.close_all();
    bench.pass(Duration::from_secs(86_400));
    bench.open();
    assert_eq!(bench.permits.len(), 1, "idle for a day");
}

#[test]
fn connections_grow_while_all_are_used_and_no_further() {
    let mut bench = Bench::new(5);
    bench.open();
    bench.close_all();
    for _ in 0..100 {
        bench.accept(1);
    }
    assert_eq!(bench.status().connections_allowed, 5, "none is open");
    bench.open();
    for n in 0..bench.permits.len() {
        bench.grant(n);
    }
    let mut micros = 0;
    for step in 0..25_000 {
        // Each takes five seconds, one after the other: more of them take more.
        micros += 5_000_000 / bench.permits.len() as u64;
        bench.pass(Duration::from_millis(micros / 1000));
        micros %= 1000;
        let n = step % bench.permits.len();
        bench.accept_on(n);
        let known = bench.permits.len();
        bench.open();
        for n in [n].into_iter().chain(known..bench.permits.len()) {
            bench.permits[n].messages = 0;
            bench.grant(n);
        }
    }
    assert_eq!(bench.status().connections_allowed, 500);
    assert_eq!(bench.status().state, "open");
}

#[test]
fn an_operator_stops_a_provider_and_opens_it_by_one_probe() {
    let mut bench = busy();
    assert_eq!(bench.throttle.order("p", LaneOrder::Pause, bench.now).changes.len(), 1);
    assert_eq!(bench.status().state, "paused");
    assert!(matches!(bench.grant(0), Answer::At(Timestamp::NEVER)));
    bench.close_all();
    bench.throttle.order("p", LaneOrder::Resume { force: false }, bench.now);
    assert_eq!(bench.wait_for_permit(), Duration::ZERO);
    assert!(matches!(bench.grant(0), Answer::Granted(_)));
    assert!(matches!(bench.grant(0), Answer::Full));
    assert_eq!(bench.accept(1), Some(Change::Resumed));
    bench.refuse(&block(), 0);
    bench.throttle.order("p", LaneOrder::Resume { force: true }, bench.now);
    assert_ne!(bench.status().state, "blocked");
}

#[test]
fn a_pause_holds_for_lanes_that_come_later_and_over_a_restart() {
    let mut bench = Bench::new(5);
    bench.throttle.order("p", LaneOrder::Pause, bench.now);
    assert!(matches!(bench.open(), Answer::At(Timestamp::NEVER)));
    let records = bench.throttle.unsaved(usize::MAX, bench.now);
    let mut again = Bench::new(5);
    again.throttle.restore(records, again.now);
    assert!(matches!(again.open(), Answer::At(Timestamp::NEVER)));
    again.throttle.order("p", LaneOrder::Resume { force: true }, again.now);
    assert!(
        again.throttle.unsaved(usize::MAX, again.now).iter().any(|record| record.state.is_empty()),
        "forgotten in the store too"
    );
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut bench = busy();
    for _ in 0..2 {
        refuse_again(&mut bench, &reading(Class::ConnectionLimit, Scope::Source), 0);
        refuse_again(&mut bench, &reading(Class::MessageLimit, Scope::Connection), 20);
    }
    bench.refuse(&reading(Class::RateLimit, Scope::Source), 0);
    let records = bench.throttle.unsaved(usize::MAX, bench.now);
    assert_eq!(bench.throttle.unsaved(usize::MAX, bench.now), [], "asked twice, changed once");
    let mut again = Bench::new(20);
    again.now = bench.now;
    again.throttle.restore(records, again.now);
    let (before, after) = (bench.status(), again.status());
    assert_eq!((after.state, after.until, after.reason), (before.state, before.until, before.reason));
    assert_eq!(again.throttle.lanes[&lane("a")].saved(), bench.throttle.lanes[&lane("a")].saved());
}

#[test]
fn records_that_cannot_be_read_are_passed_over() {
    let mut bench = Bench::new(5);
    let record = |state: &str| LaneRecord { name: lane("a"), state: state.into() };
    bench.throttle.restore(vec![record(""), record("{"), record("[1]"), record("\0")], bench.now);
    bench.open();
    assert_eq!(bench.permits.len(), 5);
}

#[test]
fn a_fixed_rate_holds_from_the_start() {
    let mut bench = Bench::new(5);
    let options = ProviderOptions { name: "p".into(), max_rate: Some("60/min".parse().unwrap()), ..Default::default() };
    bench.throttle.reconfigure(Profiles::new(&[options]), 1000);
    bench.open();
    let (from, mut sent) = (bench.now, 0);
    while bench.now.since(from) < MINUTE * 10 {
        let n = sent % bench.permits.len();
        bench.permits[n].messages = 0;
        match bench.grant(n) {
            Answer::Granted(_) => sent += 1,
            Answer::At(at) => bench.now = at,
            answer => panic!("{answer:?}"),
        }
    }
    assert!((598..=602).contains(&sent), "{sent}");
}

#[test]
fn lanes_that_were_stopped_together_do_not_ask_together() {
    for refusal in [reading(Class::RateLimit, Scope::Source), block()] {
        let mut waits: Vec<i64> = Vec::new();
        for seed in 0..40 {
            let mut bench = busy();
            bench.throttle.chance = fastrand::Rng::with_seed(seed);
            bench.refuse(&refusal, 0);
            waits.push(bench.status().until.unwrap().since(bench.now).as_millis() as i64);
        }
        let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
        assert!(most * 100 > least * 106 && most * 100 <= least * 110, "from {least} to {most} ms");
    }
}

#[test]
fn what_began_before_the_question_is_no_answer_to_it() {
    for refusal in [reading(Class::RateLimit, Scope::Source), block()] {
        let mut bench = busy();
        bench.permits.drain(1..).for_each(|permit| bench.throttle.release(permit));
        assert!(matches!(bench.grant(0), Answer::Granted(_)));
        let began = bench.now;
        bench.pass(Duration::from_millis(10));
        let refused = || Signal::Refused { reading: &refusal, reply: "no", started: began, about: About::default() };
        let accepted = |started| Signal::Accepted { recipients: 1, started, about: About::default() };
        assert!(bench.throttle.report(&lane("a"), &refused(), bench.now).change.is_some());
        let until = bench.status().until.expect("it is stopped");
        bench.throttle.ended(&mut bench.permits[0]);
        bench.now = until;
        assert!(matches!(bench.grant(0), Answer::Granted(_)), "the question");
        // Answers to what was begun before the lane was stopped.
        assert_eq!(bench.throttle.report(&lane("a"), &refused(), bench.now).change, None);
        assert_eq!(bench.status().state, "probing", "the question is still out");
        bench.throttle.ended(&mut bench.permits[0]);
        assert!(matches!(bench.grant(0), Answer::Full), "and no other is asked");
        assert_eq!(bench.throttle.report(&lane("a"), &accepted(began), bench.now).change, None);
        assert_eq!(bench.status().state, "probing");
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.throttle.report(&lane("a"), &accepted(until), bench.now).change, Some(Change::Resumed));
    }
}

#[test]
fn what_one_limit_does_not_let_through_is_not_taken_from_the_others() {
    let options = |max_rate: Option<&str>| ProviderOptions {
        name: "p".into(),
        growth: Some(2.0),
        initial_connections: Some(5),
        max_rate: max_rate.map(|rate| rate.parse().unwrap()),
        warm_up: Some(vec![100; 9]),
        ..Default::default()
    };
    // The warm-up refuses after the guard has let it through; the fixed rate likewise.
    for (max_rate, warms) in [(None, true), (Some("600/min"), false)] {
        let mut bench = Bench::new(5);
        bench.guarded = true;
        bench.throttle = Throttle::new(Profiles::new(&[options(max_rate)]), 1000, 7);
        if warms {
            bench.throttle.warm_up([lane("a")].into());
        }
        bench.open();
        assert!(matches!(bench.grant(0), Answer::Granted(_)), "first contact");
        bench.accept(1);
        bench.pass(MINUTE * 60 * 20);
        bench.open();
        let now = bench.now;
        let ask = |bench: &mut Bench, now| bench.throttle.grant(&mut bench.permits[0], 8, now);
        assert!(matches!(ask(&mut bench, now), Answer::Granted(_)), "{max_rate:?}");
        let Answer::At(first) = ask(&mut bench, now) else { panic!("16 at once: {max_rate:?}") };
        for _ in 0..200 {
            let Answer::At(at) = ask(&mut bench, now) else { panic!("16 at once") };
            assert_eq!(at, first, "{max_rate:?}: asking costs nothing");
        }
        assert!(matches!(ask(&mut bench, first), Answer::Granted(_)), "{max_rate:?}: at the moment that was named");
    }
}
