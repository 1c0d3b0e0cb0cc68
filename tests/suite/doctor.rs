//! `weir doctor` against a scripted name server and scripted receivers, beside a running relay and without one.

use std::net::IpAddr;

use serde_json::Value;

use crate::kit::mta::{Kind, Mta};
use crate::kit::relay::{WEIR, weir};
use crate::kit::{At, Config, Dns, Failure, Mx, Relay, World, contains, mail, say, until_within};
use std::time::Duration;

/// The address the receivers see; nobody sends anything there.
const PUBLIC: &str = "52.31.7.9";
const NAME: &str = "relay.weir.dev";

/// Outlook.com with two hosts, hotmail.com and Microsoft's business mail with one each.
struct Microsoft {
    world: World,
    hosts: Vec<Mx>,
}

fn microsoft() -> Microsoft {
    let world = World::new();
    let outlook = world.tls_host("outlook-com.olc.protection.outlook.com");
    let hotmail = world.tls_host("hotmail-com.olc.protection.outlook.com");
    let business = world.tls_host("microsoft-com.mail.protection.outlook.com");
    world.domain("outlook.com", &[(5, &outlook)]);
    world.domain("hotmail.com", &[(2, &hotmail)]);
    world.domain("microsoft.com", &[(0, &business)]);
    let hosts = vec![outlook, hotmail, business];
    for host in &hosts {
        // Theirs say whom they see.
        host.always(
            At::Ehlo,
            say(&format!("250-{} Hello [{PUBLIC}]\n250-SIZE 49283072\n250-PIPELINING\n250 STARTTLS", host.name)),
        );
    }
    let dns = &world.dns;
    dns.empty(".");
    dns.validate();
    let address: IpAddr = PUBLIC.parse().unwrap();
    dns.reverse(address, NAME);
    dns.addresses(NAME, &[address]);
    dns.txt(NAME, &[&format!("v=spf1 ip4:{PUBLIC} -all")]);
    dns.txt("weir.dev", &["v=spf1 include:_spf.weir.dev -all"]);
    dns.txt("_spf.weir.dev", &[&format!("v=spf1 ip4:{PUBLIC} ?all")]);
    dns.txt("_dmarc.weir.dev", &["v=DMARC1; p=none; rua=mailto:dmarc@weir.dev"]);
    Microsoft { world, hosts }
}

impl Microsoft {
    fn config(&self) -> Config {
        self.world.config().set("", "hostname", &format!("\"{NAME}\"")).set("relay", "sender_domains", "[\"weir.dev\"]")
    }

    /// With nothing running.
    fn host(&self) -> Relay {
        Relay::prepare(WEIR.into(), self.config())
    }
}

/// The findings, whatever the exit code; it must agree with them.
#[track_caller]
fn findings(relay: &Relay, arguments: &[&str]) -> Vec<Value> {
    let output = relay.command(&[&["doctor", "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let found: Vec<Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect();
    assert!(!found.is_empty(), "it found nothing: {}", String::from_utf8_lossy(&output.stderr));
    let has_failed = found.iter().any(|finding| finding["status"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{found:#?}");
    found
}

#[track_caller]
fn of<'f>(found: &'f [Value], check: &str, subject: &str) -> &'f Value {
    let fits = |finding: &&Value| {
        finding["check"] == check && finding["subject"].as_str().is_some_and(|s| s.contains(subject))
    };
    found.iter().find(fits).unwrap_or_else(|| panic!("no finding of {check} about {subject}: {found:#?}"))
}

#[track_caller]
fn status(found: &[Value], check: &str, subject: &str) -> String {
    of(found, check, subject)["status"].as_str().unwrap_or_default().to_string()
}

#[track_caller]
fn remedy(found: &[Value], check: &str, subject: &str) -> String {
    of(found, check, subject)["remedy"].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_host_that_is_fit_is_told_so() {
    let microsoft = microsoft();
    let world = &microsoft.world;
    // A second address of the same name is tried as well.
    let twin = world.twin(&microsoft.hosts[0]);
    world.dns.tlsa("_25._tcp.microsoft-com.mail.protection.outlook.com");
    let found = findings(&microsoft.host(), &[]);
    for finding in &found {
        for key in ["check", "subject", "status", "text", "remedy"] {
            assert!(finding.get(key).is_some(), "{key} is missing in {finding}");
        }
        assert_eq!(finding["remedy"].is_null(), finding["status"] == "ok", "{finding}");
    }
    for (check, subject) in [
        ("address", "default"),
        ("ptr", PUBLIC),
        ("helo", NAME),
        ("helo-spf", NAME),
        ("port25", "outlook.com 127.0.1."),
        ("port25", "hotmail.com 127.0.1."),
        ("port25", "microsoft.com 127.0.1."),
        ("mta-sts", "outlook.com"),
        ("dane", "microsoft.com"),
        ("spf", "weir.dev"),
        ("dmarc", "weir.dev"),
        ("resolver", "127.0.0.1"),
    ] {
        assert_eq!(status(&found, check, subject), "ok", "{:#?}", of(&found, check, subject));
    }
    for check in ["clock", "disk", "data-dir", "descriptors", "memory", "sandbox"] {
        of(&found, check, "");
    }
    assert!(of(&found, "address", "")["text"].as_str().unwrap().contains(PUBLIC));
    assert!(of(&found, "port25", "outlook.com")["text"].as_str().unwrap().contains("SIZE 49283072"));
    assert!(of(&found, "dane", "microsoft.com")["text"].as_str().unwrap().contains("signed zone"));
    // One connection to each address, EHLO by our name and QUIT, and nothing else.
    for host in microsoft.hosts.iter().chain([&twin]) {
        assert_eq!(host.commands(), [format!("EHLO {NAME}"), "QUIT".to_string()], "{}", host.name);
        assert_eq!(host.connections(), 1);
    }
}

#[test]
fn what_is_wrong_is_told_with_what_mends_it() {
    let microsoft = microsoft();
    let dns = &microsoft.world.dns;
    dns.reverse(PUBLIC.parse().unwrap(), "host-52-31-7-9.pool.isp.dev");
    dns.addresses("host-52-31-7-9.pool.isp.dev", &[PUBLIC.parse().unwrap()]);
    dns.txt(NAME, &[]);
    dns.txt("_spf.weir.dev", &["v=spf1 ip4:192.0.2.0/24 ?all"]);
    dns.empty("_dmarc.weir.dev");
    microsoft.hosts[0].always(At::Ehlo, say("501 5.5.4 Invalid domain name"));
    microsoft.hosts[1].always(At::Greeting, say("550 5.7.1 Service unavailable, Client host [x] blocked (S3150)"));
    microsoft.world.dead_host("microsoft-com.mail.protection.outlook.com");
    let found = findings(&microsoft.host(), &[]);
    assert_eq!(status(&found, "ptr", PUBLIC), "fail");
    assert_eq!(remedy(&found, "ptr", "").lines().last(), Some("9.7.31.52.in-addr.arpa. IN PTR relay.weir.dev."));
    assert_eq!(status(&found, "helo-spf", NAME), "warn");
    assert!(remedy(&found, "helo-spf", "").ends_with("relay.weir.dev. IN TXT \"v=spf1 ip4:52.31.7.9 -all\""));
    assert_eq!(status(&found, "helo", "outlook.com"), "fail");
    assert_eq!(status(&found, "port25", "hotmail.com"), "fail");
    let explained = remedy(&found, "port25", "hotmail.com");
    assert!(explained.contains("weir explain '550 5.7.1 Service unavailable"), "{explained}");
    assert_eq!(status(&found, "port25", "microsoft.com"), "fail");
    assert!(remedy(&found, "port25", "microsoft.com").contains("[[route]]"));
    assert_eq!(status(&found, "spf", "weir.dev"), "fail");
    let record = "weir.dev. IN TXT \"v=spf1 ip4:52.31.7.9 include:_spf.weir.dev -all\"";
    assert_eq!(remedy(&found, "spf", "weir.dev").lines().last(), Some(record));
    assert_eq!(status(&found, "dmarc", "weir.dev"), "fail");
    assert!(remedy(&found, "dmarc", "weir.dev").contains("_dmarc.weir.dev. IN TXT \"v=DMARC1; p=none; rua="));
}

#[test]
fn beside_a_running_relay_the_domains_of_its_mail_are_looked_at() {
    let microsoft = microsoft();
    let world = &microsoft.world;
    let mx = world.host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    mx.once(At::Rcpt, say("450 4.2.1 not now"));
    world.dns.txt("s1._domainkey.shop.dev", &["v=DKIM1; k=rsa; p="]);
    let config = world.config().set("", "hostname", &format!("\"{NAME}\"")).set("queue", "retry", "[\"1h\"]");
    let relay = config.start();
    let signed =
        [&b"DKIM-Signature: v=1; a=rsa-sha256; d=shop.dev; s=s1; h=From; bh=x; b=y\r\n"[..], &mail("one", "x")]
            .concat();
    let signed = String::from_utf8(signed).unwrap().replace("app@sender.test", "app@shop.dev").into_bytes();
    relay.submit("app@shop.dev", &["u@x.test"], &signed);
    relay.wait_event("deferred", "u@x.test");
    relay.submit("news@gone.dev", &["v@x.test"], &mail("two", "x"));
    relay.wait_event("delivered", "v@x.test");
    let found = findings(&relay, &["--from", "weir.dev", "--to", "x.test"]);
    assert_eq!(status(&found, "spf", "weir.dev"), "ok");
    assert_eq!(status(&found, "spf", "shop.dev"), "fail", "seen in the queue");
    assert_eq!(status(&found, "spf", "gone.dev"), "fail", "seen in the last day's events alone");
    let key = of(&found, "dkim", "shop.dev");
    assert!(key["status"] == "fail" && key["text"].as_str().unwrap().contains("revoked"), "{key}");
    assert_eq!(status(&found, "port25", "x.test"), "ok");
    let process = format!("process {}", relay.pid());
    assert!(of(&found, "descriptors", "")["subject"].as_str().unwrap().contains(&process));
    assert_eq!(relay.queue().len(), 1, "nothing was changed");
}

#[test]
fn mail_that_goes_through_another_relay_is_tried_there() {
    let microsoft = microsoft();
    let world = &microsoft.world;
    let hop = world.host("hop.isp.dev");
    let config = microsoft.config().table(&format!("[[route]]\ndomain = \"*\"\nto = \"{}\"", hop.address()));
    let found = findings(&Relay::prepare(WEIR.into(), config), &[]);
    let tried = of(&found, "port25", "outlook.com hotmail.com microsoft.com");
    assert!(tried["status"] == "ok" && tried["text"].as_str().unwrap().contains("next hop"), "{tried}");
    assert_eq!((hop.connections(), microsoft.hosts[0].connections()), (1, 0));
}

#[test]
fn listings_are_asked_for_only_on_request() {
    let microsoft = microsoft();
    let dns = &microsoft.world.dns;
    dns.addresses("2.0.0.127.zen.spamhaus.org", &["127.0.0.2".parse().unwrap()]);
    dns.addresses("9.7.31.52.zen.spamhaus.org", &["127.0.0.4".parse().unwrap()]);
    let host = microsoft.host();
    findings(&host, &[]);
    assert_eq!(dns.asked("9.7.31.52.zen.spamhaus.org", "A"), 0);
    let found = findings(&host, &["--dnsbl"]);
    assert_eq!(status(&found, "dnsbl", "52.31.7.9 zen.spamhaus.org"), "fail");
    assert_eq!(status(&found, "dnsbl", "bl.spamcop.net"), "warn", "it has not even its test entry");
}

#[test]
fn each_source_has_its_own_findings_and_its_own_connections() {
    let microsoft = microsoft();
    let source = |name: &str, last: u8| {
        format!("[[source]]\nname = \"{name}\"\naddress = \"127.0.7.{last}\"\nhostname = \"{name}.weir.dev\"")
    };
    let config = microsoft.config().table(&source("a", 1)).table(&source("b", 2));
    let found = findings(&Relay::prepare(WEIR.into(), config), &[]);
    assert_eq!(status(&found, "helo", "a.weir.dev"), "fail");
    assert_eq!(status(&found, "helo", "b.weir.dev"), "fail");
    for host in &microsoft.hosts {
        let said = host.commands();
        for name in ["a", "b"] {
            assert!(said.contains(&format!("EHLO {name}.weir.dev")), "{}: {said:?}", host.name);
        }
    }
    of(&found, "port25", "from b");
}

#[test]
fn where_nothing_answers_it_ends_soon_and_says_what_is_wrong() {
    let dns = Dns::start();
    dns.empty(".");
    for name in [".", "outlook.com", "hotmail.com", "microsoft.com", "weir.dev", NAME, "_dmarc.weir.dev"] {
        dns.fail(name, Some(Failure::Silence));
    }
    let config = Config::new(dns.address(), 25).set("", "hostname", &format!("\"{NAME}\"")).set(
        "relay",
        "sender_domains",
        "[\"weir.dev\"]",
    );
    let host = Relay::prepare(WEIR.into(), config);
    // The patience of a test is 30 seconds, as much as a run may take.
    let found = until_within(Duration::from_secs(30), "the end of a run", || Some(findings(&host, &[])));
    assert_eq!(status(&found, "resolver", "127.0.0.1"), "fail");
    assert!(remedy(&found, "resolver", "").contains("[dns]\nservers"));
    for (check, subject) in
        [("port25", "outlook.com"), ("address", "default"), ("spf", "weir.dev"), ("dmarc", "weir.dev")]
    {
        assert_eq!(status(&found, check, subject), "warn", "{check}: nobody could tell");
    }
}

#[test]
fn for_people_each_line_fits_and_the_exit_code_tells_a_failure() {
    let microsoft = microsoft();
    let output = microsoft.host().command(&["doctor", "--from", "other.dev"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  spf other.dev: ") && text.contains("do: publish:"), "{text}");
    assert!(text.contains("why: Outlook refuses From domains"), "{text}");
    let wrong = weir(&["doctor", "--to", "not a domain"]);
    assert_eq!(wrong.status.code(), Some(2));
    let help = String::from_utf8(weir(&["doctor", "--help"]).stdout).unwrap();
    assert!(help.contains("weir doctor --from example.com"), "{help}");
}

/// What `--mta` says about a host with these files below its root.
fn recipe(relay: &Relay, files: &[(&str, &str)], arguments: &[&str]) -> Vec<Value> {
    let root = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(path, text).expect("write a file");
    }
    let root = root.path().to_str().expect("UTF-8");
    findings(relay, &[&["--mta", "--root", root], arguments].concat())
}

/// The exact lines, without the sentence before them.
fn exact(found: &[Value], subject: &str) -> String {
    let remedy = remedy(found, "mta", subject);
    remedy.split_once('\n').expect("lines below a sentence").1.to_string()
}

const TEXT: &str = "From: App <app@sender.test>\nTo: u@x.test\nSubject: by the lines\n\nend\n";

fn hands_its_mail_over(kind: Kind, subject: &str, file: &str, text: &str) {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().listen_on_a_known_port().start();
    let found = recipe(&relay, &[(file, text)], &[]);
    assert_eq!(status(&found, "mta", subject), "warn");
    let lines = exact(&found, subject);
    let Some(mta) = Mta::start_by(kind, &lines) else { return };
    mta.send("app@sender.test", &["u@x.test"], TEXT);
    assert!(contains(&mx.wait_accepted(1)[0].content, b"by the lines"));
    assert_eq!(relay.events_of("accepted").len(), 1, "through the relay");
    // With the lines in place nothing is left to say.
    let done = recipe(&relay, &[(file, &format!("{text}{lines}"))], &[]);
    assert_eq!(status(&done, "mta", subject), "ok", "{done:#?}");
}

#[test]
fn postfix_with_the_lines_it_is_given_hands_its_mail_over() {
    hands_its_mail_over(Kind::Postfix, "Postfix", "etc/postfix/main.cf", "myhostname = client.sender.test\n");
}

#[test]
fn exim_with_the_lines_it_is_given_hands_its_mail_over() {
    hands_its_mail_over(Kind::Exim, "Exim", "etc/exim4/exim4.conf", "begin routers\n");
}

#[test]
fn only_mail_for_microsoft_comes_by_the_lines_for_it() {
    let microsoft = microsoft();
    let elsewhere = microsoft.world.host("mail.isp.test");
    let relay = microsoft.config().without("relay", "sender_domains").listen_on_a_known_port().start();
    let hop = elsewhere.address();
    for (kind, subject, file, before, after) in [
        (
            Kind::Postfix,
            "Postfix",
            "etc/postfix/main.cf",
            format!("# main.cf\nrelayhost = [{}]:{}\n", hop.ip(), hop.port()),
            String::new(),
        ),
        (
            Kind::Exim,
            "Exim",
            "etc/exim4/exim4.conf",
            "# exim4.conf\n".to_string(),
            format!(
                "\n# exim4.conf\nrest:\n  driver = manualroute\n  transport = remote_smtp\n  route_list = * {}::{}\n  self = send\n",
                hop.ip(),
                hop.port()
            ),
        ),
    ] {
        let lines = exact(&recipe(&relay, &[(file, "")], &["--microsoft-only"]), subject);
        let lines: Vec<&str> = lines.lines().take_while(|line| *line != "# then").collect();
        let Some(mut mta) = Mta::start_by(kind, &format!("{before}{}{after}", lines.join("\n"))) else { continue };
        if kind == Kind::Exim {
            mta = mta.asks(microsoft.world.dns.at_port_53());
        }
        let (outlook, others) = (microsoft.hosts[0].accepted_count(), elsewhere.accepted_count());
        mta.send("app@weir.dev", &["u@x.test"], TEXT);
        elsewhere.wait_accepted(others + 1);
        assert_eq!(microsoft.hosts[0].accepted_count(), outlook);
        mta.send("app@weir.dev", &["u@outlook.com"], TEXT);
        microsoft.hosts[0].wait_accepted(outlook + 1);
        assert_eq!(elsewhere.accepted_count(), others + 1);
        // A domain that nobody knows by its name, only by its MX hosts, which Exim looks up.
        if kind == Kind::Exim {
            microsoft.world.domain("firm.test", &[(0, &microsoft.hosts[2])]);
            mta.send("app@weir.dev", &["u@firm.test"], TEXT);
            microsoft.hosts[2].wait_accepted(1);
            assert_eq!(elsewhere.accepted_count(), others + 1);
        }
    }
}

#[test]
fn what_belongs_to_the_mail_server_is_asked_for_with_it() {
    for arguments in [["--microsoft-only", "--json"], ["--root", "/"]] {
        assert_eq!(weir(&[&["doctor"], &arguments[..]].concat()).status.code(), Some(2), "{arguments:?}");
    }
    let output = weir(&["doctor", "--mta", "--root", "/nowhere"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("warn  mta /nowhere: ") && text.contains("port 2525"), "{text}");
}
