//! Before a receiver refuses a domain that sends much and is not authenticated, somebody is told and its mail is held; the real program, with a name
//! server and a receiver of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::kit::{Config, Mx, Relay, World, mail, stays, until};

/// The receiver asks from 20 recipients a day on, and is asked again after little more than a second.
const OUTLOOK: &str = "[[provider]]\nname = \"outlook\"\nmx = [\"*.olc.test\"]\nmax_connections = 1\ninitial_connections = 1\n\
                       pause = \"200ms\"\nmax_rate = \"600/min\"\npreflight_from = 20";
const SOURCE: &str = "[[source]]\nname = \"a\"\naddress = \"127.0.0.1\"\npublic = \"203.0.113.10\"";
const KEY: &str = "v=DKIM1; k=ed25519; p=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

fn outlook(mode: &str) -> (World, Mx, Config) {
    let world = World::new();
    let mx = world.host("mx.olc.test");
    world.domain("mail.test", &[(10, &mx)]);
    let config = world.config().table(&format!("{OUTLOOK}\npreflight = \"{mode}\"")).table(SOURCE);
    (world, mx, config)
}

fn signed(subject: &str) -> Vec<u8> {
    let signature = "DKIM-Signature: v=1; a=ed25519-sha256; d=sender.test; s=s1; h=from; bh=eA==; b=eA==\r\n";
    [signature.as_bytes(), &mail(subject, "x")].concat()
}

fn submit(relay: &Relay, sender: &str, numbers: std::ops::Range<usize>) {
    let mut client = relay.client();
    for n in numbers {
        client.submit(sender, &[&format!("u{n}@mail.test")], &signed(&format!("m{n}")));
    }
}

/// The alerts about authentication, in words.
fn told(relay: &Relay) -> Vec<String> {
    let is_ours = |event: &&Value| event["event"] == "alert" && event["text"].to_string().contains("sender.test");
    let events = relay.events();
    events.iter().filter(is_ours).map(|event| format!("{} {}", event["text"], event["remedy"])).collect()
}

#[test]
fn what_is_missing_is_told_in_time_and_holds_the_domains_mail_until_it_is_there() {
    let (world, mx, config) = outlook("hold");
    world.dns.txt("sender.test", &["v=spf1 ip4:203.0.113.10 -all"]);
    world.dns.txt("s1._domainkey.sender.test", &[KEY]);
    let relay = config.start();
    submit(&relay, "app@sender.test", 0..40);
    let alert = until("an alert", || told(&relay).into_iter().next());
    for words in
        ["refuses what is not authenticated from 20 a day on", "dmarc of sender.test", "_dmarc.sender.test. IN TXT"]
    {
        assert!(alert.contains(words), "{words}: {alert}");
    }
    until("the mail to be held", || {
        relay
            .events()
            .iter()
            .any(|event| event["text"].to_string().contains("mail from sender.test is held back"))
            .then_some(())
    });
    let done = || mx.accepted().iter().filter(|taken| taken.sender == "app@sender.test").count();
    let gone = done();
    assert!((19..40).contains(&gone), "{gone} went");
    stays(Duration::from_secs(2), "one that was on its way may go, and no other", || done() <= gone + 1);
    let held: Vec<Value> = relay.queue();
    assert!(
        held.iter().all(|row| row["reason"].to_string().contains("held back") || row["stopped"].is_string()),
        "{held:?}"
    );
    submit(&relay, "app@other.test", 50..53);
    until("mail of others", || (mx.rcpts("u52@mail.test") == 1).then_some(()));

    world.dns.txt("_dmarc.sender.test", &["v=DMARC1; p=none"]);
    relay.wait_queue_empty();
    let everybody: BTreeSet<String> = (0..40).map(|n| format!("u{n}@mail.test")).collect();
    assert!(everybody.iter().all(|address| mx.rcpts(address) == 1), "each once");
    until("the all-clear", || told(&relay).iter().any(|text| text.contains("is authenticated now")).then_some(()));
    relay.assert_settled();
}

#[test]
fn what_was_sent_before_a_restart_counts_and_an_alert_holds_nothing() {
    let (_world, mx, config) = outlook("alert");
    let mut relay = config.start();
    submit(&relay, "app@sender.test", 0..7);
    mx.wait_accepted(7);
    relay.wait_queue_empty();
    assert_eq!(told(&relay), Vec::<String>::new(), "seven of twenty are not worth a word");
    assert!(relay.stop().success());
    relay.run();
    submit(&relay, "app@sender.test", 7..30);
    let alert = until("an alert", || told(&relay).into_iter().next());
    assert!(alert.contains("spf of sender.test") && alert.contains("dmarc of sender.test"), "{alert}");
    relay.wait_queue_empty();
    assert_eq!(mx.accepted_count(), 30);
}
