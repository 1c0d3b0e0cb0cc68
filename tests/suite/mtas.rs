//! Postfix and Exim with weir as their smarthost: the clients most users have.

use std::net::SocketAddr;

use crate::kit::mta::{Kind, Mta};
use crate::kit::{At, Mx, Report, World, contains, say, until};

const TEXT: &str = "From: App <app@sender.test>\nTo: u@x.test\nSubject: from a mail server\n\n.dot\nGrüße\n..\nend\n";
const BODY: &[u8] = "\r\n\r\n.dot\r\nGrüße\r\n..\r\nend\r\n".as_bytes();

/// The server delivers straight to a scripted receiver: the test bench itself works.
fn reaches_a_scripted_receiver(kind: Kind) {
    let (_world, mx) = World::with_domain("x.test");
    let Some(mta) = Mta::start(kind, mx.address()) else { return };
    mta.send("app@sender.test", &["u@x.test"], TEXT);
    assert!(contains(&mx.wait_accepted(1)[0].content, BODY), "{}", mx.accepted()[0].text());
    // A refusal makes the server write a report itself, and send it the same way.
    mx.always(At::to("gone@x.test"), say("550 5.1.1 gone"));
    mta.send("app@sender.test", &["gone@x.test"], TEXT);
    assert_eq!(mx.wait_accepted(2)[1].to(), ["app@sender.test"]);
}

#[test]
fn postfix_reaches_a_scripted_receiver() {
    reaches_a_scripted_receiver(Kind::Postfix);
}

#[test]
fn exim_reaches_a_scripted_receiver() {
    reaches_a_scripted_receiver(Kind::Exim);
}

/// `x.test`, the sender's home, and where to start the server.
fn world() -> (World, Mx, Mx) {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    (world, mx, home)
}

fn delivers_and_hears_of_failures(kind: Kind) {
    let (world, mx, home) = world();
    mx.always(At::to("gone@x.test"), say("550 5.1.1 no such user here"));
    let relay = world.config().start();
    let address: SocketAddr = relay.address();
    let Some(mta) = Mta::start(kind, address) else { return };

    mta.send("app@sender.test", &["u@x.test", "gone@x.test"], TEXT);
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!((got.sender.as_str(), got.to()), ("app@sender.test", vec!["u@x.test"]));
    assert!(contains(&got.content, BODY), "{}", got.text());

    // The relay's report comes home.
    let report = Report::read(&home.wait_accepted(1)[0]);
    assert!(report.of("gone@x.test").contains("no such user here"), "{report:?}");

    // From now on the relay refuses at RCPT, and the server's own report comes home, through the relay.
    mta.send("app@sender.test", &["u@x.test", "gone@x.test"], TEXT);
    mx.wait_accepted(2);
    let second = home.wait_accepted(2).remove(1);
    assert!(second.text().contains("gone@x.test") && second.text().contains("550"), "{}", second.text());
    assert_eq!(mx.rcpts("gone@x.test"), 1);
    relay.assert_settled();
}

#[test]
fn postfix_delivers_and_hears_of_failures() {
    delivers_and_hears_of_failures(Kind::Postfix);
}

#[test]
fn exim_delivers_and_hears_of_failures() {
    delivers_and_hears_of_failures(Kind::Exim);
}

#[test]
fn postfix_sends_many_messages_through_the_relay() {
    let (world, mx, _home) = world();
    let relay = world.config().start();
    let Some(mta) = Mta::start(Kind::Postfix, relay.address()) else { return };
    for n in 0..30 {
        mta.send("app@sender.test", &[&format!("u{n}@x.test")], TEXT);
    }
    until("30 messages of Postfix", || (mx.accepted_count() == 30).then_some(()));
    assert!(mx.accepted().iter().all(|t| contains(&t.content, BODY)));
    relay.assert_settled();
}
