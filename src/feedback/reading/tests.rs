//! Mails as they come back in the real world, each with what must come of it; and whatever else may come.

use proptest::prelude::*;

use super::*;
use crate::feedback::judgement::{Judgement, Known, judge};
use crate::feedback::key::Keys;
use crate::feedback::token::{Purpose, Token};
use crate::types::{DeliveryId, Mailbox, QueueId, Timestamp};
use crate::verdict::Rules;

const SHAPES: [&str; 4] = [
    include_str!("../../../tests/feedback/reports.txt"),
    include_str!("../../../tests/feedback/prose.txt"),
    include_str!("../../../tests/feedback/complaints.txt"),
    include_str!("../../../tests/feedback/replies.txt"),
];

struct Shape {
    name: String,
    expected: String,
    message: String,
}

fn token(purpose: Purpose) -> String {
    let delivery = DeliveryId { message: QueueId::from_key(42).unwrap(), part: 0 };
    let keys = Keys::parse("a key that nobody guesses").unwrap();
    Token::new(purpose, delivery, &anna(), Timestamp::from_secs(1_800_000_000)).text(&keys)
}

fn anna() -> Mailbox {
    Mailbox::parse("anna@kunde.example").unwrap()
}

fn shapes() -> Vec<Shape> {
    let (back, out) = (token(Purpose::Return), token(Purpose::Unsubscribe));
    let shapes = SHAPES.iter().flat_map(|file| file.split("\n=== ").skip(1));
    shapes
        .map(|text| {
            let (name, rest) = text.split_once("\n>>> ").unwrap();
            let (expected, message) = rest.split_once('\n').unwrap();
            let message = message.replace("{R}", &back).replace("{UU}", &out.to_uppercase()).replace("{U}", &out);
            Shape { name: name.to_string(), expected: expected.to_string(), message }
        })
        .collect()
}

/// What comes of a mail, in the words of the files.
fn label(reading: &Reading, rules: &Rules) -> String {
    let (back, out, anna) = (token(Purpose::Return), token(Purpose::Unsubscribe), anna());
    let wants_out = reading.addressed.contains(&out);
    let known = Known {
        purpose: if wants_out { Purpose::Unsubscribe } else { Purpose::Return },
        addressed: wants_out || reading.addressed.contains(&back),
        recipient: &anna,
    };
    match (judge(reading, Some(known)), &reading.kind) {
        (Judgement::Returned(status), _) => {
            let reply = crate::types::Reply::parse(&status.reply).unwrap();
            let provider =
                if status.hosts.iter().any(|host| host.ends_with(".outlook.com")) { "microsoft365" } else { "default" };
            format!("returned | {} | {}", rules.explain(provider, None, &reply).0.class, status.reply)
        }
        (Judgement::Nothing(why), Kind::Returned(_) | Kind::Complaint(_)) if why.contains("somebody else") => {
            "stranger".into()
        }
        (_, Kind::Complaint(complaint)) => format!("complaint | {} | {}", complaint.what, complaint.by),
        (Judgement::Nothing(why), Kind::Returned(_)) if why.contains("delayed") => "delayed".into(),
        (Judgement::Nothing(_), Kind::Returned(_)) => "delivered".into(),
        (Judgement::Unsubscribed, _) => "unsubscribe".into(),
        (_, Kind::AutoReply) => "auto".into(),
        (_, _) => "other".into(),
    }
}

fn fits(label: &str, expected: &str) -> bool {
    match (
        label.splitn(3, " | ").collect::<Vec<_>>().as_slice(),
        expected.splitn(3, " | ").collect::<Vec<_>>().as_slice(),
    ) {
        ([one], [other]) => one == other,
        ([kind, what, words], [kind_wanted, what_wanted, start]) => {
            kind == kind_wanted && (what == what_wanted || *what_wanted == "*") && words.starts_with(start)
        }
        _ => false,
    }
}

#[test]
fn every_shape_seen_comes_to_what_it_must_with_any_line_ends() {
    let (shapes, rules) = (shapes(), Rules::shipped());
    assert!(shapes.len() >= 120, "{}", shapes.len());
    let mut wrong = Vec::new();
    for shape in &shapes {
        for text in [shape.message.clone(), shape.message.replace('\n', "\r\n")] {
            let reading = read(text.as_bytes());
            let label = label(&reading, &rules);
            if !fits(&label, &shape.expected) {
                wrong.push(format!("{}: expected {}\n    found {label}", shape.name, shape.expected));
            }
            let tokens = [token(Purpose::Return), token(Purpose::Unsubscribe)];
            let lower = shape.message.to_lowercase();
            for token in tokens.iter().filter(|token| lower.contains(token.as_str())) {
                if !reading.addressed.contains(token) && !reading.quoted.contains(token) {
                    wrong.push(format!("{}: its token is not found", shape.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), shapes.len(), wrong.join("\n"));
}

#[test]
fn a_report_is_named_by_its_own_id_and_by_that_of_the_message() {
    let shapes = shapes();
    let of = |name: &str| read(shapes.iter().find(|shape| shape.name == name).unwrap().message.as_bytes());
    let reading = of("postfix 1");
    assert_eq!(
        (reading.message_id.as_deref(), reading.original_id.as_deref(), reading.from.as_deref()),
        (Some("<d1@mx.kunde.example>"), Some("<m1@shop.example>"), Some("MAILER-DAEMON@mx.kunde.example"))
    );
    for name in ["jmrp before 2026", "jmrp since june 2026", "exchange online, nested parts 1", "arf without a token"] {
        assert_eq!(of(name).original_id.as_deref(), Some("<m1@shop.example>"), "{name}");
    }
}

#[test]
fn what_was_found_out_and_not_said_is_marked() {
    let shapes = shapes();
    let derived = |name: &str| {
        let reading = read(shapes.iter().find(|shape| shape.name == name).unwrap().message.as_bytes());
        let Kind::Returned(statuses) = reading.kind else { panic!("{name}") };
        statuses[0].derived.clone()
    };
    assert!(derived("postfix 1").is_empty());
    assert_eq!(derived("no action"), ["action"]);
    assert_eq!(derived("no status"), ["status"]);
    assert_eq!(derived("qmail 1"), ["action"]);
    assert_eq!(derived("prose, german"), ["action", "status"]);
    assert_eq!(derived("status says nothing, prose does"), ["reply"]);
}

#[test]
fn a_mail_cut_anywhere_is_read_and_never_suppresses_by_words_of_the_returned_message() {
    for shape in shapes() {
        for end in (0..shape.message.len()).step_by(97) {
            read(&shape.message.as_bytes()[..end]);
        }
    }
}

#[test]
fn a_bomb_is_read_in_no_time() {
    let clock = crate::clock::Clock::system();
    let begun = clock.elapsed();
    let deep = "Content-Type: message/rfc822\n\n".repeat(10_000);
    let boundaries: String =
        (0..10_000).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
    let status = format!("Content-Type: message/delivery-status\n\n{}", "a".repeat(HEAD_MAX));
    let groups = format!("Content-Type: message/delivery-status\n\n{}", "Action: failed\n\n".repeat(20_000));
    let tokens = format!("To: {}\n\n{}", "r-".repeat(30_000), format!("{}@x ", token(Purpose::Return)).repeat(2000));
    let fields = "X: y\n".repeat(30_000);
    let folded = format!("X: {}", "\n ".repeat(60_000));
    for text in [deep, boundaries, status, groups, tokens, fields, folded, "-".repeat(HEAD_MAX), " ".repeat(HEAD_MAX)] {
        read(text.as_bytes());
    }
    let took = clock.elapsed().saturating_sub(begun);
    assert!(took.as_secs() < 20, "{took:?}");
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&octets);
    }

    #[test]
    fn no_change_of_a_shape_makes_the_reader_panic(which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), octet in any::<u8>()) {
        let shapes = shapes();
        let mut text = shapes[which.index(shapes.len())].message.clone().into_bytes();
        let at = at.index(text.len());
        text[at] = octet;
        read(&text);
    }
}
