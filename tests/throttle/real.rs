//! The scenarios of `cargo bench --bench drain -- --real`, which compares real and virtual time: all mail goes in both.

use crate::drain::real::{Comparison, Ratios, SCENARIOS, compare};

fn comparison(drain: f64, refused: f64) -> Comparison {
    let virtually = [(1.1, 0.01), (1.2, 0.02)].map(|(drain, refused)| Ratios { drain, refused }).to_vec();
    Comparison {
        messages: 100,
        ideal: std::time::Duration::from_secs(10),
        virtually,
        really: Ratios { drain, refused },
        faults: Vec::new(),
    }
}

#[test]
fn what_is_off_by_more_than_it_may_is_named() {
    for (drain, refused, differences) in
        [(1.0, 0.0, 0), (1.4, 0.03, 0), (1.6, 0.02, 1), (0.7, 0.02, 1), (1.2, 0.05, 1), (3.0, 0.5, 2)]
    {
        let found = comparison(drain, refused).differences();
        assert_eq!(found.len(), differences, "{drain} {refused}: {found:?}");
    }
}

/// How long it takes is compared by the bench, which may be repeated: a clock on the wall is no judge here.
#[test]
fn the_whole_relay_on_real_sockets_gets_all_mail_through_as_its_core_does() {
    if std::env::var("WEIR_TEST").is_ok_and(|kind| kind == "long") {
        for (name, text) in SCENARIOS {
            let comparison = compare(name, text).expect("both runs end");
            assert!(comparison.really.drain.is_finite() && comparison.messages > 0, "{name}: {comparison:?}");
            eprintln!("{name}: {:?}: {comparison:?}", comparison.differences());
        }
    } else {
        eprintln!("skipped: takes some minutes of real time, with WEIR_TEST=long only");
    }
}
