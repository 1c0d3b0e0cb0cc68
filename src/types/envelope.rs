//! What came with a message in SMTP: sender, recipients and their parameters (RFC 5321, 3461, 6152, 6531; `requests`).

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Mailbox, Priority, QueueId, Requests, ReversePath, Timestamp};

/// A message can be handed in so long before anybody is to get it (`X-Weir-At`, HOLDFOR, HOLDUNTIL).
pub const SCHEDULE_MAX: Duration = Duration::from_secs(3 * 86_400);

/// A message without its content and its recipients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub id: QueueId,
    pub received: Timestamp,
    pub sender: ReversePath,
    /// RET of MAIL (RFC 3461 section 4.3): how much of the message a report returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Ret>,
    /// ENVID of MAIL (section 4.4), still in xtext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    #[serde(default)]
    pub body_type: BodyType,
    /// SMTPUTF8 of MAIL (RFC 6531 section 3.4): may only go to hosts that offer it.
    #[serde(default)]
    pub smtputf8: bool,
    /// Octets of the content as it is sent on, dots not stuffed.
    pub size_bytes: u64,
    /// The Message-ID field, with its angle brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The host that handed the message in; none for weir's own reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What else MAIL asked for.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub requests: Requests,
    /// Where it differs from `[queue] expire`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<Duration>,
    /// Decided when the message came in.
    #[serde(default)]
    pub class: Priority,
    pub origin: Origin,
}

/// Who made a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Client,
    /// A report by weir itself: it never makes another.
    Report,
}

/// RET (RFC 3461 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ret {
    Full,
    Hdrs,
}

/// BODY (RFC 6152 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// Not declared: treated by what the content is.
    #[default]
    #[serde(rename = "")]
    Undeclared,
    #[serde(rename = "7BIT")]
    SevenBit,
    #[serde(rename = "8BITMIME")]
    EightBitMime,
}

/// One recipient of a message and what its sender wants to hear about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub address: Mailbox,
    /// ORCPT of RCPT (RFC 3461 section 4.2): `rfc822;xtext`, as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    #[serde(default, skip_serializing_if = "Notify::is_default")]
    pub notify: Notify,
}

/// NOTIFY of RCPT (RFC 3461 section 4.1). Without it: FAILURE, as section 4.1 allows and mail users expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
    /// Was the parameter given? It is passed on only then.
    pub given: bool,
}

impl Default for Notify {
    fn default() -> Notify {
        Notify { success: false, failure: true, delay: false, given: false }
    }
}

impl Notify {
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false, given: true };

    pub fn is_default(&self) -> bool {
        *self == Notify::default()
    }

    /// Reads `NEVER` or a comma-separated list of `SUCCESS`, `FAILURE`, `DELAY`, any letter case.
    pub fn parse(text: &str) -> Option<Notify> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::NEVER);
        }
        let mut notify = Notify { failure: false, given: true, ..Notify::default() };
        for word in text.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return None,
            }
        }
        Some(notify)
    }

    /// For one recipient that was named twice: whoever wants to hear of something does.
    pub fn together(self, other: Notify) -> Notify {
        Notify {
            success: self.success || other.success,
            failure: self.failure || other.failure,
            delay: self.delay || other.delay,
            given: self.given || other.given,
        }
    }

    /// The parameter's value as it is passed on.
    pub fn value(&self) -> String {
        let words: Vec<&str> = [("SUCCESS", self.success), ("FAILURE", self.failure), ("DELAY", self.delay)]
            .into_iter()
            .filter_map(|(word, on)| on.then_some(word))
            .collect();
        if words.is_empty() { "NEVER".to_string() } else { words.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_reads_what_it_writes() {
        for text in ["NEVER", "SUCCESS,DELAY", "FAILURE", "SUCCESS,FAILURE,DELAY"] {
            assert_eq!(Notify::parse(text).unwrap().value(), text);
        }
        for text in ["", "NEVER,FAILURE", "SUCCESS,", "ALWAYS"] {
            assert_eq!(Notify::parse(text), None, "{text}");
        }
    }
}
