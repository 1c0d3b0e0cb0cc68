//! The world's spool: the messages that wait, and how the others ended.
//!
//! It holds the relay to its word: a recipient whose end has been told, or whose reply was a 5xx, is never offered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use weir::dispatch::core::IdSource;
use weir::dispatch::key_of;
use weir::dispatch::message::{Excerpt, Fetched, Job};
use weir::queue::RecipientKey;
use weir::spool::{Change, Committed, Stored};
use weir::types::{
    Body, BodyType, Delivery, DeliveryId, DeliveryState, Envelope, Event, EventKind, Mailbox, Notify, Origin, QueueId,
    QueueIds, Recipient, ReversePath, Timestamp,
};

/// How recipients ended, and what the relay wrote about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    pub delivered: usize,
    pub bounced: usize,
    pub expired: usize,
    /// Attempts that were put off by the schedule of retries.
    pub deferred: usize,
    /// Lines of any kind.
    pub lines: usize,
}

struct Waiting {
    envelope: Arc<Envelope>,
    body: Body,
    deliveries: BTreeMap<DeliveryId, Delivery>,
}

pub struct Post {
    ids: Arc<QueueIds>,
    waiting: BTreeMap<QueueId, Waiting>,
    /// Recipients that heard their last word.
    settled: BTreeSet<(QueueId, RecipientKey)>,
    pub ends: Ends,
}

impl Post {
    pub fn new(seed: u64) -> Post {
        Post {
            ids: Arc::new(QueueIds::new(0, seed)),
            waiting: BTreeMap::new(),
            settled: BTreeSet::new(),
            ends: Ends::default(),
        }
    }

    /// Where the relay takes ids for its reports from.
    pub fn ids(&self) -> IdSource {
        let ids = self.ids.clone();
        Arc::new(move |now| ids.next(now))
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A message as a client hands it in, for one recipient.
    pub fn accept(&mut self, sender: &str, recipient: &str, now: Timestamp) -> Committed {
        let id = self.ids.next(now);
        let address = Mailbox::parse(recipient).expect("an address of the world");
        let envelope = Envelope {
            // Whoever meets a block asks again with mail that may be lost, and with no other.
            class: weir::types::Priority::Bulk,
            id,
            received: now,
            sender: ReversePath::parse(sender).expect("a sender of the world"),
            ret: None,
            envid: None,
            body_type: BodyType::Undeclared,
            smtputf8: false,
            size_bytes: 20,
            message_id: None,
            client: None,
            user: None,
            expire: None,
            origin: Origin::Client,
        };
        let delivery = Delivery {
            next_hop: None,
            id: DeliveryId { message: id, part: 0 },
            domain: address.domain().clone(),
            recipients: vec![Recipient { address, orcpt: None, notify: Notify::default() }],
            state: DeliveryState::Waiting,
            attempts: 0,
            next_attempt: None,
            delay_reported: false,
            refusal: None,
            failed: Vec::new(),
        };
        let body = Body::Inline(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n"));
        let committed = Committed { envelope: Arc::new(envelope), deliveries: vec![delivery], body };
        self.keep(&committed);
        committed
    }

    fn keep(&mut self, message: &Committed) {
        let deliveries = message.deliveries.iter().map(|delivery| (delivery.id, delivery.clone())).collect();
        let waiting = Waiting { envelope: message.envelope.clone(), body: message.body.clone(), deliveries };
        self.waiting.insert(message.envelope.id, waiting);
    }

    /// What a connection reads before it offers the message.
    pub fn content(&self, job: &Job) -> Option<(Arc<Envelope>, Delivery)> {
        let waiting = self.waiting.get(&job.id.message)?;
        Some((waiting.envelope.clone(), waiting.deliveries.get(&job.id)?.clone()))
    }

    pub fn fetch(&self, id: DeliveryId) -> Option<Box<Fetched>> {
        let waiting = self.waiting.get(&id.message)?;
        let delivery = waiting.deliveries.get(&id)?.clone();
        let excerpt = Excerpt::of(&waiting.body)?;
        let stored = Stored { envelope: waiting.envelope.clone(), delivery, body: waiting.body.clone() };
        Some(Box::new(Fetched { stored, excerpt }))
    }

    /// The recipient is about to be offered.
    ///
    /// # Panics
    /// If it has heard its last word: a 5xx, or a 2xx that was read.
    pub fn offer(&self, id: QueueId, recipient: &Recipient) {
        let again = self.settled.contains(&(id, key_of(&recipient.address)));
        assert!(!again, "{} of {id} is offered again after its end", recipient.address);
    }

    /// The recipient heard its last word.
    pub fn settle(&mut self, id: QueueId, recipient: &Recipient) {
        self.settled.insert((id, key_of(&recipient.address)));
    }

    /// Carries a change out; a report of the relay's own comes back as a message that was just accepted.
    pub fn commit(&mut self, change: Change) -> Option<Committed> {
        match change {
            Change::Plan { .. } => {}
            Change::Update(delivery) => {
                if let Some(waiting) = self.waiting.get_mut(&delivery.id.message) {
                    waiting.deliveries.insert(delivery.id, delivery);
                }
            }
            Change::Finish(id) => self.finish(id),
            Change::Note(event) => self.note(&event),
            Change::Report { envelope, deliveries, content } => {
                let message = Committed { envelope, deliveries, body: Body::Inline(content) };
                self.keep(&message);
                return Some(message);
            }
        }
        None
    }

    fn finish(&mut self, id: DeliveryId) {
        let Some(waiting) = self.waiting.get_mut(&id.message) else { return };
        waiting.deliveries.remove(&id);
        if waiting.deliveries.is_empty() {
            self.waiting.remove(&id.message);
        }
    }

    fn note(&mut self, event: &Event) {
        self.ends.lines += 1;
        match event.kind {
            EventKind::Delivered => self.ends.delivered += 1,
            EventKind::Bounced => self.ends.bounced += 1,
            EventKind::Expired => self.ends.expired += 1,
            EventKind::Deferred => self.ends.deferred += 1,
            _ => {}
        }
    }
}
