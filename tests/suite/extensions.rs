//! What a receiver offers and what it does not: TLS, SMTPUTF8, SIZE, 8BITMIME, old HELO hosts.

use std::time::Duration;

use crate::kit::{At, Config, Mx, Relay, World, drop_connection, mail, say, stays, until};

fn tls_scene(change: impl FnOnce(Config) -> Config) -> (World, Mx, Relay) {
    let world = World::new();
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    let relay = change(world.config().set("queue", "retry", "[\"1h\"]")).start();
    (world, mx, relay)
}

#[test]
fn tls_is_used_where_it_is_offered_whoever_signed() {
    let (_world, mx, relay) = tls_scene(|c| c);
    relay.submit("app@sender.test", &["u@x.test"], &mail("tls", "x"));
    let got = mx.wait_accepted(1).remove(0);
    assert!(got.is_tls);
    assert_eq!(mx.count("EHLO"), 2, "EHLO is said again inside TLS (RFC 3207 section 4.2): {:?}", mx.commands());
    let tls = relay.wait_event("delivered", "u@x.test")["tls"].to_string();
    assert!(tls.contains("TLS"), "{tls}");
}

#[test]
fn a_broken_handshake_falls_back_to_clear_text_on_a_new_connection() {
    let (_world, mx, relay) = tls_scene(|c| c);
    mx.always(At::Handshake, drop_connection());
    relay.submit("app@sender.test", &["u@x.test"], &mail("fallback", "x"));
    let got = mx.wait_accepted(1).remove(0);
    // The first with a large hello, the second with a small one.
    assert!(!got.is_tls && got.connection == 3, "{got:?}");
    assert!(relay.events_of("deferred").is_empty());
}

#[test]
fn a_refused_starttls_still_delivers() {
    let (_world, mx, relay) = tls_scene(|c| c);
    mx.always(At::StartTls, say("454 4.7.0 TLS not available due to temporary reason"));
    relay.submit("app@sender.test", &["u@x.test"], &mail("refused", "x"));
    assert!(!mx.wait_accepted(1)[0].is_tls);
}

#[test]
fn what_is_said_behind_the_220_of_starttls_is_not_believed() {
    let (_world, mx, relay) = tls_scene(|c| c.set("delivery", "tls", "\"encrypt\""));
    mx.always(At::StartTls, say("220 2.0.0 go\n250 2.0.0 injected"));
    relay.submit("app@sender.test", &["u@x.test"], &mail("injected", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert_eq!(mx.count("MAIL"), 0);
}

#[test]
fn encrypt_waits_where_no_tls_is_offered() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("delivery", "tls", "\"encrypt\"").set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("encrypt", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert_eq!(mx.count("MAIL"), 0);
}

#[test]
fn verify_does_not_trust_a_certificate_nobody_signed() {
    let (_world, mx, relay) = tls_scene(|c| c.set("delivery", "tls", "\"verify\""));
    relay.submit("app@sender.test", &["u@x.test"], &mail("verify", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert_eq!((mx.count("MAIL"), mx.accepted_count()), (0, 0));
}

#[test]
fn tls_off_never_asks_for_it() {
    let (_world, mx, relay) = tls_scene(|c| c.set("delivery", "tls", "\"off\""));
    relay.submit("app@sender.test", &["u@x.test"], &mail("off", "x"));
    assert!(!mx.wait_accepted(1)[0].is_tls);
    assert_eq!(mx.count("STARTTLS"), 0);
}

#[test]
fn a_host_that_wants_tls_first_gets_it_or_the_mail_waits() {
    // 530 5.7.0 to MAIL is the one 5xx that is not final: our session was wrong (RFC 3207 section 4).
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Mail, say("530 5.7.0 Must issue a STARTTLS command first"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("wants", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert!(relay.events_of("bounced").is_empty());
}

fn submit_utf8(relay: &Relay, sender: &str, recipient: &str, content: &[u8]) {
    let mut client = relay.client();
    assert!(client.offers("SMTPUTF8") && client.offers("8BITMIME"), "{:?}", client.keywords);
    client.ask(&format!("MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME"), "250");
    client.ask(&format!("RCPT TO:<{recipient}>"), "250");
    client.data(content);
}

#[test]
fn an_international_address_goes_to_a_host_that_takes_it() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    submit_utf8(&relay, "app@sender.test", "jürgen@x.test", &mail("utf8", "Grüße"));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!(got.to(), ["jürgen@x.test"]);
    assert!(got.mail_parameters.iter().any(|p| p == "SMTPUTF8"), "{:?}", got.mail_parameters);
}

#[test]
fn an_international_address_is_returned_with_5_6_7_where_the_host_does_not_take_it() {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    mx.offer_all_but("SMTPUTF8");
    let relay = world.config().start();
    submit_utf8(&relay, "app@sender.test", "jürgen@x.test", &mail("utf8", "x"));
    let report = home.wait_accepted(1).remove(0).text();
    assert!(report.contains("Status: 5.6.7"), "{report}");
    assert_eq!(mx.rcpts("jürgen@x.test"), 0);
    assert!(relay.json(&["suppress", "list"]).is_empty());
    relay.assert_settled();
}

#[test]
fn smtputf8_is_tried_at_every_host_before_it_is_given_up() {
    let world = World::new();
    let (old, new) = (world.host("old.x.test"), world.host("new.x.test"));
    world.domain("x.test", &[(10, &old), (20, &new)]);
    old.offer_all_but("SMTPUTF8");
    let relay = world.config().start();
    submit_utf8(&relay, "app@sender.test", "jürgen@x.test", &mail("utf8", "x"));
    new.wait_accepted(1);
}

#[test]
fn a_message_larger_than_the_host_takes_is_returned_without_being_sent() {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    mx.offer(&["SIZE 10000", "8BITMIME", "PIPELINING"]);
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("large", &"text\n".repeat(5000)));
    let report = home.wait_accepted(1).remove(0).text();
    assert!(report.contains("Status: 5.3.4"), "{report}");
    assert!(mx.transactions().is_empty());
    assert!(relay.json(&["suppress", "list"]).is_empty());
}

#[test]
fn the_size_is_declared_and_true() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("size", ".dots\n.more"));
    let got = mx.wait_accepted(1).remove(0);
    let declared = got.mail_parameters.iter().find_map(|p| p.strip_prefix("SIZE=")).map(str::parse::<usize>);
    assert_eq!(declared, Some(Ok(got.content.len())));
}

#[test]
fn eight_bit_content_is_converted_for_a_host_that_offers_seven() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer(&["SIZE"]);
    let relay = world.config().start();
    let mime = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let line = "Grüße aus der Ferne, und was sonst noch zu sagen ist = nichts.\r\n";
    // In memory, and in a file of the spool.
    for (n, lines) in [(1, 1), (2, 60_000)] {
        let mut client = relay.client();
        client.ask("MAIL FROM:<app@sender.test> BODY=8BITMIME", "250");
        client.ask("RCPT TO:<u@x.test>", "250");
        client.data(format!("{mime}Subject: eight\r\n\r\n{}", line.repeat(lines)).as_bytes());
        let got = mx.wait_accepted(n).pop().unwrap();
        assert!(got.content.is_ascii() && !got.mail_parameters.iter().any(|p| p.starts_with("BODY")));
        assert_eq!(got.header("Content-Transfer-Encoding").as_deref(), Some("quoted-printable"));
        assert_eq!(got.header("Content-Type").as_deref(), Some("text/plain; charset=utf-8"));
        let size = got.mail_parameters.iter().find_map(|p| p.strip_prefix("SIZE=")).unwrap().parse::<usize>().unwrap();
        assert_eq!(size, got.content.len());
        let sent = got.text().replace("=\r\n", "").replace("=C3=BC", "ü").replace("=C3=9F", "ß").replace("=3D", "=");
        assert!(sent.ends_with(&format!("\r\n\r\n{}", line.repeat(lines))), "{lines}");
    }
    relay.wait_queue_empty();
    relay.assert_settled();
}

#[test]
fn what_is_signed_and_has_eight_bits_goes_to_a_host_that_takes_them_or_comes_back() {
    let world = World::new();
    let (seven, eight) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &seven), (20, &eight)]);
    world.domain("y.test", &[(10, &seven)]);
    seven.offer(&["SIZE"]);
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    let relay = world.config().start();
    let content = "DKIM-Signature: v=1; a=rsa-sha256; d=sender.test; s=own; h=from; bh=x; b=x\r\nSubject: signed\r\n\r\nGrüße\r\n";
    relay.submit("app@sender.test", &["u@x.test"], content.as_bytes());
    let got = eight.wait_accepted(1).remove(0);
    assert!(got.content.ends_with(content.as_bytes()), "{}", got.text());
    relay.submit("app@sender.test", &["u@y.test"], content.as_bytes());
    let report = crate::kit::Report::read(&home.wait_accepted(1)[0]);
    let status = crate::kit::report::field(report.of("u@y.test"), "Status");
    assert_eq!(status.as_deref(), Some("5.6.3"), "{}", report.text);
    assert!(report.text.contains("8BITMIME is not offered"), "{}", report.text);
    assert_eq!(seven.count("MAIL"), 0);
    assert!(relay.events_of("suppressed").is_empty());
    relay.assert_settled();
}

#[test]
fn a_host_without_ehlo_is_greeted_with_helo() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Ehlo, say("502 5.5.1 what?"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("helo", "x"));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!(got.helo, "relay.test");
    assert!(got.mail_parameters.is_empty(), "no extension was offered: {:?}", got.mail_parameters);
}

#[test]
fn a_host_that_refuses_our_name_is_not_asked_with_helo_and_nothing_bounces() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Ehlo, say("501 5.5.4 Invalid domain name"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("name", "x"));
    until("a refused EHLO", || (mx.count("EHLO") > 0).then_some(()));
    stays(Duration::from_millis(300), "the mail waits", || relay.events_of("bounced").is_empty());
    assert_eq!((mx.count("HELO"), mx.count("MAIL")), (0, 0));
    assert_eq!(relay.queue().len(), 1);
}

#[test]
fn a_warm_connection_takes_a_message_in_one_flight() {
    let (world, mx) = World::with_domain("x.test");
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = 1";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..3 {
        client.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    assert!(mx.wait_accepted(3).iter().all(|t| t.is_chunked), "{:?}", mx.commands());
    assert_eq!((mx.count("DATA"), mx.count("BDAT")), (0, 3));
}

/// A message of a client that asks for SMTPUTF8 whatever it sends.
#[test]
fn smtputf8_that_nothing_needs_is_not_asked_of_a_host_without_it() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer_all_but("SMTPUTF8");
    let relay = world.config().start();
    submit_utf8(&relay, "app@sender.test", "u@x.test", &mail("ascii", "Gr\u{fc}\u{df}e"));
    let got = mx.wait_accepted(1).remove(0);
    assert!(!got.mail_parameters.iter().any(|p| p == "SMTPUTF8"), "{:?}", got.mail_parameters);
    assert!(relay.events_of("deferred").is_empty());
}

#[test]
fn a_host_that_offers_chunking_and_does_not_know_bdat_gets_data_at_once_and_ever_after() {
    for reply in ["500 5.5.1 what?", "502 5.5.1 not implemented", "503 5.5.1 RCPT first", "504 5.5.4 no"] {
        let (world, mx) = World::with_domain("x.test");
        mx.once(At::Data, say(reply));
        let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
        for n in 1..=2 {
            relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
            assert!(!mx.wait_accepted(n)[n - 1].is_chunked, "{reply}");
        }
        assert_eq!((mx.count("BDAT"), mx.count("DATA"), mx.rcpts("u@x.test")), (1, 2, 3), "{:?}", mx.commands());
        assert!(relay.events_of("deferred").is_empty() && relay.events_of("bounced").is_empty(), "{reply}");
        relay.assert_settled();
    }
}

#[test]
fn a_host_that_hangs_up_at_bdat_gets_data_the_next_time() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::Data, drop_connection());
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("hangs-up", "x"));
    assert!(!mx.wait_accepted(1)[0].is_chunked);
    assert_eq!((mx.count("BDAT"), mx.count("DATA")), (1, 1), "{:?}", mx.commands());
    relay.assert_settled();
}

#[test]
fn bdat_can_be_switched_off() {
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nchunking = false";
    let (world, mx) = World::with_domain("x.test");
    for config in [world.config().set("delivery", "chunking", "false"), world.config().table(provider)] {
        let relay = config.start();
        relay.submit("app@sender.test", &["u@x.test"], &mail("off", "x"));
        relay.wait_event("delivered", "u@x.test");
    }
    assert_eq!((mx.count("BDAT"), mx.count("DATA")), (0, 2));
}
