//! A message out of its parts, as an application has them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Attachment, Body, Mailbox, Mailboxes, MultiPart, SinglePart};
use serde::Deserialize;

use super::Submission;
use crate::types::{Priority, SCHEDULE_MAX, Span, Timestamp};

/// Fields that are made of the parts, or that say what only a relay may say.
const RESERVED: [&str; 12] = [
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "received",
    "return-path",
    "sender",
    "reply-to",
];
const HEADERS_MAX: usize = 100;
/// A line of a message with its CR (RFC 5322, section 2.1.1).
const LINE_MAX: usize = 999;
/// A word of a field, with room for the field's name.
const WORD_MAX: usize = 800;

/// The parts of a message, by their names in JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Form {
    /// `a@example.com` or `Name <a@example.com>`.
    pub from: String,
    pub to: Addresses,
    pub cc: Addresses,
    /// Gets the message and is named nowhere in it.
    pub bcc: Addresses,
    pub reply_to: Addresses,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub attachments: Vec<File>,
    pub class: Option<Priority>,
    /// How long it is tried, from when it is due.
    pub expire: Option<Span>,
    /// Nobody gets it before.
    pub at: Option<Timestamp>,
}

/// One address, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Addresses {
    One(String),
    Many(Vec<String>),
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses::Many(Vec::new())
    }
}

/// One attachment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub filename: String,
    /// `application/pdf`
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// In base64.
    pub content: String,
    /// Shown within the HTML, which names it as `cid:…`.
    pub cid: Option<String>,
}

impl Addresses {
    /// The mailboxes under the key `key`.
    fn read(&self, key: &str) -> Result<Vec<Mailbox>, String> {
        let texts: &[String] = match self {
            Addresses::One(text) => std::slice::from_ref(text),
            Addresses::Many(texts) => texts,
        };
        let mut all = Vec::new();
        for text in texts.iter().filter(|text| !text.trim().is_empty()) {
            // A list in one text, or one address that a list would not take (a name with a comma and no quotes).
            let list = text.parse::<Mailboxes>().or_else(|error| match with_name(text) {
                Some(one) => Ok(one.into()),
                None => Err(format!("{key}: `{}` is no address: {error}", text.escape_debug())),
            })?;
            all.extend(list);
        }
        Ok(all)
    }
}

/// `Name <address>`, whatever stands in the name.
fn with_name(text: &str) -> Option<Mailbox> {
    let (name, address) = text.trim().strip_suffix('>')?.split_once('<')?;
    let name = name.trim();
    if text.chars().any(char::is_control) || address.contains('<') {
        return None;
    }
    Some(Mailbox::new((!name.is_empty()).then(|| name.to_string()), address.parse().ok()?))
}

impl Form {
    /// The message; the error is one sentence that names the key. `message_id`: with its angle brackets.
    pub fn compose(&self, message_id: &str, now: Timestamp) -> Result<Submission, String> {
        let from = Addresses::One(self.from.clone()).read("from")?;
        let [from] = &from[..] else { return Err("from: one address, as in `App <app@example.com>`".into()) };
        let (to, cc, bcc) = (self.to.read("to")?, self.cc.read("cc")?, self.bcc.read("bcc")?);
        let recipients: Vec<String> =
            to.iter().chain(&cc).chain(&bcc).map(|mailbox| mailbox.email.to_string()).collect();
        if recipients.is_empty() {
            return Err("to: at least one address (or cc, or bcc)".into());
        }
        if self.text.is_none() && self.html.is_none() && self.attachments.is_empty() {
            return Err("text, html: give at least one of them".into());
        }
        let named = [&to[..], &cc, &bcc].concat().into_iter().map(|mailbox| mailbox.email).collect();
        let envelope = Envelope::new(Some(from.email.clone()), named).map_err(|error| format!("to: {error}"))?;
        let mut builder = lettre::Message::builder()
            .envelope(envelope)
            .from(from.clone())
            .subject(one_line("subject", &self.subject)?)
            .message_id(Some(message_id.to_string()))
            .date(std::time::UNIX_EPOCH + Duration::from_secs(now.secs().unsigned_abs()))
            .header(MIME_VERSION_1_0);
        for mailbox in to {
            builder = builder.to(mailbox);
        }
        for mailbox in cc {
            builder = builder.cc(mailbox);
        }
        for mailbox in self.reply_to.read("reply_to")? {
            builder = builder.reply_to(mailbox);
        }
        let parts = self.parts()?;
        if bcc.len() == recipients.len() {
            // Nobody is named: there must be somebody all the same (RFC 5322 section 3.6.3 allows a group without members).
            builder = builder.raw_header(raw_value("To", "undisclosed-recipients:;")?);
        }
        for header in self.fields(now)? {
            builder = builder.raw_header(header);
        }
        let message = match parts {
            Parts::Single(part) => builder.singlepart(part),
            Parts::Multi(part) => builder.multipart(part),
        };
        let content = match message {
            Ok(message) => message.formatted(),
            Err(error) => return Err(format!("the message cannot be composed: {error}")),
        };
        if content.split(|&octet| octet == b'\n').any(|line| line.len() > LINE_MAX) {
            return Err("from, to, cc, headers: a name or value makes a line of more than 998 octets (RFC 5322)".into());
        }
        let sender = from.email.to_string();
        Ok(Submission { sender, recipients, content: content.into(), message_id: Some(message_id.to_string()) })
    }

    /// The fields of the caller's own, and the orders to weir.
    fn fields(&self, now: Timestamp) -> Result<Vec<HeaderValue>, String> {
        if self.headers.len() > HEADERS_MAX {
            return Err(format!("headers: {HEADERS_MAX} at most"));
        }
        let mut fields = Vec::new();
        for (name, value) in &self.headers {
            let plain = name.to_ascii_lowercase();
            if RESERVED.contains(&plain.as_str()) || plain.starts_with("content-") || plain.starts_with("x-weir-") {
                return Err(format!("headers: {} is made by weir: use the key of its own", name.escape_debug()));
            }
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            let known = HeaderName::new_from_ascii(name.clone()).ok().filter(|_| is_name);
            let known = known.ok_or_else(|| format!("headers: `{}` is no name of a field", name.escape_debug()))?;
            fields.push(HeaderValue::new(known, one_line(name, value)?));
        }
        if let Some(class) = self.class {
            fields.push(raw_value("X-Weir-Class", class.as_str())?);
        }
        let waits = match self.at {
            Some(at) if at > now + SCHEDULE_MAX => return Err("at: at most three days ahead".into()),
            Some(at) if at > now => {
                fields.push(raw_value("X-Weir-At", &at.to_string())?);
                at.since(now)
            }
            _ => Duration::ZERO,
        };
        if let Some(Span(expire)) = self.expire {
            fields.push(raw_value("X-Weir-Expire", &format!("{}s", (expire + waits).as_secs().max(1)))?);
        }
        Ok(fields)
    }

    fn parts(&self) -> Result<Parts, String> {
        let body = match (&self.text, &self.html) {
            (Some(text), Some(html)) => Some(Parts::Multi(MultiPart::alternative_plain_html(words(text), words(html)))),
            (Some(text), None) => Some(Parts::Single(SinglePart::plain(words(text)))),
            (None, Some(html)) => Some(Parts::Single(SinglePart::html(words(html)))),
            (None, None) => None,
        };
        let (inline, attached): (Vec<&File>, Vec<&File>) = self.attachments.iter().partition(|file| file.cid.is_some());
        let body = match body {
            Some(words) if !inline.is_empty() => {
                let mut related = words.into_first(MultiPart::related().build());
                for file in inline {
                    related = related.singlepart(file.part()?);
                }
                Some(Parts::Multi(related))
            }
            body => body,
        };
        if attached.is_empty() {
            return body
                .ok_or_else(|| "attachments: one with a cid is shown within html, which is missing".to_string());
        }
        let mut mixed = MultiPart::mixed().build();
        if let Some(words) = body {
            mixed = words.into_first(mixed);
        }
        for file in attached {
            mixed = mixed.singlepart(file.part()?);
        }
        Ok(Parts::Multi(mixed))
    }
}

enum Parts {
    Single(SinglePart),
    Multi(MultiPart),
}

impl Parts {
    /// As the next part of a whole.
    fn into_first(self, whole: MultiPart) -> MultiPart {
        match self {
            Parts::Single(part) => whole.singlepart(part),
            Parts::Multi(part) => whole.multipart(part),
        }
    }
}

impl File {
    fn part(&self) -> Result<SinglePart, String> {
        let name = one_line("filename", &self.filename)?;
        let kind = self.kind.as_deref().unwrap_or("application/octet-stream");
        let kind = ContentType::parse(kind)
            .map_err(|_| format!("attachments: {}: `{}` is no type", name.escape_debug(), kind.escape_debug()))?;
        let text: String = self.content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let content = BASE64_STANDARD
            .decode(text)
            .map_err(|error| format!("attachments: {}: content is no base64: {error}", name.escape_debug()))?;
        let attachment = match &self.cid {
            Some(cid) => Attachment::new_inline_with_name(one_line("cid", cid)?, name),
            None => Attachment::new(name),
        };
        // In base64 whatever it is: octets that look like text would change on their way, as line ends do.
        let content = Body::new_with_encoding(content, ContentTransferEncoding::Base64);
        Ok(attachment.body(
            content.map_err(|_| format!("attachments: {}: cannot be encoded", self.filename.escape_debug()))?,
            kind,
        ))
    }
}

/// A text as a body. Control characters and lone CRs would not live through the way: they are encoded.
fn words(text: &str) -> Body {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\t' | '\r' | '\n');
    if !text.contains(is_odd) && !text.replace("\r\n", "").contains('\r') {
        return Body::new(text.to_string());
    }
    Body::new_with_encoding(text.to_string(), ContentTransferEncoding::QuotedPrintable)
        .unwrap_or_else(|_| Body::new(text.to_string()))
}

/// A text for a field: with a line end it would be two.
fn one_line(key: &str, text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{key}: a control character or line end cannot stand in a field"));
    }
    if text.split(' ').any(|word| word.len() > WORD_MAX) {
        return Err(format!(
            "{key}: a word of more than {WORD_MAX} octets cannot stand in a field, which is folded at blanks"
        ));
    }
    Ok(text.to_string())
}

fn raw_value(name: &'static str, value: &str) -> Result<HeaderValue, String> {
    let name = HeaderName::new_from_ascii_str(name);
    Ok(HeaderValue::dangerous_new_pre_encoded(name, value.to_string(), value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn compose(form: serde_json::Value) -> Result<(Submission, String), String> {
        let form: Form = serde_json::from_value(form).map_err(|error| error.to_string())?;
        let message = form.compose("<1@example.com>", NOON)?;
        let text = String::from_utf8(message.content.to_vec()).unwrap();
        Ok((message, text))
    }

    #[test]
    fn a_message_has_what_was_given_and_no_more() {
        let (message, text) = compose(json!({
            "from": "App, the <app@example.com>", "to": ["Bob <bob@outlook.com>", "eve@x.example, dan@x.example"], "cc": "carl@x.example",
            "bcc": ["secret@x.example"], "subject": "Grüße", "text": "hello", "html": "<p>hello <img src=\"cid:logo\">",
            "headers": {"X-Campaign": "42", "List-Unsubscribe": "<https://example.com/u>"}, "class": "bulk", "expire": "15m",
            "at": "2026-11-21T13:00:00Z",
            "attachments": [{"filename": "a.txt", "content": "aGk="}, {"filename": "logo.png", "type": "image/png", "content": "AA==", "cid": "logo"}],
        }))
        .unwrap();
        assert_eq!(message.sender, "app@example.com");
        assert_eq!(
            message.recipients,
            ["bob@outlook.com", "eve@x.example", "dan@x.example", "carl@x.example", "secret@x.example"]
        );
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for field in [
            "Message-ID: <1@example.com>",
            "Date: Sat, 21 Nov 2026 12:00:00 +0000",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
            "X-Campaign: 42",
            "X-Weir-Class: bulk",
            "X-Weir-Expire: 4500s",
            "X-Weir-At: 2026-11-21T13:00:00.000Z",
            "MIME-Version: 1.0",
        ] {
            assert!(header.lines().any(|line| line == field), "{field} is missing in\n{header}");
        }
        assert!(!text.contains("secret@x.example") && !header.contains("Bcc"), "{header}");
        for part in [
            "multipart/mixed",
            "multipart/related",
            "multipart/alternative",
            "text/plain",
            "text/html",
            "filename=\"a.txt\"",
            "Content-ID: <logo>",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(body.contains("\r\n\r\naGk=\r\n"), "{body}");
    }

    #[test]
    fn what_would_change_on_its_way_is_encoded() {
        let (_, text) = compose(json!({
            "from": "a@x.example", "to": "b@x.example", "text": "one\rtwo\u{0}three\n", "html": "<p>one\n</p>",
            "attachments": [{"filename": "unix.txt", "content": "YQpiCgA="}],
        }))
        .unwrap();
        assert!(text.contains("one=0Dtwo=00three\r\n") && text.contains("<p>one\r\n</p>"), "{text}");
        assert!(text.contains("\r\n\r\nYQpiCgA=\r\n"), "{text}");
    }

    #[test]
    fn a_message_to_hidden_recipients_alone_names_nobody() {
        let (message, text) = compose(json!({"from": "a@x.example", "bcc": "b@x.example", "text": "t"})).unwrap();
        assert_eq!(message.recipients, ["b@x.example"]);
        assert!(text.contains("To: undisclosed-recipients:;\r\n") && !text.contains("b@x.example"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let base = || json!({"from": "a@x.example", "to": "b@x.example", "text": "t", "subject": "s"});
        for (key, value, fault) in [
            ("from", json!("nobody"), "from: "),
            ("from", json!("a@x.example, b@x.example"), "from: one address"),
            ("to", json!([]), "to: at least one"),
            ("to", json!("b@x.example\r\nBcc: c@x.example"), "to: "),
            ("subject", json!("s\r\nBcc: c@x.example"), "subject: a control character"),
            ("subject", json!("x".repeat(1500)), "subject: a word of more than"),
            ("to", json!(format!("{} <b@x.example>", "x".repeat(1500))), "to, cc, headers: a name or value"),
            ("text", json!(null), "text, html"),
            ("headers", json!({"X-A": "b\nBcc: c@x.example"}), "X-A: a control character"),
            ("headers", json!({"X-A\r\nBcc": "b"}), "headers: "),
            ("headers", json!({"Received": "b"}), "headers: Received is made by weir"),
            ("headers", json!({"x-weir-class": "high"}), "headers: x-weir-class"),
            ("attachments", json!([{"filename": "a", "content": "?"}]), "attachments: a: content is no base64"),
            ("attachments", json!([{"filename": "a", "type": "x\r\ny", "content": ""}]), "attachments: a: "),
            ("attachments", json!([{"filename": "a\r\nX: y", "content": ""}]), "filename: a control character"),
            ("at", json!("2026-12-21T13:00:00Z"), "at: at most three days"),
            ("at", json!("tomorrow"), ""),
            ("expire", json!("soon"), ""),
            ("sbject", json!("s"), "unknown field `sbject`"),
        ] {
            let mut form = base();
            form[key] = value;
            let found = compose(form).unwrap_err();
            assert!(found.contains(fault), "{key}: {found}");
        }
        compose(base()).unwrap();
    }
}
