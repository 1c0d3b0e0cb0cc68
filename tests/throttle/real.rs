//! Virtual and real time agree: the same scenarios in both, as `cargo bench --bench drain -- --real` runs it.

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

#[test]
fn the_whole_relay_on_real_sockets_drains_as_its_core_does_in_virtual_time() {
    if std::env::var("WEIR_TEST").is_ok_and(|kind| kind == "long") {
        for (name, text) in SCENARIOS {
            let comparison = compare(name, text).expect("both runs end");
            assert!(comparison.differences().is_empty(), "{name}: {:?}: {comparison:?}", comparison.differences());
        }
    } else {
        eprintln!("skipped: takes some minutes of real time, with WEIR_TEST=long only");
    }
}
