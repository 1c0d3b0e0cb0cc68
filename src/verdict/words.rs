//! What weir does about a reply, and whose affair it is, in words for a person.
//!
//! One place for them: `weir explain`, bounces, `weir status` and events say the same.

use std::time::Duration;

use crate::types::{Class, Reading, Scope, Span, Verdict};

/// Fewer connections are held for so many pauses.
const CONNECTIONS_HELD: u32 = 3;

/// What weir does about a reply that was read so, as sentences. `pause`: the unit of the provider's waits.
pub fn does(reading: &Reading, pause: Duration) -> String {
    joined(&[&for_the_message(reading), &others(reading, pause)])
}

/// The part of it that concerns the message and its recipient, and so its sender.
pub fn for_the_message(reading: &Reading) -> String {
    joined(&[&message(reading), recipient(reading)])
}

fn joined(sentences: &[&str]) -> String {
    let said: Vec<&str> = sentences.iter().copied().filter(|sentence| !sentence.is_empty()).collect();
    said.join(" ")
}

/// Whose affair the reply is: what has to change for mail to go through.
pub fn whose(reading: &Reading) -> &'static str {
    match (reading.class, reading.scope) {
        (Class::Delivered, _) => "nobody's: all is well",
        (Class::Protocol, Scope::Source) => "ours: the name in EHLO",
        (Class::Authentication, Scope::Source) => "ours: the sending address and its reverse name",
        (_, Scope::Source) => "ours: the sending address, by its volume or its reputation",
        (Class::MessageLimit, Scope::Connection) => "nobody's: a limit of the receiver for each connection",
        (Class::Tls, _) => "ours or the receiver's: encryption between the two",
        (_, Scope::Connection) => "the connection's: this one alone",
        (_, Scope::SenderDomain) => "the sender domain's: its reputation, or its SPF, DKIM and DMARC",
        (Class::TooManyRecipients, _) => "nobody's: a limit of the receiver for each transaction",
        (Class::Content, _) => "the sender's: what stands in the message",
        (Class::RecipientUnknown, _) => "the sender's list: the address is wrong or closed",
        (_, Scope::Recipient) => "the recipient's: this mailbox",
        (_, Scope::RecipientDomain) => "the recipient's organisation: its domain or its rules",
        (_, Scope::Server) => "the receiver's: this one server",
        (_, Scope::Message) => "the sender's: this one message",
    }
}

fn message(reading: &Reading) -> String {
    let lane_wide = matches!(reading.scope, Scope::Source | Scope::Connection);
    let text = match (reading.verdict, reading.effects.again_secs) {
        (Verdict::Delivered, _) => "The message is delivered.",
        (Verdict::Retry, _) if lane_wide => {
            "The message keeps its place in the queue, and no attempt is counted against it."
        }
        (Verdict::Retry, Some(secs)) => {
            let wait = Span(Duration::from_secs(u64::from(secs)));
            return format!("The message stays queued and is tried again after {wait}.");
        }
        (Verdict::Retry, None) => "The message stays queued and is tried again by its schedule.",
        (Verdict::Bounce, _) => "The message goes back to its sender and is never offered to this recipient again.",
    };
    text.to_string()
}

fn recipient(reading: &Reading) -> &'static str {
    let counted = matches!(reading.class, Class::MailboxFull | Class::RecipientPolicy | Class::Other)
        && matches!(reading.scope, Scope::Recipient | Scope::RecipientDomain)
        && reading.verdict == Verdict::Bounce;
    if reading.suppress && reading.effects.provisional {
        "The recipient comes onto the suppression list for 7 days, and for longer if the receiver takes mail for others within the hour."
    } else if reading.suppress {
        "The recipient comes onto the suppression list: further mail to this address is refused when it is handed in."
    } else if counted {
        "The refusal is counted; several on different days put the recipient onto the suppression list."
    } else {
        ""
    }
}

/// What becomes of other mail.
fn others(reading: &Reading, pause: Duration) -> String {
    if reading.breaker {
        return breaker(reading);
    }
    match (reading.class, reading.scope) {
        (Class::Delivered, _) => String::new(),
        (Class::RateLimit, Scope::Source) => format!(
            "All mail from this address to this receiver pauses {}, twice as long each time that did not help; then one message asks whether the way is free, and the rate grows from a small part to just under what the receiver was seen to take.",
            wait(reading, pause)
        ),
        (Class::ConnectionLimit, Scope::Source) => format!(
            "Half of the connections are given up for {}, and no new one is opened {}; those that stay go on at their rate.",
            Span(pause * CONNECTIONS_HELD),
            wait(reading, pause)
        ),
        (Class::MessageLimit, _) => format!(
            "Half as many messages go on each connection from now on; the next connection waits {}, others go on.",
            wait(reading, pause)
        ),
        (Class::TooManyRecipients, _) if reading.verdict == Verdict::Bounce => {
            "Further messages go to half as many recipients at a time.".to_string()
        }
        (Class::TooManyRecipients, _) => {
            "The rest goes in further transactions, with half as many recipients in each.".to_string()
        }
        (Class::Authentication, Scope::Source) => {
            "Mail to this receiver goes over IPv4 for the next 30 days.".to_string()
        }
        (Class::IpBlock, _) => "Other mail goes on.".to_string(),
        (_, Scope::SenderDomain) => sender_domain(reading),
        (Class::Routing, Scope::RecipientDomain) => {
            "The receiver's hosts are looked up again before the next message.".to_string()
        }
        (Class::Tls, Scope::Connection) => "TLS is used on the next connection to this host.".to_string(),
        (_, Scope::RecipientDomain) => {
            "Mail to the same domain waits for a while; mail to other domains goes on.".to_string()
        }
        (Class::RateLimit, Scope::Recipient) => {
            format!(
                "Other messages to this mailbox wait {}, longer each time that did not help; then one goes ahead. Mail to other mailboxes goes on.",
                mailbox_wait(reading, pause)
            )
        }
        (Class::Temporary, Scope::Recipient) => "All other mail goes on.".to_string(),
        (_, Scope::Server) => "Another address of the receiver is tried first.".to_string(),
        (_, Scope::Source) => "Other mail goes on.".to_string(),
        (_, Scope::Connection | Scope::Message | Scope::Recipient) => String::new(),
    }
}

fn breaker(reading: &Reading) -> String {
    let stops = "All other mail from this address to this receiver stays queued, and an alert is raised.";
    let then = match reading.class {
        Class::Protocol => "Nothing is tried until `hostname` is changed or somebody says `weir resume`.",
        _ if reading.effects.probe_early => {
            "One message of another sender soon asks whether the block was about this one's content; then rare probes tell when it is over."
        }
        _ => {
            "A rare probe, of mail that can be spared, tells when the block is over: the first after `probe_block`, each later one after twice as long, up to 24 times; `weir resume` sends one at once."
        }
    };
    format!("{stops} {then}")
}

fn sender_domain(reading: &Reading) -> String {
    let held = "mail of this sender domain is held back at this receiver, an alert is raised, and a probe follows after an hour, later ones less often.";
    match reading.effects.after {
        0 | 1 if reading.class == Class::RateLimit => {
            "Mail of this sender domain waits for a while; mail of other domains goes on.".to_string()
        }
        0 | 1 => format!("From now on {held}"),
        after => format!("After {after} such refusals of different messages within an hour {held}"),
    }
}

fn mailbox_wait(reading: &Reading, pause: Duration) -> String {
    match reading.effects.again_secs {
        Some(secs) => format!("for {}", Span(Duration::from_secs(u64::from(secs)))),
        None => format!("for {}", Span(pause * u32::from(reading.effects.wait.unwrap_or(100)) / 100)),
    }
}

fn wait(reading: &Reading, pause: Duration) -> String {
    match reading.effects.wait {
        Some(hundredths) => format!("for {}", Span(pause * u32::from(hundredths) / 100)),
        None => "for a while".to_string(),
    }
}
