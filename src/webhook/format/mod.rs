//! How events are written, so that applications which read the webhooks of others read ours unchanged.
//!
//! Pure. One table, [`meaning`], says what an event of ours is in the words of each of the others; `docs/webhooks.md` shows it, and a
//! test holds the two together. What has no word there is not sent. Rules that always hold:
//! - an event is written the same each time: whoever gets it twice can tell;
//! - in the words of others only of mail to recipients is told, never of weir's own reports (a sender that is empty).

mod listmonk;
mod postmark;
mod sendgrid;

use serde_json::Value;

use super::options::Format;
use crate::event::Entry;
use crate::types::{Class, EventKind};

/// An event in the words of a format; none: it has no words for it. In the `weir` format the line itself is sent.
pub(super) fn value(format: Format, entry: &Entry<'_>) -> Option<Value> {
    if format != Format::Weir && (entry.recipient.is_none() || entry.sender.as_deref().is_none_or(str::is_empty)) {
        // A suppressed address has no sender.
        if entry.kind != EventKind::Suppressed || entry.recipient.is_none() {
            return None;
        }
    }
    let word = meaning(format, entry.kind, entry.class)?;
    match format {
        Format::Weir => None,
        Format::Listmonk => Some(listmonk::value(entry, word)),
        Format::SendGrid => Some(sendgrid::value(entry, word)),
        Format::Postmark => Some(postmark::value(entry, word)),
    }
}

/// Events in one request.
pub(super) fn events_max(format: Format) -> usize {
    match format {
        Format::Weir | Format::SendGrid => 500,
        // They take one at a time.
        Format::Listmonk | Format::Postmark => 1,
    }
}

/// Does the format ever speak of such an event?
pub fn speaks_of(format: Format, kind: EventKind) -> bool {
    let classes = Class::ALL.iter().map(|class| Some(*class)).chain([None]);
    format == Format::Weir || classes.into_iter().any(|class| meaning(format, kind, class).is_some())
}

/// The word of a format for an event.
fn meaning(format: Format, kind: EventKind, class: Option<Class>) -> Option<&'static str> {
    match format {
        Format::Weir => Some(kind.as_str()),
        Format::Listmonk => listmonk::word(kind, class),
        Format::SendGrid => sendgrid::word(kind, class),
        Format::Postmark => postmark::word(kind, class),
    }
}

/// What the receiver said, or what happened instead.
fn words<'a>(entry: &'a Entry<'_>) -> &'a str {
    entry.reply.as_deref().or(entry.text.as_deref()).unwrap_or_default()
}

/// The enhanced status code of the reply (RFC 3463).
fn enhanced<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    let reply = entry.reply.as_deref()?;
    let word = reply.get(4..)?.split_whitespace().next()?;
    let mut parts = word.split('.');
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let is_code = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"))
        && parts.next().is_some_and(is_number)
        && parts.next().is_some_and(is_number)
        && parts.next().is_none();
    is_code.then_some(word)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/webhooks.md");

    /// A line of the log.
    pub(in crate::webhook) fn line(seq: u64, event: &str, class: &str, reply: &str) -> String {
        json!({
            "time": "2026-11-21T20:33:40.042Z", "seq": seq, "event": event, "id": "0MJ8Q2Z3G5Y1A", "sender": "shop@example.com",
            "recipient": "Anna@hotmail.com", "provider": "outlook", "source": "a", "mx": "mx.example", "reply": reply, "class": class,
            "message_id": "<x@example.com>", "attempt": 2, "rule": "r", "delay": 1.204, "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
        })
        .to_string()
    }

    pub(super) fn written(format: Format, event: &str, class: &str, reply: &str) -> Option<Value> {
        value(format, &Entry::parse(&line(7, event, class, reply)).unwrap())
    }

    /// `event` or `event class`, as the document's first column has it, and the words of the three.
    fn documented() -> BTreeMap<String, Vec<String>> {
        let section = DOCUMENT.split("\n## ").find(|part| part.starts_with("What is what")).unwrap();
        let plain = |cell: &str| cell.trim().trim_matches('`').to_string();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(plain);
            (cells.next().unwrap().replace('`', ""), cells.collect())
        })
        .collect()
    }

    #[test]
    fn the_document_says_what_every_event_is_in_the_words_of_others() {
        let documented = documented();
        for kind in EventKind::ALL {
            for class in Class::ALL {
                let row = documented.get(&format!("{kind} {class}")).or_else(|| documented.get(kind.as_str()));
                let words: Vec<String> = [Format::SendGrid, Format::Postmark, Format::Listmonk]
                    .iter()
                    .map(|format| meaning(*format, *kind, Some(*class)).unwrap_or("–").to_string())
                    .collect();
                assert_eq!(row, Some(&words), "{kind} {class}");
            }
        }
        let known = |row: &str| {
            let (kind, class) = row.split_once(' ').unwrap_or((row, "other"));
            kind.parse::<EventKind>().is_ok() && class.parse::<Class>().is_ok()
        };
        assert!(documented.keys().all(|row| known(row)), "{documented:?}");
    }

    #[test]
    fn reports_of_our_own_and_lines_without_a_recipient_are_not_told_in_the_words_of_others() {
        for (key, other) in [("sender", json!("")), ("sender", Value::Null), ("recipient", Value::Null)] {
            let mut fields: Value = serde_json::from_str(&line(7, "bounced", "recipient-unknown", "550 no")).unwrap();
            fields[key] = other;
            let text = fields.to_string();
            for format in [Format::SendGrid, Format::Postmark, Format::Listmonk] {
                assert_eq!(value(format, &Entry::parse(&text).unwrap()), None, "{format} {text}");
            }
        }
    }

    #[test]
    fn the_enhanced_code_is_found_and_nothing_is_taken_for_one() {
        for (reply, code) in [
            ("550 5.1.1 no such user", Some("5.1.1")),
            ("550 5.7.512 x\n550 y", Some("5.7.512")),
            ("550 no such user", None),
            ("550 5.1.1.1 x", None),
            ("550 192.0.2.1 x", None),
            ("55", None),
            ("connection refused", None),
            ("4é9 x", None),
        ] {
            let line = line(1, "bounced", "other", reply);
            assert_eq!(enhanced(&Entry::parse(&line).unwrap()), code, "{reply}");
        }
    }

    #[test]
    fn a_format_that_never_speaks_of_an_event_is_known() {
        assert!(speaks_of(Format::Listmonk, EventKind::Bounced) && !speaks_of(Format::Listmonk, EventKind::Delivered));
        assert!(speaks_of(Format::Weir, EventKind::Alert) && !speaks_of(Format::SendGrid, EventKind::Alert));
    }
}
