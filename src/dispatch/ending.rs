//! Collects what became of the recipients of one delivery: events, the words for a report, the reason to wait.
//!
//! One line of the event log a recipient and outcome; the same words stand in the event, in `queue show` and in the report.

use std::sync::Arc;

use super::passed_on::{Offered, PassedOn};
use super::unreached::LOGIN_REFUSED;
use crate::route::Unroutable;
use crate::suppress::{Hit, Source};
use crate::types::{
    Class, Delivery, Enhanced, Envelope, Event, EventKind, Failed, Reading, Recipient, Refusal, Reply, Submitter,
    Timestamp, Verdict,
};
use crate::verdict::for_the_message;

/// Where and how an outcome came about.
pub(super) struct Facts {
    pub provider: Option<Arc<str>>,
    pub source: Option<Arc<str>>,
    pub mx: Option<Arc<str>>,
    pub tls: Option<Arc<str>>,
    pub attempt: u32,
}

pub(super) struct Ending {
    pub facts: Facts,
    envelope: Arc<Envelope>,
    now: Timestamp,
    events: Vec<Event>,
    pub failed: Vec<Failed>,
    /// Delivered, and the sender is told that they were passed on.
    pub relayed: Vec<(Recipient, PassedOn)>,
    pub refusal: Option<Refusal>,
}

impl Ending {
    pub(super) fn new(envelope: &Arc<Envelope>, facts: Facts, now: Timestamp) -> Ending {
        Ending {
            facts,
            envelope: envelope.clone(),
            now,
            events: Vec::new(),
            failed: Vec::new(),
            relayed: Vec::new(),
            refusal: None,
        }
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(super) fn delivered(&mut self, recipient: &Recipient, reply: &Reply, reading: &Reading, offered: Offered) {
        let mut event = self.event(EventKind::Delivered, recipient);
        event.reply = Some(reply.to_string());
        event.class = Some(Class::Delivered);
        event.rule = Some(reading.rule.clone());
        event.verdict = Some(Verdict::Delivered.as_str());
        self.events.push(event);
        if let Some(why) = PassedOn::why(&recipient.notify, self.envelope.requests.by, offered) {
            self.relayed.push((recipient.clone(), why));
        }
    }

    /// The receiver said no for good.
    pub(super) fn bounced(&mut self, recipient: &Recipient, reply: &Reply, reading: &Reading) {
        let words = reply.to_string();
        self.end(EventKind::Bounced, recipient, Some(words.clone()), reading.class, &reading.rule);
        let status = reply.enhanced().unwrap_or_else(|| default_status(reading.class));
        self.failed.push(Failed {
            recipient: recipient.clone(),
            status: status.to_string(),
            reply: Some(words),
            mx: self.facts.mx.as_deref().map(str::to_string),
            cause: reading.cause.to_string(),
            remedy: reading.remedy.to_string(),
            does: for_the_message(reading),
        });
    }

    /// It was refused for good before: not asked again.
    pub(super) fn suppressed(&mut self, recipient: &Recipient, class: Class, reply: &str) {
        self.end(EventKind::Bounced, recipient, Some(reply.to_string()), class, "suppressed");
        let status = Reply::parse(reply).and_then(|r| r.enhanced()).unwrap_or_else(|| default_status(class));
        self.failed.push(Failed {
            recipient: recipient.clone(),
            status: status.to_string(),
            reply: Some(reply.to_string()),
            mx: None,
            cause: "The receiver has refused this address for good before, so the message was not sent again."
                .to_string(),
            remedy: "Check the address. If it is right and works again, the operator of the relay can take it off the \
                     suppression list (weir suppress remove)."
                .to_string(),
            does: String::new(),
        });
    }

    /// weir itself cannot send it there.
    pub(super) fn unsendable(&mut self, recipient: &Recipient, status: &str, text: &str) {
        self.end(EventKind::Bounced, recipient, Some(text.to_string()), Class::Protocol, "extension-missing");
        let remedy = "Ask the recipient for another address, or send the message in a simpler form.";
        self.fail(recipient, status, text, remedy);
    }

    pub(super) fn unroutable(&mut self, delivery: &Delivery, failure: &Unroutable) {
        for recipient in &delivery.recipients {
            self.end(EventKind::Bounced, recipient, Some(failure.text.clone()), Class::Routing, "no-route");
            let remedy = "Check the part of the address after the @. Nothing was sent.";
            self.fail(recipient, failure.status, &failure.text, remedy);
        }
    }

    pub(super) fn expired(&mut self, delivery: &Delivery) {
        let last = delivery.refusal.as_ref();
        let class = last.map_or(Class::Temporary, |r| r.class);
        // RFC 2852 section 4.1.1: its sender has set the time.
        let by = self.envelope.requests.returns_after().filter(|span| self.envelope.expire == Some(*span));
        for recipient in &delivery.recipients {
            self.end(EventKind::Expired, recipient, last.map(|r| r.reply.clone()), class, "expired");
            let (status, cause) = match (by, last) {
                (Some(span), _) => {
                    let secs = span.as_secs();
                    (
                        "5.4.7",
                        format!(
                            "The message was not delivered within {secs} seconds, the time that it was given (DELIVERBY with R)."
                        ),
                    )
                }
                (None, Some(_)) => (
                    "4.4.7",
                    "The message was tried again and again, and was not accepted before its time ran out.".to_string(),
                ),
                (None, None) => ("4.4.7", "The message could not be tried before its time ran out.".to_string()),
            };
            self.fail(recipient, status, &cause, "Send it again later, or reach the recipient in another way.");
            if let (Some(failed), Some(last)) = (self.failed.last_mut(), last) {
                failed.reply = for_sender(last);
                failed.mx = last.mx.clone();
            }
        }
    }

    /// By the operator's hand, with a report.
    pub(super) fn returned(&mut self, delivery: &Delivery) {
        let reply = delivery.refusal.as_ref().map(|r| r.reply.clone());
        for recipient in &delivery.recipients {
            self.end(EventKind::Bounced, recipient, reply.clone(), Class::Other, "operator");
            let cause = "The operator of the relay has returned the message.";
            self.fail(recipient, "5.0.0", cause, "Ask the operator of the relay for the reason.");
        }
    }

    /// By the operator's hand, in silence.
    pub(super) fn removed(&mut self, delivery: &Delivery) {
        let last = delivery.refusal.as_ref();
        let class = last.map_or(Class::Other, |r| r.class);
        for recipient in &delivery.recipients {
            self.end(EventKind::Removed, recipient, last.map(|r| r.reply.clone()), class, "operator");
        }
    }

    /// The receiver said "later".
    pub(super) fn deferred(&mut self, recipient: &Recipient, reply: &str, reading: &Reading) {
        self.put_off(recipient, reply, reading.class, &reading.rule);
    }

    /// Something broke on the way.
    pub(super) fn broken(&mut self, recipient: &Recipient, rule: &str, text: &str) {
        let class = if rule == LOGIN_REFUSED { Class::Authentication } else { Class::Temporary };
        self.put_off(recipient, text, class, rule);
    }

    /// The recipient comes onto the suppression list: the event, for when it has.
    pub(super) fn on_list(&self, recipient: &Recipient, reply: &Reply, reading: &Reading) -> Event {
        let mut event = self.event(EventKind::Suppressed, recipient);
        event.reply = Some(reply.to_string());
        event.class = Some(reading.class);
        event.rule = Some(reading.rule.clone());
        event
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Who handed the message in; none: we did.
    pub(super) fn submitter(&self) -> Option<Submitter> {
        self.envelope.client.map(|client| Submitter::new(self.envelope.user.as_deref(), client))
    }

    /// A refusal for good, as the suppression list counts it.
    pub(super) fn hit(&self, recipient: &Recipient, reply: &Reply, reading: &Reading) -> Hit {
        Hit {
            mailbox: recipient.address.clone(),
            class: reading.class,
            reply: reply.to_string(),
            rule: reading.rule.clone(),
            tag: reading.tag.clone(),
            provider: self.facts.provider.clone().unwrap_or_else(|| "default".into()),
            source: Source::Bounce,
            sender_domain: self.envelope.sender.mailbox().map(|mailbox| mailbox.domain().clone()),
            message: self.envelope.id,
            wave: None,
            at: self.now,
        }
    }

    /// The receiver spoke of the lane: no event, only the words for whoever asks.
    pub(super) fn stood_back(&mut self, reply: &Reply, reading: &Reading) {
        self.refused(&reply.to_string(), reading.class, &reading.rule);
    }

    fn put_off(&mut self, recipient: &Recipient, reply: &str, class: Class, rule: &str) {
        let mut event = self.event(EventKind::Deferred, recipient);
        event.reply = Some(reply.to_string());
        event.class = Some(class);
        event.rule = Some(rule.into());
        event.verdict = Some(Verdict::Retry.as_str());
        self.events.push(event);
        self.refused(reply, class, rule);
    }

    fn refused(&mut self, reply: &str, class: Class, rule: &str) {
        let text = |value: &Option<Arc<str>>| value.as_deref().unwrap_or_default().to_string();
        self.refusal = Some(Refusal {
            at: self.now,
            reply: reply.to_string(),
            class,
            rule: rule.to_string(),
            provider: text(&self.facts.provider),
            source: text(&self.facts.source),
            mx: self.facts.mx.as_deref().map(str::to_string),
        });
    }

    fn fail(&mut self, recipient: &Recipient, status: &str, cause: &str, remedy: &str) {
        self.failed.push(Failed {
            recipient: recipient.clone(),
            status: status.to_string(),
            reply: None,
            mx: None,
            cause: cause.to_string(),
            remedy: remedy.to_string(),
            does: String::new(),
        });
    }

    fn end(&mut self, kind: EventKind, recipient: &Recipient, reply: Option<String>, class: Class, rule: &str) {
        let mut event = self.event(kind, recipient);
        event.reply = reply;
        event.class = Some(class);
        event.rule = Some(rule.into());
        event.verdict = Some(Verdict::Bounce.as_str());
        self.events.push(event);
    }

    fn event(&self, kind: EventKind, recipient: &Recipient) -> Event {
        let envelope = &self.envelope;
        let mut event = Event::new(self.now, kind);
        event.id = Some(envelope.id);
        event.sender = Some(envelope.sender.as_str().into());
        event.recipient = Some(recipient.address.as_str().to_string());
        event.provider = self.facts.provider.clone();
        event.source = self.facts.source.clone();
        event.mx = self.facts.mx.clone();
        event.tls = self.facts.tls.clone();
        event.message_id = envelope.message_id.clone();
        event.user = envelope.user.clone();
        event.client = envelope.client;
        event.attempt = Some(self.facts.attempt);
        event.delay_ms = Some(u64::try_from(self.now.since(envelope.received).as_millis()).unwrap_or(u64::MAX));
        event
    }
}

/// The words of a refusal for whoever sent the message: by what name we log in at our next hop, and where the password stands, is
/// the operator's affair.
pub(super) fn for_sender(refusal: &Refusal) -> Option<String> {
    (refusal.rule != LOGIN_REFUSED).then(|| refusal.reply.clone())
}

/// For a refusal without an enhanced code (RFC 3463).
fn default_status(class: Class) -> Enhanced {
    match class {
        Class::RecipientUnknown => Enhanced::new(5, 1, 1),
        Class::RecipientDisabled => Enhanced::new(5, 2, 1),
        Class::MailboxFull => Enhanced::new(5, 2, 2),
        Class::IpBlock | Class::SenderBlock | Class::Authentication | Class::RecipientPolicy => Enhanced::new(5, 7, 1),
        Class::Content => Enhanced::new(5, 6, 0),
        Class::Routing => Enhanced::new(5, 4, 0),
        Class::Protocol => Enhanced::new(5, 5, 0),
        _ => Enhanced::new(5, 0, 0),
    }
}
