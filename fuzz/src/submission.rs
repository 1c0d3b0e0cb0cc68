//! Messages handed in over HTTP (`submit`): the body of a request, as the parts of a message in JSON and as a message of its own. A message that is
//! composed has the fields that were given and no others, on lines a mail server takes; a refusal is one printable line.

use std::collections::BTreeSet;

use bytes::Bytes;
use weir::submit::{Form, Submission, raw};
use weir::types::Timestamp;

use super::kit;

const ID: &str = "<fresh@relay.test>";
/// RFC 5322, section 2.1.1, without the line end.
const LINE_MAX: usize = 998;
/// Fields that weir makes of the parts.
const MADE: [&str; 14] = [
    "from",
    "to",
    "cc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "x-weir-class",
    "x-weir-expire",
    "x-weir-at",
];

pub fn check(bytes: &[u8]) {
    as_it_is(bytes);
    let Ok(form) = serde_json::from_slice::<Form>(bytes) else { return };
    match form.compose(ID, Timestamp::from_secs(1_795_293_220)) {
        Ok(message) => is_sound(&form, &message),
        Err(text) => assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}"),
    }
}

/// A message keeps its octets; with an id of its own it stays as it is.
fn as_it_is(bytes: &[u8]) {
    let message = raw("a@x.test".into(), vec!["b@x.test".into()], Bytes::copy_from_slice(bytes), ID);
    let added = message.content.len() - bytes.len();
    assert!(message.content.ends_with(bytes) && (added == 0 || message.content.starts_with(b"Message-ID: <fresh@")));
    let id = message.message_id.expect("every message has one");
    assert!(!id.contains(char::is_control) && (added == 0 || id == ID), "{id:?}");
}

fn is_sound(form: &Form, message: &Submission) {
    assert!(!message.recipients.is_empty() && !message.sender.is_empty());
    for address in message.recipients.iter().chain([&message.sender]) {
        assert!(address.contains('@') && !address.contains(char::is_control), "{address:?}");
    }
    let content = &message.content[..];
    for line in content.split(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= LINE_MAX, "a line of {} octets", line.len());
        assert!(!line.contains(&b'\r') && !line.contains(&0), "{}", line.escape_ascii());
    }
    assert!(!kit::contains(&[b"\n", content].concat(), b"\n\n"), "each line ends with CRLF");
    let blank = content.windows(4).position(|octets| octets == b"\r\n\r\n").expect("a header has an end");
    let names = names(&content[..blank]);
    let given: BTreeSet<String> = form.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    for name in &names {
        assert!(MADE.contains(&name.as_str()) || given.contains(name), "a field {name:?} that nobody gave");
    }
    for single in ["from", "to", "date", "message-id", "subject"] {
        let found = names.iter().filter(|name| *name == single).count();
        assert!(found <= 1 && (found == 1 || single == "to"), "{found} fields {single}");
    }
}

/// The names of a header's fields in small letters.
fn names(header: &[u8]) -> Vec<String> {
    let lines =
        header.split(|&octet| octet == b'\n').filter(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"));
    let name = |line: &[u8]| {
        let colon = line.iter().position(|&octet| octet == b':').expect("a line of a header has a name");
        String::from_utf8(line[..colon].to_ascii_lowercase()).expect("a name in ASCII")
    };
    lines.map(name).collect()
}
