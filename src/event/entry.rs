//! A line of the log with all its fields, as `docs/events.md` names them.
//!
//! A reader passes over what it does not know: a field that is new is left aside, and a line whose event is not known here
//! is none.

use std::borrow::Cow;
use std::net::IpAddr;

use memchr::memmem::Finder;
use serde::Deserialize;

use super::tail::SEQ_MAX;
use crate::types::{Class, EventKind, QueueId, Timestamp, Verdict};

/// What a line tells. What does not apply is `None`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry<'a> {
    pub time: Timestamp,
    pub seq: u64,
    #[serde(rename = "event")]
    pub kind: EventKind,
    pub id: Option<QueueId>,
    /// Empty for a report.
    #[serde(borrow)]
    pub sender: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub recipient: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub provider: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub mx: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub reply: Option<Cow<'a, str>>,
    pub class: Option<Class>,
    #[serde(borrow, default)]
    pub message_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub user: Option<Cow<'a, str>>,
    pub client: Option<IpAddr>,
    pub attempt: Option<u32>,
    #[serde(borrow, default)]
    pub rule: Option<Cow<'a, str>>,
    pub verdict: Option<Verdict>,
    /// Seconds from acceptance to this event.
    pub delay: Option<f64>,
    #[serde(borrow, default)]
    pub tls: Option<Cow<'a, str>>,
    pub recipients: Option<u64>,
    /// Octets of the message.
    pub size: Option<u64>,
    #[serde(borrow, default)]
    pub text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub remedy: Option<Cow<'a, str>>,
    /// Message-ID of the report that an answer came with.
    #[serde(borrow, default)]
    pub report: Option<Cow<'a, str>>,
    /// Fields that were found out and not said.
    #[serde(borrow, default)]
    pub derived: Option<Cow<'a, str>>,
}

impl<'a> Entry<'a> {
    /// `None`: no line of the log, or one of an event that is not known here.
    pub fn parse(line: &'a str) -> Option<Entry<'a>> {
        serde_json::from_str(line).ok()
    }
}

const START: &[u8] = b"{\"time\":\"";
const TIME: usize = "2026-11-21T20:33:40.042Z".len();

/// The time of a line as it stands there: such texts sort as their times do.
pub(super) fn time_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(START).and_then(|line| line.get(..TIME))
}

/// The number of a line, without reading the rest of it. `None`: no line of the log.
pub(super) fn seq_of(line: &[u8]) -> Option<u64> {
    const MIDDLE: &[u8] = b"\",\"seq\":";
    let digits = line.strip_prefix(START).and_then(|line| line.get(TIME..)).and_then(|line| line.strip_prefix(MIDDLE));
    let seq = match digits {
        Some(digits) => {
            let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
            std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?
        }
        // Somebody has written it out again in another way.
        None => serde_json::from_slice::<Numbered>(line).ok()?.seq,
    };
    (seq < SEQ_MAX).then_some(seq)
}

/// Finds the value of a field that is one plain word, as `event` and `id` are, without reading the rest of the line.
#[derive(Clone, Debug)]
pub struct Word(Finder<'static>);

impl Word {
    pub fn of(key: &str) -> Word {
        Word(Finder::new(&format!("\"{key}\":\"")).into_owned())
    }

    pub fn find<'l>(&self, line: &'l str) -> Option<&'l str> {
        let start = self.0.find(line.as_bytes())? + self.0.needle().len();
        let length = memchr::memchr(b'"', &line.as_bytes()[start..])?;
        line.get(start..start + length)
    }
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::line::Lines;
    use crate::types::Event;

    #[test]
    fn every_field_is_read_back() {
        let event = Event {
            id: QueueId::from_key(42),
            sender: Some("".into()),
            recipient: Some("\"a b\"@example.com".into()),
            provider: Some("outlook".into()),
            source: Some("a".into()),
            mx: Some("mx.example.com".into()),
            reply: Some("250 2.6.0 ok\n250 done\u{202e}".into()),
            class: Some(Class::Delivered),
            message_id: Some("<1@example.com>".into()),
            user: Some("app".into()),
            client: "2001:db8::1".parse().ok(),
            attempt: Some(2),
            rule: Some("delivered".into()),
            verdict: Some("delivered"),
            delay_ms: Some(61_005),
            tls: Some("none".into()),
            recipients: Some(3),
            size_bytes: Some(1234),
            text: Some("t".into()),
            remedy: Some("r".into()),
            report: Some("<2@x.example>".into()),
            derived: Some("recipient,id".into()),
            ..Event::new(Timestamp::from_millis(1_795_293_220_042), EventKind::Delivered)
        };
        let mut line = Vec::new();
        Lines::default().add(&mut line, 7, &event);
        assert_eq!(seq_of(&line), Some(7));
        let text = std::str::from_utf8(&line).unwrap();
        let word = |key| Word::of(key).find(text);
        assert_eq!((word("event"), word("id"), word("seq")), (Some("delivered"), Some("000000000001A"), None));
        let line = String::from_utf8(line).unwrap();
        let entry = Entry::parse(&line).unwrap();
        assert_eq!((entry.time, entry.seq, entry.kind, entry.id), (event.time, 7, event.kind, event.id));
        let texts = [&entry.sender, &entry.recipient, &entry.provider, &entry.source, &entry.mx, &entry.reply];
        assert_eq!(
            texts.map(|text| text.as_deref().unwrap()),
            ["", "\"a b\"@example.com", "outlook", "a", "mx.example.com", "250 2.6.0 ok\n250 done\u{202e}"]
        );
        let texts = [&entry.message_id, &entry.user, &entry.rule, &entry.tls, &entry.text, &entry.remedy];
        assert_eq!(
            texts.map(|text| text.as_deref().unwrap()),
            ["<1@example.com>", "app", "delivered", "none", "t", "r"]
        );
        assert_eq!((entry.class, entry.client, entry.attempt), (event.class, event.client, event.attempt));
        assert_eq!((entry.verdict, entry.delay), (Some(Verdict::Delivered), Some(61.005)));
        assert_eq!((entry.recipients, entry.size), (Some(3), Some(1234)));
        assert_eq!((entry.report.as_deref(), entry.derived.as_deref()), (Some("<2@x.example>"), Some("recipient,id")));
    }

    #[test]
    fn what_is_new_is_passed_over() {
        let line = |event: &str| {
            format!(
                "{{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":7,\"event\":\"{event}\",\"id\":null,\"colour\":[1]}}"
            )
        };
        assert_eq!(Entry::parse(&line("alert")).unwrap().seq, 7);
        assert_eq!(Entry::parse(&line("dreamt")), None);
    }

    #[test]
    fn the_number_is_found_in_any_form_and_never_one_that_no_line_can_have() {
        let rows = [
            ("{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":4711,\"event\"", Some(4711)),
            ("{\"seq\": 4711, \"time\": \"2026-11-21T20:33:40.042Z\"}", Some(4711)),
            ("{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":4711", None),
            ("{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":18446744073709551615,", None),
            ("{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":-1,", None),
            ("nonsense", None),
            ("", None),
        ];
        for (line, seq) in rows {
            assert_eq!(seq_of(line.as_bytes()), seq, "{line}");
        }
    }
}
