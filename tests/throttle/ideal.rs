//! The measure itself: the drain bench's ideal sender and its scenarios.

use std::path::Path;
use std::time::Duration;

use weir::simulate::Profile;

use crate::drain::ideal::Ideal;
use crate::drain::naive::{self, Policy};
use crate::drain::run::Course;
use crate::drain::scenario::{Family, Scenario, files};
use crate::drain::score::REFUSED_FROM;
use crate::world::site::Pace;
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

#[test]
fn a_sender_that_only_hammers_is_not_waited_for() {
    let setting = Setting {
        provider: "outlook".into(),
        profile: profile("limits.per_hour = 0"),
        domains: vec![weir::types::Domain::parse("outlook.com").expect("a domain")],
        addresses: 1,
        faults: Faults::default(),
    };
    let mut site = Site::new(setting, 0, 1, START);
    let left = naive::drain(Policy::RetriesLater, &mut site, 100, START + Duration::from_secs(3_000_000));
    assert_eq!((left, site.judgement().refused.attempts()), (100, 1000));
}
