//! All places taken, by one kind of besieger after the other: clients the relay knows are served all the same, and nobody is ever
//! turned away by a greeting.

use std::time::Duration;

use crate::generator::Siege;
use crate::kit::{World, mail, now, until};

const PLACES: usize = 60;
/// More than there are places.
const BESIEGERS: usize = 90;
/// Honest messages, each on a connection of its own.
const MESSAGES: usize = 20;
/// Where somebody can make room it is a matter of milliseconds; the machine may be busy.
const SOON: Duration = Duration::from_secs(3);
/// Who is worth no more waits until one of the others has been idle for a while, and for those who came before.
const IN_TURN: Duration = Duration::from_secs(15);

#[test]
fn whoever_takes_all_places_keeps_no_known_client_waiting() {
    let _turn = crate::turn();
    let (world, mx) = World::with_domain("x.test");
    let relay = world
        .config()
        .set("limits", "connections", &PLACES.to_string())
        .set("relay", "trusted_networks", "[\"127.0.0.0/24\"]")
        .start();
    let mut siege = Siege::of(&relay);
    let kinds = ["idle", "drip", "deaf", "half", "early", "bdat", "rcpt", "babble", "lines", "idle-friend"];
    for kind in kinds {
        let before = siege.seen().connected;
        siege.order(&format!("{kind} {BESIEGERS}"));
        // Some kinds the relay gets rid of by itself: they come again and again.
        until("the besiegers", || (siege.seen().connected >= before + BESIEGERS).then_some(()));
        let slowest = (0..MESSAGES).map(|n| {
            let begun = now();
            relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("{kind}-{n}"), "x"));
            begun.elapsed()
        });
        let slowest = slowest.max().unwrap_or_default();
        eprintln!("{kind} on all places: the slowest message took {slowest:?}");
        let allowed = if kind == "idle-friend" { IN_TURN } else { SOON };
        assert!(slowest < allowed, "{kind}: {slowest:?}");
        siege.order("rest");
    }
    let seen = siege.seen();
    assert_eq!(seen.turned_away, 0, "{seen:?}");
    mx.wait_accepted(MESSAGES * kinds.len());
    assert_eq!(relay.json(&["health"])[0]["panics"], 0);
}
