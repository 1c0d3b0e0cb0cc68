//! TLS and log-ins at the front door as others see them: openssl, and real mail servers that log in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::kit::mta::{Kind, Mta};
use crate::kit::papers::Papers;
use crate::kit::relay::program;
use crate::kit::{Relay, World, mail, until};

/// What openssl says of a session with the relay; none where it is not installed. It says EHLO and QUIT.
fn openssl(address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let Some(openssl) = program("openssl") else {
        eprintln!("skipped: openssl is not installed");
        return None;
    };
    let mut child = Command::new(openssl)
        .args(["s_client", "-connect", &address.to_string(), "-crlf", "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start openssl");
    let mut stdin = child.stdin.take().expect("a pipe to openssl");
    // Where the handshake failed nobody reads any more.
    let _ = std::io::Write::write_all(&mut stdin, b"EHLO client.test\nQUIT\n");
    let output = child.wait_with_output().expect("the end of openssl");
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn listener(tls: &str) -> String {
    format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"{tls}\"")
}

/// A relay that listens in clear text, with STARTTLS and with TLS from the first octet.
fn relay(papers: &Papers, world: &World) -> Relay {
    papers.show(world.config()).table(&listener("starttls")).table(&listener("implicit")).start()
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_none_before() {
    let (world, papers) = (World::new(), Papers::issue());
    let relay = relay(&papers, &world);
    let (starttls, implicit) = (relay.addresses()[1], relay.addresses()[2]);
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (address, start) in [(starttls, &["-starttls", "smtp"][..]), (implicit, &[])] {
            let Some(said) = openssl(address, &[start, &[version]].concat()) else { return };
            assert!(said.contains(&format!("New, {name}, Cipher is")) && said.contains("221 2.0.0"), "{said}");
        }
    }
    let said = openssl(implicit, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).unwrap_or_default();
    assert!(said.contains("New, (NONE)") && !said.contains("221 2.0.0"), "{said}");
}

#[test]
fn a_ticket_of_one_listener_is_refused_by_another() {
    let (world, papers) = (World::new(), Papers::issue());
    let relay = relay(&papers, &world);
    let (starttls, implicit) = (relay.addresses()[1], relay.addresses()[2]);
    for version in ["-tls1_2", "-tls1_3"] {
        let ticket = papers.path("ticket").display().to_string();
        let Some(first) = openssl(implicit, &[version, "-sess_out", &ticket]) else { return };
        assert!(first.contains("New, TLS"), "{first}");
        let again = openssl(implicit, &[version, "-sess_in", &ticket]).unwrap_or_default();
        assert!(again.contains("Reused, TLS"), "{again}");
        let other = openssl(starttls, &["-starttls", "smtp", version, "-sess_in", &ticket]).unwrap_or_default();
        assert!(other.contains("New, TLS") && other.contains("221 2.0.0"), "{other}");
    }
}

/// The certificate that is shown now, in PEM.
fn shown(address: SocketAddr) -> Option<String> {
    let said = openssl(address, &[])?;
    let begin = said.find("-----BEGIN CERTIFICATE-----")?;
    let end = said.find("-----END CERTIFICATE-----")?;
    said.get(begin..end).map(str::to_string)
}

#[test]
fn a_certificate_that_changes_is_in_force_and_half_of_one_is_not() {
    let (world, papers) = (World::new(), Papers::issue());
    let relay = relay(&papers, &world);
    let address = relay.addresses()[2];
    let Some(before) = shown(address) else { return };
    let (certificate, key) = Papers::text();

    papers.put("certificate", &certificate);
    until("the new certificate is read", || relay.log().contains("cannot be taken").then_some(()));
    assert!(relay.log().contains("does not belong to the certificate"), "{}", relay.log());
    assert_eq!(shown(address), Some(before.clone()));
    relay.signal(Signal::HUP);
    until("the reload is refused", || relay.log().contains("configuration not reloaded").then_some(()));
    assert_eq!(shown(address), Some(before));

    papers.put("key", &key);
    let fresh = certificate.split("-----END").next().map(str::to_string);
    let lines = |text: &str| text.lines().map(str::to_string).collect::<Vec<_>>();
    until("the new certificate is shown", || {
        (shown(address).map(|shown| lines(&shown)) == fresh.as_deref().map(lines)).then_some(())
    });
}

/// A relay that takes mail of users only, inside TLS; the user's hash is made by the program.
fn relay_of_users(papers: &Papers, world: &World) -> Relay {
    let maker = world.config().start();
    let line = maker.command_with_input(&["password", "--user", "app"], b"correct horse\n");
    assert!(line.status.success(), "{}", String::from_utf8_lossy(&line.stderr));
    papers.put("users", &String::from_utf8_lossy(&line.stdout));
    let users = format!("\"{}\"", papers.path("users").display());
    let door = format!("{}\nauth = \"require\"", listener("require"));
    papers.show(world.config()).set("relay", "users_file", &users).without_listeners().table(&door).start()
}

fn logs_in_and_sends(kind: Kind) {
    let (world, mx) = World::with_domain("x.test");
    let papers = Papers::issue();
    let relay = relay_of_users(&papers, &world);
    let Some(mta) = Mta::start_as_user(kind, relay.address(), "app", "correct horse") else { return };
    mta.send("app@sender.test", &["u@x.test"], "From: app@sender.test\nTo: u@x.test\n\ntext\n");
    let got = mx.wait_accepted(1).remove(0);
    let received = got.header("Received").unwrap_or_default();
    assert!(received.contains("with ESMTPSA id ") && received.contains(" tls TLS_"), "{received}");
    let accepted = relay.events_of("accepted").remove(0);
    assert_eq!(accepted["user"], "app", "{accepted}");
    assert!(accepted["tls"].as_str().is_some_and(|tls| tls.starts_with("TLSv1.3 ")), "{accepted}");
}

#[test]
fn postfix_logs_in_and_sends() {
    logs_in_and_sends(Kind::Postfix);
}

#[test]
fn exim_logs_in_and_sends() {
    logs_in_and_sends(Kind::Exim);
}

/// What AUTH PLAIN is answered to `password` of the user app, in clear text from a trusted network.
fn log_in(relay: &Relay, response: &str) -> String {
    let mut client = relay.client();
    client.send(&format!("AUTH PLAIN {response}"));
    client.reply()
}

#[test]
fn a_file_of_users_that_changes_is_in_force_and_a_faulty_one_is_not() {
    let (world, papers) = (World::new(), Papers::issue());
    let maker = world.config().start();
    let line = |password: &[u8]| {
        let made = maker.command_with_input(&["password", "--user", "app"], password);
        String::from_utf8_lossy(&made.stdout).into_owned()
    };
    let (old, new) = (line(b"old\n"), line(b"new\n"));
    papers.put("users", &old);
    let relay = world.config().set("relay", "users_file", &format!("\"{}\"", papers.path("users").display())).start();
    // app NUL old, app NUL new: what stands before the first NUL is empty.
    let (says_old, says_new) = ("AGFwcABvbGQ=", "AGFwcABuZXc=");
    assert!(log_in(&relay, says_old).starts_with("235 2.7.0"));
    papers.put("users", "app\n");
    until("the faulty file is read", || relay.log().contains("cannot be taken").then_some(()));
    assert!(log_in(&relay, says_old).starts_with("235 2.7.0"));
    papers.put("users", &new);
    until("the new file is in force", || relay.log().contains("users changed and is in force").then_some(()));
    assert!(log_in(&relay, says_new).starts_with("235 2.7.0"));
    assert!(log_in(&relay, says_old).starts_with("535 5.7.8"), "what was remembered of the old password is dropped");
    assert!(log_in(&relay, says_new).starts_with("235"));
    relay.client().submit("a@sender.test", &["postmaster@[127.0.0.1]"], &mail("s", "t"));
    for log in [relay.log(), maker.log()] {
        assert!(!log.contains("$argon2"), "{log}");
    }
    assert!(Path::new(&papers.path("users")).exists());
}
