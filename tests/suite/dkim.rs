//! Mail signed by the real program, verified by others at the scripted receiver; keys made, shown, compared and reloaded by its commands.

#[path = "../dkim/verifiers.rs"]
mod verifiers;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use verifiers::{ALL, Said, Verifier};

use crate::http::Api;
use crate::kit::mx::Transaction;
use crate::kit::relay::WEIR;
use crate::kit::{At, Config, Dns, Failure, Mx, Relay, World, mail, say, until};

/// Keys made by `weir dkim keygen`, with their records.
struct Keys {
    folder: TempDir,
    records: BTreeMap<String, String>,
}

impl Keys {
    /// Each a domain, a selector and a type.
    fn make(wanted: &[(&str, &str, &str)]) -> Keys {
        let mut keys = Keys { folder: tempfile::tempdir().unwrap(), records: BTreeMap::new() };
        for (domain, selector, kind) in wanted {
            keys.add(domain, selector, kind);
        }
        keys
    }

    fn add(&mut self, domain: &str, selector: &str, kind: &str) {
        let file = self.file(selector);
        let out = file.to_str().unwrap();
        let output = weir(&[
            "dkim",
            "keygen",
            "--domain",
            domain,
            "--selector",
            selector,
            "--type",
            kind,
            "--out",
            out,
            "--json",
        ]);
        assert!(output.status.success(), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |key: &str| made[key].as_str().unwrap().to_string();
        self.records.insert(text("name"), text("record"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    fn file(&self, selector: &str) -> PathBuf {
        self.folder.path().join(format!("{selector}.pem"))
    }

    fn entry(&self, domain: &str, selector: &str) -> String {
        let file = self.file(selector);
        format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey_file = \"{}\"", file.display())
    }

    /// What the verifier says of these messages; none: it is not installed.
    fn verified(&self, verifier: Verifier, messages: &[&[u8]]) -> Option<Vec<Said>> {
        let folder = tempfile::tempdir().unwrap();
        for (number, message) in messages.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number:02}")), message).unwrap();
        }
        verifier.verify(&self.records, folder.path())
    }

    /// All signatures are good, and they are by these selectors, RSA first where there is both.
    #[track_caller]
    fn all_are_good(&self, message: &[u8], selectors: &[&str]) {
        for verifier in ALL {
            let Some(said) = self.verified(verifier, &[message]) else { continue };
            let text = String::from_utf8_lossy(message).into_owned();
            assert!(said.iter().all(|said| said.is_good), "{verifier:?}: {said:#?}\n{text}");
            let found: Vec<&str> = said.iter().map(|said| said.selector.as_str()).collect();
            let known = if verifier == Verifier::Dkimpy { selectors } else { &selectors[..found.len().max(1)] };
            assert_eq!(found, known, "{verifier:?}\n{text}");
        }
    }
}

fn weir(arguments: &[&str]) -> Output {
    std::process::Command::new(WEIR).args(arguments).output().expect("start weir")
}

/// The program in a world with a receiver, signing for sender.test with RSA and Ed25519.
struct Scene {
    keys: Keys,
    mx: Mx,
    relay: Relay,
    config: Config,
    _world: World,
}

fn scene(change: impl FnOnce(Config, &Keys) -> Config) -> Scene {
    let (world, mx) = World::with_domain("x.test");
    let keys = Keys::make(&[("sender.test", "one", "rsa"), ("sender.test", "two", "ed25519")]);
    let config = world.config().table(&keys.entry("sender.test", "one")).table(&keys.entry("sender.test", "two"));
    let config = change(config, &keys);
    Scene { relay: config.clone().start(), keys, mx, config, _world: world }
}

impl Scene {
    fn send(&self, content: &[u8]) -> Transaction {
        let before = self.mx.accepted_count();
        self.relay.submit("app@sender.test", &["u@x.test"], content);
        self.mx.wait_accepted(before + 1).pop().unwrap()
    }
}

fn signatures(transaction: &Transaction) -> usize {
    let text = transaction.text();
    text.split("\r\n\r\n").next().unwrap_or_default().matches("DKIM-Signature: v=1;").count()
}

const HEADER: &str = "From: App <app@sender.test>\r\nTo: u@x.test\r\nDate: Sat, 21 Nov 2026 20:33:40 +0000\r\nMessage-ID: <1@sender.test>\r\n";

#[test]
fn where_a_conversion_breaks_our_signatures_they_are_made_anew_and_are_the_same_each_time() {
    let mut scene = scene(|config, _| config);
    scene.mx.offer(&["SIZE"]);
    let large = "Grüße in einer großen Nachricht. \r\n".repeat(20_000);
    for (subject, body) in [("small", "Grüße \r\n\r\n"), ("large", large.as_str())] {
        let before = scene.mx.transactions().len();
        scene.mx.always(At::End, say("451 4.3.0 later"));
        let content =
            format!("{HEADER}Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}");
        scene.relay.submit("app@sender.test", &["u@x.test"], content.as_bytes());
        let tried = until("an attempt", || scene.mx.transactions().get(before).cloned());
        scene.relay.kill();
        scene.mx.relent(At::End);
        scene.relay.run();
        let got = scene.mx.wait_accepted(1 + usize::from(subject == "large")).pop().unwrap();
        assert!(got.content.is_ascii(), "{subject}");
        assert_eq!(signatures(&got), 2, "{subject}");
        scene.keys.all_are_good(&got.content, &["one", "two"]);
        assert!(tried.content == got.content, "{subject}: another attempt, other octets");
    }
}

#[test]
fn each_copy_is_signed_with_the_fields_it_has_for_itself() {
    let scene = scene(|config, _| {
        config
            .set("http", "address", "\"127.0.0.1:0\"")
            .set("feedback", "domain", "\"fb.sender.test\"")
            .set("feedback", "url", "\"https://fb.sender.test\"")
            .set("feedback", "return_path", "[\"sender.test\"]")
            .set("feedback", "list_unsubscribe", "[\"sender.test\"]")
    });
    let large = "A line of a large message, with  blanks. \r\n".repeat(10_000);
    for body in ["Hello. \r\n\r\n\r\n", large.as_str()] {
        let before = scene.mx.accepted_count();
        let content = format!("X-Weir-Expire: 2d\n{HEADER}Subject: boots\n\n{body}");
        scene.relay.submit("app@sender.test", &["u@x.test", "v@x.test", "w@x.test"], content.as_bytes());
        let copies = scene.mx.wait_accepted(before + 3).split_off(before);
        let unsubscribe = |copy: &Transaction| copy.header("List-Unsubscribe").unwrap();
        assert_ne!(unsubscribe(&copies[0]), unsubscribe(&copies[1]));
        for copy in &copies {
            assert_eq!((copy.recipients.len(), signatures(copy)), (1, 2));
            let text = copy.text();
            let signed = "List-Unsubscribe:List-Unsubscribe:List-Unsubscribe-Post:List-Unsubscribe-Post";
            assert_eq!(text.replace("\r\n\t ", "").matches(signed).count(), 2, "closed by both: {text:.2000}");
            scene.keys.all_are_good(&copy.content, &["one", "two"]);
        }
    }
    // A message with a field of its own is signed once for all, as ever.
    let before = scene.mx.accepted_count();
    let content = format!("{HEADER}Subject: own\nList-Unsubscribe: <mailto:leave@sender.test>\n\nHello.\n");
    scene.relay.submit("app@sender.test", &["u@x.test", "v@x.test"], content.as_bytes());
    let copies = scene.mx.wait_accepted(before + 2).split_off(before);
    assert_eq!(copies[0].content, copies[1].content);
    scene.keys.all_are_good(&copies[0].content, &["one", "two"]);
}

#[test]
fn every_attempt_sends_the_same_signatures_over_a_kill_and_others_verify_them() {
    let mut scene = scene(|config, _| config);
    let large = "A line of a large message, with  blanks. \r\n".repeat(10_000);
    for (subject, body) in [("small", "Hello. \r\n\r\n\r\n"), ("large", large.as_str())] {
        let before = scene.mx.transactions().len();
        scene.mx.always(At::End, say("451 4.3.0 later"));
        // Lines end with a single LF, and an order to weir stands in the header: what goes out is another text.
        let content =
            format!("X-Weir-Expire: 2d\n{HEADER}Subject: {subject}\nList-Unsubscribe: <mailto:u@x.test>\n\n{body}");
        scene.relay.submit("app@sender.test", &["u@x.test"], content.as_bytes());
        let tried = until("an attempt", || scene.mx.transactions().get(before).cloned());
        scene.relay.kill();
        scene.mx.relent(At::End);
        scene.relay.run();
        let sent = until("the other attempt", || {
            scene.mx.accepted().into_iter().next_back().filter(|t| t.text().contains(subject))
        });
        assert!(tried.content == sent.content, "{subject}: {}\n{}", tried.text(), sent.text());
        assert!(
            sent.text().starts_with("DKIM-Signature: v=1; a=rsa-sha256;") && signatures(&sent) == 2,
            "{}",
            sent.text()
        );
        assert!(!sent.text().contains("X-Weir") && sent.header("List-Unsubscribe").is_some());
        scene.keys.all_are_good(&sent.content, &["one", "two"]);
    }
    scene.relay.wait_queue_empty();
    scene.relay.assert_settled();
}

#[test]
fn mail_by_bdat_with_odd_bodies_is_verified_by_others() {
    let scene = scene(|config, _| config.with_listener("chunking = \"on\""));
    for body in ["", "no end of line", "M\u{fc}ller \t\r\n \r\n\r\n", ".\r\n..dots\r\n"] {
        let content = format!("{HEADER}Subject: x\r\n\r\n{body}");
        let before = scene.mx.accepted_count();
        let mut client = scene.relay.client();
        client.ask("MAIL FROM:<app@sender.test> BODY=8BITMIME", "250");
        client.ask("RCPT TO:<u@x.test>", "250");
        let (first, last) = content.as_bytes().split_at(content.len() / 2);
        for (chunk, end) in [(first, ""), (last, " LAST")] {
            client.send(&format!("BDAT {}{end}", chunk.len()));
            client.send_bytes(chunk);
            client.expect("250");
        }
        let sent = scene.mx.wait_accepted(before + 1).pop().unwrap();
        scene.keys.all_are_good(&sent.content, &["one", "two"]);
    }
}

#[test]
fn who_is_not_certain_to_have_written_it_is_signed_for_by_nobody() {
    let scene = scene(|config, keys| {
        let skipping = keys.entry("skip.test", "one") + "\nskip_signed = true";
        config.table(&skipping)
    });
    let foreign = "DKIM-Signature: v=1; a=rsa-sha256; d=skip.test; s=app; h=From; bh=eA==; b=eA==\r\n";
    for (header, expected) in [
        ("From: app@sender.test\r\n".to_string(), 2),
        ("FROM:\r\n \"evil@evil.test, x\" (y)\r\n <app@News.Sender.test>\r\n".to_string(), 2),
        ("From: Firm, Inc. <app@sender.test>\r\n".to_string(), 2),
        ("From: app@fsender.test\r\n".to_string(), 0),
        ("From: app@other.test\r\n".to_string(), 0),
        (String::new(), 0),
        ("From: app@sender.test\r\nFrom: app@sender.test\r\n".to_string(), 0),
        ("From: evil@evil.test <app@sender.test>\r\n".to_string(), 0),
        ("From: app@skip.test\r\n".to_string(), 1),
        (format!("{foreign}From: app@skip.test\r\n"), 1),
    ] {
        let sent = scene.send(format!("{header}Subject: x\r\n\r\nHello.\r\n").as_bytes());
        assert_eq!(signatures(&sent), expected, "{}", sent.text());
        assert!(sent.text().ends_with("Subject: x\r\n\r\nHello.\r\n"), "{}", sent.text());
    }
    let beside = foreign.replace("skip.test", "sender.test");
    let sent = scene.send(format!("{beside}From: app@sender.test\r\nSubject: x\r\n\r\nHello.\r\n").as_bytes());
    assert_eq!(signatures(&sent), 3, "signed beside it: {}", sent.text());
}

#[test]
fn reports_letters_and_messages_over_http_are_signed() {
    let world = World::new();
    let (mx, home) = (world.host("mx.olc.test"), world.host("home.sender.test"));
    world.domain("x.test", &[(10, &mx)]);
    world.domain("sender.test", &[(10, &home)]);
    let keys = Keys::make(&[("relay.test", "own", "rsa"), ("sender.test", "app", "ed25519")]);
    let relay = world
        .config()
        .table(&keys.entry("relay.test", "own"))
        .table(&keys.entry("sender.test", "app"))
        .table("[[provider]]\nname = \"outlook\"\nmx = [\"*.olc.test\"]\nmax_connections = 1\npause = \"2s\"")
        .set("alerts", "mail", "\"ops@sender.test\"")
        .set("http", "address", "\"127.0.0.1:0\"")
        .start();
    let message =
        serde_json::json!({ "from": "app@sender.test", "to": ["u@x.test"], "subject": "hi", "text": "hello" });
    assert_eq!(Api::of(&relay).post("/api/v1/messages", &message).status, 200);
    let sent = mx.wait_accepted(1).remove(0);
    if let Some(said) = keys.verified(Verifier::Dkimpy, &[&sent.content]) {
        assert!(said.len() == 1 && said[0].is_good && said[0].domain == "sender.test", "{said:?}\n{}", sent.text());
    }
    let block = "550 5.7.1 Unfortunately, messages from [127.0.0.1] weren't sent. Please contact your Internet service \
                 provider since part of their network is on our block list (S3150).";
    mx.always(At::Mail, say(block));
    relay.submit("app@sender.test", &["u@x.test"], &mail("blocked", "x"));
    // The report of the message that found out, and the letter to the operator.
    let ours = home.wait_accepted(2);
    let mut to: Vec<&str> = ours.iter().flat_map(Transaction::to).collect();
    to.sort_unstable();
    assert_eq!(to, ["app@sender.test", "ops@sender.test"]);
    for transaction in &ours {
        assert!(transaction.header("From").is_some_and(|from| from.contains("@relay.test")), "{}", transaction.text());
        keys.all_are_good(&transaction.content, &["own"]);
        assert_eq!(signatures(transaction), 1, "{}", transaction.text());
    }
    relay.wait_queue_empty();
    relay.assert_settled();
}

#[test]
fn a_reload_signs_with_the_new_key_and_a_key_that_is_none_changes_nothing() {
    let mut scene = scene(|config, _| config);
    scene.keys.add("sender.test", "three", "rsa");
    let changed = scene._world.config().table(&scene.keys.entry("sender.test", "three"));
    scene.relay.reload(&changed);
    let sent = scene.send(format!("{HEADER}Subject: x\r\n\r\nHello.\r\n").as_bytes());
    scene.keys.all_are_good(&sent.content, &["three"]);
    std::fs::write(scene.keys.file("three"), "hello").unwrap();
    scene.relay.signal(rustix::process::Signal::HUP);
    until("the fault", || scene.relay.log().contains("three.pem (key_file) holds no private key").then_some(()));
    let sent = scene.send(format!("{HEADER}Subject: y\r\n\r\nHello.\r\n").as_bytes());
    scene.keys.all_are_good(&sent.content, &["three"]);
    scene.relay.reload(&scene.config);
    let sent = scene.send(format!("{HEADER}Subject: z\r\n\r\nHello.\r\n").as_bytes());
    scene.keys.all_are_good(&sent.content, &["one", "two"]);
}

#[test]
fn a_key_that_is_written_into_no_file_is_printed_with_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let arguments = ["dkim", "keygen", "--domain", "Sender.test", "--selector", "s", "--type", "ed25519"];
    let printed = weir(&arguments).stdout;
    let text = String::from_utf8(printed.clone()).unwrap();
    assert!(
        text.starts_with("-----BEGIN PRIVATE KEY-----\n") && text.contains("[[dkim]]\ndomain = \"sender.test\""),
        "{text}"
    );
    // All that was printed serves as the file of the key.
    std::fs::write(&file, printed).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let entry = format!("[[dkim]]\ndomain = \"sender.test\"\nselector = \"s\"\nkey_file = \"{}\"", file.display());
    let relay = Relay::prepare(WEIR.into(), Config::new(Dns::start().address(), 25).table(&entry));
    let shown = relay.ok(&["dkim", "show"]);
    assert!(text.contains(shown.trim()), "{shown}\n{text}");
    let output = weir(&[&arguments[..], &["--json"]].concat());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["private_key"].as_str().is_some_and(|key| key.starts_with("-----BEGIN")), "{json}");
    let refused = weir(&[&arguments[..], &["--out", file.to_str().unwrap()]].concat());
    assert_eq!(refused.status.code(), Some(1), "no key is written over");
}

/// What `weir dkim check --json` finds, by selector; and its exit code.
fn checked(relay: &Relay) -> (BTreeMap<String, Value>, Option<i32>) {
    let output = relay.command(&["dkim", "check", "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let found = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    (found.map(|line| (line["selector"].as_str().unwrap().to_string(), line)).collect(), output.status.code())
}

#[test]
fn the_dns_is_compared_with_the_keys_and_each_fault_is_told_apart() {
    let dns = Dns::start();
    let wanted = ["good", "missing", "empty", "differs", "revoked", "silent", "ed"];
    let kind = |selector: &str| if selector == "ed" { "ed25519" } else { "rsa" };
    let keys = Keys::make(&wanted.map(|selector| ("sender.test", selector, kind(selector))));
    let name = |selector: &str| format!("{selector}._domainkey.sender.test");
    let record = |selector: &str| keys.records[&name(selector)].as_str();
    for (selector, text) in
        [("good", record("good")), ("ed", record("ed")), ("differs", record("good")), ("revoked", "v=DKIM1; p=")]
    {
        dns.txt(&name(selector), &[text]);
    }
    dns.empty(&name("empty"));
    dns.fail(&name("silent"), Some(Failure::ServFail));
    let config = wanted
        .iter()
        .fold(Config::new(dns.address(), 25), |config, selector| config.table(&keys.entry("sender.test", selector)));
    let relay = Relay::prepare(WEIR.into(), config);
    let (found, code) = checked(&relay);
    for (selector, status, result) in [
        ("good", "ok", "agrees"),
        ("ed", "ok", "agrees"),
        ("missing", "fail", "no-name"),
        ("empty", "fail", "no-record"),
        ("differs", "fail", "differs"),
        ("revoked", "fail", "revoked"),
        ("silent", "warn", "unknown"),
    ] {
        let line = &found[selector];
        assert_eq!((line["status"].as_str(), line["result"].as_str()), (Some(status), Some(result)), "{line}");
    }
    assert_eq!((found.len(), code), (wanted.len(), Some(1)));
    let shown = relay.ok(&["dkim", "show", "--selector", "missing"]);
    assert!(found["missing"]["remedy"].as_str().unwrap().contains(shown.trim()), "{shown}");
    let joined: String = shown.split('"').skip(1).step_by(2).collect();
    assert_eq!(joined, record("missing"));
    assert!(shown.starts_with("missing._domainkey.sender.test. IN TXT \"v=DKIM1; k=rsa; p="), "{shown}");
    let words = String::from_utf8(relay.command(&["dkim", "check"]).stdout).unwrap();
    assert!(words.contains("ok    good._domainkey") && words.contains("FAIL  revoked._domainkey"), "{words}");
}

#[test]
fn a_key_that_cannot_be_used_is_a_fault_of_the_configuration() {
    let keys = Keys::make(&[("sender.test", "one", "rsa")]);
    let file = keys.file("one");
    let relay =
        Relay::prepare(WEIR.into(), Config::new(Dns::start().address(), 25).table(&keys.entry("sender.test", "one")));
    let check = || {
        let output = relay.command(&["check"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(), (Some(0), String::new()));
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let (code, said) = check();
    assert!(code == Some(2) && said.contains("one.pem (key_file) is readable for all"), "{said}");
    mode(0o600);
    for (bits, code, expected) in [
        ("512", 2, "RSA key of 512 bits"),
        ("1024", 0, "warning: dkim one._domainkey.sender.test: an RSA key of 1024 bits"),
    ] {
        std::fs::write(&file, openssl(&["genrsa", "-traditional", bits])).unwrap();
        let (found, said) = check();
        assert!(found == Some(code) && said.contains(expected), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    let (code, said) = check();
    assert!(code == Some(2) && said.contains("cannot read") && said.contains("one.pem (key_file)"), "{said}");
    let again = weir(&["dkim", "keygen", "--domain", "x y", "--selector", "s"]);
    assert_eq!(again.status.code(), Some(2));
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("openssl").args(arguments).output().expect("start openssl");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn keys_of_others_sign_whatever_form_they_have() {
    let (world, mx) = World::with_domain("x.test");
    let keys = Keys::make(&[]);
    let forms: [(&str, &[&str]); 4] = [
        ("pkcs1", &["genrsa", "-traditional", "2048"]),
        ("pkcs8", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
        ("short", &["genrsa", "-traditional", "1536"]),
        ("ed", &["genpkey", "-algorithm", "ED25519"]),
    ];
    let mut config = world.config();
    for (selector, command) in forms {
        std::fs::write(keys.file(selector), openssl(command)).unwrap();
        std::fs::set_permissions(keys.file(selector), std::fs::Permissions::from_mode(0o600)).unwrap();
        config = config.table(&keys.entry("sender.test", selector));
    }
    let relay = config.start();
    let shown = relay.json(&["dkim", "show"]);
    let records =
        shown.iter().map(|line| (line["name"].as_str().unwrap().into(), line["record"].as_str().unwrap().into()));
    let keys = Keys { records: records.collect(), ..keys };
    relay.submit("app@sender.test", &["u@x.test"], format!("{HEADER}Subject: x\r\n\r\nHello.\r\n").as_bytes());
    let sent = mx.wait_accepted(1).remove(0);
    keys.all_are_good(&sent.content, &["pkcs1", "pkcs8", "short", "ed"]);
}

#[test]
fn the_variables_of_another_relay_image_make_a_key_that_signs() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = Relay::prepare(WEIR.into(), world.config());
    for (name, value) in
        [("ALLOWED_SENDER_DOMAINS", "sender.test"), ("DKIM_AUTOGENERATE", "1"), ("DKIM_SELECTOR", "s1")]
    {
        relay.environment(name, Path::new(value));
    }
    relay.run();
    let log = relay.log();
    assert!(log.contains("publish its record"), "{log}");
    let record = log.split("s1._domainkey.sender.test. IN TXT ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let record: String = record.split('"').skip(1).step_by(2).collect();
    let records = [("s1._domainkey.sender.test".to_string(), record)].into();
    let keys = Keys { records, ..Keys::make(&[]) };
    for _ in 0..2 {
        let before = mx.accepted_count();
        relay.submit("app@sender.test", &["u@x.test"], format!("{HEADER}Subject: x\r\n\r\nHello.\r\n").as_bytes());
        let sent = mx.wait_accepted(before + 1).pop().unwrap();
        keys.all_are_good(&sent.content, &["s1"]);
        // The key stays where it was made.
        relay.stop();
        relay.run();
    }
    let file = relay.data_dir().join("dkim/sender.test.private");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}
