//! Reports to the sender: mail that was not delivered, is late, or went to a host that reports no further.
//!
//! Pure: what is known about a message goes in, the report's content and envelope come out. Its form is RFC 3464 in
//! RFC 3462 (`multipart/report`), for addresses beyond ASCII RFC 6533. Rules that always hold:
//!
//! - a message without a sender, and a report of our own, is never answered (RFC 5321 section 6.1, RFC 3834 section 2);
//! - nothing from the envelope, the original's header or a receiver's reply can add a line to the report's header, a
//!   field to its machine part or a part to its body;
//! - lines end in CR LF, have at most 998 octets, and there is no NUL: the report can be sent as it is;
//! - the receiver's own words stand in it, beside what we make of them.

mod original;
mod status;

use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, MultiPart, SinglePart};

use crate::types::printable;
use crate::types::reply::Enhanced;
use crate::types::{
    BodyType, Envelope, Notify, Origin, Priority, QueueId, Recipient, Reply, Requests, Ret, ReversePath, Timestamp,
    TransferPriority,
};

/// Originals above this come back as their header alone, also where RET=FULL asks for more: a report is a letter, and
/// the sender has the message.
pub const RETURNED_MAX: usize = 64 * 1024;
/// Of a receiver's words; more than any known server says.
const DIAGNOSTIC_MAX: usize = 2000;
/// RFC 5322 section 2.1.1.
const LINE_MAX: usize = 998;
/// Where lines are folded if they can be (RFC 5322 section 2.1.1).
const LINE_GOOD: usize = 76;

/// What the report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Given up.
    Failure,
    /// Not delivered yet, still being tried.
    Delay,
    /// Delivered to a host without DSN, to a sender who asked for NOTIFY=SUCCESS (RFC 3461 section 5.2.2).
    Relayed,
    /// The same to a sender who asked for it with BY (RFC 2852 section 4.1.4).
    PassedOn,
}

impl ReportKind {
    /// Does a recipient's NOTIFY ask for this report?
    pub fn is_wanted(self, notify: &Notify) -> bool {
        match self {
            ReportKind::Failure => notify.failure,
            ReportKind::Delay => notify.delay,
            ReportKind::Relayed | ReportKind::PassedOn => notify.success,
        }
    }

    /// Should the whole original be handed in? Its header suffices otherwise (RFC 3461 section 4.3: RET is about
    /// failures alone).
    pub fn returns_whole(self, envelope: &Envelope) -> bool {
        self == ReportKind::Failure && envelope.ret != Some(Ret::Hdrs) && envelope.size_bytes <= RETURNED_MAX as u64
    }

    fn action(self) -> &'static str {
        match self {
            ReportKind::Failure => "failed",
            ReportKind::Delay => "delayed",
            ReportKind::Relayed | ReportKind::PassedOn => "relayed",
        }
    }
}

/// What came of the last try, word for word.
#[derive(Clone, Copy, Debug)]
pub enum Diagnostic<'a> {
    /// The receiver said it.
    Reply(&'a Reply),
    /// We found it ourselves: `no such domain`, `connect to 192.0.2.1:25: timed out`.
    Local(&'a str),
}

/// One recipient in a report.
#[derive(Clone, Debug)]
pub struct ReportedRecipient<'a> {
    pub recipient: &'a Recipient,
    /// None: taken from the reply.
    pub status: Option<Enhanced>,
    pub diagnostic: Option<Diagnostic<'a>>,
    /// The host that spoke.
    pub mx: Option<&'a str>,
    pub provider: Option<&'a str>,
    /// Why, for a person; empty if nothing is known.
    pub cause: &'a str,
    /// What to do, for a person; empty if nothing is known.
    pub remedy: &'a str,
    /// What weir does about it; empty where there is nothing to say.
    pub does: &'a str,
    pub last_attempt: Option<Timestamp>,
    /// Of a delay: when it will be given up.
    pub will_retry_until: Option<Timestamp>,
}

/// The message that the report is about.
#[derive(Clone, Copy, Debug)]
pub enum Original<'a> {
    /// The header; what follows an empty line is passed over.
    Header(&'a [u8]),
    /// Header and body. Whether both are returned follows `ReportKind::returns_whole` and what a report can carry.
    Whole(&'a [u8]),
}

#[derive(Clone, Debug)]
pub struct ReportRequest<'a> {
    pub kind: ReportKind,
    /// Of the message that the report is about.
    pub envelope: &'a Envelope,
    pub recipients: Vec<ReportedRecipient<'a>>,
    pub original: Original<'a>,
    /// Our own name: the reporting MTA and the domain of MAILER-DAEMON.
    pub hostname: &'a str,
    /// The queue id of the report itself.
    pub id: QueueId,
    pub now: Timestamp,
}

/// A report, ready for the spool.
#[derive(Clone, Debug)]
pub struct Report {
    /// Sender `<>`, origin `Report`. `body_type` says 8BITMIME where the returned original or an address needs it.
    pub envelope: Envelope,
    /// The original's sender, with NOTIFY=NEVER (RFC 3461 section 6.1).
    pub recipient: Recipient,
    pub content: Vec<u8>,
}

/// Composes the report. None where no report may be sent: the original has no sender or is a report itself, or there is
/// nobody to report about.
pub fn compose(request: &ReportRequest<'_>) -> Option<Report> {
    let ReversePath::Mailbox(sender) = &request.envelope.sender else { return None };
    if request.envelope.origin == Origin::Report || request.recipients.is_empty() {
        return None;
    }
    let parts = [human_part(request), status::part(request), original::part(request)];
    let message_id = format!("<{}@{}>", request.id, host_name(request.hostname));
    let mut report = MultiPart::builder().header(report_type(request, &parts)).build();
    for (name, value) in header(request, &message_id) {
        report.headers_mut().insert_raw(raw(name, &value));
    }
    let is_eight_bit = parts.iter().any(|part| !part.raw_body().is_ascii());
    let content = parts.into_iter().fold(report, MultiPart::singlepart).formatted();
    let priority = request.envelope.requests.priority;
    let envelope = Envelope {
        id: request.id,
        received: request.now,
        sender: ReversePath::Null,
        ret: None,
        envid: None,
        body_type: if is_eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
        smtputf8: !sender.is_ascii(),
        size_bytes: content.len() as u64,
        message_id: Some(message_id),
        client: None,
        user: None,
        // As urgent as what it is about (RFC 6710 section 4.6).
        requests: Requests { priority, ..Requests::default() },
        expire: None,
        class: priority.map_or(Priority::Normal, TransferPriority::class),
        origin: Origin::Report,
    };
    let recipient = Recipient { address: sender.clone(), orcpt: None, notify: Notify::NEVER };
    Some(Report { envelope, recipient, content })
}

// ---- the header ----

fn header(request: &ReportRequest<'_>, message_id: &str) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("From", format!("Mail Delivery System <MAILER-DAEMON@{}>", host_name(request.hostname))),
        ("To", format!("<{}>", request.envelope.sender)),
        ("Subject", subject(request)),
        ("Date", request.now.rfc5322()),
        ("Message-ID", message_id.to_string()),
        ("Auto-Submitted", "auto-replied".to_string()),
        // Exchange would answer with "out of office" even so.
        ("X-Auto-Response-Suppress", "All".to_string()),
        ("MIME-Version", "1.0".to_string()),
    ];
    if let Some(id) = request.envelope.message_id.as_deref().filter(|id| is_message_id(id)) {
        fields.push(("In-Reply-To", id.to_string()));
        fields.push(("References", id.to_string()));
    }
    fields
}

fn subject(request: &ReportRequest<'_>) -> String {
    let said = match request.kind {
        ReportKind::Failure => "Your message was not delivered",
        ReportKind::Delay => "Your message is delayed",
        ReportKind::Relayed | ReportKind::PassedOn => "Your message was passed on",
    };
    match request.recipients.as_slice() {
        [one] if one.recipient.address.is_ascii() && one.recipient.address.as_str().len() <= 64 => {
            format!("{said}: {}", one.recipient.address)
        }
        [_] => said.to_string(),
        many => format!("{said}: {} recipients", many.len()),
    }
}

/// `multipart/report` with a boundary that stands in none of the parts.
fn report_type(request: &ReportRequest<'_>, parts: &[SinglePart]) -> ContentType {
    // A part of n octets rules out fewer than n of these, so one is found.
    let is_free = |boundary: &String| {
        parts.iter().all(|part| memchr::memmem::find(part.raw_body(), boundary.as_bytes()).is_none())
    };
    let boundary = (1..u64::MAX).map(|n| format!("weir-{}-{n}.", request.id)).find(is_free).unwrap_or_default();
    content_type(&format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""))
}

fn is_message_id(id: &str) -> bool {
    id.len() <= 256 && id.starts_with('<') && id.ends_with('>') && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The name as it may stand in an address.
fn host_name(name: &str) -> String {
    let good = |c: &char| c.is_ascii_alphanumeric() || ".-_[]:".contains(*c);
    let name: String = name.chars().filter(good).take(255).collect();
    if name.is_empty() { "localhost".to_string() } else { name }
}

fn raw(name: &'static str, value: &str) -> HeaderValue {
    let value = one_line(value, LINE_MAX);
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).expect("our own content types are valid")
}

// ---- the part for people ----

fn human_part(request: &ReportRequest<'_>) -> SinglePart {
    let mut text = format!("This is the mail system at {}.\n\n", host_name(request.hostname));
    text.push_str(&wrapped(opening(request.kind), ""));
    for recipient in &request.recipients {
        text.push_str(&about(request.kind, recipient));
    }
    text.push_str("\nYour message:\n");
    if let Some(id) = &request.envelope.message_id {
        text.push_str(&format!("  Message-ID: {}\n", one_line(id, 256)));
    }
    text.push_str(&format!("  Received:   {}\n", request.envelope.received.rfc5322()));
    text.push_str(&format!("  Queue id:   {}\n", request.envelope.id));
    if request.kind == ReportKind::Failure {
        text.push('\n');
        text.push_str(&wrapped(
            "Where the advice is about the mail system itself, pass this report on to those who run it.",
            "",
        ));
    }
    SinglePart::builder().content_type(ContentType::TEXT_PLAIN).body(text)
}

fn opening(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Failure => {
            "Your message could not be delivered to the addresses below. It will not be tried again; if it still matters, \
             read what to do and send it anew."
        }
        ReportKind::Delay => {
            "Your message has not been delivered yet to the addresses below. You need not send it again: it is still being \
             tried, and you will hear if it has to be given up."
        }
        ReportKind::Relayed => {
            "Your message was taken by the receiving server for the addresses below. That server sends no confirmations, so \
             you will hear no more unless it fails later."
        }
        ReportKind::PassedOn => "Your message was taken by the receiving server for the addresses below.",
    }
}

fn about(kind: ReportKind, recipient: &ReportedRecipient<'_>) -> String {
    let mut text = format!("\n<{}>\n", one_line(recipient.recipient.address.as_str(), LINE_MAX / 2));
    if !recipient.cause.is_empty() && kind != ReportKind::Relayed {
        text.push_str(&wrapped(&format!("What happened: {}", recipient.cause), "  "));
    }
    match recipient.diagnostic {
        Some(Diagnostic::Reply(reply)) => {
            let host = recipient.mx.map_or("The receiving server".to_string(), |mx| one_line(mx, 255));
            let provider = recipient.provider.map(|p| format!(" ({})", one_line(p, 64))).unwrap_or_default();
            text.push_str(&wrapped(&format!("{host}{provider} said:"), "  "));
            text.push_str(&wrapped(&reply.to_string(), "    "));
        }
        Some(Diagnostic::Local(found)) => text.push_str(&wrapped(&format!("In detail: {found}"), "  ")),
        None => {}
    }
    if !recipient.remedy.is_empty() && kind != ReportKind::Relayed {
        text.push_str(&wrapped(&format!("What to do: {}", recipient.remedy), "  "));
    }
    if !recipient.does.is_empty() && kind != ReportKind::Relayed {
        text.push_str(&wrapped(&format!("What follows: {}", recipient.does), "  "));
    }
    if let (ReportKind::Delay, Some(end)) = (kind, recipient.will_retry_until) {
        text.push_str(&format!("  Tried until: {}\n", end.rfc5322()));
    }
    text
}

/// Words on lines of good length, each line behind `indent`. Control characters become blanks.
fn wrapped(text: &str, indent: &str) -> String {
    let text = one_line(text, DIAGNOSTIC_MAX);
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let width = word.chars().count();
        if length > 0 && length + 1 + width > LINE_GOOD {
            lines.push('\n');
            length = 0;
        }
        if length == 0 {
            lines.push_str(indent);
            length = indent.len();
        } else {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += width;
    }
    lines.push('\n');
    lines
}

// ---- what the parts share ----

/// Text on one line: control characters become blanks, runs of blanks one; at most `limit` octets.
fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let c = if printable::steers(c) { ' ' } else { c };
        if line.len() + c.len_utf8() > limit {
            break;
        }
        if c != ' ' || !line.ends_with(' ') {
            line.push(c);
        }
    }
    line.trim().to_string()
}

/// A part as it is: the builder would choose quoted-printable, which RFC 3464 section 2.1 and RFC 2046 section 5.2 forbid.
fn pre_encoded(subtype: &str, body: Vec<u8>) -> SinglePart {
    let encoding = if body.is_ascii() { ContentTransferEncoding::SevenBit } else { ContentTransferEncoding::EightBit };
    SinglePart::builder().content_type(content_type(subtype)).body(Body::dangerous_pre_encoded(body, encoding))
}

#[cfg(test)]
mod tests;
