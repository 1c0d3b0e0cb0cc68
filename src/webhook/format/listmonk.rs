//! The bounce webhook of listmonk, `POST /webhooks/bounce`: one bounce a request (<https://listmonk.app/docs/bounces/>).
//!
//! It counts bounces of a subscriber and blocks who has too many, so only what is about the subscriber is told; a refusal
//! for our address, our content or our pace is none of his.

use serde_json::{Value, json};

use super::words;
use crate::event::Entry;
use crate::types::{Class, EventKind};

/// Their `type`.
pub(super) fn word(kind: EventKind, class: Option<Class>) -> Option<&'static str> {
    if kind == EventKind::Complained {
        return Some("complaint");
    }
    match (kind, class?) {
        (
            EventKind::Bounced | EventKind::Returned | EventKind::Refused,
            Class::RecipientUnknown | Class::RecipientDisabled | Class::Routing,
        ) => Some("hard"),
        (
            EventKind::Bounced | EventKind::Returned | EventKind::Expired | EventKind::Refused,
            Class::MailboxFull | Class::Other,
        ) => Some("soft"),
        (EventKind::Expired, Class::RecipientUnknown | Class::RecipientDisabled | Class::Routing) => Some("soft"),
        _ => None,
    }
}

pub(super) fn value(entry: &Entry<'_>, word: &str) -> Value {
    let meta = json!({
        "id": entry.id.map(|id| id.to_string()),
        "message_id": entry.message_id,
        "event": entry.kind.as_str(),
        "class": entry.class.map(Class::as_str),
        "reply": words(entry),
    });
    json!({
        "email": entry.recipient.as_deref().unwrap_or_default().to_lowercase(),
        "source": "weir",
        "type": word,
        "meta": meta.to_string(),
        "created_at": entry.time.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;
    use crate::webhook::options::Format;

    #[test]
    fn a_bounce_has_their_fields() {
        let value = written(Format::Listmonk, "bounced", "recipient-unknown", "550 5.1.1 \"no\"").unwrap();
        assert_eq!(
            (&value["email"], &value["source"], &value["type"], &value["created_at"]),
            (&json!("anna@hotmail.com"), &json!("weir"), &json!("hard"), &json!("2026-11-21T20:33:40.042Z"))
        );
        // A text that holds JSON.
        let meta: Value = serde_json::from_str(value["meta"].as_str().unwrap()).unwrap();
        assert_eq!((&meta["class"], &meta["reply"]), (&json!("recipient-unknown"), &json!("550 5.1.1 \"no\"")));
        assert_eq!(written(Format::Listmonk, "bounced", "ip-block", "550 S3150"), None);
        assert_eq!(written(Format::Listmonk, "complained", "other", "").unwrap()["type"], "complaint");
        assert_eq!(written(Format::Listmonk, "expired", "mailbox-full", "452 full").unwrap()["type"], "soft");
    }
}
