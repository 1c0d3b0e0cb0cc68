//! Events to endpoints that are slow, down, failing or hanging, while the relay is killed: every event arrives, in order, what
//! comes twice says so, and nobody waits for anybody.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::kit::endpoint::{Act, Endpoint};
use crate::kit::{At, Config, Relay, World, mail, say, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn hook(config: Config, name: &str, url: &str, rest: &str) -> Config {
    config.table(&format!("[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\n{rest}"))
}

/// The numbers of the events a hook is to get.
fn ends(relay: &Relay) -> Vec<u64> {
    let is_end = |event: &Value| matches!(event["event"].as_str(), Some("delivered" | "bounced" | "suppressed"));
    relay.events().iter().filter(|event| is_end(event)).map(seq).collect()
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().expect("an event has a number")
}

/// Waits until all mail has come to its end and the endpoint has heard of each.
fn wait_all(relay: &Relay, endpoint: &Endpoint) -> Vec<u64> {
    relay.wait_queue_empty();
    until("every event at the endpoint", || {
        let (wanted, mut got) = (ends(relay), endpoint.taken().iter().map(seq).collect::<Vec<u64>>());
        got.sort_unstable();
        got.dedup();
        (got == wanted).then_some(got)
    })
}

/// In order, each request signed, and what came again is word for word what it was.
fn assert_in_order(endpoint: &Endpoint) {
    let mut last = 0;
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for request in endpoint.requests() {
        assert!(request.is_signed_with(SECRET), "{request:?}");
        let (id, body) = (request.id().to_string(), request.body.clone());
        if let Some(before) = seen.insert(id.clone(), body.clone()) {
            assert_eq!(before, body, "{id} came again and is another");
            continue;
        }
        for event in request.objects() {
            assert!(seq(&event) > last, "{} came behind {last}", seq(&event));
            last = seq(&event);
        }
    }
}

#[test]
fn an_endpoint_that_fails_hangs_and_is_down_gets_every_event_over_kills() {
    let (world, mx) = World::with_domain("receiver.test");
    mx.always(At::to("nobody@receiver.test"), say("550 5.1.1 no such user"));
    let (shaky, steady, hanging) = (Endpoint::start(), Endpoint::start(), Endpoint::start());
    shaky.script(|n| if n % 3 == 2 { Act::Answer(500) } else { Act::Answer(200) });
    hanging.script(|_| Act::Hang);
    let secret = format!("secret = \"{SECRET}\"");
    let config = hook(world.config(), "hanging", &hanging.url("/"), &secret);
    let config = hook(config, "shaky", &shaky.url("/hook?key=1"), &secret);
    let mut relay = hook(config, "steady", &steady.url("/"), &secret).start();
    let submit = |relay: &Relay, name: &str| {
        for n in 0..8 {
            relay.submit("app@sender.test", &[&format!("{name}{n}@receiver.test")], &mail(name, "x"));
        }
    };

    // The second request is on its way and unanswered when the relay is killed.
    shaky.script(|n| if n == 1 { Act::Hang } else { Act::Answer(200) });
    relay.submit("app@sender.test", &["first@receiver.test"], &mail("first", "x"));
    wait_all(&relay, &shaky);
    relay.submit("app@sender.test", &["nobody@receiver.test"], &mail("unknown", "x"));
    until("the request that hangs", || (shaky.requests().len() == 2).then_some(()));
    submit(&relay, "more");
    // The endpoint beside it, mail, and the one that hangs all the time: nobody waits.
    wait_all(&relay, &steady);
    relay.kill();
    relay.run();
    wait_all(&relay, &shaky);
    let requests = shaky.requests();
    assert_eq!((requests[1].id(), &requests[1].body), (requests[2].id(), &requests[2].body), "the same batch again");

    // Every third is a 500, connections are cut, and it is killed as well.
    shaky.script(|n| match n % 3 {
        0 => Act::Answer(500),
        1 => Act::Cut,
        _ => Act::Answer(200),
    });
    submit(&relay, "shaky");
    wait_all(&relay, &shaky);
    submit(&relay, "killed");
    relay.kill();
    relay.run();
    wait_all(&relay, &shaky);

    // Down while mail goes on, over a restart.
    shaky.down();
    shaky.script(|_| Act::Answer(200));
    submit(&relay, "down");
    wait_all(&relay, &steady);
    assert!(relay.stop().success());
    relay.run();
    submit(&relay, "again");
    wait_all(&relay, &steady);
    shaky.up();
    wait_all(&relay, &shaky);

    assert_in_order(&shaky);
    assert_in_order(&steady);
    assert!(shaky.requests().iter().all(|request| request.path == "/hook?key=1"));
    let hung = hanging.requests();
    assert!(!hung.is_empty() && hung.iter().all(|request| request.id() == hung[0].id()), "it gets nothing else");
    relay.assert_settled();
}

#[test]
fn an_endpoint_that_answers_late_holds_up_neither_mail_nor_another_and_gets_nothing_twice() {
    let (world, _mx) = World::with_domain("receiver.test");
    let (slow, quick) = (Endpoint::start(), Endpoint::start());
    slow.script(|_| Act::Late);
    let secret = format!("secret = \"{SECRET}\"");
    let relay = hook(hook(world.config(), "slow", &slow.url("/"), &secret), "quick", &quick.url("/"), &secret).start();
    relay.submit("app@sender.test", &["first@receiver.test"], &mail("first", "x"));
    until("the request that waits", || (slow.gate().waiting() == 1).then_some(()));
    for n in 0..20 {
        relay.submit("app@sender.test", &[&format!("u{n}@receiver.test")], &mail("more", "x"));
    }
    // Mail and the other endpoint are done while the first answer is still awaited, and nothing else was asked meanwhile.
    wait_all(&relay, &quick);
    assert_eq!((slow.requests().len(), slow.gate().waiting()), (1, 1));
    slow.gate().open();
    wait_all(&relay, &slow);
    assert_in_order(&slow);
    let ids: Vec<String> = slow.requests().iter().map(|request| request.id().to_string()).collect();
    let mut once = ids.clone();
    once.dedup();
    assert_eq!(ids, once, "what was answered late is not sent again");
}

#[test]
fn over_https_the_name_and_the_authority_are_checked() {
    let (world, _mx) = World::with_domain("receiver.test");
    let (endpoint, certificate) = Endpoint::start_tls("127.0.4.1");
    let (stranger, _) = Endpoint::start_tls("127.0.4.1");
    let folder = tempfile::tempdir().expect("a folder for a certificate");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certificate).expect("write the certificate");
    let config = hook(world.config(), "app", &endpoint.url("/hook"), &format!("secret = \"{SECRET}\""));
    let config = hook(config, "stranger", &stranger.url("/"), "");
    let relay = config.set("delivery", "ca_file", &format!("\"{}\"", file.display())).start();
    relay.submit("app@sender.test", &["u@receiver.test"], &mail("m", "x"));
    wait_all(&relay, &endpoint);
    assert_in_order(&endpoint);
    let said = until("the other one to be told of", || {
        relay.log().lines().find(|line| line.contains("webhook stranger: events did not arrive")).map(str::to_string)
    });
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(stranger.requests().len(), 0, "nothing is said to whom nobody vouches for");
}

#[test]
fn each_format_says_what_its_readers_read() {
    let (world, mx) = World::with_domain("receiver.test");
    mx.always(At::to("nobody@receiver.test"), say("550 5.1.1 no such user"));
    let (sendgrid, postmark, listmonk) = (Endpoint::start(), Endpoint::start(), Endpoint::start());
    let config = hook(world.config(), "sendgrid", &sendgrid.url("/"), "format = \"sendgrid\"");
    let config = hook(config, "postmark", &postmark.url("/"), "format = \"postmark\"");
    let with_user = listmonk.url("/webhooks/bounce").replacen("http://", "http://api:token@", 1);
    let relay = hook(config, "listmonk", &with_user, "format = \"listmonk\"").start();
    let id = relay.submit("app@sender.test", &["anna@receiver.test", "nobody@receiver.test"], &mail("both", "x"));
    relay.assert_settled();

    let objects = |endpoint: &Endpoint, n: usize| {
        until(&format!("{n} objects"), || Some(endpoint.taken()).filter(|objects| objects.len() >= n))
    };
    let find = |objects: &[Value], key: &str, word: &str| {
        objects.iter().find(|object| object[key] == word).unwrap_or_else(|| panic!("no {word} in {objects:?}")).clone()
    };
    let events = objects(&sendgrid, 2);
    let delivered = find(&events, "event", "delivered");
    assert_eq!((&delivered["email"], &delivered["sg_message_id"]), (&"anna@receiver.test".into(), &id.clone().into()));
    assert_eq!(delivered["smtp-id"], "<both@sender.test>");
    let bounce = find(&events, "event", "bounce");
    assert_eq!((&bounce["email"], &bounce["type"]), (&"nobody@receiver.test".into(), &"bounce".into()));
    assert_eq!((&bounce["status"], &bounce["bounce_classification"]), (&"5.1.1".into(), &"Invalid Address".into()));

    let events = objects(&postmark, 3);
    assert!(postmark.requests().iter().all(|request| request.body.starts_with('{')), "one object a request");
    assert_eq!(find(&events, "RecordType", "Delivery")["Recipient"], "anna@receiver.test");
    let bounce = find(&events, "RecordType", "Bounce");
    assert_eq!((&bounce["Type"], &bounce["Email"]), (&"HardBounce".into(), &"nobody@receiver.test".into()));
    assert_eq!((&bounce["MessageID"], &bounce["From"]), (&id.into(), &"app@sender.test".into()));
    assert_eq!(find(&events, "RecordType", "SubscriptionChange")["SuppressSending"], true);

    let events = objects(&listmonk, 1);
    assert_eq!((&events[0]["email"], &events[0]["type"]), (&"nobody@receiver.test".into(), &"hard".into()));
    let request = &listmonk.requests()[0];
    assert_eq!(request.path, "/webhooks/bounce");
    assert_eq!(request.headers["authorization"], "Basic YXBpOnRva2Vu");
    assert!(!request.headers.contains_key("webhook-signature"), "there is no secret");
}

#[test]
fn an_endpoint_comes_and_goes_with_a_reload_and_one_that_refuses_for_good_is_an_alert() {
    let (world, _mx) = World::with_domain("receiver.test");
    let endpoint = Endpoint::start();
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["before@receiver.test"], &mail("before", "x"));
    relay.assert_settled();
    let files = tempfile::tempdir().expect("a folder for secrets");
    let secret_file = files.path().join("secret");
    std::fs::write(&secret_file, format!("{SECRET}\n")).expect("write the secret");
    let with_secret =
        |file: &Path| hook(world.config(), "app", &endpoint.url("/"), &format!("secret_file = \"{}\"", file.display()));
    // The sandbox lets the relay read where its files lay at the start.
    assert!(relay.stop().success());
    std::fs::write(relay.config_file(), with_secret(&secret_file).to_toml(&relay.data_dir())).expect("write it");
    relay.run();
    relay.submit("app@sender.test", &["after@receiver.test"], &mail("after", "x"));
    let taken = until("an event", || Some(endpoint.taken()).filter(|taken| !taken.is_empty()));
    assert_eq!(taken[0]["recipient"], "after@receiver.test", "it begins now");
    assert!(endpoint.requests()[0].is_signed_with(SECRET));
    // Another secret: both sign while it is changed.
    std::fs::write(&secret_file, format!("{OTHER_SECRET} {SECRET}\n")).expect("write the secret");
    relay.reload(&with_secret(&secret_file));
    relay.submit("app@sender.test", &["both@receiver.test"], &mail("both", "x"));
    until("an event", || (endpoint.taken().len() == 2).then_some(()));
    let request = &endpoint.requests()[1];
    assert!(request.is_signed_with(SECRET) && request.is_signed_with(OTHER_SECRET), "{request:?}");
    let faulty = with_secret(Path::new("/nowhere/secret")).to_toml(&relay.data_dir());
    std::fs::write(relay.config_file(), faulty).expect("write it");
    let check = relay.command(&["check"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        check.status.code() == Some(2) && said.contains("webhook `app`: cannot read secret_file /nowhere"),
        "{said}"
    );
    endpoint.script(|_| Act::Answer(410));
    relay.submit("app@sender.test", &["gone@receiver.test"], &mail("gone", "x"));
    let alert =
        relay.wait_events(1, "alert", |alert| alert["text"].as_str().unwrap_or("").contains("webhook app")).remove(0);
    assert!(alert["text"].as_str().unwrap_or("").contains("it answered 410 Gone"), "{alert}");
    assert!(alert["remedy"].as_str().unwrap_or("").contains("gone for good"), "{alert}");
    endpoint.script(|_| Act::Answer(200));
    until("the event, though it was gone", || (endpoint.taken().len() == 3).then_some(()));
    relay.wait_events(1, "alert", |alert| {
        alert["text"].as_str().unwrap_or("").starts_with("webhook app: events arrive")
    });
}
