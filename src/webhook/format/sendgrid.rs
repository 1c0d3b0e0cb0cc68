//! SendGrid's Event Webhook: an array of flat objects
//! (<https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event>).

use serde_json::{Value, json};

use super::{enhanced, words};
use crate::event::Entry;
use crate::types::{Class, EventKind};

/// Their `event`, and for a bounce their `type` behind a blank.
pub(super) fn word(kind: EventKind, class: Option<Class>) -> Option<&'static str> {
    Some(match kind {
        EventKind::Delivered => "delivered",
        EventKind::Deferred => "deferred",
        EventKind::Bounced | EventKind::Returned => match class {
            Some(Class::RecipientUnknown | Class::RecipientDisabled | Class::Routing) => "bounce bounce",
            // Nothing is wrong with the address, or nobody knows: they do not put it on a list for that.
            _ => "bounce blocked",
        },
        EventKind::Expired => "bounce blocked",
        EventKind::Removed | EventKind::Refused => "dropped",
        EventKind::Complained => "spamreport",
        EventKind::Unsubscribed => "unsubscribe",
        _ => return None,
    })
}

/// Their word for what a refusal is about.
fn classification(class: Option<Class>) -> &'static str {
    match class {
        Some(Class::RecipientUnknown | Class::RecipientDisabled) => "Invalid Address",
        Some(Class::MailboxFull) => "Mailbox Unavailable",
        Some(Class::IpBlock | Class::SenderBlock | Class::Authentication) => "Reputation",
        Some(Class::Content | Class::RecipientPolicy) => "Content",
        Some(Class::RateLimit | Class::MessageLimit | Class::ConnectionLimit | Class::TooManyRecipients) => {
            "Frequency or Volume Too High"
        }
        Some(Class::Routing | Class::Tls | Class::Protocol | Class::Temporary) => "Technical",
        _ => "Unclassified",
    }
}

pub(super) fn value(entry: &Entry<'_>, word: &str) -> Value {
    let (event, kind) = word.split_once(' ').unwrap_or((word, ""));
    let mut value = json!({
        "email": entry.recipient,
        "timestamp": entry.time.secs(),
        "event": event,
        "sg_event_id": format!("{:x}-{}", entry.time.millis(), entry.seq),
    });
    let mut put = |name: &str, field: Value| value[name] = field;
    if let Some(message_id) = &entry.message_id {
        put("smtp-id", json!(message_id));
    }
    if let Some(id) = entry.id {
        put("sg_message_id", json!(id.to_string()));
    }
    match event {
        "delivered" => {
            put("response", json!(words(entry)));
            put("tls", json!(u8::from(entry.tls.as_deref().is_some_and(|tls| tls != "none"))));
        }
        "deferred" => {
            put("response", json!(words(entry)));
            // They write the number as a text.
            put("attempt", json!(entry.attempt.unwrap_or(1).to_string()));
        }
        "bounce" => {
            let fallback = if kind == "bounce" { "5.0.0" } else { "4.0.0" };
            put("type", json!(kind));
            put("reason", json!(words(entry)));
            put("status", json!(enhanced(entry).unwrap_or(fallback)));
            put("bounce_classification", json!(classification(entry.class)));
        }
        // They say no more of these.
        "spamreport" | "unsubscribe" => {}
        _ => {
            // Their words for a recipient who is on the list.
            let reason = if is_suppressed(entry) { "Bounced Address" } else { "Removed from the queue" };
            put("reason", json!(reason));
            if !words(entry).is_empty() {
                put("response", json!(words(entry)));
            }
            put("status", json!(enhanced(entry).unwrap_or("5.0.0")));
        }
    }
    value
}

fn is_suppressed(entry: &Entry<'_>) -> bool {
    entry.kind == EventKind::Refused || entry.rule.as_deref() == Some("suppressed")
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;
    use crate::webhook::options::Format;

    #[test]
    fn a_bounce_has_all_their_fields() {
        let value = written(Format::SendGrid, "bounced", "recipient-unknown", "550 5.1.1 no such user").unwrap();
        assert_eq!(
            value,
            json!({
                "email": "Anna@hotmail.com", "timestamp": 1_795_293_220, "smtp-id": "<x@example.com>", "event": "bounce",
                "sg_event_id": "1a1ffd08cca-7", "sg_message_id": "0MJ8Q2Z3G5Y1A", "type": "bounce",
                "reason": "550 5.1.1 no such user", "status": "5.1.1", "bounce_classification": "Invalid Address",
            })
        );
        let value = written(Format::SendGrid, "bounced", "ip-block", "550 S3150").unwrap();
        assert_eq!((&value["type"], &value["status"]), (&json!("blocked"), &json!("4.0.0")));
    }

    #[test]
    fn each_other_event_has_what_theirs_has() {
        let value = written(Format::SendGrid, "delivered", "delivered", "250 ok").unwrap();
        assert_eq!((&value["response"], &value["tls"]), (&json!("250 ok"), &json!(1)));
        let value = written(Format::SendGrid, "deferred", "temporary", "451 later").unwrap();
        assert_eq!((&value["response"], &value["attempt"]), (&json!("451 later"), &json!("2")));
        let value = written(Format::SendGrid, "refused", "recipient-unknown", "550 5.1.1 no").unwrap();
        assert_eq!((&value["event"], &value["reason"]), (&json!("dropped"), &json!("Bounced Address")));
        let value = written(Format::SendGrid, "removed", "other", "").unwrap();
        assert_eq!(
            (&value["event"], &value["reason"], value.get("response")),
            (&json!("dropped"), &json!("Removed from the queue"), None)
        );
        let value = written(Format::SendGrid, "complained", "other", "").unwrap();
        assert_eq!((&value["event"], value.get("reason")), (&json!("spamreport"), None));
        assert_eq!(written(Format::SendGrid, "suppressed", "recipient-unknown", "550 no"), None);
        assert_eq!(written(Format::SendGrid, "paused", "other", ""), None);
    }
}
