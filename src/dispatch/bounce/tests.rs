//! Reports are read back as a receiver would, with a small MIME reader of the tests' own.

use proptest::prelude::*;

use super::*;
use crate::types::Mailbox;

const ORIGINAL: &[u8] = b"From: ann@example.com\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n\r\nThe body.\r\n";

fn moment() -> Timestamp {
    Timestamp::from_secs(1_795_293_220)
}

fn id(key: i64) -> QueueId {
    QueueId::from_key(key).unwrap()
}

fn envelope() -> Envelope {
    Envelope {
        id: id(7),
        received: moment(),
        sender: ReversePath::parse("a..nn@example.com").unwrap(),
        ret: None,
        envid: Some("QQ+2B1+20x".to_string()),
        body_type: BodyType::Undeclared,
        smtputf8: false,
        size_bytes: ORIGINAL.len() as u64,
        message_id: Some("<1@example.com>".to_string()),
        client: None,
        user: None,
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient { address: Mailbox::parse(address).unwrap(), orcpt: None, notify: Notify::default() }
}

fn reported<'a>(recipient: &'a Recipient, reply: Option<&'a Reply>) -> ReportedRecipient<'a> {
    ReportedRecipient {
        recipient,
        status: None,
        diagnostic: reply.map(Diagnostic::Reply),
        mx: Some("mx1.outlook.example"),
        provider: Some("outlook"),
        cause: "The mailbox does not exist.",
        remedy: "Check the address.",
        does: "The recipient comes onto the suppression list.",
        last_attempt: Some(moment()),
        will_retry_until: None,
    }
}

fn request<'a>(envelope: &'a Envelope, recipients: Vec<ReportedRecipient<'a>>) -> ReportRequest<'a> {
    ReportRequest {
        kind: ReportKind::Failure,
        envelope,
        recipients,
        original: Original::Whole(ORIGINAL),
        hostname: "relay.example.com",
        id: id(99),
        now: moment(),
    }
}

/// A message or part, read.
#[derive(Debug)]
struct Entity {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Entity {
    fn read(bytes: &[u8]) -> Entity {
        let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("an empty line behind the header");
        Entity { fields: fields(&bytes[..end + 2]), body: bytes[end + 4..].to_vec() }
    }

    fn get(&self, name: &str) -> &str {
        get(&self.fields, name).unwrap_or_else(|| panic!("{name} in {:?}", self.fields))
    }

    fn parts(&self) -> Vec<Entity> {
        let boundary = self.get("Content-Type").split("boundary=").nth(1).unwrap().trim_matches('"');
        let delimiter = format!("--{boundary}");
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut is_open = false;
        for line in self.body.split_inclusive(|&b| b == b'\n') {
            let text = String::from_utf8_lossy(line);
            match text.trim_end().strip_prefix(&delimiter) {
                Some("") => parts.push(Vec::new()),
                Some("--") => is_open = false,
                _ if is_open => parts.last_mut().unwrap().extend_from_slice(line),
                _ => {}
            }
            is_open |= text.trim_end() == delimiter;
        }
        parts.iter().map(|part| Entity::read(part.strip_suffix(b"\r\n").unwrap_or(part))).collect()
    }

    /// The groups of fields of a delivery-status part: one for the message, then one for each recipient.
    fn groups(&self) -> Vec<Vec<(String, String)>> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        text.trim_end().split("\r\n\r\n").map(|group| fields(format!("{group}\r\n").as_bytes())).collect()
    }
}

fn fields(header: &[u8]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in String::from_utf8_lossy(header).split_terminator("\r\n") {
        if line.starts_with([' ', '\t']) {
            fields.last_mut().expect("a field before its continuation").1.push_str(line);
        } else {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field: `{line}`"));
            fields.push((name.to_string(), value.trim().to_string()));
        }
    }
    fields
}

fn get<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn names(fields: &[(String, String)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

fn assert_can_be_sent(content: &[u8]) {
    assert!(content.ends_with(b"\r\n"));
    for line in content.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("CR LF at the end of {line:?}"));
        assert!(line.len() <= LINE_MAX && !line.contains(&0) && !line.contains(&b'\r'), "{line:?}");
    }
}

#[test]
fn a_failure_says_who_why_and_what_to_do() {
    let (envelope, to) = (envelope(), recipient("bob@outlook.com"));
    let reply = Reply::parse("550-5.5.0 Requested action not taken:\n550 5.5.0 mailbox unavailable").unwrap();
    let report = compose(&request(&envelope, vec![reported(&to, Some(&reply))])).unwrap();
    assert_can_be_sent(&report.content);
    let message = Entity::read(&report.content);
    for (name, value) in [
        ("From", "Mail Delivery System <MAILER-DAEMON@relay.example.com>"),
        ("To", "<a..nn@example.com>"),
        ("Subject", "Your message was not delivered: bob@outlook.com"),
        ("Date", "Sat, 21 Nov 2026 20:33:40 +0000"),
        ("Auto-Submitted", "auto-replied"),
        ("In-Reply-To", "<1@example.com>"),
        ("References", "<1@example.com>"),
        ("MIME-Version", "1.0"),
        ("Message-ID", report.envelope.message_id.as_deref().unwrap()),
    ] {
        assert_eq!(message.get(name), value, "{name}");
    }
    assert!(message.get("Content-Type").starts_with("multipart/report; report-type=delivery-status;"));

    let parts = message.parts();
    let types: Vec<&str> = parts.iter().map(|part| part.get("Content-Type")).collect();
    assert_eq!(types, ["text/plain; charset=utf-8", "message/delivery-status", "message/rfc822"]);
    let words = String::from_utf8(parts[0].body.clone()).unwrap();
    for piece in [
        "<bob@outlook.com>",
        "The mailbox does not exist.",
        "mx1.outlook.example",
        "550 5.5.0 Requested",
        "Check the address.",
    ] {
        assert!(words.contains(piece), "{piece} in {words}");
    }
    assert_eq!(parts[2].body, ORIGINAL);
    assert!(parts.iter().all(|part| part.get("Content-Transfer-Encoding") == "7bit"));

    let groups = parts[1].groups();
    assert_eq!(names(&groups[0]), ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"]);
    assert_eq!(get(&groups[0], "Original-Envelope-Id"), Some("QQ+1 x"));
    assert_eq!(
        groups[1],
        fields(
            b"Final-Recipient: rfc822; bob@outlook.com\r\nAction: failed\r\nStatus: 5.5.0\r\n\
              Remote-MTA: dns; mx1.outlook.example\r\n\
              Diagnostic-Code: smtp; 550 5.5.0 Requested action not taken: 5.5.0 mailbox unavailable\r\n\
              Last-Attempt-Date: Sat, 21 Nov 2026 20:33:40 +0000\r\n"
        )
    );
}

#[test]
fn the_envelope_can_start_no_second_report() {
    let (envelope, to) = (envelope(), recipient("bob@outlook.com"));
    let report = compose(&request(&envelope, vec![reported(&to, None)])).unwrap();
    assert_eq!((report.envelope.sender.as_str(), report.envelope.origin), ("", Origin::Report));
    assert_eq!(report.envelope.size_bytes, report.content.len() as u64);
    assert_eq!((report.recipient.address.as_str(), report.recipient.notify), ("a..nn@example.com", Notify::NEVER));

    let null = Envelope { sender: ReversePath::Null, ..envelope.clone() };
    assert!(compose(&request(&null, vec![reported(&to, None)])).is_none());
    let own = Envelope { origin: Origin::Report, ..envelope.clone() };
    assert!(compose(&request(&own, vec![reported(&to, None)])).is_none());
    assert!(compose(&request(&envelope, vec![])).is_none());
}

#[test]
fn each_kind_has_its_action_and_returns_what_it_should() {
    let (envelope, to) = (envelope(), recipient("bob@outlook.com"));
    for (kind, action, status, returned) in [
        (ReportKind::Failure, "failed", "5.0.0", "message/rfc822"),
        (ReportKind::Delay, "delayed", "4.0.0", "text/rfc822-headers"),
        (ReportKind::Relayed, "relayed", "2.0.0", "text/rfc822-headers"),
    ] {
        let recipients = vec![ReportedRecipient { will_retry_until: Some(moment()), ..reported(&to, None) }];
        let report = compose(&ReportRequest { kind, ..request(&envelope, recipients) }).unwrap();
        let parts = Entity::read(&report.content).parts();
        let group = &parts[1].groups()[1];
        assert_eq!((get(group, "Action"), get(group, "Status")), (Some(action), Some(status)));
        assert_eq!(get(group, "Will-Retry-Until").is_some(), kind == ReportKind::Delay);
        assert_eq!(parts[2].get("Content-Type"), returned);
        assert_eq!(parts[2].body.ends_with(b"The body.\r\n"), kind == ReportKind::Failure);
    }
}

#[test]
fn only_the_header_returns_where_the_sender_or_the_size_asks_for_it() {
    let to = recipient("bob@outlook.com");
    let long_line = [ORIGINAL, "x".repeat(1200).as_bytes(), b"\r\n"].concat();
    let bare = [ORIGINAL, b"bare\nline feed\r\n"].concat();
    let headers = Envelope { ret: Some(Ret::Hdrs), ..envelope() };
    let large = Envelope { size_bytes: RETURNED_MAX as u64 + 1, ..envelope() };
    let usual = envelope();
    for (envelope, content) in [(&headers, ORIGINAL), (&large, ORIGINAL), (&usual, &long_line[..]), (&usual, &bare[..])]
    {
        let original = Original::Whole(content);
        let report = compose(&ReportRequest { original, ..request(envelope, vec![reported(&to, None)]) }).unwrap();
        assert_can_be_sent(&report.content);
        let returned = Entity::read(&report.content).parts().pop().unwrap();
        assert_eq!(returned.get("Content-Type"), "text/rfc822-headers");
        assert_eq!(returned.body, b"From: ann@example.com\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n");
    }
}

#[test]
fn eight_bit_originals_are_declared() {
    let (envelope, to) = (envelope(), recipient("bob@outlook.com"));
    for (content, subtype) in [
        (&b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n"[..], "message/rfc822"),
        (&b"Subject: Gr\xfc\xdfe\r\n\r\nx\r\n"[..], "message/rfc822"),
        ("Subject: Grüße\r\n\r\nx\r\n".as_bytes(), "message/global"),
    ] {
        let original = Original::Whole(content);
        let report = compose(&ReportRequest { original, ..request(&envelope, vec![reported(&to, None)]) }).unwrap();
        assert_eq!(report.envelope.body_type, BodyType::EightBitMime);
        let returned = Entity::read(&report.content).parts().pop().unwrap();
        assert_eq!((returned.get("Content-Type"), returned.get("Content-Transfer-Encoding")), (subtype, "8bit"));
        assert_eq!(returned.body, content);
    }
    let report = compose(&request(&envelope, vec![reported(&to, None)])).unwrap();
    assert_eq!(report.envelope.body_type, BodyType::SevenBit);
}

#[test]
fn addresses_beyond_ascii_take_the_global_form() {
    let (envelope, to) = (envelope(), recipient("bärbel@example.com"));
    let report = compose(&request(&envelope, vec![reported(&to, None)])).unwrap();
    let parts = Entity::read(&report.content).parts();
    assert_eq!(parts[1].get("Content-Type"), "message/global-delivery-status");
    assert_eq!(get(&parts[1].groups()[1], "Final-Recipient"), Some("utf-8; bärbel@example.com"));
    assert!(!report.envelope.smtputf8, "the sender's own address is plain");
    assert_eq!(report.envelope.body_type, BodyType::EightBitMime);
    assert!(Entity::read(&report.content).fields.iter().all(|(_, value)| value.is_ascii()));

    let sender = Envelope { sender: ReversePath::parse("änne@example.com").unwrap(), ..envelope };
    let report = compose(&request(&sender, vec![reported(&to, None)])).unwrap();
    assert!(report.envelope.smtputf8);
    assert_eq!(report.envelope.body_type, BodyType::EightBitMime);
}

#[test]
fn the_original_recipient_is_decoded() {
    let envelope = envelope();
    for (orcpt, field) in [
        ("rfc822;bob+2Bnews@example.com", Some("rfc822; bob+news@example.com")),
        ("rfc822;bob+0D+0AAction:+20delivered@example.com", Some("rfc822; bob Action: delivered@example.com")),
        ("rfc822;bob+2", None),
        ("rfc822;bob+ZZ", None),
        ("rf c;bob", None),
        ("bob@example.com", None),
    ] {
        let to = Recipient { orcpt: Some(orcpt.to_string()), ..recipient("bob@outlook.com") };
        let report = compose(&request(&envelope, vec![reported(&to, None)])).unwrap();
        let groups = Entity::read(&report.content).parts()[1].groups();
        assert_eq!(get(&groups[1], "Original-Recipient"), field, "{orcpt}");
    }
}

#[test]
fn the_boundary_stands_in_no_part() {
    let (envelope, to) = (envelope(), recipient("bob@outlook.com"));
    let content = format!("Subject: x\r\n\r\n--weir-{}-1.--\r\n--weir-{}-2.\r\n", id(99), id(99)).into_bytes();
    let original = Original::Whole(&content);
    let report = compose(&ReportRequest { original, ..request(&envelope, vec![reported(&to, None)]) }).unwrap();
    let parts = Entity::read(&report.content).parts();
    assert_eq!((parts.len(), &parts[2].body), (3, &content));
}

/// Anything, with what could end a line, a field or a part more often than chance would have it.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\n".to_string()),
        Just("\n".to_string()),
        Just("\r".to_string()),
        Just("\0".to_string()),
        Just("\r\n\r\n".to_string()),
        Just("\r\nBcc: eve@example.com".to_string()),
        Just("\r\nAction: delivered".to_string()),
        Just("\r\n--weir-0000000000033-1.--\r\n".to_string()),
        Just("\u{2028}\u{85}\t".to_string()),
        Just("x".repeat(1500)),
        "\\PC{0,40}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_from_outside_adds_a_field_or_a_part(
        words in nasty(),
        found in nasty(),
        mx in nasty(),
        envid in nasty(),
        orcpt in nasty(),
        message_id in nasty(),
        cause in nasty(),
        hostname in nasty(),
        original in nasty(),
        address in proptest::sample::select(vec!["bob@outlook.com", "bärbel@example.com", "\"a \\\" b\"@example.com"]),
        whole in any::<bool>(),
    ) {
        let envelope = Envelope { envid: Some(envid), message_id: Some(message_id), ..envelope() };
        let to = Recipient { orcpt: Some(format!("rfc822;{orcpt}")), ..recipient(address) };
        let reply = Reply::new(550, words);
        let first = ReportedRecipient { mx: Some(&mx), provider: Some(&mx), cause: &cause, remedy: &found, does: &cause, ..reported(&to, Some(&reply)) };
        let second = ReportedRecipient { diagnostic: Some(Diagnostic::Local(&found)), ..first.clone() };
        let original = if whole { Original::Whole(original.as_bytes()) } else { Original::Header(original.as_bytes()) };
        let asked = ReportRequest { hostname: &hostname, original, ..request(&envelope, vec![first, second]) };
        let report = compose(&asked).unwrap();

        assert_can_be_sent(&report.content);
        let message = Entity::read(&report.content);
        let expected = ["Content-Type", "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "MIME-Version", "In-Reply-To", "References"];
        prop_assert!(names(&message.fields).iter().all(|name| expected.contains(name)), "{:?}", names(&message.fields));
        let parts = message.parts();
        prop_assert_eq!(parts.len(), 3);
        let groups = parts[1].groups();
        prop_assert_eq!(groups.len(), 3);
        let of_message = ["Reporting-MTA", "Original-Envelope-Id", "Arrival-Date"];
        prop_assert!(names(&groups[0]).iter().all(|name| of_message.contains(name)));
        for group in &groups[1..] {
            let of_recipient = ["Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"];
            prop_assert!(names(group).iter().all(|name| of_recipient.contains(name)), "{:?}", group);
            prop_assert_eq!(group.iter().filter(|(name, _)| name == "Action").count(), 1);
            prop_assert_eq!(get(group, "Action"), Some("failed"));
        }
    }
}
