//! From what receivers said to outcomes: delivered, deferred, returned; and to what the lane and the suppression list learn.
//!
//! An attempt goes over as many transactions as it takes: the grant may be smaller than the recipients are many, and
//! `452 4.5.3` sends the rest at once if at least one was accepted. Only when every recipient has been offered does it end; then what
//! was deferred is planned again, and what was refused for good is returned, all in one report.
//!
//! Rules that always hold:
//! - a recipient with a final outcome is out of the delivery in the same commit that records the outcome;
//! - a report is in the commit of the outcome that causes it, or its recipients stand in the delivery until it is;
//! - 5xx is final, with one exception: 530 5.7.0 "STARTTLS first" (RFC 3207 section 4) says that our session was wrong;
//! - an answer lost after the end of data is in doubt: deferred by schedule and told as that.

use std::sync::Arc;

use super::attempt::Attempt;
use super::core::Core;
use super::ending::{Ending, Facts};
use super::message::{Action, ConnectionId, Done, Excerpt, Resolved, Transacted};
use super::reader::{Reader, Where, lacks_extension};
use crate::outbound::Outcome;
use crate::queue::{Place, RecipientKey};
use crate::route::order::candidates;
use crate::spool::Change;
use crate::throttle::{Change as LaneChange, LaneName, Signal};
use crate::types::{
    Class, Delivery, DeliveryId, DeliveryState, Envelope, Event, EventKind, Reading, Recipient, Reply, Stage,
    Timestamp, Verdict,
};

impl Core {
    /// A transaction is over.
    pub(super) fn done(&mut self, connection: ConnectionId, done: Done, now: Timestamp) {
        let Some(held) = self.connections.get(&connection) else { return };
        let (super::pump::State::Busy(id) | super::pump::State::Opening(id)) = held.state else { return };
        let place = Where {
            lane: held.permit.lane().clone(),
            mx: held.candidate.name.clone(),
            started: held.started,
            first: held.permit.messages() <= 1,
        };
        let reusable = match done {
            Done::Missing { reusable } => {
                self.forget(id);
                reusable
            }
            Done::NotStarted => {
                self.lead_line(id);
                false
            }
            Done::Unreadable { reusable, text } => {
                self.act(Action::Warn(format!("message {id} cannot be read from the spool: {text}; it stays queued")));
                let next = self.next_attempt(id, 1, now);
                self.put_off(id, next, now);
                reusable
            }
            Done::Held(transacted) => {
                let reusable = transacted.reusable;
                self.transacted(id, *transacted, &place, now);
                reusable
            }
        };
        self.go_on(connection, reusable, now);
    }

    fn transacted(&mut self, id: DeliveryId, held: Transacted, place: &Where, now: Timestamp) {
        let mut attempt = self.attempts.remove(&id).unwrap_or_else(Attempt::new);
        if let Some(delivery) = held.delivery {
            attempt.base = Some((held.envelope.clone(), delivery));
        }
        let Some((envelope, mut delivery)) = attempt.base.take() else {
            // Cannot be: a job without a delivery belongs to an attempt that has one.
            let next = self.next_attempt(id, 1, now);
            return self.put_off(id, next, now);
        };
        attempt.excerpt = held.excerpt.or(attempt.excerpt);
        attempt.pending = held.rest;
        if lacks_extension(&held.results) && self.has_another_host(id, &mut attempt, &place.mx, now) {
            attempt.pending.extend(held.results.into_iter().map(|(recipient, _)| recipient));
            attempt.base = Some((envelope, delivery));
            return self.continue_attempt(id, attempt, Vec::new());
        }
        let facts = Facts {
            provider: Some(place.lane.provider.clone()),
            source: Some(place.lane.source.clone()),
            mx: Some(place.mx.clone()),
            tls: Some(held.tls),
            attempt: delivery.attempts + 1,
        };
        let mut ending = Ending::new(&envelope, facts, now);
        let mut reader = Reader::new(&held.results, place);
        for (recipient, resolved) in held.results {
            self.resolve_one(recipient, resolved, &mut reader, &mut attempt, &mut ending, held.dsn, place);
        }
        self.tell_lane_of(&reader, place, now);
        if let Some(refusal) = reader.refuses_all(&attempt.pending) {
            // The message itself was put off: the recipients that were not offered would hear the same.
            for recipient in std::mem::take(&mut attempt.pending) {
                ending.deferred(&recipient, &refusal.0, &refusal.1);
                attempt.deferred.push(recipient);
            }
        }
        attempt.relayed.append(&mut ending.relayed);
        if let Some(refusal) = ending.refusal.take() {
            attempt.refusal = Some(refusal);
        }
        delivery.failed.append(&mut ending.failed);
        attempt.base = Some((envelope, delivery));
        if attempt.pending.is_empty() {
            self.end_attempt(id, attempt, ending.take_events(), now);
        } else {
            self.continue_attempt(id, attempt, ending.take_events());
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one recipient of a transaction, with all that the transaction knows"
    )]
    fn resolve_one(
        &mut self,
        recipient: Recipient,
        resolved: Resolved,
        reader: &mut Reader,
        attempt: &mut Attempt,
        ending: &mut Ending,
        dsn: bool,
        place: &Where,
    ) {
        match resolved {
            Resolved::Suppressed { class, reply } => ending.suppressed(&recipient, class, &reply),
            Resolved::Outcome(Outcome::Unsendable { status, text }) => ending.unsendable(&recipient, status, &text),
            Resolved::Outcome(Outcome::InDoubt { text }) => {
                let text = format!("{text}; it may have been delivered all the same");
                ending.broken(&recipient, "in-doubt", &text);
                attempt.deferred.push(recipient);
            }
            Resolved::Outcome(Outcome::Unsaid { stage, text }) => {
                if !place.first && stage == Stage::Mail && !reader.anything_said {
                    // The peer closed an idle connection just as it was used again: nothing was refused.
                    attempt.pending.push(recipient);
                } else {
                    ending.broken(&recipient, "connection-lost", &text);
                    attempt.deferred.push(recipient);
                }
            }
            Resolved::Outcome(Outcome::Replied { stage, reply }) => {
                let reading = reader.read(&self.rules, stage, &reply);
                match reading.verdict {
                    Verdict::Delivered => {
                        reader.delivered += 1;
                        self.gate.good(super::key_of(&recipient.address));
                        ending.delivered(&recipient, &reply, &reading, dsn);
                    }
                    Verdict::Bounce if !(reply.code() == 530 && reading.class == Class::Tls) => {
                        ending.bounced(&recipient, &reply, &reading);
                        if reading.suppress {
                            self.suppress(&recipient, &reply, &reading, ending);
                        }
                    }
                    _ if reading.class == Class::TooManyRecipients
                        && stage == Stage::Rcpt
                        && reader.anyone_accepted =>
                    {
                        attempt.pending.push(recipient);
                    }
                    _ => {
                        ending.deferred(&recipient, &reply.to_string(), &reading);
                        attempt.deferred.push(recipient);
                    }
                }
            }
        }
    }

    /// Leaves `mx` out of the attempt; is there a host left that may be able?
    fn has_another_host(&mut self, id: DeliveryId, attempt: &mut Attempt, mx: &Arc<str>, now: Timestamp) -> bool {
        if attempt.candidates.is_empty()
            && let Some(target) = self.target_of(id).and_then(|target| self.places.targets.get(target))
        {
            attempt.candidates = candidates(&target.route, 0, &self.failing, now);
        }
        attempt.unable.push(mx.clone());
        attempt.candidates.retain(|candidate| !attempt.unable.contains(&candidate.name));
        attempt.next = 0;
        !attempt.candidates.is_empty()
    }

    fn suppress(&mut self, recipient: &Recipient, reply: &Reply, reading: &Reading, ending: &mut Ending) {
        let key = super::key_of(&recipient.address);
        // Nobody asks for this recipient again before the list knows it.
        self.gate.hold(key);
        ending.on_list(recipient, reply, reading);
        let (mailbox, reply) = (recipient.address.clone(), reply.clone());
        self.act(Action::Suppress { mailbox, class: reading.class, reply, key });
    }

    /// The list knows it now: those that waited for the answer are told by the list, not by the receiver.
    pub(super) fn suppressed(&mut self, key: RecipientKey) {
        let mut free = self.gate.let_go(key);
        while let Some(id) = free.pop() {
            if !self.unpark(id) {
                free.extend(self.gate.pass_on(&[key]));
            }
        }
    }

    fn tell_lane_of(&mut self, reader: &Reader, place: &Where, now: Timestamp) {
        for (reading, text) in &reader.readings {
            let signal = match reading.verdict {
                Verdict::Delivered => Signal::Accepted { recipients: reader.delivered },
                _ => Signal::Refused { reading, reply: text, started: place.started },
            };
            self.tell_lane(place.lane.clone(), &signal, Some(reading), now);
        }
        if reader.readings.is_empty() {
            self.tell_lane(place.lane.clone(), &Signal::Broken, None, now);
        }
    }

    /// Reports a signal; what changes for the lane becomes an event.
    pub(super) fn tell_lane(&mut self, lane: LaneName, signal: &Signal<'_>, reading: Option<&Reading>, now: Timestamp) {
        let Some(change) = self.throttle.report(&lane, signal, now) else { return };
        let (kind, text) = match &change {
            LaneChange::Throttled { window } => {
                (EventKind::Throttled, format!("{lane}: at most {window} connections from now on"))
            }
            LaneChange::Blocked { until } => {
                (EventKind::Blocked, format!("{lane}: blocked, nothing is sent before {until}; the mail stays queued"))
            }
            LaneChange::Resumed => (EventKind::Resumed, format!("{lane}: accepts mail again")),
        };
        let mut event = Event::new(now, kind);
        event.provider = Some(lane.provider);
        event.source = Some(lane.source);
        if let (Signal::Refused { reply, .. }, Some(reading)) = (signal, reading) {
            event.reply = Some((*reply).to_string());
            event.class = Some(reading.class);
            event.rule = Some(reading.rule.clone());
            event.remedy = Some(reading.remedy.to_string());
        }
        let is_block = matches!(change, LaneChange::Blocked { .. });
        event.text = Some(text.clone());
        let mut changes = vec![Change::Note(event.clone())];
        if is_block {
            event.kind = EventKind::Alert;
            self.act(Action::Warn(format!("{text}: {}", event.reply.as_deref().unwrap_or_default())));
            changes.push(Change::Note(event));
        }
        self.act(Action::Commit(changes));
    }

    /// More recipients are to be offered: at once, before everything else in the line.
    fn continue_attempt(&mut self, id: DeliveryId, mut attempt: Attempt, events: Vec<Event>) {
        let Some((_, delivery)) = &mut attempt.base else { return };
        let before = delivery.recipients.len();
        delivery.recipients = attempt.pending.iter().chain(&attempt.deferred).cloned().collect();
        let mut changes: Vec<Change> = events.into_iter().map(Change::Note).collect();
        if delivery.recipients.len() != before {
            self.fresh.remove(id.message);
            changes.push(Change::Update(delivery.clone()));
        }
        if !changes.is_empty() {
            self.act(Action::Commit(changes));
        }
        self.attempts.insert(id, attempt);
        self.lead_line(id);
    }

    /// Every recipient has been offered: report what failed, plan again what was deferred.
    fn end_attempt(&mut self, id: DeliveryId, mut attempt: Attempt, events: Vec<Event>, now: Timestamp) {
        let Some((envelope, mut delivery)) = attempt.base.take() else { return };
        let mut changes: Vec<Change> = events.into_iter().map(Change::Note).collect();
        let failed = std::mem::take(&mut delivery.failed);
        self.report_failure(&envelope, &failed, attempt.excerpt.as_ref(), &mut changes, now);
        self.report_relayed(&envelope, &attempt.relayed, attempt.excerpt.as_ref(), &mut changes, now);
        if attempt.deferred.is_empty() {
            changes.push(Change::Finish(id));
            self.act(Action::Commit(changes));
            return self.forget(id);
        }
        if attempt.deferred.len() != delivery.recipients.len() {
            self.fresh.remove(id.message);
        }
        delivery.recipients = attempt.deferred;
        delivery.refusal = attempt.refusal.or(delivery.refusal);
        self.defer(id, &envelope, delivery, attempt.excerpt.as_ref(), changes, now);
    }

    /// One more deferral: plans the next attempt, and tells those who asked for it that it takes long.
    pub(super) fn defer(
        &mut self,
        id: DeliveryId,
        envelope: &Arc<Envelope>,
        mut delivery: Delivery,
        excerpt: Option<&Excerpt>,
        mut changes: Vec<Change>,
        now: Timestamp,
    ) {
        delivery.attempts += 1;
        let next = self.next_attempt(id, delivery.attempts, now);
        delivery.next_attempt = Some(next);
        let entry_holds = self.queue.get(id).is_some_and(|entry| entry.hold_wanted);
        if entry_holds {
            delivery.state = DeliveryState::Held;
        }
        if !delivery.delay_reported && now.since(id.message.received()) >= self.bounces.delay_after.0 {
            delivery.delay_reported = self.report_delay(envelope, &delivery, excerpt, &mut changes, now);
        }
        // With all the recipients it entered with, before those that are settled are forgotten.
        self.release_gate(id);
        if let Some(entry) = self.queue.get_mut(id) {
            entry.attempts = delivery.attempts;
            entry.delay_reported = delivery.delay_reported;
            entry.hold_wanted = false;
            entry.recipients = delivery.recipients.iter().map(|r| super::key_of(&r.address)).collect();
        }
        changes.push(Change::Update(delivery));
        self.act(Action::Commit(changes));
        if entry_holds {
            self.release_gate(id);
            self.attempts.remove(&id);
            self.queue.put(id, Place::Held);
        } else {
            self.put_off(id, next, now);
        }
    }
}
