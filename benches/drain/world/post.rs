//! The world's spool: the messages that wait, and how the others ended.
//!
//! It holds the relay to its word: a recipient whose end has been told, or whose reply was a 5xx, is never offered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use weir::dispatch::core::IdSource;
use weir::dispatch::engine::row_of;
use weir::dispatch::key_of;
use weir::dispatch::message::{Excerpt, Fetched, Job, Row};
use weir::queue::RecipientKey;
use weir::spool::{Change, Committed, Listed, Stored};
use weir::types::{
    Body, BodyType, Delivery, DeliveryId, DeliveryState, Envelope, Event, EventKind, Mailbox, Notify, Origin, Priority,
    QueueId, QueueIds, Recipient, ReversePath, Timestamp,
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

/// How much of the mail is of which class, as shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mix {
    pub high: f64,
    pub normal: f64,
    pub bulk: f64,
}

impl Mix {
    pub const NORMAL: Mix = Mix { high: 0.0, normal: 1.0, bulk: 0.0 };
    pub const BULK: Mix = Mix { high: 0.0, normal: 0.0, bulk: 1.0 };

    pub fn check(self) -> Result<(), String> {
        let shares = [self.high, self.normal, self.bulk];
        let sum: f64 = shares.iter().sum();
        match shares.iter().all(|share| *share >= 0.0) && sum > 0.0 && sum.is_finite() {
            true => Ok(()),
            false => Err("mix: write how much of the mail is high, normal and bulk, as shares".into()),
        }
    }

    /// Of the message with this number: the classes are spread evenly over any stretch of numbers.
    pub fn class(self, number: usize) -> Priority {
        let sum = self.high + self.normal + self.bulk;
        // Multiples of the golden ratio, without what is before the point.
        let place = (number as f64 * 0.618_033_988_749_895).fract() * sum;
        match place {
            place if place < self.high => Priority::High,
            place if place < self.high + self.bulk => Priority::Bulk,
            _ => Priority::Normal,
        }
    }
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
    /// Deliveries by the time of their next attempt: what is read back by it.
    planned: BTreeSet<(Timestamp, DeliveryId)>,
    pub ends: Ends,
}

impl Post {
    pub fn new(seed: u64) -> Post {
        Post {
            ids: Arc::new(QueueIds::new(0, seed)),
            waiting: BTreeMap::new(),
            settled: BTreeSet::new(),
            planned: BTreeSet::new(),
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
    pub fn accept(&mut self, sender: &str, recipient: &str, class: Priority, now: Timestamp) -> Committed {
        let id = self.ids.next(now);
        let address = Mailbox::parse(recipient).expect("an address of the world");
        let envelope = Envelope {
            class,
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
            requests: Default::default(),
            origin: Origin::Client,
        };
        let delivery = Delivery {
            next_hop: None,
            own: None,
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
            Change::Plan { id, next_attempt } => self.plan(id, |delivery| delivery.next_attempt = Some(next_attempt)),
            Change::Update(now) => self.plan(now.id, |delivery| *delivery = now),
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

    fn plan(&mut self, id: DeliveryId, change: impl FnOnce(&mut Delivery)) {
        let delivery = self.waiting.get_mut(&id.message).and_then(|waiting| waiting.deliveries.get_mut(&id));
        let Some(delivery) = delivery else { return };
        if let Some(at) = delivery.next_attempt {
            self.planned.remove(&(at, id));
        }
        change(delivery);
        self.planned.extend(delivery.next_attempt.map(|at| (at, id)));
    }

    /// What is due before `until`, as the spool would be read for it.
    pub fn due(&self, until: Timestamp) -> Vec<Row> {
        let due = self.planned.iter().take_while(|(at, _)| *at <= until);
        due.filter_map(|(_, id)| {
            let waiting = self.waiting.get(&id.message)?;
            let delivery = waiting.deliveries.get(id)?.clone();
            Some(row_of(&Listed { envelope: waiting.envelope.clone(), delivery }))
        })
        .collect()
    }

    fn finish(&mut self, id: DeliveryId) {
        let Some(waiting) = self.waiting.get_mut(&id.message) else { return };
        let delivery = waiting.deliveries.remove(&id);
        if let Some(at) = delivery.and_then(|delivery| delivery.next_attempt) {
            self.planned.remove(&(at, id));
        }
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
