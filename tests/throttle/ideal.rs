//! The measure itself: the drain bench's ideal sender and its scenarios.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use weir::outbound::Outcome;
use weir::simulate::{Mail, Profile, Receiver};
use weir::types::{Priority, Span};

use crate::drain::arrival::Arrival;
use crate::drain::ideal::Ideal;
use crate::drain::naive::{self, Policy};
use crate::drain::run::Course;
use crate::drain::scenario::{Family, Scenario, files};
use crate::drain::score::REFUSED_FROM;
use crate::world::site::{Connected, Pace, SOURCE};
use crate::world::{Faults, START, Setting, Site};

fn profile(text: &str) -> Profile {
    Profile::parse(text).expect("a profile")
}

fn ideal(profile: &Profile) -> Ideal<'_> {
    Ideal::new(profile, Pace::of(profile), 500, 1)
}

#[test]
fn the_ideal_sender_uses_up_every_window_and_no_more() {
    let limits = profile("limits.per_minute = 60\nlimits.per_hour = 1200");
    let mut ideal = ideal(&limits);
    for (seconds, sent) in [(60, 60), (120, 120), (1200, 1200), (3600, 1200), (3660, 1260), (36_000, 12_000)] {
        assert_eq!(ideal.within(Duration::from_secs(seconds)), sent, "after {seconds} s");
    }
    assert_eq!(ideal.time_for(1201), Some(Duration::from_secs(3601)));
}

#[test]
fn the_ideal_sender_knows_what_connections_carry_and_when_that_changes() {
    let changing = profile(
        "limits.connections = 10\nlatency.data = \"2s\"\n\
         [[change]]\nafter = \"100s\"\nscale = 0.1\n[[change]]\nafter = \"200s\"\nblock = \"100s\"",
    );
    let mut ideal = ideal(&changing);
    let sent: Vec<usize> = [100, 200, 300].map(|seconds| ideal.within(Duration::from_secs(seconds))).to_vec();
    assert_eq!(sent, [500, 550, 550]);
}

/// What the simulator lets in within so many seconds of somebody who tries all the time.
fn let_in(profile: &Profile, seconds: u64, sources: &[IpAddr]) -> usize {
    let mut receiver = Receiver::new(profile.clone(), 1, START);
    let sessions: Vec<_> = sources.iter().map(|source| receiver.connect(*source, "mx", START).0).collect();
    let mut taken = 0;
    for tenth in 0..seconds * 10 {
        let now = START + Duration::from_millis(tenth * 100);
        for (source, session) in sources.iter().zip(&sessions) {
            let session = session.expect("a session");
            while receiver.would_take(*source, now) {
                let mail = Mail { sender: "a@b.test", ..Mail::default() };
                assert!(receiver.mail(session, &mail, now).reply.is_some_and(|reply| reply.is_positive()));
                receiver.reset(session, now);
                taken += 1;
            }
        }
    }
    taken
}

#[test]
fn the_ideal_sender_sends_exactly_what_the_simulator_lets_in() {
    let window = |text: &str| format!("[[limits.window]]\n{text}\n");
    let table = [
        (window("count = 600\nspan = '10m'"), 3000),
        (window("count = 600\nspan = '10m'\nkind = 'clock'"), 3000),
        (window("count = 7\nspan = '7s'\nkind = 'clock'"), 500),
        (window("count = 1\nspan = '1s'\nkind = 'bucket'\ndepth = 300"), 1000),
        (window("count = 50\nspan = '1s'\nkind = 'bucket'\ndepth = 50"), 100),
        (window("count = 50\nspan = '1s'"), 100),
        (window("count = 5\nspan = '2500ms'"), 100),
        (window("count = 40\nspan = '1h'\nscope = 'all'"), 9000),
        (window("count = 40\nspan = '1h'") + &window("count = 3\nspan = '1m'\nkind = 'bucket'\ndepth = 5"), 9000),
        (
            "[[change]]\nafter = '5m'\nevery = '5m'\ntimes = 9\nfactor = 0.8\n".to_string()
                + &window("count = 60\nspan = '1m'"),
            3600,
        ),
    ];
    let sources = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    for (text, seconds) in table {
        let profile = profile(&text);
        for count in [1, 2] {
            let best = Ideal::new(&profile, Pace::of(&profile), 500, count).within(Duration::from_secs(seconds));
            let taken = let_in(&profile, seconds, &sources[..count]);
            // In its last step the ideal sender may have used what flows in until the step's end.
            let off = best.abs_diff(taken);
            assert!(off <= 100 && off * 50 <= taken, "{text}: {best}, let in {taken}, with {count} sources");
        }
    }
}

#[test]
fn the_ideal_sender_waits_for_mail_that_has_not_come() {
    let limits = profile("limits.per_minute = 60");
    let arrivals = [
        Arrival { messages: 3600, over: Span(Duration::from_secs(7200)), ..Arrival::at_once(0) },
        Arrival { after: Span(Duration::from_secs(100)), ..Arrival::at_once(60) },
    ];
    let mut ideal = ideal(&limits).with(&arrivals);
    assert_eq!(ideal.within(Duration::from_secs(60)), 30);
    // One in two seconds: the last one comes in the last second but one.
    assert_eq!(ideal.time_for(3660), Some(Duration::from_secs(7199)));
    let batches: Vec<usize> = arrivals.iter().map(|arrival| arrival.batches().map(|(_, count)| count).sum()).collect();
    assert_eq!(batches, [3600, 60], "nothing is forgotten between the seconds");
}

#[test]
fn the_longest_pause_of_the_ideal_sender_is_the_one_it_cannot_help() {
    let limits = profile("limits.per_hour = 60");
    assert_eq!(ideal(&limits).longest_pause(180), Duration::from_secs(3599));
    assert_eq!(ideal(&limits).longest_pause(60), Duration::ZERO);
}

#[test]
fn a_receiver_that_takes_nothing_has_no_ideal_time() {
    let shut = profile("limits.per_hour = 0");
    assert_eq!(ideal(&shut).time_for(1), None);
}

#[test]
fn every_scenario_is_read_and_its_backlog_is_large_enough_to_count_refusals() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/drain");
    let files = files(&folder).expect("the folder of the scenarios");
    assert!(files.len() >= 40, "{files:?}");
    for file in files {
        let scenario = Scenario::read(&file).expect("a scenario");
        let course = Course::new(&scenario).expect("a course");
        let is_large = scenario.family != Family::Old || course.messages >= REFUSED_FROM;
        assert!(is_large, "{}: {} messages", scenario.name, course.messages);
    }
}

#[test]
fn the_scenario_of_the_document_is_one() {
    let page = include_str!("../../docs/drain.md");
    let text = page.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).expect("a scenario").0;
    let scenario = Scenario::parse("document", text).expect("a scenario that can be read");
    assert_eq!((scenario.seeds, scenario.receiver.limits.per_minute), (3, Some(60)));
}

#[test]
fn a_key_nobody_knows_is_an_error_that_names_the_nearest() {
    for (text, key) in [
        ("about = 'x'\nhour = 1\n[receiver]", "hours"),
        ("about = 'x'\nhours = 1\n[receiver.limits]\nper_minut = 1", "per_minute"),
        ("about = 'x'\nhours = 1\n[receiver]\n[relay]\npauze = '1s'", "pause"),
    ] {
        let error = format!("{:#}", Scenario::parse("test", text).expect_err("a key nobody knows"));
        assert!(error.contains(&format!("the nearest key is `{key}`")), "{error}");
    }
}

fn site(text: &str) -> Site {
    let setting = Setting {
        provider: "outlook".into(),
        profile: profile(text),
        domains: vec![weir::types::Domain::parse("outlook.com").expect("a domain")],
        mx_sets: 1,
        addresses: 1,
        faults: Faults::default(),
    };
    Site::new(setting, 0, 1, START)
}

#[test]
fn a_transaction_whose_recipients_were_all_refused_is_taken_back_before_the_next() {
    let mut site = site("mailboxes.unknown = ['gone@outlook.com']");
    let Connected::Open { session, .. } = site.connect(SOURCE, site.address(), START) else { panic!("refused") };
    for (n, (recipient, code)) in [("gone@outlook.com", 550), ("a@outlook.com", 250)].iter().enumerate() {
        let identity = n.to_string();
        let mail = Mail { sender: "s@sender.test", size_bytes: None, identity: Some(&identity) };
        let heard = site.transact(session, &mail, &[recipient], START);
        let codes = heard.outcomes.iter().map(|outcome| match outcome {
            Outcome::Replied { reply, .. } => reply.code(),
            other => panic!("{other:?}"),
        });
        assert_eq!(codes.collect::<Vec<_>>(), [*code]);
    }
    assert_eq!(site.judgement().refused.protocol, 0, "no MAIL came in the middle of a transaction");
}

#[test]
fn what_is_idle_and_what_is_shut_are_told_apart() {
    let mut site = site("limits.per_hour = 1");
    let Connected::Open { session, .. } = site.connect(SOURCE, site.address(), START) else { panic!("refused") };
    site.watch(START);
    let mail = Mail { sender: "s@sender.test", ..Mail::default() };
    site.transact(session, &mail, &["a@outlook.com"], START);
    // Shut for an hour, then open, and nobody comes.
    site.look_back(&[SOURCE], START + Duration::from_secs(2 * 3600));
    let watch = site.watched().expect("it is watched");
    let minutes = |time: Duration| time.as_secs() / 60;
    assert!((57..=61).contains(&minutes(watch.shut)), "{watch:?}");
    assert!((57..=61).contains(&minutes(watch.idle)), "{watch:?}");
}

#[test]
fn a_scenario_says_who_sends_what_when_and_what_goes_wrong() {
    let text = "about = 'x'\nhours = 1\narrives = '2h'\nsources = 3\ndomains = 40\nmx_sets = 10\n\
                mix = { high = 0.1, normal = 0.6, bulk = 0.3 }\nfaults = { lost = 0.01 }\n\
                clock = [{ after = '10m', ahead = '1h' }, { after = '20m', behind = '5m' }]\n\
                [receiver.limits]\nper_minute = 60\n";
    let scenario = Scenario::parse("test", text).expect("a scenario");
    assert_eq!((scenario.domains.len(), scenario.mx_sets, scenario.sources), (40, 10, 3));
    let steps: Vec<i64> = scenario.clock.iter().map(|step| step.ahead_millis()).collect();
    assert_eq!((scenario.faults.lost, steps), (0.01, vec![3_600_000, -300_000]));
    let course = Course::new(&scenario).expect("a course");
    assert_eq!((course.messages, course.best), (3 * 3600, Duration::from_secs(7200)));
    let share = |class| (0..1000).filter(|n| scenario.mix.class(*n) == class).count();
    for (class, of_thousand) in [(Priority::High, 100), (Priority::Normal, 600), (Priority::Bulk, 300)] {
        assert!(share(class).abs_diff(of_thousand) <= 2, "{class:?}: {}", share(class));
    }
    for wrong in [
        "messages = 5\narrival = [{ messages = 5 }]",
        "hours = 1\nsources = 0",
        "hours = 1\nmix = { high = -1 }",
        "hours = 1\ndomains = 2\nmx_sets = 3",
        "hours = 1\nfaults = { lost = 2 }",
    ] {
        assert!(Scenario::parse("test", &format!("about = 'x'\n{wrong}\n[receiver]")).is_err(), "{wrong}");
    }
}

#[test]
fn a_backlog_over_several_sources_domains_and_hours_comes_to_its_end() {
    let text = "about = 'x'\nmessages = 400\narrives = '30m'\nsources = 2\ndomains = 7\nmx_sets = 3\n\
                mix = { normal = 0.5, bulk = 0.5 }\nclock = [{ after = '5m', ahead = '10s' }]\n\
                [receiver.limits]\nconnections_per_source = 5\n[receiver.latency]\ndata = '100ms'";
    let scenario = Scenario::parse("test", text).expect("a scenario");
    let score = Course::new(&scenario).expect("a course").drain(1, None);
    assert_eq!((score.left, score.lost), (0, 0));
    assert!(score.whole < 1.2, "{}", score.whole);
}

#[test]
fn a_sender_that_steps_down_and_up_gets_through_where_others_hammer() {
    let mut site = site("limits.per_minute = 60\nlatency.data = '100ms'");
    let left = naive::drain(Policy::Steps, &mut site, &[Arrival::at_once(2000)], START + Duration::from_secs(86_400));
    assert_eq!((left, site.accepted.len()), (0, 2000));
}

#[test]
fn a_sender_that_only_hammers_is_not_waited_for() {
    let mut site = site("limits.per_hour = 0");
    let left =
        naive::drain(Policy::RetriesLater, &mut site, &[Arrival::at_once(100)], START + Duration::from_secs(3_000_000));
    assert_eq!((left, site.judgement().refused.attempts()), (100, 1000));
}
