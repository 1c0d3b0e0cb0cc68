//! TLS towards receivers as the configuration asks for it: whose certificates are believed, and for whose mail.

use crate::kit::papers::Papers;
use crate::kit::{World, mail, until};

#[test]
fn verify_believes_the_authorities_of_ca_file_and_a_reload_brings_new_ones() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    papers.put("ca.pem", &Papers::text().0);
    let config = world.config().set("delivery", "tls", "\"verify\"");
    let config = config.set("delivery", "ca_file", &format!("\"{}\"", papers.path("ca.pem").display()));
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("trust", "x"));
    let deferred = relay.wait_event("deferred", "u@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    assert_eq!(mx.count("MAIL"), 0);

    papers.put("ca.pem", "this is no certificate");
    relay.signal(rustix::process::Signal::HUP);
    until("the faulty file is told", || relay.log().contains("holds no certificate").then_some(()));
    let said = relay.log();
    assert!(said.contains("not reloaded, the old one stays") && said.contains("(delivery.ca_file)"), "{said}");
    let check = relay.command(&["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stderr).contains("ca.pem (delivery.ca_file) holds no certificate"));

    papers.put("ca.pem", mx.certificate());
    relay.reload(&config);
    assert!(mx.wait_accepted(1)[0].is_tls);
    relay.assert_settled();
}
