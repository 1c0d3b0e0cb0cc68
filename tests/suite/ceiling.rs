//! The number on the postmaster's page: 500 connections at a time, over all that Outlook.com is, and all of them used.

use std::time::Duration;

use crate::kit::mx::wait_at;
use crate::kit::{At, Gate, Mx, World, mail, stays, until};

const CEILING: usize = 500;
const MESSAGES: usize = 3000;
/// Clients that hand in mail at a time.
const CLIENTS: usize = 10;

/// Consumer domains, each with an MX name of its own under one suffix, as Microsoft publishes them.
const DOMAINS: [(&str, &str); 4] = [
    ("outlook.com", "outlook-com.olc.protection.outlook.com"),
    ("hotmail.com", "hotmail-com.olc.protection.outlook.com"),
    ("live.com", "live-com.olc.protection.outlook.com"),
    ("msn.com", "msn-com.olc.protection.outlook.com"),
];

#[test]
fn three_thousand_messages_to_the_consumer_domains_use_500_connections_and_never_501() {
    let world = World::new();
    let gate = Gate::new();
    let hosts = DOMAINS.map(|(domain, name)| {
        let host = world.host(name);
        world.domain(domain, &[(10, &host)]);
        host.count_only();
        host.always(At::End, wait_at(&gate));
        host
    });
    // The growth guard is off: so much mail in the first hour is what it is there to hold back.
    // A connection is replaced after three messages: the ceiling must hold while many open and close.
    let provider =
        "[[provider]]\nname = \"outlook\"\ninitial_connections = 500\nmessages_per_connection = 3\ngrowth = 0.0";
    let relay = world.config().table(provider).start();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn({
                let relay = &relay;
                move || {
                    let mut session = relay.client();
                    for n in (client..MESSAGES).step_by(CLIENTS) {
                        let recipient = format!("u{n}@{}", DOMAINS[n % DOMAINS.len()].0);
                        session.submit("app@sender.test", &[&recipient], &mail(&format!("m{n}"), "x"));
                    }
                }
            });
        }
        // Whatever the relay wants to see first of a receiver it does not know, it is quick to see.
        gate.admit(1);
    });
    until("500 transactions at once", || (gate.waiting() == CEILING).then_some(()));
    stays(Duration::from_secs(1), "500 connections", || world.crowd.open() == CEILING && gate.waiting() == CEILING);
    let accepted = || hosts.iter().map(Mx::accepted_count).sum::<usize>();
    for next in (1..=MESSAGES).step_by(97).skip(1).chain([MESSAGES]) {
        gate.admit(next.saturating_sub(accepted()));
        until("the next messages", || {
            // One that was let through may have had to come again.
            gate.top_up(usize::from(accepted() < next));
            (accepted() >= next).then_some(())
        });
    }
    relay.assert_settled();
    assert_eq!((accepted(), world.crowd.peak()), (MESSAGES, CEILING), "messages, and connections at once");
    assert!(hosts.iter().all(|host| host.accepted_count() == MESSAGES / DOMAINS.len()));
}
