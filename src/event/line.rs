//! An event as one line of JSON.
//!
//! Rules that always hold, whatever a client or a receiver has put into a value: a line is one valid JSON object and
//! ends with the only line feed in it; no control character, and nothing else that any reader takes for the end of a
//! line, stands in it unescaped; a value is cut at `VALUE_MAX`. The keys and their order are those of `docs/events.md`.

use std::io::Write;

use crate::types::{Event, Timestamp, printable};

/// The longest value, in octets: a reply of some lines with room to spare.
const VALUE_MAX: usize = 8 << 10;

/// Writes events as lines. Keeps the last second it wrote, which is most often that of the next event, too.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// In seconds, and as text without the part behind the seconds.
    second: Option<(i64, String)>,
}

impl Lines {
    /// Adds the line of `event` to `out`.
    pub(super) fn add(&mut self, out: &mut Vec<u8>, seq: u64, event: &Event) {
        out.extend_from_slice(b"{\"time\":\"");
        self.add_time(out, event.time);
        out.extend_from_slice(b"\",\"seq\":");
        number(out, seq);
        out.extend_from_slice(b",\"event\":\"");
        out.extend_from_slice(event.kind.as_str().as_bytes());
        out.push(b'"');
        match event.id {
            // A queue id is letters and digits.
            Some(id) => drop(write!(out, ",\"id\":\"{id}\"")),
            None => out.extend_from_slice(b",\"id\":null"),
        }
        always(out, "sender", event.sender.as_deref());
        always(out, "recipient", event.recipient.as_deref());
        always(out, "provider", event.provider.as_deref());
        always(out, "source", event.source.as_deref());
        always(out, "mx", event.mx.as_deref());
        always(out, "reply", event.reply.as_deref());
        always(out, "class", event.class.map(|class| class.as_str()));
        add_where_it_applies(out, event);
        out.extend_from_slice(b"}\n");
    }

    fn add_time(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let text = |time: Timestamp| time.to_string().trim_end_matches(|c: char| c != '.').to_string();
        let (second, start) = self.second.get_or_insert_with(|| (time.secs(), text(time)));
        if *second != time.secs() {
            (*second, *start) = (time.secs(), text(time));
        }
        out.extend_from_slice(start.as_bytes());
        drop(write!(out, "{:03}Z", time.millis().rem_euclid(1000)));
    }
}

fn add_where_it_applies(out: &mut Vec<u8>, event: &Event) {
    sometimes(out, "message_id", event.message_id.as_deref());
    sometimes(out, "user", event.user.as_deref());
    if let Some(client) = event.client {
        drop(write!(out, ",\"client\":\"{client}\""));
    }
    count(out, "attempt", event.attempt.map(u64::from));
    sometimes(out, "rule", event.rule.as_deref());
    sometimes(out, "verdict", event.verdict);
    if let Some(millis) = event.delay_ms {
        drop(write!(out, ",\"delay\":{}.{:03}", millis / 1000, millis % 1000));
    }
    sometimes(out, "tls", event.tls.as_deref());
    count(out, "recipients", event.recipients.map(|n| n as u64));
    count(out, "size", event.size_bytes);
    sometimes(out, "text", event.text.as_deref());
    sometimes(out, "remedy", event.remedy.as_deref());
    sometimes(out, "report", event.report.as_deref());
    sometimes(out, "derived", event.derived.as_deref());
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A key that is there in every line, null where nothing applies.
fn always(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    key(out, name);
    match value {
        Some(value) => text(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// A key that is there only where it applies.
fn sometimes(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if value.is_some() {
        always(out, name, value);
    }
}

fn count(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        key(out, name);
        number(out, value);
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    // Writing to memory does not fail.
    drop(write!(out, "{value}"));
}

/// A JSON string (RFC 8259 section 7). Whole runs of plain characters are copied at once.
fn text(out: &mut Vec<u8>, value: &str) {
    let (value, cut) = cut(value);
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in value.bytes().enumerate() {
        // Nearly every byte ends here.
        if PLAIN[usize::from(byte)] {
            continue;
        }
        let Some(c) = value[at..].chars().next().filter(|&c| must_be_escaped(c)) else { continue };
        out.extend_from_slice(&value.as_bytes()[plain..at]);
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c => drop(write!(out, "\\u{:04x}", u32::from(c))),
        }
        plain = at + c.len_utf8();
    }
    out.extend_from_slice(&value.as_bytes()[plain..]);
    out.extend_from_slice(if cut { "…\"".as_bytes() } else { b"\"" });
}

/// Bytes that never begin a character that must be escaped. 0xC2 begins the C1 controls (NEL among them), 0xE2 the line
/// separators and most of what turns the direction of reading, 0xD8 the rest of that.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = byte >= 0x20 && !matches!(byte, 0x22 | 0x5c | 0x7f | 0xc2 | 0xd8 | 0xe2);
        byte += 1;
    }
    plain
};

/// Beside what JSON asks for: what some readers of lines take for an end of one, what terminals obey, and what turns names round.
fn must_be_escaped(c: char) -> bool {
    matches!(c, '"' | '\\') || printable::steers(c)
}

/// `value`, or as much of it as a line may hold.
fn cut(value: &str) -> (&str, bool) {
    if value.len() <= VALUE_MAX {
        return (value, false);
    }
    let end = (0..=VALUE_MAX).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    (&value[..end], true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::types::{Class, EventKind, QueueId};

    fn line(seq: u64, event: &Event) -> String {
        let mut out = Vec::new();
        Lines::default().add(&mut out, seq, event);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_line_of_a_delivery() {
        let mut event = Event::new(Timestamp::from_millis(1_795_293_220_042), EventKind::Delivered);
        event.id = QueueId::from_key(42);
        event.sender = Some("".into());
        event.recipient = Some("\"a b\"@example.com".into());
        event.provider = Some("outlook".into());
        event.mx = Some("mx.example.com".into());
        event.reply = Some("250 2.6.0 ok\n250 done".into());
        event.class = Some(Class::Delivered);
        event.client = Some("2001:db8::1".parse().unwrap());
        event.attempt = Some(2);
        event.delay_ms = Some(61_005);
        event.size_bytes = Some(1234);
        assert_eq!(
            line(7, &event),
            "{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":7,\"event\":\"delivered\",\"id\":\"000000000001A\",\
             \"sender\":\"\",\"recipient\":\"\\\"a b\\\"@example.com\",\"provider\":\"outlook\",\"source\":null,\
             \"mx\":\"mx.example.com\",\"reply\":\"250 2.6.0 ok\\n250 done\",\"class\":\"delivered\",\
             \"client\":\"2001:db8::1\",\"attempt\":2,\"delay\":61.005,\"size\":1234}\n"
        );
    }

    #[test]
    fn what_is_always_there_is_null_where_it_does_not_apply() {
        let parsed: Value = serde_json::from_str(&line(1, &Event::new(Timestamp::EPOCH, EventKind::Alert))).unwrap();
        assert_eq!(
            parsed,
            json!({"time": "1970-01-01T00:00:00.000Z", "seq": 1, "event": "alert", "id": null, "sender": null,
                "recipient": null, "provider": null, "source": null, "mx": null, "reply": null, "class": null})
        );
    }

    #[test]
    fn each_line_has_the_time_of_its_event() {
        let mut lines = Lines::default();
        for millis in [5000, 5000, 5001, 6999, 7000, 5042, -1, 1_795_293_220_042] {
            let (mut out, time) = (Vec::new(), Timestamp::from_millis(millis));
            lines.add(&mut out, 1, &Event::new(time, EventKind::Alert));
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("{{\"time\":\"{time}\",")), "{text}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let mut event = Event::new(Timestamp::EPOCH, EventKind::Deferred);
        event.reply = Some(format!("x{}", "é".repeat(VALUE_MAX)));
        let parsed: Value = serde_json::from_str(&line(1, &event)).unwrap();
        let reply = parsed["reply"].as_str().unwrap();
        assert!(reply.starts_with("xéé") && reply.ends_with("é…") && reply.len() < VALUE_MAX + 4, "{}", reply.len());
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line(value in any::<String>(), tricky in "[\\x00-\\x1f\\x7f-\\xa0\"\\\\\u{2028}\u{2029}é€a]{0,20}") {
            for value in [value, tricky] {
                let mut event = Event::new(Timestamp::EPOCH, EventKind::Bounced);
                event.recipient = Some(value.clone());
                event.text = Some(value.clone());
                let line = line(1, &event);
                let body = line.strip_suffix('\n').unwrap();
                prop_assert!(!body.contains(printable::steers), "{:?}", body);
                let parsed: Map<String, Value> = serde_json::from_str(body).unwrap();
                prop_assert_eq!(parsed["recipient"].as_str(), Some(value.as_str()));
                prop_assert_eq!(parsed["text"].as_str(), Some(value.as_str()));
            }
        }
    }
}
