//! The part for machines: `message/delivery-status` (RFC 3464, with the fields of RFC 2852 and RFC 4865), beyond ASCII `message/global-delivery-status` (RFC 6533).
//!
//! A value that is added stays one field, whatever stands in it: control characters become blanks, lines are folded at
//! blanks, and what is not ASCII is kept in the global form alone.

use lettre::message::SinglePart;

use super::{
    DIAGNOSTIC_MAX, Diagnostic, LINE_GOOD, LINE_MAX, ReportKind, ReportRequest, ReportedRecipient, host_name, one_line,
    pre_encoded,
};
use crate::types::Reply;
use crate::types::reply::Enhanced;

pub(super) fn part(request: &ReportRequest<'_>) -> SinglePart {
    let is_global = request.recipients.iter().any(|r| !r.recipient.address.is_ascii());
    let mut fields = Fields { text: String::new(), is_global };
    fields.add("Reporting-MTA", &format!("dns; {}", host_name(request.hostname)));
    if let Some(envid) = request.envelope.envid.as_deref().and_then(from_xtext) {
        fields.add("Original-Envelope-Id", &envid);
    }
    fields.add("Arrival-Date", &request.envelope.received.rfc5322());
    let requests = &request.envelope.requests;
    if let Some(by) = requests.by {
        fields.add("Deliver-By-Date", &by.moment(request.envelope.received).rfc5322());
    }
    if let Some(release) = requests.release {
        fields.add("Future-Release-Request", &release.to_string());
    }
    for recipient in &request.recipients {
        fields.text.push_str("\r\n");
        recipient_fields(request, recipient, &mut fields);
    }
    let subtype = if is_global { "message/global-delivery-status" } else { "message/delivery-status" };
    pre_encoded(subtype, fields.text.into_bytes())
}

fn recipient_fields(request: &ReportRequest<'_>, recipient: &ReportedRecipient<'_>, fields: &mut Fields) {
    let address = &recipient.recipient.address;
    if let Some(original) = recipient.recipient.orcpt.as_deref().and_then(original_recipient) {
        fields.add("Original-Recipient", &original);
    }
    let kind_of_address = if address.is_ascii() { "rfc822" } else { "utf-8" };
    fields.add("Final-Recipient", &format!("{kind_of_address}; {address}"));
    fields.add("Action", request.kind.action());
    fields.add("Status", &status(request.kind, recipient).to_string());
    if let Some(mx) = recipient.mx {
        fields.add("Remote-MTA", &format!("dns; {mx}"));
    }
    match recipient.diagnostic {
        Some(Diagnostic::Reply(reply)) => fields.add("Diagnostic-Code", &format!("smtp; {reply}")),
        Some(Diagnostic::Local(found)) => fields.add("Diagnostic-Code", &format!("x-weir; {found}")),
        None => {}
    }
    if let Some(moment) = recipient.last_attempt {
        fields.add("Last-Attempt-Date", &moment.rfc5322());
    }
    if let (ReportKind::Delay, Some(end)) = (request.kind, recipient.will_retry_until) {
        fields.add("Will-Retry-Until", &end.rfc5322());
    }
}

/// What was given, else what the reply says, else what its code or the kind of report implies.
fn status(kind: ReportKind, recipient: &ReportedRecipient<'_>) -> Enhanced {
    let reply = match recipient.diagnostic {
        Some(Diagnostic::Reply(reply)) => Some(reply),
        _ => None,
    };
    let implied = match kind {
        ReportKind::Failure => 5,
        ReportKind::Delay => 4,
        ReportKind::Relayed | ReportKind::PassedOn => 2,
    };
    recipient.status.or_else(|| reply.and_then(Reply::enhanced)).unwrap_or(Enhanced::new(implied, 0, 0))
}

/// `rfc822;a+2Bb@example.com` as `rfc822; a+b@example.com` (RFC 3461 section 4.2); None if it is malformed.
fn original_recipient(orcpt: &str) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let is_atom = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_atom.then(|| from_xtext(address)).flatten().map(|address| format!("{kind}; {address}"))
}

/// Decodes xtext (RFC 3461 section 4): `+` and two hexadecimal digits are one octet.
fn from_xtext(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'+' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            octets.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            octets.push(first);
        }
    }
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// Fields under construction. Whatever is added stays one field.
struct Fields {
    text: String,
    /// UTF-8 may stand in values (RFC 6533 section 3).
    is_global: bool,
}

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        let mut value = one_line(value, DIAGNOSTIC_MAX);
        if !self.is_global {
            value = value.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
        }
        self.text.push_str(name);
        self.text.push(':');
        let mut length = name.len() + 1;
        for word in value.split(' ').filter(|word| !word.is_empty()) {
            if length + 1 + word.len() > LINE_GOOD && length > name.len() + 1 {
                self.text.push_str("\r\n");
                length = 0;
            }
            self.text.push(' ');
            for piece in pieces(word) {
                // A word that no line can hold is cut: RFC 5321 section 4.5.3.1.6 comes before its integrity.
                if length + 1 + piece.len() > LINE_MAX {
                    self.text.push_str("\r\n ");
                    length = 0;
                }
                self.text.push_str(piece);
                length += 1 + piece.len();
            }
        }
        self.text.push_str("\r\n");
    }
}

/// A word in pieces that fit a line.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(LINE_MAX / 2));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
