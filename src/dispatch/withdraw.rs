//! Settles deliveries without a transaction: expired, without a route or a host, held, returned or removed by an operator.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Attempt, Said};
use super::core::Core;
use super::ending::{Ending, Facts};
use super::message::{Action, Excerpt};
use super::settle::Deferral;
use super::unreached::{LOGIN_REFUSED, NO_ROUTE, UNREACHABLE};
use crate::queue::Place;
use crate::route::Unroutable;
use crate::spool::{Change, Stored};
use crate::types::{Delivery, DeliveryId, DeliveryState, Envelope, NextHop, Stage, Timestamp};

/// Why a delivery is settled without a transaction.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Expire,
    Unroutable(Arc<Unroutable>),
    Unreachable {
        said: Vec<Said>,
        is_final: bool,
    },
    /// The task that had it ended without a word.
    Lost,
    /// It is late, and its sender wants to hear so; it was there.
    Late(Place),
    /// Every recipient has come to its end; only the report is left to be made.
    Ended,
    Hold(u64),
    Release(u64),
    Bounce(u64),
    Remove(u64),
    /// Another way, from now on.
    Reroute(u64, NextHop),
}

impl Purpose {
    pub(super) fn ticket(&self) -> Option<u64> {
        match self {
            Purpose::Hold(ticket)
            | Purpose::Release(ticket)
            | Purpose::Bounce(ticket)
            | Purpose::Remove(ticket)
            | Purpose::Reroute(ticket, _) => Some(*ticket),
            _ => None,
        }
    }
}

impl Core {
    /// The content of a delivery that has come in just now and was not touched since.
    pub(super) fn at_hand(&mut self, id: DeliveryId) -> Option<(Stored, Excerpt)> {
        if self.queue.get(id)?.attempts > 0 || self.attempts.get(&id).is_some_and(Attempt::goes_on) {
            return None;
        }
        let message = self.fresh.get(id.message)?;
        let delivery = message.deliveries.iter().find(|delivery| delivery.id == id)?.clone();
        let excerpt = Excerpt::of(&message.body)?;
        Some((Stored { envelope: message.envelope.clone(), delivery, body: message.body.clone() }, excerpt))
    }

    pub(super) fn settle_without_transaction(
        &mut self,
        id: DeliveryId,
        purpose: Purpose,
        stored: Stored,
        excerpt: Excerpt,
        now: Timestamp,
    ) {
        let Stored { envelope, mut delivery, .. } = stored;
        self.bring_up_to_date(&mut delivery);
        self.commands.settled(purpose.ticket(), id, true);
        let facts = self.facts_without_transaction(id, &delivery, &purpose);
        let mut ending = Ending::new(&envelope, facts, now);
        match purpose {
            Purpose::Hold(_) => return self.set_held(id, delivery, true, now),
            Purpose::Release(_) => return self.set_held(id, delivery, false, now),
            Purpose::Reroute(_, hop) => return self.set_next_hop(id, delivery, hop, now),
            Purpose::Late(place) => return self.told_late(place, &envelope, delivery, &excerpt, now),
            Purpose::Ended => {}
            Purpose::Expire => ending.expired(&delivery),
            Purpose::Bounce(_) => ending.returned(&delivery),
            Purpose::Remove(_) => ending.removed(&delivery),
            Purpose::Unroutable(failure) if failure.permanent => ending.unroutable(&delivery, &failure),
            Purpose::Unreachable { said, is_final: true } => {
                let last = said.into_iter().rev().find_map(|s| s.reply.map(|reply| (s.mx, reply)));
                if let Some((mx, reply)) = last {
                    let provider = ending.facts.provider.clone().unwrap_or_else(|| "default".into());
                    let reading = self.rules.read(&provider, Stage::Connect, &reply);
                    ending.facts.mx = Some(mx);
                    for recipient in &delivery.recipients {
                        ending.bounced(recipient, &reply, &reading);
                    }
                }
            }
            Purpose::Unroutable(failure) => {
                self.defer_all(id, &envelope, delivery, &excerpt, ending, (NO_ROUTE, &failure.text, None), now);
                return self.note_unreached(id);
            }
            Purpose::Unreachable { said, .. } => {
                let is_login = said.iter().any(|s| s.is_login);
                let again = self.named_by_all(&said, ending.facts.provider.as_deref()).filter(|_| !is_login);
                let is_silent = said.iter().all(|s| s.reply.is_none());
                let rule = if is_login { LOGIN_REFUSED } else { UNREACHABLE };
                let texts: Vec<String> = said.into_iter().map(|s| s.text).collect();
                let text = if texts.is_empty() { "no address to connect to".to_string() } else { texts.join("; ") };
                self.defer_all(id, &envelope, delivery, &excerpt, ending, (rule, &text, again), now);
                if is_silent || is_login {
                    self.note_unreached(id);
                }
                return;
            }
            Purpose::Lost => {
                let text = "the connection's task ended without a report; it may have been delivered all the same";
                return self.defer_all(id, &envelope, delivery, &excerpt, ending, ("in-doubt", text, None), now);
            }
        }
        let mut failed = std::mem::take(&mut delivery.failed);
        failed.append(&mut ending.failed);
        let mut changes: Vec<Change> = ending.take_events().into_iter().map(Change::Note).collect();
        self.report_failure(&envelope, &failed, Some(&excerpt), &mut changes, now);
        changes.push(Change::Finish(id));
        self.act(Action::Commit(changes));
        self.forget(id);
    }

    /// What was read from the spool may be older than a change that is still being written: what is known here holds, and is
    /// not lost by being written over.
    pub(super) fn bring_up_to_date(&self, delivery: &mut Delivery) {
        let Some(entry) = self.queue.get(delivery.id) else { return };
        delivery.attempts = delivery.attempts.max(entry.attempts);
        delivery.delay_reported |= entry.delay_reported;
        if let Some(domain) = self.places.domains.get(entry.domain) {
            delivery.next_hop = domain.next_hop.clone();
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one deferral with its delivery and its words")]
    fn defer_all(
        &mut self,
        id: DeliveryId,
        envelope: &Arc<Envelope>,
        mut delivery: Delivery,
        excerpt: &Excerpt,
        mut ending: Ending,
        (rule, text, again): (&'static str, &str, Option<Duration>),
        now: Timestamp,
    ) {
        for recipient in &delivery.recipients {
            ending.broken(recipient, rule, text);
        }
        delivery.refusal = ending.refusal.take();
        let changes = ending.take_events().into_iter().map(Change::Note).collect();
        self.defer(id, envelope, delivery, Some(excerpt), Deferral { changes, again }, now);
    }

    /// The longest wait, where each host has asked for one.
    fn named_by_all(&self, said: &[Said], provider: Option<&str>) -> Option<Duration> {
        let waits = said.iter().map(|said| {
            let reading = self.rules.read(provider.unwrap_or("default"), Stage::Connect, said.reply.as_ref()?);
            reading.effects.again_secs
        });
        let longest = waits.collect::<Option<Vec<u16>>>()?.into_iter().max()?;
        Some(Duration::from_secs(u64::from(longest)))
    }

    /// Moves a delivery to the line of an operator's next hop; the try of it that may have begun is forgotten.
    fn set_next_hop(&mut self, id: DeliveryId, mut delivery: Delivery, hop: NextHop, now: Timestamp) {
        let place = match delivery.state {
            DeliveryState::Held => Place::Held,
            DeliveryState::Waiting => Place::Later(now),
        };
        let domain = self.places.take_domain(&delivery.domain, Some(&hop));
        delivery.next_hop = Some(hop);
        delivery.next_attempt = delivery.next_attempt.map(|at| at.min(now));
        self.fresh.remove(id.message);
        self.act(Action::Commit(vec![Change::Update(delivery)]));
        self.release_gate(id);
        self.attempts.remove(&id);
        if let Some(entry) = self.queue.get_mut(id) {
            let before = std::mem::replace(&mut entry.domain, domain);
            self.unreached.leave(before, id);
            self.places.leave_domain(before);
        }
        self.queue.put(id, place);
    }

    pub(super) fn set_held(&mut self, id: DeliveryId, mut delivery: Delivery, held: bool, now: Timestamp) {
        delivery.state = if held { DeliveryState::Held } else { DeliveryState::Waiting };
        let place = if held { Place::Held } else { Place::Later(delivery.next_attempt.unwrap_or(now).max(now)) };
        self.act(Action::Commit(vec![Change::Update(delivery)]));
        self.release_gate(id);
        self.attempts.remove(&id);
        self.queue.put(id, place);
    }

    fn facts_without_transaction(&self, id: DeliveryId, delivery: &Delivery, purpose: &Purpose) -> Facts {
        let target = self
            .queue
            .get(id)
            .and_then(|entry| self.places.domains.get(entry.domain))
            .and_then(|domain| domain.target)
            .and_then(|target| self.places.targets.get(target));
        let last = delivery.refusal.as_ref();
        let tries = matches!(purpose, Purpose::Unroutable(_) | Purpose::Unreachable { .. } | Purpose::Lost);
        Facts {
            provider: target.map(|t| t.provider.clone()).or_else(|| last.map(|r| r.provider.as_str().into())),
            source: last.filter(|r| !r.source.is_empty()).map(|r| r.source.as_str().into()),
            mx: None,
            tls: None,
            attempt: delivery.attempts + u32::from(tries),
        }
    }
}
