//! Next hops that take mail only from those they know: log-in, TLS and what a refusal of either means for the mail.

use std::path::Path;

use crate::kit::papers::Papers;
use crate::kit::{At, Config, Mx, Relay, World, mail, say, until};

const NAME: &str = "smarthost.test";

/// A smarthost that wants a log-in, and a relay's configuration that trusts its certificate.
fn scene(mechanism: &'static str) -> (World, Mx, Papers, Config) {
    let (world, papers) = (World::new(), Papers::issue());
    let hop = world.tls_host(NAME);
    hop.wants_login("app", "s3cret", mechanism);
    papers.put("ca.pem", hop.certificate());
    papers.put("password", "s3cret\n");
    let config = world.config().set("delivery", "ca_file", &quoted(&papers.path("ca.pem")));
    (world, hop, papers, config)
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// A route for `domain` to the smarthost, with the password of the file `password`.
fn route(world: &World, papers: &Papers, domain: &str) -> String {
    let (port, file) = (world.port(), quoted(&papers.path("password")));
    format!("[[route]]\ndomain = \"{domain}\"\nto = \"{NAME}:{port}\"\nusername = \"app\"\npassword_file = {file}\n")
}

fn assert_no_secret(relay: &Relay) {
    let check = relay.ok(&["check", "--print"]);
    // Also in base64, as AUTH PLAIN and AUTH LOGIN say it.
    for secret in ["s3cret", "wrong-one", "AGFwcABzM2NyZXQ=", "czNjcmV0"] {
        assert!(!relay.log().contains(secret) && !check.contains(secret), "{secret} is shown");
        let events: String = relay.events().iter().map(ToString::to_string).collect();
        assert!(!events.contains(secret), "{secret} is in the event log");
    }
}

#[test]
fn mail_goes_through_a_hop_that_wants_a_login() {
    for mechanism in ["PLAIN", "LOGIN"] {
        let (world, hop, papers, config) = scene(mechanism);
        let config = config.set("log", "level", "\"debug\"").table(&route(&world, &papers, "*"));
        let relay = config.start();
        relay.submit("app@sender.test", &["u@x.test", "v@y.test"], &mail("through", "x"));
        for got in hop.wait_accepted(2) {
            assert!(got.is_tls && got.login.as_deref() == Some("app"), "{mechanism}: {got:?}");
        }
        relay.assert_settled();
        assert!(relay.log().contains("C: AUTH"), "the dialogue is logged, but for what is secret");
        assert_no_secret(&relay);
    }
}

#[test]
fn a_refused_login_returns_no_mail_tells_somebody_and_a_reload_mends_it() {
    let (world, hop, papers, config) = scene("PLAIN");
    papers.put("password", "wrong-one");
    let config = config.set("queue", "retry", "[\"1h\"]").table(&route(&world, &papers, "*"));
    let relay = config.clone().start();
    for n in 0..5 {
        relay.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail("waits", "x"));
    }
    let deferred = relay.wait_events(1, "deferred", |_| true).remove(0);
    let reason = deferred["reply"].as_str().unwrap_or_default();
    assert!(reason.contains("our log-in as app is refused: 535 5.7.8 bad credentials"), "{deferred}");
    assert!(reason.contains("password_file") && reason.contains("[[route]] for \"*\""), "{deferred}");
    assert_eq!(
        (deferred["rule"].as_str(), deferred["class"].as_str()),
        (Some("login-refused"), Some("authentication"))
    );
    let alert = relay.wait_events(1, "alert", |event| event["text"].to_string().contains("log-in")).remove(0);
    assert!(alert["remedy"].as_str().is_some_and(|remedy| remedy.contains("reload weir")), "{alert}");
    let queued = relay.queue();
    assert_eq!(queued.len(), 5, "nobody's mail is returned");
    // A host that has greeted nobody yet gets two connections at most: those have found out for all.
    assert!((1..=2).contains(&hop.count("AUTH")) && hop.count("MAIL") == 0, "{:?}", hop.commands());
    assert_eq!(relay.events_of("deferred").len(), hop.count("AUTH"));
    assert_no_secret(&relay);

    papers.put("password", "s3cret");
    relay.reload(&config);
    hop.wait_accepted(5);
    relay.assert_settled();
    let is_over = |relay: &Relay| relay.log().contains("our log-in is taken again");
    until("the alert is over", || is_over(&relay).then_some(()));
    assert!(relay.json(&["suppress", "list"]).is_empty(), "nobody is listed for it");
}

#[test]
fn no_password_is_sent_to_a_host_that_cannot_be_verified() {
    let (world, hop, papers, config) = scene("PLAIN");
    papers.put("ca.pem", &Papers::text().0);
    let relay = config.set("queue", "retry", "[\"1h\"]").table(&route(&world, &papers, "*")).start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("secret", "x"));
    let deferred = relay.wait_event("deferred", "u@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    assert_eq!((hop.count("AUTH"), relay.queue().len()), (0, 1));
}

#[test]
fn a_rerouted_message_logs_in_where_the_hop_is_one_of_the_configuration() {
    let (world, hop, papers, config) = scene("LOGIN");
    let busy = world.host("mx.x.test");
    world.domain("x.test", &[(10, &busy)]);
    busy.always(At::Mail, say("451 4.3.0 not now"));
    let relay = config.set("queue", "retry", "[\"1h\"]").table(&route(&world, &papers, "other.test")).start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("moved", "x"));
    relay.wait_event("deferred", "u@x.test");
    let to = format!("{NAME}:{}", world.port());
    relay.ok(&["queue", "reroute", "--domain", "x.test", "--to", &to]);
    assert_eq!(hop.wait_accepted(1)[0].login.as_deref(), Some("app"));
    relay.assert_settled();
}

#[test]
fn mail_with_and_without_a_login_shares_no_connection() {
    let (world, hop, papers, config) = scene("PLAIN");
    let open = format!("[[route]]\ndomain = \"open.test\"\nto = \"{NAME}:{}\"\n", world.port());
    let relay = config.table(&route(&world, &papers, "secret.test")).table(&open).start();
    relay.submit("app@sender.test", &["u@secret.test"], &mail("one", "x"));
    hop.wait_accepted(1);
    relay.submit("app@sender.test", &["u@open.test"], &mail("two", "x"));
    // Who has not logged in is told so, and is not let in on somebody else's connection.
    let bounced = relay.wait_event("bounced", "u@open.test");
    assert!(bounced["reply"].as_str().is_some_and(|reply| reply.starts_with("530 5.7.0")), "{bounced}");
    relay.submit("app@sender.test", &["v@secret.test"], &mail("three", "x"));
    hop.wait_accepted(2);
}

#[test]
fn a_route_that_is_not_enabled_does_not_count() {
    let (world, hop, papers, config) = scene("PLAIN");
    let mx = world.host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    let off = route(&world, &papers, "*") + "enabled = false\n";
    let relay = config.clone().table(&off).start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("direct", "x"));
    mx.wait_accepted(1);
    assert_eq!(hop.connections(), 0);
    relay.reload(&config.table(&route(&world, &papers, "*")));
    relay.submit("app@sender.test", &["v@x.test"], &mail("by the hop", "x"));
    hop.wait_accepted(1);
    relay.assert_settled();
}

#[test]
fn the_sender_of_mail_that_expires_behind_a_refused_login_reads_nothing_of_the_login() {
    let (world, _hop, papers, config) = scene("PLAIN");
    papers.put("password", "wrong-one");
    let home = world.host("mx.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    let relay = config.set("queue", "expire", "\"1s\"").table(&route(&world, &papers, "x.test")).start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("late", "x"));
    let report = home.wait_accepted(1).remove(0).text();
    assert!(report.contains("u@x.test") && report.contains("4.4.7"), "{report}");
    for secret in ["password_file", "log-in", "535"] {
        assert!(!report.contains(secret), "{secret} in {report}");
    }
    let expired = relay.wait_event("expired", "u@x.test");
    assert!(expired["reply"].as_str().is_some_and(|reply| reply.contains("535 5.7.8")), "{expired}");
}

/// Two relays, the real program both: one hands its mail to the other, which asks for a name and a password.
#[test]
fn one_relay_logs_in_at_another_over_starttls_and_over_tls_from_the_first_octet() {
    let (world, mx) = World::with_domain("x.test");
    let papers = Papers::issue();
    let maker = world.config().start();
    let made = maker.command_with_input(&["password", "--user", "app"], b"s3cret\n");
    papers.put("users", &String::from_utf8_lossy(&made.stdout));
    papers.put("password", "s3cret\n");
    let door = |tls: &str| format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"{tls}\"\nauth = \"require\"");
    let inner = papers.show(world.config()).set("relay", "users_file", &quoted(&papers.path("users")));
    let inner = inner.without_listeners().table(&door("require")).table(&door("implicit")).start();
    for (at, tls) in ["verify", "implicit"].into_iter().enumerate() {
        let route = format!(
            "[[route]]\ndomain = \"*\"\nto = \"localhost:{}\"\ntls = \"{tls}\"\nusername = \"app\"\npassword_file = {}",
            inner.addresses()[at].port(),
            quoted(&papers.path("password"))
        );
        let outer = world.config().set("delivery", "ca_file", &quoted(&papers.path("certificate")));
        let outer = outer.table(&route).start();
        outer.submit("app@sender.test", &["u@x.test"], &mail("two relays", "x"));
        mx.wait_accepted(at + 1);
        let delivered = outer.wait_event("delivered", "u@x.test");
        assert!(delivered["tls"].as_str().is_some_and(|tls| tls.ends_with(" X25519MLKEM768 verified")), "{delivered}");
        outer.assert_settled();
    }
    let users: Vec<_> = inner.events_of("accepted").iter().map(|event| event["user"].clone()).collect();
    assert_eq!(users, ["app", "app"]);
}
