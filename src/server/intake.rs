//! What stands behind the front door: the spool, with the suppression list beside it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::feedback::{Answer, Feedback};
use super::sealing::{Sealed, SealedBody, Sealing};
use crate::clock::Clock;
use crate::feedback::reading::HEAD_MAX;
use crate::inbound::{AcceptError, Intake, NoRoom, Received, RefusedRecipient, Standing, Suppressed, WayBack};
use crate::metrics::Meters;
use crate::spool::{Change, NewMessage, Space, Spool, SpoolError};
use crate::suppress::options::AtInjection;
use crate::suppress::{List, Source};
use crate::types::{
    Body, Class, Delivery, DeliveryId, DeliveryState, Domain, Envelope, Event, EventKind, Mailbox, QueueId, Recipient,
    ReversePath, Seldom, Timestamp, Verdict,
};

pub(super) struct SpoolIntake {
    pub spool: Spool,
    pub suppressions: List,
    pub clock: Clock,
    /// `[suppression] at_injection = "drop"`.
    pub drops: AtomicBool,
    /// `[queue] expire`, in milliseconds.
    pub expire: AtomicU64,
    /// A list that cannot be read is told of now and then.
    pub said: Seldom,
    pub meters: Meters,
    pub sealing: Arc<Sealing>,
    /// None: `[feedback]` is off.
    pub feedback: Option<Arc<Feedback>>,
}

impl SpoolIntake {
    pub(super) fn set_at_injection(&self, what: AtInjection) {
        self.drops.store(what == AtInjection::Drop, Ordering::Relaxed);
    }

    pub(super) fn set_expire(&self, expire: Duration) {
        self.expire.store(u64::try_from(expire.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Intake for SpoolIntake {
    type Body = SealedBody;
    type Space = Space;

    fn next_id(&self, now: Timestamp) -> QueueId {
        self.spool.ids().next(now)
    }

    fn room(&self, size_bytes: u64) -> Result<(), NoRoom> {
        self.spool.room(size_bytes).map_err(|shortage| NoRoom(shortage.to_string()))
    }

    fn set_aside(&self, size_bytes: Option<u64>) -> Result<Space, NoRoom> {
        self.spool.set_aside(size_bytes).map_err(|shortage| NoRoom(shortage.to_string()))
    }

    fn standing(&self, recipient: &Mailbox, sender: &ReversePath) -> Standing {
        match self.suppressions.check(recipient, sender.mailbox().map(Mailbox::domain)) {
            Ok(None) => Standing::Welcome,
            Ok(Some(_)) if self.drops.load(Ordering::Relaxed) => Standing::Drop,
            Ok(Some(entry)) => {
                let by_receiver = matches!(entry.source, Source::Bounce | Source::Wave | Source::Import);
                Standing::Refuse(Suppressed { class: entry.class, reply: entry.reply, by_receiver, since: entry.last })
            }
            Err(error) => {
                // The list is asked again before the delivery is tried.
                if self.said.is_due(self.clock.now()) {
                    tracing::warn!(%error, "the suppression list cannot be read");
                }
                Standing::Welcome
            }
        }
    }

    fn refused(&self, refusal: RefusedRecipient<'_>) {
        let mut event = Event::new(refusal.time, EventKind::Refused);
        event.sender = Some(refusal.sender.as_str().into());
        event.recipient = Some(refusal.recipient.as_str().to_string());
        event.reply = Some(refusal.said.to_string());
        event.class = Some(refusal.suppressed.class);
        event.client = Some(refusal.client);
        event.rule = Some("suppressed".into());
        self.spool.settle(vec![Change::Note(event)]);
    }

    fn way_back(&self, recipient: &Mailbox) -> Option<WayBack> {
        self.feedback.as_ref()?.way_back(recipient)
    }

    fn body(&self, id: QueueId, sender: &ReversePath, space: Option<Space>) -> SealedBody {
        let writer = space.map_or_else(|| self.spool.body(id), |space| self.spool.body_within(id, space));
        let copies = self.feedback.as_ref().is_some_and(|feedback| feedback.inserts_fields(sender));
        self.sealing.body(writer, copies)
    }

    async fn accept(&self, message: Received<SealedBody>) -> Result<(), AcceptError> {
        let begun = self.clock.elapsed();
        if let Some((feedback, recipient)) = self.answer_to(&message.recipients) {
            return take_answer(feedback, &recipient, message).await;
        }
        let accepted = self.store(message).await;
        if accepted.is_ok() {
            self.meters.accepted_in(self.clock.elapsed().saturating_sub(begun));
        }
        accepted
    }
}

/// An answer to our mail is read here, and goes nowhere.
async fn take_answer(
    feedback: &Feedback,
    recipient: &Mailbox,
    message: Received<SealedBody>,
) -> Result<(), AcceptError> {
    let id = message.envelope.id;
    let fault = |error: String| AcceptError::Failed(format!("the answer {id}: {error}"));
    let content = message.body.unsigned().finish().await.map_err(|error| fault(error.to_string()))?;
    let head = head(&content.body).await.map_err(|error| fault(error.to_string()))?;
    let answer = Answer { head, recipient: Some(recipient), client: message.envelope.client };
    let outcome = feedback.take(answer).await.map_err(fault)?;
    tracing::debug!(%id, event = %outcome.event, "answer taken: {}", outcome.text);
    Ok(())
}

/// As much of a content as is read of an answer.
async fn head(body: &Body) -> std::io::Result<Vec<u8>> {
    match body {
        Body::Inline(content) => Ok(content[..content.len().min(HEAD_MAX)].to_vec()),
        Body::File { path, .. } | Body::Headed { path, .. } => {
            let mut head = Vec::new();
            tokio::fs::File::open(path.as_path()).await?.take(HEAD_MAX as u64).read_to_end(&mut head).await?;
            Ok(head)
        }
    }
}

/// A delivery for each recipient, where each gets a copy of his own: a transaction holds one.
fn apart(deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let each = deliveries.into_iter().flat_map(|delivery| {
        let mut recipients = delivery.recipients.clone().into_iter();
        std::iter::from_fn(move || recipients.next().map(|one| Delivery { recipients: vec![one], ..delivery.clone() }))
    });
    each.zip(0..).map(|(delivery, part)| Delivery { id: DeliveryId { part, ..delivery.id }, ..delivery }).collect()
}

impl SpoolIntake {
    /// Is this an answer to our mail, and by what address?
    fn answer_to(&self, recipients: &[Recipient]) -> Option<(&Feedback, Mailbox)> {
        let (feedback, first) = (self.feedback.as_deref()?, recipients.first()?);
        feedback.way_back(&first.address).map(|_| (feedback, first.address.clone()))
    }

    async fn store(&self, message: Received<SealedBody>) -> Result<(), AcceptError> {
        let Received { mut envelope, recipients, dropped, body, at, tls } = message;
        let id = envelope.id;
        let usual = Duration::from_millis(self.expire.load(Ordering::Relaxed));
        let waits = at.map_or(Duration::ZERO, |at| at.since(envelope.received));
        envelope.expire = lifetime(envelope.expire, envelope.user.is_some(), waits, usual);
        let fault = |error| AcceptError::Failed(format!("the signature of {id}: {error}"));
        let Sealed { writer: body, copies } = body.signed().await.map_err(fault)?;
        envelope.size_bytes = body.size_bytes();
        let envelope = Arc::new(envelope);
        let mut deliveries = deliveries(envelope.id, recipients);
        if let Some(feedback) = &self.feedback
            && feedback.makes_copies(&envelope.sender, copies.is_some())
        {
            deliveries = apart(deliveries);
            let stamped = feedback.stamp(&envelope, &mut deliveries, copies).await;
            stamped.map_err(|error| AcceptError::Failed(format!("the copies of {id}: {error}")))?;
        }
        for delivery in &mut deliveries {
            delivery.next_attempt = at.filter(|at| *at > envelope.received);
        }
        let wanted = deliveries.iter().map(|delivery| delivery.recipients.len()).sum::<usize>();
        let mut accepted = accepted(&envelope, wanted + dropped.len());
        accepted.tls = tls.map(Arc::from);
        let mut events = vec![accepted];
        events.extend(dropped.iter().map(|recipient| removed(&envelope, recipient, self.clock.now())));
        if deliveries.is_empty() {
            // Everybody it was for is suppressed: recorded, and nothing to keep.
            self.spool.settle(events.into_iter().map(Change::Note).collect());
            return self.spool.flush().await.map_err(|error| AcceptError::Failed(error.to_string()));
        }
        let message = NewMessage { envelope, deliveries, body, events };
        self.spool.accept(message).await.map_err(|error| match error {
            SpoolError::NoRoom(why) => AcceptError::NoRoom(why),
            SpoolError::Failed(why) => AcceptError::Failed(why),
        })
    }
}

/// How long a message is kept; none: as long as is usual. What waits for its time first is tried as long as other mail from then on, and a user's
/// mail never longer than that.
fn lifetime(asked: Option<Duration>, is_of_user: bool, waits: Duration, usual: Duration) -> Option<Duration> {
    let most = usual.saturating_add(waits);
    match asked {
        Some(asked) if is_of_user => Some(asked.min(most)),
        Some(asked) => Some(asked),
        None if waits.is_zero() => None,
        None => Some(most),
    }
}

/// One delivery for each domain, in the order in which the domains were first named. Who is named twice gets the message
/// once: the domain has no letter case, the local part is the receiver's affair (RFC 5321 section 2.4).
pub(super) fn deliveries(message: QueueId, recipients: Vec<Recipient>) -> Vec<Delivery> {
    let mut places: BTreeMap<Domain, usize> = BTreeMap::new();
    let mut named: BTreeMap<(usize, String), usize> = BTreeMap::new();
    let mut deliveries: Vec<Delivery> = Vec::new();
    for recipient in recipients {
        let domain = recipient.address.domain().clone();
        let place = *places.entry(domain.clone()).or_insert(deliveries.len());
        if place == deliveries.len() {
            let part = u16::try_from(place).unwrap_or(u16::MAX);
            deliveries.push(Delivery {
                id: DeliveryId { message, part },
                domain,
                recipients: Vec::new(),
                state: DeliveryState::Waiting,
                attempts: 0,
                next_attempt: None,
                delay_reported: false,
                refusal: None,
                failed: Vec::new(),
                next_hop: None,
                own: None,
            });
        }
        let known = &mut deliveries[place].recipients;
        match named.entry((place, recipient.address.local_part().to_string())) {
            Entry::Vacant(entry) => {
                entry.insert(known.len());
                known.push(recipient);
            }
            Entry::Occupied(entry) => {
                let before = &mut known[*entry.get()];
                before.notify = before.notify.together(recipient.notify);
                before.orcpt = before.orcpt.take().or(recipient.orcpt);
            }
        }
    }
    deliveries
}

pub(super) fn accepted(envelope: &Envelope, recipients: usize) -> Event {
    let mut event = Event::new(envelope.received, EventKind::Accepted);
    event.id = Some(envelope.id);
    event.sender = Some(envelope.sender.as_str().into());
    event.message_id = envelope.message_id.clone();
    event.user = envelope.user.clone();
    event.client = envelope.client;
    event.recipients = Some(recipients);
    event.size_bytes = Some(envelope.size_bytes);
    event
}

/// Taken for a suppressed recipient (`at_injection = "drop"`): this is its end.
fn removed(envelope: &Envelope, recipient: &Recipient, now: Timestamp) -> Event {
    let mut event = Event::new(now, EventKind::Removed);
    event.id = Some(envelope.id);
    event.sender = Some(envelope.sender.as_str().into());
    event.recipient = Some(recipient.address.as_str().to_string());
    event.message_id = envelope.message_id.clone();
    event.class = Some(Class::RecipientUnknown);
    event.rule = Some("suppressed".into());
    event.verdict = Some(Verdict::Bounce.as_str());
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Notify;

    #[test]
    fn what_waits_for_its_time_is_tried_as_long_as_other_mail_from_then_on() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let (none, usual) = (Duration::ZERO, hours(12));
        for (asked, is_of_user, waits, expected) in [
            (None, false, none, None),
            (None, false, hours(48), Some(hours(60))),
            (Some(hours(1)), true, none, Some(hours(1))),
            (Some(hours(20)), true, none, Some(usual)),
            (Some(hours(20)), false, none, Some(hours(20))),
            (Some(hours(50)), true, hours(48), Some(hours(50))),
        ] {
            assert_eq!(lifetime(asked, is_of_user, waits, usual), expected, "{asked:?} {is_of_user} {waits:?}");
        }
    }

    #[test]
    fn who_is_named_twice_gets_the_message_once() {
        let recipient = |address: &str, notify: Option<&str>, orcpt: Option<&str>| Recipient {
            address: Mailbox::parse(address).unwrap(),
            notify: notify.map_or_else(Notify::default, |text| Notify::parse(text).unwrap()),
            orcpt: orcpt.map(Into::into),
        };
        let named = vec![
            recipient("u@x.test", None, None),
            recipient("v@x.test", Some("NEVER"), None),
            recipient("u@y.test", None, None),
            recipient("U@x.test", None, None),
            recipient("u@X.TEST.", Some("SUCCESS"), Some("rfc822;list@x.test")),
            recipient("v@x.test", Some("DELAY"), None),
        ];
        let deliveries = deliveries(QueueId::from_key(1).unwrap(), named);
        let kept = |n: usize| deliveries[n].recipients.iter().map(|r| r.address.as_str()).collect::<Vec<_>>();
        assert_eq!((kept(0), kept(1)), (vec!["u@x.test", "v@x.test", "U@x.test"], vec!["u@y.test"]));
        let first = &deliveries[0].recipients[0];
        assert_eq!(
            (first.notify.value().as_str(), first.orcpt.as_deref()),
            ("SUCCESS,FAILURE", Some("rfc822;list@x.test"))
        );
        assert_eq!(deliveries[0].recipients[1].notify.value(), "DELAY");
    }
}
