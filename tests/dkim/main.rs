//! What weir signs, others verify: bodies and headers of every kind, with two implementations that are none of ours (see `verifiers`).

mod verifiers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use verifiers::{ALL, Verifier};
use weir::dkim::key::{Key, Kind};
use weir::dkim::{Signer, Signers, record};
use weir::types::Domain;

const HEADER: &str = "From: \"The Shop, Inc.\" <shop@news.example.com>\r\nTo: a@b.example\r\nSubject: s\r\n\
                      Date: Sat, 21 Nov 2026 20:33:40 +0000\r\nMessage-ID: <1@example.com>\r\n";

/// An RSA and an Ed25519 key of example.com, and their records.
fn keys() -> (Arc<Signers>, BTreeMap<String, String>) {
    let signer = |(selector, kind): (&str, Kind)| Signer {
        domain: Domain::parse("example.com").unwrap(),
        selector: selector.to_string(),
        key: Key::generate(kind).unwrap().0,
        skip_signed: false,
    };
    let signers = Signers::new([("rsa", Kind::Rsa), ("ed", Kind::Ed25519)].into_iter().map(signer).collect());
    let records = signers.iter().map(|signer| (signer.name(), record::text(&signer.key))).collect();
    (Arc::new(signers), records)
}

/// As it goes out: a content without an end of line gets one behind DATA.
fn put(folder: &Path, name: &str, signers: &Arc<Signers>, content: &[u8]) {
    let mut sent = signers.prepare(content, 1_795_293_220).unwrap().sign().unwrap();
    sent.extend_from_slice(content);
    if !sent.ends_with(b"\r\n") {
        sent.extend_from_slice(b"\r\n");
    }
    std::fs::write(folder.join(name), sent).unwrap();
}

/// Every message has its signature of each kind that the verifier knows, and all are good.
#[track_caller]
fn all_are_good(folder: &Path, keys: &BTreeMap<String, String>, verifiers: &[Verifier]) {
    let messages = std::fs::read_dir(folder).unwrap().count();
    for verifier in verifiers {
        let Some(said) = verifier.verify(keys, folder) else { continue };
        let bad: Vec<_> = said.iter().filter(|said| !said.is_good).collect();
        assert!(bad.is_empty(), "{verifier:?}, {} of {}: {:#?}", bad.len(), said.len(), &bad[..bad.len().min(3)]);
        let each = if *verifier == Verifier::Dkimpy { 2 } else { 1 };
        assert_eq!(said.len(), messages * each, "{verifier:?} saw another number of signatures");
    }
}

#[test]
fn bodies_of_every_kind_are_verified_by_others() {
    let (signers, records) = keys();
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = b"A line of text with  blanks in it, and one at its end. \r\n".repeat((25 << 20) / 57);
    for (name, body) in [
        ("plain", &b"Hello.\r\n"[..]),
        ("none", b""),
        ("empty-lines", b"\r\n\r\n\r\n"),
        ("trailing-blanks", b"one \t\r\ntwo\t\t three  \r\n \r\n\t\r\n\r\n"),
        ("leading-blanks", b"  \t one\r\n\r\n two\r\n"),
        ("no-end", b"the last line has no end"),
        ("blank-without-end", b"one\r\n  "),
        ("8-bit", b"M\xc3\xbcller \xff\xfe \x80\r\n\x0b\x0c\r\n"),
        ("dots", b".\r\n..\r\n.a\r\n"),
        ("25-mib", &large),
    ] {
        put(folder.path(), name, &signers, &[HEADER.as_bytes(), b"\r\n", body].concat());
    }
    all_are_good(folder.path(), &records, &ALL);
}

#[test]
fn a_changed_message_is_found_out_by_others() {
    let (signers, records) = keys();
    let folder = tempfile::tempdir().unwrap();
    let content = [HEADER.as_bytes(), b"\r\nHello.\r\n"].concat();
    let signed = [signers.prepare(&content, 1).unwrap().sign().unwrap(), content].concat();
    let text = String::from_utf8(signed).unwrap();
    let added = |field: &str| text.replacen("From: ", &format!("{field}\r\nFrom: "), 1);
    for (name, changed) in [
        ("body", text.replace("Hello.", "Hallo.")),
        ("subject", text.replace("Subject: s", "Subject: t")),
        ("second-from", added("From: evil@evil.example")),
        ("second-subject", added("Subject: buy")),
        ("second-to", added("To: c@d.example")),
        ("second-date", added("Date: Sat, 21 Nov 2026 20:33:41 +0000")),
        ("reply-to", added("Reply-To: evil@evil.example")),
        ("cc", added("Cc: c@d.example")),
    ] {
        assert_ne!(changed, text, "{name}");
        std::fs::write(folder.path().join(name), changed).unwrap();
    }
    for verifier in ALL {
        let Some(said) = verifier.verify(&records, folder.path()) else { continue };
        assert!(said.len() >= 8 && said.iter().all(|said| !said.is_good), "{verifier:?}: {said:#?}");
    }
}

/// White space as people fold it, and odder.
fn blanks() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![" ", "  ", "\t", " \t ", "\r\n ", "\r\n\t", " \r\n \t", "\t\r\n\t\t"])
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!-9;-~]{1,12}",
        Just("M\u{fc}ller".to_string()),
        Just("=?utf-8?q?x?=".to_string()),
        Just(":".to_string())
    ]
}

/// A field of any form that may stand in a header.
fn field(before: &'static [&'static str]) -> impl Strategy<Value = String> {
    let names = vec![
        "To",
        "TO",
        "to",
        "Cc",
        "Subject",
        "subject",
        "Reply-To",
        "Date",
        "References",
        "In-Reply-To",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "List-Id",
        "MIME-Version",
        "Content-Type",
        "Resent-To",
        "Received",
        "X-Mine",
        "Sender",
    ];
    let end = prop::sample::select(vec!["", " ", "\t", "  \t"]);
    (
        prop::sample::select(names),
        prop::sample::select(before),
        prop::option::of(blanks()),
        prop::collection::vec((word(), blanks()), 0..6),
        end,
    )
        .prop_map(|(name, before, first, words, end)| {
            let value: String = words.iter().map(|(word, blank)| format!("{word}{blank}")).collect();
            // A continuation line of blanks alone is obsolete, and read by some as the end of the header.
            let value = value.trim_end();
            format!("{name}{before}:{}{value}{end}\r\n", first.filter(|_| !value.is_empty()).unwrap_or_default())
        })
}

/// `before`: blanks between name and colon.
fn message(before: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![Just(String::new()), "[ -~\t]{0,30}", Just(" ".to_string())];
    let from = prop::sample::select(vec![
        "From: x@example.com\r\n",
        "FROM:\r\n\t\"a, b\"  (c)\r\n <x@News.Example.com>\r\n",
        "from:M\u{fc}ller <x@example.com>\r\n",
    ]);
    let header = (prop::collection::vec(field(before), 0..12), from, prop::collection::vec(field(before), 0..6));
    (header, prop::collection::vec(line, 0..8)).prop_map(|((before, from, after), lines)| {
        let header = before.concat() + from + &after.concat();
        (header + "\r\n" + &lines.join("\r\n")).into_bytes()
    })
}

#[track_caller]
fn random_messages_are_good(before: &'static [&'static str], verifiers: &[Verifier]) {
    let (signers, records) = keys();
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(ProptestConfig::default());
    for number in 0..300 {
        let content = message(before).new_tree(&mut runner).unwrap().current();
        put(folder.path(), &format!("{number:03}"), &signers, &content);
    }
    let sent = folder.keep();
    eprintln!("the messages stay in {} if one of them fails", sent.display());
    all_are_good(&sent, &records, verifiers);
    std::fs::remove_dir_all(sent).unwrap();
}

#[test]
fn random_messages_are_verified_by_others() {
    random_messages_are_good(&[""], &ALL);
}

/// Blanks between name and colon are obsolete (RFC 5322 section 4.5), and dkimpy reads no message with them.
#[test]
fn random_messages_of_obsolete_form_are_verified_by_another() {
    random_messages_are_good(&["", " ", " \t"], &[Verifier::MailDkim]);
}
