//! What the last run wrote into the event log and could not commit any more.
//!
//! An event is written just before the commit of its outcome. A kill between the two leaves a recipient whose end is
//! told and whose delivery still stands in the spool: tried again, it would end twice. So a start reads the last events and makes the
//! spool follow them: who was delivered is out, who was refused for good stands in the report that is still to be made. The
//! suppression list needs none of this: `suppressed` is told when the entry is on disk.
//!
//! The other way round, `accepted` may be told of a message that is in no commit: its client heard nothing and comes again. It gets
//! the end that a commit gives it which fails, `removed` with the rule `not-stored`, for each of its recipients, whose addresses nobody
//! knows any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::{Tail, Written};
use crate::spool::{Change, Spool};
use crate::types::{Class, Delivery, Event, EventKind, Failed, QueueId, Recipient, Reply, Timestamp, Verdict};

/// Commits follow their events within milliseconds; older ones are long done.
const WINDOW: Duration = Duration::from_secs(30);
/// Far more than is written in that time under load and not yet committed.
pub(super) const TAIL_BYTES: u64 = 1 << 20;

/// No message has more (`limits.recipients`).
const RECIPIENTS_MAX: usize = 100_000;

/// The rule of the end of what was told as accepted and never stored.
pub(super) const NOT_STORED: &str = "not-stored";

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// Deliveries that were brought up to date.
    pub settled: usize,
    /// Messages that were told as accepted and are not there.
    pub not_stored: usize,
}

pub(super) async fn follow(spool: &Spool, tail: &Tail, now: Timestamp) -> Result<Followed, String> {
    let ends = ends(tail);
    let mut followed = Followed::default();
    for (event, missing) in without_end(tail) {
        let Some(id) = event.id else { continue };
        let filter = crate::spool::Filter { messages: [id].into(), ..crate::spool::Filter::default() };
        let page = spool.reader().list(filter, None, 1).await.map_err(|e| e.to_string())?;
        if page.rows.is_empty() {
            let ends = (0..missing.min(RECIPIENTS_MAX)).map(|_| Change::Note(not_stored(event, now)));
            spool.settle(ends.collect());
            followed.not_stored += 1;
        }
    }
    for (id, ended) in ends {
        let filter = crate::spool::Filter { messages: [id].into(), ..crate::spool::Filter::default() };
        let page = spool.reader().list(filter, None, usize::from(u16::MAX)).await.map_err(|e| e.to_string())?;
        for row in page.rows {
            if let Some(change) = brought_up_to_date(row.delivery, &ended) {
                spool.settle(vec![change]);
                followed.settled += 1;
            }
        }
    }
    Ok(followed)
}

/// What was told as accepted lately, with how many of its recipients have no end in the log.
fn without_end(tail: &Tail) -> Vec<(&Written, usize)> {
    let mut ended: BTreeMap<QueueId, usize> = BTreeMap::new();
    lately(tail)
        .filter(|event| is_end(event.kind))
        .filter_map(|event| event.id)
        .for_each(|id| *ended.entry(id).or_default() += 1);
    let accepted = lately(tail).filter(|event| event.kind == EventKind::Accepted);
    let missing = accepted.filter_map(|event| {
        let ended = ended.get(&event.id?).copied().unwrap_or(0);
        Some((event, event.recipients.unwrap_or(1).saturating_sub(ended)))
    });
    missing.filter(|(_, missing)| *missing > 0).collect()
}

fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::Delivered | EventKind::Bounced | EventKind::Expired | EventKind::Removed)
}

/// Its client was told nothing, or to come again: here its recipients end under this id.
fn not_stored(accepted: &Written, now: Timestamp) -> Event {
    let mut event = Event::new(now, EventKind::Removed);
    event.id = accepted.id;
    event.sender = accepted.sender.as_deref().map(Into::into);
    event.message_id = accepted.message_id.clone();
    event.class = Some(Class::Temporary);
    event.rule = Some(NOT_STORED.into());
    event.verdict = Some(Verdict::Retry.as_str());
    event
}

/// The recipients whose end was told lately, by message.
fn ends(tail: &Tail) -> BTreeMap<QueueId, Vec<&Written>> {
    let mut ends: BTreeMap<QueueId, Vec<&Written>> = BTreeMap::new();
    for event in lately(tail) {
        if let Some(id) = event.id.filter(|_| is_end(event.kind) && event.recipient.is_some()) {
            ends.entry(id).or_default().push(event);
        }
    }
    ends
}

/// What was written shortly before the end of the log.
fn lately(tail: &Tail) -> impl Iterator<Item = &Written> {
    let last = tail.events.last().map(|event| event.time).unwrap_or_default();
    tail.events.iter().filter(move |event| last.since(event.time) <= WINDOW)
}

fn brought_up_to_date(mut delivery: Delivery, ended: &[&Written]) -> Option<Change> {
    let told = |recipient: &Recipient| {
        ended.iter().find(|event| event.recipient.as_deref() == Some(recipient.address.as_str())).copied()
    };
    let (over, left): (Vec<Recipient>, Vec<Recipient>) =
        std::mem::take(&mut delivery.recipients).into_iter().partition(|recipient| told(recipient).is_some());
    if over.is_empty() {
        return None;
    }
    let known: BTreeSet<String> = delivery.failed.iter().map(|f| f.recipient.address.as_str().to_string()).collect();
    for recipient in over {
        let Some(event) = told(&recipient) else { continue };
        let is_new = !known.contains(recipient.address.as_str());
        if is_new && matches!(event.kind, EventKind::Bounced | EventKind::Expired) {
            delivery.failed.push(failed(recipient, event));
        }
    }
    delivery.recipients = left;
    if delivery.recipients.is_empty() && delivery.failed.is_empty() {
        return Some(Change::Finish(delivery.id));
    }
    Some(Change::Update(delivery))
}

fn failed(recipient: Recipient, event: &Written) -> Failed {
    let status = event.reply.as_deref().and_then(Reply::parse).and_then(|reply| reply.enhanced());
    let default = if event.kind == EventKind::Expired { "4.4.7" } else { "5.0.0" };
    Failed {
        recipient,
        status: status.map_or_else(|| default.to_string(), |status| status.to_string()),
        reply: event.reply.clone(),
        mx: None,
        cause: "The message was refused for good, or not accepted in time.".to_string(),
        remedy: "Check the address, or reach the recipient in another way.".to_string(),
        does: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DeliveryId, DeliveryState, Domain, Mailbox, Notify};

    fn delivery(recipients: &[&str]) -> Delivery {
        let recipient =
            |text: &&str| Recipient { address: Mailbox::parse(text).unwrap(), orcpt: None, notify: Notify::default() };
        Delivery {
            id: DeliveryId { message: QueueId::from_key(7).unwrap(), part: 0 },
            domain: Domain::parse("x.test").unwrap(),
            recipients: recipients.iter().map(recipient).collect(),
            state: DeliveryState::Waiting,
            attempts: 0,
            next_attempt: None,
            delay_reported: false,
            refusal: None,
            failed: Vec::new(),
            next_hop: None,
            own: None,
        }
    }

    fn event(kind: EventKind, recipient: &str, secs: i64) -> Written {
        Written {
            time: Timestamp::from_secs(secs),
            seq: 1,
            kind,
            id: QueueId::from_key(7),
            recipient: Some(recipient.to_string()),
            provider: None,
            reply: Some("550 5.1.1 unknown".into()),
            class: None,
            sender: Some("a@own.example".into()),
            message_id: None,
            recipients: None,
        }
    }

    #[test]
    fn what_was_accepted_and_has_no_end_is_found_once() {
        let accepted = |recipients, secs| Written {
            recipient: None,
            recipients: Some(recipients),
            ..event(EventKind::Accepted, "", secs)
        };
        let removed = || Written { recipient: None, ..event(EventKind::Removed, "", 102) };
        let one = || event(EventKind::Delivered, "a@x.test", 101);
        for (events, missing) in [
            (vec![accepted(2, 100)], 2),
            (vec![accepted(2, 100), one()], 1),
            (vec![accepted(1, 100), one()], 0),
            // By an earlier start.
            (vec![accepted(2, 100), removed(), removed()], 0),
            (vec![accepted(1, 100), event(EventKind::Deferred, "b@x.test", 900)], 0),
        ] {
            let tail = Tail { events };
            assert_eq!(without_end(&tail).iter().map(|(_, missing)| missing).sum::<usize>(), missing, "{tail:?}");
        }
        let event = not_stored(&accepted(2, 100), Timestamp::from_secs(500));
        assert_eq!((event.recipient, event.rule.as_deref()), (None, Some("not-stored")));
        assert_eq!((event.id, event.sender.as_deref()), (QueueId::from_key(7), Some("a@own.example")));
    }

    #[test]
    fn who_was_delivered_is_out_and_who_was_refused_stands_in_the_report() {
        let tail = Tail {
            events: vec![event(EventKind::Delivered, "a@x.test", 100), event(EventKind::Bounced, "b@x.test", 101)],
        };
        let ends = ends(&tail);
        let ended = ends.values().next().unwrap();
        let Some(Change::Update(rest)) = brought_up_to_date(delivery(&["a@x.test", "b@x.test", "c@x.test"]), ended)
        else {
            panic!("no update")
        };
        assert_eq!(rest.recipients.len(), 1);
        assert_eq!((rest.failed.len(), rest.failed[0].status.as_str()), (1, "5.1.1"));
        assert!(matches!(brought_up_to_date(delivery(&["a@x.test"]), ended), Some(Change::Finish(_))));
        assert!(brought_up_to_date(delivery(&["c@x.test"]), ended).is_none());
    }

    #[test]
    fn what_was_told_long_ago_is_not_looked_at() {
        let tail = Tail {
            events: vec![event(EventKind::Delivered, "a@x.test", 100), event(EventKind::Deferred, "b@x.test", 900)],
        };
        assert!(ends(&tail).is_empty());
    }
}
