//! The events of answers, and the words in them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::feedback::reading::{Kind, Reading};
use crate::feedback::store::Sent;
use crate::types::{Class, Event, EventKind, Timestamp};

/// Of words that go into the list and the log.
const WORDS_MAX: usize = 300;

/// The report by its name, so that it can be found.
pub(super) fn name(reading: &Reading) -> String {
    let id = reading
        .message_id
        .as_deref()
        .map_or_else(|| "a report without Message-ID".to_string(), |id| format!("report {id}"));
    let from = reading.from.as_deref().map(|from| format!(" from {from}")).unwrap_or_default();
    shortened(&format!("{id}{from}"))
}

pub(super) fn shortened(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}

pub(super) fn named(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Returned(statuses) => statuses.first()?.named.first().map(String::as_str),
        Kind::Complaint(complaint) => complaint.named.first().map(String::as_str),
        Kind::AutoReply | Kind::Other => None,
    }
}

pub(super) fn first_reply(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Returned(statuses) => statuses.first().map(|status| status.reply.clone()),
        _ => None,
    }
}

pub(super) fn derived(names: &[&str]) -> Option<Arc<str>> {
    (!names.is_empty()).then(|| names.join(",").into())
}

pub(super) fn of_sent(kind: EventKind, now: Timestamp, sent: &Sent, client: Option<IpAddr>) -> Event {
    let mut event = Event::new(now, kind);
    event.id = Some(sent.delivery.message);
    event.sender = Some(sent.sender.as_str().into());
    event.recipient = Some(sent.recipient.as_str().to_string());
    event.message_id = sent.message_id.clone();
    event.client = client;
    event
}

pub(super) fn event(kind: EventKind, now: Timestamp, sent: &Sent, reading: &Reading, client: Option<IpAddr>) -> Event {
    let mut event = of_sent(kind, now, sent, client);
    event.report = reading.message_id.clone();
    event
}

pub(super) fn on_list(now: Timestamp, sent: &Sent, words: String, class: Class, rule: Option<&Arc<str>>) -> Event {
    let mut event = of_sent(EventKind::Suppressed, now, sent, None);
    event.reply = Some(words);
    event.class = Some(class);
    event.rule = rule.cloned();
    event
}
