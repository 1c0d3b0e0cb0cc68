//! The event log: one JSON object a line for everything that happened to a message (see `docs/events.md`).
//!
//! `line` makes the text, `append` keeps batches whole, `folder` knows the files, `log` puts them together, `told` says it to
//! people. Read back, it is by `tail` what a start needs, by `history` one provider's story, and by `reader` every line from a
//! cursor on, by `backward` the newest ones; `entry` is a line with all its fields, `choice` says which ones are meant.

mod append;
pub mod backward;
pub mod choice;
pub mod entry;
mod folder;
pub mod history;
mod line;
pub mod log;
pub mod options;
pub mod reader;
pub mod tail;
mod told;

pub use choice::Choice;
pub use entry::Entry;
pub use log::EventLog;
pub use reader::{Batch, RawLine, Reader};
pub use tail::{Tail, Written};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::line::Lines;
    use crate::types::{Class, Event, EventKind, QueueId, Timestamp};

    const DOCUMENT: &str = include_str!("../../docs/events.md");

    /// The words in the first column of the document's tables, in their order.
    fn documented() -> Vec<&'static str> {
        let row = |line: &'static str| line.strip_prefix("| `")?.split_once('`').map(|(word, _)| word);
        DOCUMENT.lines().filter_map(row).collect()
    }

    #[test]
    fn the_document_names_every_field_and_event_in_order() {
        let text: Option<Arc<str>> = Some("x".into());
        let event = Event {
            id: QueueId::from_key(1),
            sender: text.clone(),
            recipient: Some("x".into()),
            provider: text.clone(),
            source: text.clone(),
            mx: text.clone(),
            reply: Some("x".into()),
            class: Some(Class::Other),
            message_id: Some("x".into()),
            user: Some("x".into()),
            client: "192.0.2.1".parse().ok(),
            attempt: Some(1),
            rule: text.clone(),
            verdict: Some("retry"),
            delay_ms: Some(1),
            tls: text,
            recipients: Some(1),
            size_bytes: Some(1),
            text: Some("x".into()),
            remedy: Some("x".into()),
            report: Some("x".into()),
            derived: Some("x".into()),
            ..Event::new(Timestamp::EPOCH, EventKind::Alert)
        };
        let mut line = Vec::new();
        Lines::default().add(&mut line, 1, &event);
        let line = String::from_utf8(line).unwrap();
        let mut known: Vec<&str> = line.split('"').filter(|part| documented().contains(part)).collect();
        // The event's own name stands behind the key `event`.
        known.retain(|&word| word != "alert");
        known.extend(EventKind::ALL.iter().map(|kind| kind.as_str()));
        assert_eq!(documented(), known);
        let fields = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line).unwrap();
        assert_eq!(documented().len(), fields.len() + EventKind::ALL.len());
    }

    #[test]
    fn the_document_names_every_class() {
        for class in Class::ALL {
            assert!(DOCUMENT.contains(&format!("`{class}`")), "{class}");
        }
    }

    #[test]
    fn the_example_of_the_document_is_a_line() {
        let example = DOCUMENT.lines().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str::<super::Written>(example).unwrap();
    }
}
