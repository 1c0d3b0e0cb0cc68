//! Reports to senders (`dispatch/bounce`) about hostile messages: whatever stands in the envelope, the reply, the host's name and the
//! original, the report has the fields and parts it should have, and can be sent as it is. Parts of the input end with 0xFF; the
//! envelope's come in through the command line, as a client's would.

use weir::dispatch::bounce::{Diagnostic, Original, Report, ReportKind, ReportRequest, ReportedRecipient, compose};
use weir::smtp::{Command, ForwardPath};
use weir::types::{
    BodyType, Envelope, Mailbox, Notify, Origin, Priority, QueueId, Recipient, Reply, Ret, ReversePath, Timestamp,
};

use super::command_line::{decoded, is_printable};
use super::kit;

const FIELDS: [&str; 11] = [
    "Content-Type",
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "In-Reply-To",
    "References",
];
const STATUS_FIELDS: [&str; 12] = [
    "Reporting-MTA",
    "Original-Envelope-Id",
    "Arrival-Date",
    "Original-Recipient",
    "Final-Recipient",
    "Action",
    "Status",
    "Remote-MTA",
    "Diagnostic-Code",
    "Last-Attempt-Date",
    "Will-Retry-Until",
    "Content-Type",
];

pub fn check(mut bytes: &[u8]) {
    let choice = kit::first(&mut bytes);
    let envelope = envelope(&mut bytes, choice);
    let recipient = recipient(&mut bytes);
    let (words, mx, cause) = (kit::part(&mut bytes), kit::text(&mut bytes), kit::text(&mut bytes));
    let hostname = kit::text(&mut bytes);
    let reply = Reply::new(550, words);
    let found = String::from_utf8_lossy(words);
    let kind = [ReportKind::Failure, ReportKind::Delay, ReportKind::Relayed][usize::from(choice & 3) % 3];
    let reported = ReportedRecipient {
        recipient: &recipient,
        status: None,
        diagnostic: Some(if choice & 4 == 0 { Diagnostic::Reply(&reply) } else { Diagnostic::Local(&found) }),
        mx: Some(&mx),
        provider: Some(&mx),
        cause: &cause,
        remedy: &cause,
        does: &cause,
        last_attempt: Some(Timestamp::from_secs(1_795_293_220)),
        will_retry_until: Some(Timestamp::NEVER),
    };
    let request = ReportRequest {
        kind,
        envelope: &envelope,
        recipients: vec![reported.clone(), reported],
        original: if choice & 8 == 0 { Original::Whole(bytes) } else { Original::Header(bytes) },
        hostname: &hostname,
        id: QueueId::from_key(99).expect("a key"),
        now: Timestamp::from_secs(1_795_293_221),
    };
    match compose(&request) {
        Some(report) => is_sound(&report, &envelope),
        None => assert_eq!(envelope.sender, ReversePath::Null, "only a message without a sender gets no report"),
    }
}

fn envelope(bytes: &mut &[u8], choice: u8) -> Envelope {
    let line = [b"MAIL FROM:<", kit::part(bytes)].concat();
    let message_id = kit::text(bytes);
    let (sender, envid) = match Command::parse(&line) {
        Ok(Command::Mail(mail)) => (mail.sender, mail.envid),
        _ => (ReversePath::parse("app@sender.test").expect("an address"), None),
    };
    if let Some(envid) = &envid {
        assert!(is_printable(&decoded(envid, false)), "{envid:?}");
    }
    Envelope {
        id: QueueId::from_key(42).expect("a key"),
        received: Timestamp::from_secs(1_795_293_000),
        sender,
        ret: [None, Some(Ret::Full), Some(Ret::Hdrs)][usize::from(choice >> 4) % 3],
        envid,
        body_type: BodyType::Undeclared,
        smtputf8: false,
        size_bytes: 1000,
        message_id: (!message_id.is_empty()).then_some(message_id),
        client: None,
        user: None,
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    }
}

fn recipient(bytes: &mut &[u8]) -> Recipient {
    let line = [b"RCPT TO:<", kit::part(bytes)].concat();
    match Command::parse(&line) {
        Ok(Command::Rcpt(rcpt)) => match rcpt.path {
            ForwardPath::Mailbox(address) => Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify },
            ForwardPath::Postmaster => usual(rcpt.notify),
        },
        _ => usual(Notify::default()),
    }
}

fn usual(notify: Notify) -> Recipient {
    Recipient { address: Mailbox::parse("bob@x.test").expect("an address"), orcpt: None, notify }
}

fn is_sound(report: &Report, original: &Envelope) {
    let content = &report.content;
    assert_eq!((&report.envelope.sender, report.envelope.origin), (&ReversePath::Null, Origin::Report));
    assert_eq!(report.recipient.notify, Notify::NEVER);
    assert_eq!(Some(&report.recipient.address), original.sender.mailbox());
    assert_eq!(report.envelope.size_bytes, content.len() as u64);
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("no CRLF: {}", line.escape_ascii()));
        assert!(text.len() <= 998 && !text.contains(&0) && !text.contains(&b'\r'), "{}", line.escape_ascii());
    }
    let (header, body) = split(content);
    let names = names(header);
    assert!(names.iter().all(|name| FIELDS.contains(&name.as_str())), "{names:?}");
    assert!(FIELDS[..9].iter().all(|field| names.iter().filter(|name| name == field).count() == 1), "{names:?}");

    let parts = parts(header, body);
    assert_eq!(parts.len(), 3, "for people, for machines, and the original");
    let (_, status) = split(parts[1]);
    let groups = String::from_utf8(status.to_vec()).expect("the part for machines is UTF-8");
    let groups: Vec<&str> = groups.trim_end().split("\r\n\r\n").collect();
    assert_eq!(groups.len(), 3, "one of the message and two of recipients: {groups:?}");
    for group in groups {
        let names = self::names(group.as_bytes());
        assert!(names.iter().all(|name| STATUS_FIELDS.contains(&name.as_str())), "{names:?}");
        assert!(names.iter().filter(|name| *name == "Action").count() <= 1, "{names:?}");
    }
}

/// Header and body.
fn split(entity: &[u8]) -> (&[u8], &[u8]) {
    let end = entity.windows(4).position(|window| window == b"\r\n\r\n").expect("an empty line behind the header");
    (&entity[..end], &entity[end + 4..])
}

fn names(header: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(header);
    let starts = text.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
    starts.map(|line| line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}")).0.to_string()).collect()
}

/// RFC 2046 section 5.1.1, read by lines.
fn parts<'a>(header: &[u8], body: &'a [u8]) -> Vec<&'a [u8]> {
    let header = String::from_utf8_lossy(header).replace("\r\n", "");
    let boundary = header.split("boundary=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a boundary");
    let (mut parts, mut start, mut at) = (Vec::new(), None, 0);
    for line in body.split_inclusive(|&octet| octet == b'\n') {
        let is_delimiter = line.strip_prefix(b"--").is_some_and(|rest| rest.starts_with(boundary.as_bytes()));
        if is_delimiter {
            parts.extend(start.map(|start| &body[start..at]));
            let is_last = line[2 + boundary.len()..].starts_with(b"--");
            start = (!is_last).then_some(at + line.len());
        }
        at += line.len();
    }
    assert_eq!(start, None, "the last delimiter closes it");
    parts
}
