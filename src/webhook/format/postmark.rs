//! Postmark's webhooks: one object a request, `RecordType` says which
//! (<https://postmarkapp.com/developer/webhooks/bounce-webhook>, `delivery-webhook`, `subscription-change-webhook`).

use serde_json::{Value, json};

use super::words;
use crate::event::Entry;
use crate::types::{Class, EventKind};

/// What a type of bounce is there: number, name, and what it says to a person.
struct Bounce {
    code: u32,
    name: &'static str,
    description: &'static str,
    /// They send nothing more to the address.
    is_inactive: bool,
}

/// The only stream and server there is.
const STREAM: &str = "outbound";
const SERVER: u32 = 1;

/// Their `RecordType`, and for a bounce their `Type` behind a blank.
pub(super) fn word(kind: EventKind, class: Option<Class>) -> Option<&'static str> {
    Some(match kind {
        EventKind::Delivered => "Delivery",
        EventKind::Deferred => "Bounce Transient",
        EventKind::Bounced | EventKind::Returned => match class {
            Some(Class::RecipientUnknown | Class::RecipientDisabled | Class::Routing) => "Bounce HardBounce",
            Some(Class::IpBlock | Class::SenderBlock | Class::Content) => "Bounce Blocked",
            Some(Class::Authentication) => "Bounce DMARCPolicy",
            _ => "Bounce SoftBounce",
        },
        EventKind::Expired => "Bounce SoftBounce",
        EventKind::Suppressed => "SubscriptionChange",
        EventKind::Complained => "SpamComplaint SpamComplaint",
        _ => return None,
    })
}

/// Their numbers (<https://postmarkapp.com/developer/api/bounce-api#bounce-types>).
fn bounce(kind: &str) -> Bounce {
    let of = |code, name, description, is_inactive| Bounce { code, name, description, is_inactive };
    match kind {
        "HardBounce" => of(1, "Hard bounce", "The receiver does not know the address.", true),
        "Transient" => of(2, "Message delayed", "The receiver did not take the message yet; it is tried again.", false),
        "Blocked" => of(100_006, "ISP block", "The receiver does not take this message, or any from here.", false),
        "SpamComplaint" => of(100_001, "Spam complaint", "The recipient called this message unwanted.", true),
        "DMARCPolicy" => of(100_009, "DMARC Policy", "The receiver finds the message not authenticated.", false),
        _ => of(4096, "Soft bounce", "The receiver did not take the message.", false),
    }
}

pub(super) fn value(entry: &Entry<'_>, word: &str) -> Value {
    let (record, kind) = word.split_once(' ').unwrap_or((word, ""));
    let mut value = json!({
        "RecordType": record,
        "MessageStream": STREAM,
        "ServerID": SERVER,
        "MessageID": entry.id.map(|id| id.to_string()).unwrap_or_default(),
        "Tag": "",
        "Metadata": metadata(entry),
    });
    let mut put = |name: &str, field: Value| value[name] = field;
    let time = entry.time.to_string();
    match record {
        "Delivery" => {
            put("Recipient", json!(entry.recipient));
            put("DeliveredAt", json!(time));
            put("Details", json!(words(entry)));
        }
        "SubscriptionChange" => {
            put("Recipient", json!(entry.recipient));
            put("ChangedAt", json!(time));
            put("Origin", json!("Recipient"));
            put("SuppressSending", json!(true));
            // Where no rule read a reply, a person has said so.
            put("SuppressionReason", json!(if entry.rule.is_some() { "HardBounce" } else { "ManualSuppression" }));
        }
        _ => {
            let Bounce { code, name, description, is_inactive } = bounce(kind);
            put("ID", json!(entry.seq));
            put("Type", json!(kind));
            put("TypeCode", json!(code));
            put("Name", json!(name));
            put("Description", json!(description));
            put("Details", json!(words(entry)));
            put("Email", json!(entry.recipient));
            put("From", json!(entry.sender));
            put("BouncedAt", json!(time));
            put("DumpAvailable", json!(false));
            put("Inactive", json!(is_inactive));
            put("CanActivate", json!(true));
            put("Subject", json!(""));
        }
    }
    value
}

/// What they have no field for; texts, all of them.
fn metadata(entry: &Entry<'_>) -> Value {
    let mut metadata = json!({});
    let class = entry.class.map(Class::as_str);
    for (name, field) in [("message-id", entry.message_id.as_deref()), ("class", class), ("mx", entry.mx.as_deref())] {
        if let Some(field) = field {
            metadata[name] = json!(field);
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::super::tests::written;
    use super::*;
    use crate::webhook::options::Format;

    #[test]
    fn a_bounce_has_all_their_fields() {
        let value = written(Format::Postmark, "bounced", "recipient-unknown", "550 5.1.1 no such user").unwrap();
        assert_eq!(
            value,
            json!({
                "RecordType": "Bounce", "MessageStream": "outbound", "ID": 7, "Type": "HardBounce", "TypeCode": 1,
                "Name": "Hard bounce", "Tag": "", "MessageID": "0MJ8Q2Z3G5Y1A",
                "Metadata": { "message-id": "<x@example.com>", "class": "recipient-unknown", "mx": "mx.example" },
                "ServerID": 1, "Description": "The receiver does not know the address.", "Details": "550 5.1.1 no such user",
                "Email": "Anna@hotmail.com", "From": "shop@example.com", "BouncedAt": "2026-11-21T20:33:40.042Z",
                "DumpAvailable": false, "Inactive": true, "CanActivate": true, "Subject": "",
            })
        );
        let value = written(Format::Postmark, "bounced", "ip-block", "550 S3150").unwrap();
        assert_eq!(
            (&value["Type"], &value["TypeCode"], &value["Inactive"]),
            (&json!("Blocked"), &json!(100_006), &json!(false))
        );
    }

    #[test]
    fn a_delivery_and_a_suppression_have_all_their_fields() {
        let value = written(Format::Postmark, "delivered", "delivered", "250 ok").unwrap();
        for (name, field) in [
            ("RecordType", "Delivery"),
            ("Recipient", "Anna@hotmail.com"),
            ("DeliveredAt", "2026-11-21T20:33:40.042Z"),
            ("Details", "250 ok"),
        ] {
            assert_eq!(value[name], field, "{name}");
        }
        let value = written(Format::Postmark, "suppressed", "recipient-unknown", "550 no").unwrap();
        for (name, field) in
            [("RecordType", "SubscriptionChange"), ("Origin", "Recipient"), ("SuppressionReason", "HardBounce")]
        {
            assert_eq!(value[name], field, "{name}");
        }
        assert_eq!((&value["SuppressSending"], &value["Recipient"]), (&json!(true), &json!("Anna@hotmail.com")));
        assert_eq!(written(Format::Postmark, "removed", "other", ""), None);
    }
}
