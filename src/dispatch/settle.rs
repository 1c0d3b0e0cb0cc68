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
//! - a refusal that speaks of our address or of the connection slows the lane and leaves the message as it was: no attempt, no event;
//!   the connection that met it carries nothing more;
//! - an answer lost after the end of data is in doubt: deferred by schedule and told as that.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::core::Core;
use super::ending::{Ending, Facts};
use super::lanes::Said;
use super::message::{Action, ConnectionId, Done, Excerpt, Resolved, Transacted};
use super::passed_on::Offered;
use super::reader::{Reader, Where, lacks_extension};
use crate::outbound::Outcome;
use crate::queue::Place;
use crate::route::order::candidates;
use crate::spool::Change;
use crate::throttle::{About, Signal};
use crate::types::{
    Class, Delivery, DeliveryId, DeliveryState, Envelope, Event, Mailbox, Reading, Recipient, Refusal, Scope, Stage,
    Timestamp, Verdict,
};

/// What goes with a deferral.
#[derive(Default)]
pub(super) struct Deferral {
    pub changes: Vec<Change>,
    /// The wait of its own, in place of the step of the schedule.
    pub again: Option<Duration>,
}

impl Core {
    /// A transaction is over.
    pub(super) fn done(&mut self, connection: ConnectionId, done: Done, now: Timestamp) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        self.throttle.ended(&mut held.permit);
        let (super::pump::State::Busy(id) | super::pump::State::Opening(id)) = held.state else { return };
        let place = Where {
            lane: held.permit.lane().clone(),
            mx: held.candidate.name.clone(),
            started: held.started,
            now,
            carried: held.permit.messages().saturating_sub(1),
        };
        let reusable = match done {
            Done::Missing { reusable } => {
                self.forget(id);
                reusable
            }
            Done::NotStarted => {
                self.due_at_next_start(id, now);
                self.lead_line(id);
                false
            }
            Done::Unreadable { reusable } => {
                let next = self.next_attempt(id, 1, now);
                self.put_off(id, next, now);
                reusable
            }
            Done::Held(transacted) => {
                let reusable = transacted.reusable;
                self.transacted(id, *transacted, &place, now) && reusable
            }
        };
        self.go_on(connection, reusable, now);
    }

    /// What a stop has ended before anything came of it does not wait for the attempt that was planned behind it.
    pub(super) fn due_at_next_start(&mut self, id: DeliveryId, now: Timestamp) {
        if self.stopping && self.attempts.get(&id).is_some_and(|attempt| attempt.planned) {
            self.act(Action::Commit(vec![Change::Plan { id, next_attempt: now }]));
        }
    }

    /// Returns whether the connection is still good for another.
    fn transacted(&mut self, id: DeliveryId, held: Transacted, place: &Where, now: Timestamp) -> bool {
        let mut attempt = self.attempts.remove(&id).unwrap_or_else(Attempt::new);
        if let Some(mut delivery) = held.delivery {
            self.bring_up_to_date(&mut delivery);
            // It was given out, so it is not held any more.
            delivery.state = DeliveryState::Waiting;
            attempt.base = Some((held.envelope.clone(), delivery));
        }
        let Some((envelope, mut delivery)) = attempt.base.take() else {
            // Cannot be: a job without a delivery belongs to an attempt that has one.
            let next = self.next_attempt(id, 1, now);
            self.put_off(id, next, now);
            return true;
        };
        attempt.excerpt = held.excerpt.or(attempt.excerpt);
        attempt.pending = held.rest;
        if lacks_extension(&held.results) && self.has_another_host(id, &mut attempt, &place.mx, now) {
            attempt.pending.extend(held.results.into_iter().map(|(recipient, _)| recipient));
            attempt.base = Some((envelope, delivery));
            self.continue_attempt(id, attempt, Vec::new());
            return true;
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
        reader.goes_by_data = self.bdat.note(&place.mx, held.bdat);
        reader.read_all(&self.rules, &held.results);
        if reader.anyone_accepted {
            self.took_somebody(&place.lane.provider, now);
        }
        // The lane first: it says whether the delivery waits with it.
        self.tell_lane_of(&mut reader, place, &envelope, &delivery, now);
        for (recipient, resolved) in held.results {
            self.resolve_one(id, recipient, resolved, &mut reader, &mut attempt, &mut ending, held.offered, place);
        }
        attempt.routed_afresh |= reader.routes_afresh;
        let needs_tls = reader.readings.iter().any(|(reading, _)| reading.class == Class::Tls);
        attempt.slowed = !reader.untouched.is_empty();
        // Whoever goes on where the connection itself, or our address, was refused is refused again and again, and each time the
        // wait grows.
        let is_refused = attempt.slowed;
        if attempt.slowed {
            attempt.pending.append(&mut reader.untouched);
            // The next try may begin at another address.
            attempt.candidates.clear();
        } else if let Some(refusal) = reader.refuses_all(&attempt.pending) {
            // The message itself was put off: the recipients that were not offered would hear the same.
            for recipient in std::mem::take(&mut attempt.pending) {
                ending.deferred(&recipient, &refusal.0, &refusal.1);
                let again = self.own_wait(&recipient, &refusal.1, place);
                attempt.put_off(recipient, again);
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
        } else if attempt.is_untouched() {
            self.stand_back(id, attempt, now);
        } else {
            self.continue_attempt(id, attempt, ending.take_events());
        }
        !needs_tls && !is_refused
    }

    /// As if it had not been offered: back to the head of its line, by no step further in its schedule. What the receiver
    /// said is written once, for `queue show`.
    fn stand_back(&mut self, id: DeliveryId, attempt: Attempt, now: Timestamp) {
        let Attempt { base: Some((_, mut delivery)), refusal, .. } = attempt else { return };
        if self.queue.get(id).is_some_and(|entry| entry.hold_wanted) {
            delivery.refusal = refusal.or(delivery.refusal);
            if let Some(entry) = self.queue.get_mut(id) {
                entry.hold_wanted = false;
            }
            return self.set_held(id, delivery, true, now);
        }
        let rule = |refusal: &Option<Refusal>| refusal.as_ref().map(|refusal| refusal.rule.clone());
        if refusal.is_some() && rule(&refusal) != rule(&delivery.refusal) {
            delivery.refusal = refusal;
            self.fresh.remove(id.message);
            self.act(Action::Commit(vec![Change::Update(delivery)]));
        }
        self.lead_line(id);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one recipient of a transaction, with all that the transaction knows"
    )]
    fn resolve_one(
        &mut self,
        id: DeliveryId,
        recipient: Recipient,
        resolved: Resolved,
        reader: &mut Reader,
        attempt: &mut Attempt,
        ending: &mut Ending,
        offered: Offered,
        place: &Where,
    ) {
        match resolved {
            Resolved::Suppressed { class, reply } => ending.suppressed(&recipient, class, &reply),
            Resolved::Outcome(Outcome::Unsendable { status, text }) => ending.unsendable(&recipient, status, &text),
            Resolved::Outcome(Outcome::InDoubt { text }) => {
                ending.broken(&recipient, "in-doubt", &text);
                match reader.goes_by_data {
                    true => attempt.pending.push(recipient),
                    false => attempt.put_off(recipient, None),
                }
            }
            Resolved::Outcome(Outcome::Unsaid { stage, text }) => {
                if stage == Stage::Data && reader.goes_by_data {
                    // Offered for nothing: the content was not taken, and nobody was refused.
                    attempt.pending.push(recipient);
                } else if place.carried > 0 && stage == Stage::Mail && !reader.anything_said {
                    // The peer closed an idle connection just as it was used again: nothing was refused.
                    attempt.pending.push(recipient);
                } else {
                    ending.broken(&recipient, "connection-lost", &text);
                    attempt.put_off(recipient, None);
                }
            }
            Resolved::Outcome(Outcome::Replied { stage, reply }) => {
                let reading = reader.read(&self.rules, stage, &reply);
                let wave = self.note_recipient(&reading, stage, ending.submitter(), place);
                match reading.verdict {
                    Verdict::Delivered => {
                        self.gate.good(super::key_of(&recipient.address));
                        ending.delivered(&recipient, &reply, &reading, offered);
                    }
                    Verdict::Bounce if !(reply.code() == 530 && reading.class == Class::Tls) => {
                        ending.bounced(&recipient, &reply, &reading);
                        self.own_wait(&recipient, &reading, place);
                        if reader.is_about(&recipient, stage, &reply, &reading) {
                            self.suppress(&recipient, &reply, &reading, wave, ending, reader);
                        }
                        if is_misrouted(&reading) {
                            // Too late for this one; the next goes by what the DNS says then.
                            self.route_afresh(id, place.now);
                        }
                    }
                    _ if self.leaves_untouched(id, &reading, reader) => {
                        ending.stood_back(&reply, &reading);
                        reader.untouched.push(recipient);
                    }
                    _ if is_misrouted(&reading)
                        && !attempt.routed_afresh
                        && self.routes_afresh(id, reader, place.now) =>
                    {
                        attempt.candidates.clear();
                        attempt.pending.push(recipient);
                    }
                    _ if reading.class == Class::TooManyRecipients
                        && stage == Stage::Rcpt
                        && reader.anyone_accepted =>
                    {
                        attempt.pending.push(recipient);
                    }
                    _ => {
                        ending.deferred(&recipient, &reply.to_string(), &reading);
                        let again = self.own_wait(&recipient, &reading, place);
                        attempt.put_off(recipient, again);
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

    /// Once at once: the recipients that a transaction found misrouted are offered again by a fresh route.
    fn routes_afresh(&mut self, id: DeliveryId, reader: &mut Reader, now: Timestamp) -> bool {
        reader.routes_afresh = reader.routes_afresh || self.route_afresh(id, now);
        reader.routes_afresh
    }

    /// Asks once for each rule that a transaction met.
    fn leaves_untouched(&mut self, id: DeliveryId, reading: &Reading, reader: &mut Reader) -> bool {
        if let Some((_, slows)) = reader.slows.iter().find(|(rule, _)| *rule == reading.rule) {
            return *slows;
        }
        let waits = reader.waits.contains(&reading.rule);
        let slows = self.stands_back(id, reading, waits);
        reader.slows.push((reading.rule.clone(), slows));
        slows
    }

    fn tell_lane_of(
        &mut self,
        reader: &mut Reader,
        place: &Where,
        envelope: &Envelope,
        delivery: &Delivery,
        now: Timestamp,
    ) {
        let about = About {
            message: Some(envelope.id),
            sender_domain: envelope.sender.mailbox().map(Mailbox::domain),
            recipient_domain: Some(&delivery.domain),
            carried: place.carried,
        };
        let flow = Some(super::flow_of(&envelope.sender));
        let was_held = self.is_held_back(delivery.id, &place.lane, now);
        for (reading, reply) in &reader.readings {
            let signal = match reading.verdict {
                Verdict::Delivered => Signal::Accepted { recipients: reader.delivered, started: place.started, about },
                _ => Signal::Refused { reading, reply, started: place.started, about },
            };
            if self.tell_lane(&place.lane, &signal, Some(Said { reply, reading, flow }), now) {
                reader.waits.push(reading.rule.clone());
            }
            if reading.verdict != Verdict::Delivered {
                self.obey(&place.lane, &place.mx, reading);
            }
        }
        if reader.readings.is_empty() {
            self.tell_lane(&place.lane, &Signal::Broken { about }, None, now);
        }
        if reader.delivered > 0 {
            self.has_delivered(&place.lane.provider, now);
        }
        if let Some(taken) = reader.taken_before_too_many() {
            self.throttle.took_at_once(&place.lane, taken, now);
        }
        if was_held && !self.is_held_back(delivery.id, &place.lane, now) {
            self.wake_held_back(now);
        }
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
        self.defer(id, &envelope, delivery, attempt.excerpt.as_ref(), Deferral { changes, again: attempt.again }, now);
    }

    /// How long the delivery waits of its own, where the reply is about it alone: greylisting, and the limit of one mailbox, at
    /// which everything else for the mailbox waits too.
    fn own_wait(&mut self, recipient: &Recipient, reading: &Reading, place: &Where) -> Option<Duration> {
        let again = reading.effects.again_secs.map(|secs| Duration::from_secs(u64::from(secs)));
        if (reading.class, reading.scope) != (Class::RateLimit, Scope::Recipient) {
            return again;
        }
        let part = f64::from(reading.effects.wait.unwrap_or(100)) / 100.0;
        let first = again.unwrap_or_else(|| self.throttle.profile(&place.lane.provider).pause.mul_f64(part));
        let until = self.gate.rest(super::key_of(&recipient.address), first, place.now);
        Some(until.since(place.now))
    }

    /// One more deferral: plans the next attempt, and tells those who asked for it that it takes long.
    pub(super) fn defer(
        &mut self,
        id: DeliveryId,
        envelope: &Arc<Envelope>,
        mut delivery: Delivery,
        excerpt: Option<&Excerpt>,
        Deferral { mut changes, again }: Deferral,
        now: Timestamp,
    ) {
        delivery.attempts += 1;
        let next = match again {
            Some(wait) => self.own_attempt(id, delivery.attempts, wait, now),
            None => self.next_attempt(id, delivery.attempts, now),
        };
        delivery.next_attempt = Some(next);
        let entry_holds = self.queue.get(id).is_some_and(|entry| entry.hold_wanted);
        if entry_holds {
            delivery.state = DeliveryState::Held;
        }
        // Who named a time with N hears then, and not before.
        let tells_at = envelope.requests.notifies_at(envelope.received);
        let tells_at = tells_at.unwrap_or(id.message.received() + self.bounces.delay_after.0);
        if !delivery.delay_reported && now >= tells_at {
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

/// The receiver says that the mail belongs to another host: 451 4.4.62, 4.4.4 ATTR35, relaying denied.
fn is_misrouted(reading: &Reading) -> bool {
    reading.class == Class::Routing && reading.scope == Scope::RecipientDomain
}
