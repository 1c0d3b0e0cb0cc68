//! Reports to senders (RFC 3464, RFC 3461): who gets one, what stands in it, and that none ever begets another.

use std::time::Duration;

use crate::kit::{At, Mx, Relay, Report, World, mail, say, stays};

/// A receiver at `x.test`, the sender's own host at `sender.test`, and the relay between them.
struct Scene {
    mx: Mx,
    home: Mx,
    relay: Relay,
    world: World,
}

fn scene() -> Scene {
    scene_with(|c| c)
}

fn scene_with(change: impl FnOnce(crate::kit::Config) -> crate::kit::Config) -> Scene {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    let relay = change(world.config()).start();
    Scene { mx, home, relay, world }
}

impl Scene {
    /// Hands in a message with the parameters of RFC 3461.
    fn submit(&self, mail_parameters: &str, recipients: &[&str], content: &[u8]) -> String {
        let mut client = self.relay.client();
        client.ask(&format!("MAIL FROM:<app@sender.test> {mail_parameters}"), "250");
        for recipient in recipients {
            client.ask(&format!("RCPT TO:{recipient}"), "250");
        }
        client.data(content)
    }

    fn refuse(&self, address: &str, reply: &str) {
        self.mx.always(At::to(address), say(reply));
    }

    fn report(&self) -> Report {
        Report::read(&self.home.wait_accepted(1)[0])
    }

    /// All is settled, and no report came.
    fn no_report(&self) {
        self.relay.wait_queue_empty();
        stays(Duration::from_millis(300), "no report", || self.home.connections() == 0);
    }
}

#[test]
fn a_bounce_says_who_why_and_in_whose_words() {
    let scene = scene();
    scene.refuse("gone@x.test", "550-5.1.1 The mailbox is\n550 5.1.1 not here");
    let id = scene.submit("", &["<gone@x.test>", "<u@x.test>"], &mail("bounce", "The text."));
    let transaction = scene.home.wait_accepted(1).remove(0);
    assert_eq!((transaction.sender.as_str(), transaction.to()), ("", vec!["app@sender.test"]));
    let report = Report::read(&transaction);

    let header = |name: &str| transaction.header(name).unwrap_or_else(|| panic!("no {name} in {}", report.header));
    assert_eq!(header("To").trim_matches(['<', '>']), "app@sender.test");
    assert!(header("Auto-Submitted").starts_with("auto-replied"), "{}", report.header);
    assert!(header("From").to_ascii_lowercase().contains("mailer-daemon@relay.test"), "{}", report.header);
    let message_id = header("Message-ID");
    assert!(message_id.starts_with('<') && message_id.ends_with('>') && !message_id.starts_with("<<"), "{message_id}");
    assert!(!header("Date").is_empty() && header("MIME-Version").starts_with("1.0"));

    let field = crate::kit::report::field;
    assert_eq!(field(&report.message, "Reporting-MTA").map(|f| f.replace(' ', "")), Some("dns;relay.test".into()));
    assert!(field(&report.message, "Arrival-Date").is_some(), "{}", report.message);
    assert_eq!(report.recipients.len(), 1, "{:#?}", report.recipients);
    let gone = report.of("gone@x.test");
    assert_eq!(field(gone, "Action").as_deref(), Some("failed"));
    assert_eq!(field(gone, "Status").as_deref(), Some("5.1.1"));
    assert_eq!(field(gone, "Remote-MTA").map(|f| f.replace(' ', "")), Some("dns;mx.x.test".into()));
    let diagnostic = field(gone, "Diagnostic-Code").expect("the receiver's words");
    assert!(
        diagnostic.starts_with("smtp;") && diagnostic.contains("The mailbox is") && diagnostic.contains("not here")
    );

    assert!(report.text.contains("gone@x.test") && report.text.contains("The mailbox is"), "{}", report.text);
    assert!(report.returned.contains("Subject: bounce"), "{}", report.returned);
    assert!(transaction.text().contains(&id), "the queue id helps to find the message in the log");
    scene.relay.assert_settled();
}

#[test]
fn ret_hdrs_returns_the_header_and_ret_full_the_message() {
    for (ret, kind, has_text) in [("RET=HDRS", "text/rfc822-headers", false), ("RET=FULL", "message/rfc822", true)] {
        let scene = scene();
        scene.refuse("gone@x.test", "550 5.1.1 no");
        scene.submit(ret, &["<gone@x.test>"], &mail("ret", "The text itself."));
        let report = scene.report();
        assert!(report.returned_type.starts_with(kind), "{ret}: {}", report.returned_type);
        assert!(report.returned.contains("Subject: ret"), "{ret}: {}", report.returned);
        assert_eq!(report.returned.contains("The text itself."), has_text, "{ret}: {}", report.returned);
    }
}

#[test]
fn envid_and_orcpt_come_back_as_they_were_given() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.submit("ENVID=QQ+2B314159", &["<gone@x.test> ORCPT=rfc822;Other+2Bme@list.test"], &mail("envid", "x"));
    let report = scene.report();
    let field = crate::kit::report::field;
    assert_eq!(field(&report.message, "Original-Envelope-Id").as_deref(), Some("QQ+314159"));
    let original = field(report.of("gone@x.test"), "Original-Recipient").map(|f| f.replace(' ', ""));
    assert_eq!(original.as_deref(), Some("rfc822;Other+me@list.test"));
}

#[test]
fn notify_never_hears_nothing() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.submit("", &["<gone@x.test> NOTIFY=NEVER"], &mail("never", "x"));
    scene.relay.wait_event("bounced", "gone@x.test");
    scene.no_report();
    scene.relay.assert_settled();
}

#[test]
fn notify_success_alone_hears_no_failure() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.submit("", &["<gone@x.test> NOTIFY=SUCCESS"], &mail("success-only", "x"));
    scene.relay.wait_event("bounced", "gone@x.test");
    scene.no_report();
}

#[test]
fn notify_success_is_passed_on_to_a_host_that_offers_dsn() {
    let scene = scene();
    scene.submit("RET=HDRS ENVID=abc", &["<u@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;u@y.test"], &mail("pass", "x"));
    let got = scene.mx.wait_accepted(1).remove(0);
    let parameters = got.recipients[0].parameters.clone();
    assert!(parameters.contains(&"NOTIFY=SUCCESS,DELAY".to_string()), "{parameters:?}");
    assert!(parameters.contains(&"ORCPT=rfc822;u@y.test".to_string()), "{parameters:?}");
    assert!(got.mail_parameters.contains(&"RET=HDRS".to_string()), "{:?}", got.mail_parameters);
    assert!(got.mail_parameters.contains(&"ENVID=abc".to_string()), "{:?}", got.mail_parameters);
    scene.no_report();
}

#[test]
fn notify_success_towards_a_host_without_dsn_is_answered_with_relayed() {
    let scene = scene();
    scene.mx.offer_all_but("DSN");
    scene.submit("", &["<u@x.test> NOTIFY=SUCCESS", "<v@x.test>"], &mail("relayed", "x"));
    let got = scene.mx.wait_accepted(1).remove(0);
    assert!(got.recipients.iter().all(|r| r.parameters.is_empty()), "{:?}", got.recipients);
    let report = scene.report();
    assert_eq!(report.recipients.len(), 1, "{:#?}", report.recipients);
    assert_eq!(crate::kit::report::field(report.of("u@x.test"), "Action").as_deref(), Some("relayed"));
}

#[test]
fn notify_delay_hears_of_the_wait_once() {
    let scene = scene_with(|c| c.set("bounces", "delay_after", "\"500ms\""));
    scene.mx.always(At::Mail, say("451 4.3.0 busy"));
    scene.submit("", &["<u@x.test> NOTIFY=DELAY,FAILURE", "<v@x.test>"], &mail("delay", "x"));
    let report = scene.report();
    let field = crate::kit::report::field;
    assert_eq!(report.recipients.len(), 1, "{:#?}", report.recipients);
    let delayed = report.of("u@x.test");
    assert_eq!(field(delayed, "Action").as_deref(), Some("delayed"));
    assert!(field(delayed, "Status").is_some_and(|s| s.starts_with("4.")), "{delayed}");
    assert!(field(delayed, "Will-Retry-Until").is_some(), "{delayed}");
    let seen = scene.mx.count("MAIL");
    scene.relay.wait_events(4, "deferred", |_| true);
    crate::kit::until("further attempts", || (scene.mx.count("MAIL") >= seen + 3).then_some(()));
    assert_eq!(scene.home.accepted_count(), 1, "one delay report is enough");
}

#[test]
fn mail_without_a_sender_gets_no_report() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    let mut client = scene.relay.client();
    client.submit("", &["gone@x.test"], &mail("null", "x"));
    scene.relay.wait_event("bounced", "gone@x.test");
    scene.no_report();
    scene.relay.assert_settled();
}

#[test]
fn a_report_that_bounces_makes_no_other() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.home.always(At::Rcpt, say("550 5.1.1 the sender is gone as well"));
    scene.submit("", &["<gone@x.test>"], &mail("double", "x"));
    scene.relay.wait_event("bounced", "gone@x.test");
    scene.relay.wait_queue_empty();
    assert_eq!((scene.home.count("MAIL"), scene.home.accepted().len()), (1, 0));
}

#[test]
fn a_report_that_bounces_goes_to_the_postmaster_once() {
    let scene = scene_with(|c| c.set("relay", "postmaster", "\"admin@x.test\""));
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.home.always(At::Rcpt, say("550 5.1.1 the sender is gone as well"));
    scene.submit("", &["<gone@x.test>"], &mail("double", "x"));
    let told = scene.mx.wait_accepted(1).remove(0);
    assert_eq!((told.sender.as_str(), told.to()), ("", vec!["admin@x.test"]));
    assert!(told.text().contains("the sender is gone as well"), "{}", told.text());
    scene.relay.wait_queue_empty();
    assert_eq!((scene.home.count("MAIL"), scene.mx.accepted_count()), (1, 1));
}

#[test]
fn a_report_to_the_postmaster_that_bounces_makes_no_other() {
    let scene = scene_with(|c| c.set("relay", "postmaster", "\"admin@x.test\""));
    for (mx, address) in [(&scene.mx, "gone@x.test"), (&scene.mx, "admin@x.test"), (&scene.home, "app@sender.test")] {
        mx.always(At::to(address), say("550 5.2.0 no"));
    }
    scene.submit("", &["<gone@x.test>"], &mail("triple", "x"));
    scene.relay.wait_event("bounced", "admin@x.test");
    scene.relay.wait_queue_empty();
    stays(Duration::from_millis(300), "three attempts in all", || {
        (scene.mx.count("RCPT"), scene.home.count("RCPT")) == (2, 1)
    });
    assert_eq!(scene.relay.events_of("bounced").len(), 3);
}

#[test]
fn one_report_tells_of_all_recipients_that_were_refused_together() {
    let scene = scene();
    for n in 0..3 {
        scene.refuse(&format!("gone{n}@x.test"), "550 5.1.1 no");
    }
    scene.submit("", &["<gone0@x.test>", "<gone1@x.test>", "<gone2@x.test>"], &mail("together", "x"));
    let report = scene.report();
    assert_eq!(report.recipients.len(), 3, "{:#?}", report.recipients);
}

#[test]
fn mode_none_writes_events_and_no_mail() {
    let scene = scene_with(|c| c.set("bounces", "mode", "\"none\""));
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.submit("", &["<gone@x.test>"], &mail("none", "x"));
    scene.relay.wait_event("bounced", "gone@x.test");
    scene.no_report();
}

#[test]
fn of_a_large_message_the_header_alone_is_returned_whatever_was_asked() {
    // Just over 64 KiB, and far over it: kept in a file.
    for lines in [1000, 60_000] {
        let scene = scene();
        scene.refuse("gone@x.test", "550 5.1.1 no");
        scene.submit("RET=FULL", &["<gone@x.test>"], &mail("large", &format!("{}\n", "x".repeat(70)).repeat(lines)));
        let report = scene.report();
        assert!(report.returned_type.starts_with("text/rfc822-headers"), "{}", report.returned_type);
        assert!(report.returned.contains("Subject: large") && !report.returned.contains("xxxx"), "{}", report.returned);
        scene.relay.assert_settled();
    }
}

#[test]
fn of_a_message_of_moderate_size_all_is_returned() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 no");
    scene.submit("RET=FULL", &["<gone@x.test>"], &mail("moderate", &format!("{}\n", "x".repeat(70)).repeat(800)));
    let report = scene.report();
    assert!(report.returned_type.starts_with("message/rfc822"), "{}", report.returned_type);
    assert_eq!(report.returned.matches("xxxxx\r\n").count(), 800);
}

#[test]
fn the_receivers_odd_bytes_do_not_break_the_report() {
    let scene = scene();
    scene.refuse("gone@x.test", "550 5.1.1 Empfänger \u{1}unbekannt <b>& \"quoted\"");
    scene.submit("", &["<gone@x.test>"], &mail("odd", "x"));
    let transaction = scene.home.wait_accepted(1).remove(0);
    let report = Report::read(&transaction);
    assert!(report.of("gone@x.test").is_ascii(), "{}", report.of("gone@x.test"));
    assert!(!transaction.content.contains(&1), "a control character got through");
    assert!(scene.world.dns.asked("sender.test", "MX") >= 1, "the report goes where the sender's domain says");
}
