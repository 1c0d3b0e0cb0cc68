//! What a mail that came back says: a bounce, a complaint, a reply of a program, or nothing that is known. Pure.
//!
//! Nothing here is believed: whom it is about is known by a token alone, which somebody else checks. Rules that always hold:
//! - every octet string is read, in bounded time, and none makes it panic;
//! - what a report returns of the message (whose words are anybody's) is looked at for tokens and Message-IDs and nothing else;
//! - what is not said but found out is named in `derived`.

mod auto;
mod complaint;
mod mime;
mod prose;
mod status;

pub use complaint::Complaint;
pub use status::{Action, Status};

use memchr::memmem;

use super::token::{self, LENGTH};
use mime::{Fields, Part};

/// Of a mail that is read: what reports say stands before what they return.
pub const HEAD_MAX: usize = 128 << 10;
/// Tokens that are looked at, in addresses and in all else.
const TOKENS_MAX: usize = 16;
const ID_MAX: usize = 300;
const NAMED_MAX: usize = 20;

/// A mail, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub kind: Kind,
    /// Its own Message-ID and author, to name it by.
    pub message_id: Option<String>,
    pub from: Option<String>,
    /// Of the message that it speaks of.
    pub original_id: Option<String>,
    /// In the addresses it was sent to. They have the form of tokens, no more.
    pub addressed: Vec<String>,
    /// In what it says and returns.
    pub quoted: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A report of what became of a message, one entry for each recipient.
    Returned(Vec<Status>),
    Complaint(Complaint),
    /// By a program in somebody's absence.
    AutoReply,
    /// A person's words, or what nobody understands. At an unsubscribe address it is the wish to get no more.
    Other,
}

/// Reads the head of a mail.
pub fn read(octets: &[u8]) -> Reading {
    let octets = &octets[..octets.len().min(HEAD_MAX)];
    let parts = mime::parts(octets);
    let none = Fields::default();
    let own = parts.first().map_or(&none, |part| &part.fields);
    let addressed = ["x-original-to", "delivered-to", "envelope-to", "x-envelope-to", "to", "cc"];
    let addressed = addressed.iter().flat_map(|name| own.all(name)).flat_map(|value| tokens(value.as_bytes()));
    let addressed = distinct(addressed);
    let mut quoted = distinct(tokens(octets));
    for part in parts.iter().filter(|part| is_encoded(part)) {
        quoted.extend(tokens(part.text().as_bytes()));
    }
    let quoted = distinct(quoted.into_iter().filter(|token| !addressed.contains(token)));
    Reading {
        kind: kind(&parts, own),
        message_id: own.get("message-id").map(short),
        from: own.get("from").and_then(status::address),
        original_id: original_id(&parts, own),
        addressed,
        quoted,
    }
}

fn kind(parts: &[Part<'_>], own: &Fields) -> Kind {
    if let Some(complaint) = complaint::read(parts) {
        return Kind::Complaint(complaint);
    }
    let is_status = |part: &&Part<'_>| {
        part.nested == 0 && matches!(&*part.kind.name, "message/delivery-status" | "message/global-delivery-status")
    };
    let statuses = parts.iter().find(is_status).map(|part| status::read(&part.text())).unwrap_or_default();
    if !statuses.is_empty() {
        return Kind::Returned(statuses.into_iter().map(|status| with_words(status, parts)).collect());
    }
    if is_bounce(parts, own) {
        return in_prose(parts, own).map_or(Kind::Other, |status| Kind::Returned(vec![status]));
    }
    if auto::is_auto_reply(own) { Kind::AutoReply } else { Kind::Other }
}

/// A status that says no more than that it failed is explained by what stands in prose before it.
fn with_words(status: Status, parts: &[Part<'_>]) -> Status {
    let says_nothing = matches!(&*status.reply, "550" | "550 5.0.0" | "550 5.1.0" | "450 4.0.0");
    let said = says_nothing.then(|| own_texts(parts).find_map(|text| prose::read(&text))).flatten();
    match said {
        Some(said) => {
            let mut derived = status.derived;
            derived.push("reply");
            Status { reply: said.reply, derived, ..status }
        }
        None => status,
    }
}

/// Does a mail system speak, and not a person?
fn is_bounce(parts: &[Part<'_>], own: &Fields) -> bool {
    if own.has("x-failed-recipients")
        || parts.first().is_some_and(|part| part.kind.parameter("report-type") == Some("delivery-status"))
    {
        return true;
    }
    let from = own.get("from").unwrap_or_default().to_lowercase();
    let by_machine = [
        "mailer-daemon",
        "mail delivery",
        "postmaster@",
        "mdaemon@",
        "mail-daemon",
        "mailerdaemon",
        "microsoftexchange329e71ec88ae4615bbc36ab6ce41109e@",
    ]
    .iter()
    .any(|name| from.contains(name));
    let is_from_nobody = own.get("return-path").is_some_and(|path| path.trim() == "<>");
    let subject = own.words("subject").unwrap_or_default().to_lowercase();
    by_machine || (is_from_nobody && BOUNCED.iter().any(|words| subject.contains(words)))
}

/// Subjects of bounces, in lower case.
const BOUNCED: &[&str] = &[
    "undeliver",
    "not delivered",
    "delivery failure",
    "delivery failed",
    "delivery status",
    "failure notice",
    "returned mail",
    "returned to sender",
    "mail delivery",
    "unzustellbar",
    "nicht zugestellt",
    "non remis",
    "non distribu",
    "échec de la remise",
    "no se puede entregar",
    "no entregado",
    "non recapitabile",
    "mancato recapito",
    "não entregue",
    "não é possível entregar",
    "onbestelbaar",
    "niet bezorgd",
    "nie dostarczono",
    "niedostarcz",
    "недоставлен",
    "не доставлено",
    "配信不能",
    "無法傳遞",
    "无法送达",
    "退信",
];

/// Of a bounce without a part for programs.
fn in_prose(parts: &[Part<'_>], own: &Fields) -> Option<Status> {
    let said = own_texts(parts).find_map(|text| prose::read(&text))?;
    let failed = own.all("x-failed-recipients").flat_map(|value| value.split(',')).filter_map(status::address);
    let named: Vec<String> = failed.chain(said.named).take(NAMED_MAX).collect();
    let derived = if said.is_derived { vec!["action", "status"] } else { vec!["action"] };
    Some(Status { action: Action::Failed, reply: said.reply, named, hosts: Vec::new(), derived })
}

/// What the mail itself says in words.
fn own_texts<'p>(parts: &'p [Part<'_>]) -> impl Iterator<Item = String> + 'p {
    parts
        .iter()
        .filter(|part| part.nested == 0 && matches!(&*part.kind.name, "text/plain" | "text/html"))
        .map(Part::text)
}

fn is_encoded(part: &Part<'_>) -> bool {
    part.fields
        .get("content-transfer-encoding")
        .is_some_and(|encoding| matches!(&*encoding.trim().to_ascii_lowercase(), "base64" | "quoted-printable"))
}

/// Of the message that is returned: as its header, else as what the report answers.
fn original_id(parts: &[Part<'_>], own: &Fields) -> Option<String> {
    let returned = parts.iter().find(|part| part.nested > 0 && part.fields.has("message-id"));
    let in_header = || {
        let part =
            parts.iter().find(|part| matches!(&*part.kind.name, "text/rfc822-headers" | "message/rfc822-headers"))?;
        Fields::read(part.text().trim_start().as_bytes()).0.get("message-id").map(short)
    };
    returned
        .and_then(|part| part.fields.get("message-id").map(short))
        .or_else(in_header)
        .or_else(|| own.get("in-reply-to").map(short))
        .filter(|id| id.starts_with('<'))
}

fn short(text: &str) -> String {
    text.trim().chars().take(ID_MAX).collect()
}

fn distinct(found: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for token in found {
        if all.len() < TOKENS_MAX && !all.contains(&token) {
            all.push(token);
        }
    }
    all
}

/// What has the form of a token and stands where one can stand: before an `@`, or behind a slash.
fn tokens(octets: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for hyphen in memmem::find_iter(octets, b"-") {
        let Some(start) = hyphen.checked_sub(1) else { continue };
        let Some(text) = octets.get(start..start + LENGTH).and_then(|text| std::str::from_utf8(text).ok()) else {
            continue;
        };
        let is_word = |octet: Option<&u8>| {
            octet.is_some_and(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_'))
        };
        let before = start.checked_sub(1).and_then(|at| octets.get(at));
        let behind = octets.get(start + LENGTH);
        let is_placed = behind == Some(&b'@') || before == Some(&b'/');
        if is_placed && !is_word(before) && !is_word(behind) && token::has_form(text) {
            found.push(text.to_ascii_lowercase());
            if found.len() >= TOKENS_MAX {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
