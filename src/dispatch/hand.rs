//! What operators order: to pause and to resume a provider, a recipient domain or everything, and to forget.
//!
//! Mail of a paused domain leaves the lines and stands behind its domain, as mail does whose route is being asked for: it
//! costs no work, however much it is, and other mail of its lanes goes on. Nothing is looked up for it, so that a domain whose
//! hosts cannot be found now can be paused before its mail is returned. A pause of a provider, or of everything, stops lanes:
//! their mail keeps its place in the lines.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::core::Core;
use super::destination::DomainId;
use super::errand::Errand;
use super::lanes::in_words;
use super::message::{Action, ConnectionId, Ticket};
use super::pump::State;
use crate::spool::Change;
use crate::throttle::{Change as LaneChange, EVERYTHING, HoldSender, LaneName, LaneOrder, Ordered};
use crate::types::words::count;
use crate::types::{DeliveryId, Domain, Event, EventKind, Timestamp};

/// So many providers or sources are named to whoever asks for one that does not exist.
const NAMED_MAX: usize = 50;

impl Core {
    /// Carries out an operator's order to all lanes of a provider.
    pub(super) fn order_lanes(&mut self, ticket: Ticket, provider: &Arc<str>, order: LaneOrder, now: Timestamp) {
        if let Err(answer) = self.known_provider(provider) {
            return self.act(Action::LaneAnswer { ticket, answer: Err(answer) });
        }
        let Ordered { changes, asking } = self.throttle.order(provider, order, now);
        let mut texts: Vec<String> = Vec::new();
        for (lane, change) in &changes {
            let (kind, text) = match change {
                LaneChange::Resumed => {
                    (EventKind::Resumed, format!("{lane}: mail goes out again, an operator says so"))
                }
                change => in_words(lane, change),
            };
            texts.push(self.announce(lane, change, kind, text, None, now));
        }
        // That a lane accepts mail again is an event when it does.
        texts.extend(
            asking
                .iter()
                .map(|lane| format!("{lane}: one message asks now; if it is taken the rest follows, slowly at first")),
        );
        if order != LaneOrder::Pause && self.throttle.everything_paused().is_some() {
            texts.push("but everything is paused, so nothing goes out: weir resume --all".to_string());
        }
        self.save(now);
        self.hasten(provider, now);
        self.wake_held_back(now);
        self.act(Action::LaneAnswer { ticket, answer: Ok(texts) });
    }

    /// Pauses everything, or lifts that pause.
    pub(super) fn order_all(&mut self, ticket: Ticket, order: LaneOrder, now: Timestamp) {
        let Ordered { changes, asking } = self.throttle.order_all(order, now);
        let mut texts = Vec::new();
        if !changes.is_empty() {
            texts.push(match order {
                LaneOrder::Pause => {
                    let text = "everything: nothing is sent until an operator says `weir resume --all`";
                    self.note_order(EventKind::Paused, text, now)
                }
                LaneOrder::Resume { .. } => {
                    self.note_order(EventKind::Resumed, "everything: mail goes out again, an operator says so", now)
                }
            });
            self.change_for_all(order, now);
        }
        if !asking.is_empty() {
            let lanes = count(asking.len(), "lane");
            texts.push(format!("{lanes}: one message asks in each; if it is taken the rest follows, slowly at first"));
        }
        if order != LaneOrder::Pause {
            texts.extend(self.still_paused());
        }
        self.save(now);
        self.act(Action::LaneAnswer { ticket, answer: Ok(texts) });
    }

    fn change_for_all(&mut self, order: LaneOrder, now: Timestamp) {
        if order == LaneOrder::Pause {
            return self.rest_all();
        }
        // What no route was found for has waited: it is asked for again.
        self.begin(Errand::WakeUnroutable { from: 0 }, now);
        self.hasten_all(now);
        self.pump_all(now);
    }

    /// The pauses that were not lifted, in words: whoever resumes everything should know of them.
    fn still_paused(&self) -> Vec<String> {
        let providers = self.throttle.providers_paused();
        let providers = providers.map(|name| format!("{name} stays paused by itself: weir resume {name}"));
        let domains = self.throttle.domains_paused();
        let domains = domains.map(|(name, _)| format!("mail to {name} stays paused: weir resume --domain {name}"));
        providers.chain(domains).collect()
    }

    /// Pauses the mail of a recipient domain, or lifts that pause.
    pub(super) fn order_domain(&mut self, ticket: Ticket, domain: &Domain, order: LaneOrder, now: Timestamp) {
        let ids = self.places.all_of(domain);
        let mut texts = Vec::new();
        if self.throttle.order_domain(domain, order, now) {
            texts.push(match order {
                LaneOrder::Pause => {
                    ids.iter().for_each(|id| self.set_domain_aside(*id, now));
                    let text = format!(
                        "mail to {domain}: nothing is sent until an operator says `weir resume --domain {domain}`"
                    );
                    self.note_order(EventKind::Paused, &text, now)
                }
                LaneOrder::Resume { force } => {
                    for id in &ids {
                        if let Some(place) = self.places.domains.get_mut(*id) {
                            place.asks_first = !force && place.deliveries > 0;
                        }
                        self.wake_domain(*id, now);
                    }
                    let how = match force || self.waiting_for(domain) == 0 {
                        true => "it goes out again, an operator says so",
                        false => "an operator lets it go again: one message asks now; if it is taken the rest follows",
                    };
                    self.note_order(EventKind::Resumed, &format!("mail to {domain}: {how}"), now)
                }
            });
        }
        if order != LaneOrder::Pause && self.throttle.everything_paused().is_some() {
            texts.push("but everything is paused, so nothing goes out: weir resume --all".to_string());
        }
        self.save(now);
        self.act(Action::LaneAnswer { ticket, answer: Ok(texts) });
    }

    /// Holds the mail of a sender domain back at a provider until then, or lets it go again where that has passed: one message goes first.
    pub(super) fn hold_sender(&mut self, hold: &HoldSender, now: Timestamp) {
        let Some(source) = self.sources.first().map(|source| source.name.clone()) else { return };
        // What one lane of a provider holds, all of them hold.
        let lane = LaneName { provider: hold.provider.clone(), source };
        let was_held = self.throttle.holds_sender(&lane, &hold.domain, now);
        if hold.until <= now && !was_held {
            return;
        }
        let Some(began) = self.throttle.hold_sender(&lane, hold, now) else { return };
        let change = LaneChange::Held(began);
        if hold.until <= now {
            self.wake_held_back(now);
        } else if !was_held {
            let (kind, text) = in_words(&lane, &change);
            self.announce(&lane, &change, kind, format!("{text}: {}", hold.why), None, now);
        }
        self.save(now);
    }

    /// A domain that was resumed has its route: one message goes ahead in each lane.
    pub(super) fn ask_domain_first(&mut self, id: DomainId, now: Timestamp) {
        let Some(domain) = self.places.domains.get_mut(id) else { return };
        let (name, is_wanted) = (domain.name.clone(), std::mem::take(&mut domain.asks_first));
        let Some(target) = domain.target.filter(|_| is_wanted).and_then(|id| self.places.targets.get(id)) else {
            return;
        };
        let lane = |source: &Arc<str>| LaneName { provider: target.provider.clone(), source: source.clone() };
        let lanes: Vec<LaneName> = self.sources.iter().map(|source| lane(&source.name)).collect();
        self.throttle.ask_first(&name, &lanes, now);
    }

    /// Out of the line as its turns come: the mail of the domain stands behind it until an operator lets it go. What is on its way
    /// to a connection is called back where its dialogue has not begun.
    fn set_domain_aside(&mut self, id: DomainId, now: Timestamp) {
        let of_domain = |delivery: DeliveryId| self.queue.get(delivery).is_some_and(|entry| entry.domain == id);
        let opening = |state: State| matches!(state, State::Opening(delivery) if of_domain(delivery));
        let openings: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| opening(c.state)).map(|(id, _)| *id).collect();
        openings.into_iter().for_each(|connection| self.recall(connection));
        if let Some(domain) = self.places.domains.get_mut(id) {
            // Nothing of it goes out of a line without being asked here again.
            domain.valid_until = Timestamp::EPOCH;
            if let Some(target) = domain.target {
                self.look_again(target, now);
            }
        }
    }

    /// What stands behind the domain goes on in its old order when its way is known anew.
    pub(super) fn wake_domain(&mut self, id: DomainId, now: Timestamp) {
        let Some(domain) = self.places.domains.get_mut(id) else { return };
        domain.valid_until = Timestamp::EPOCH;
        let waits = !domain.pending.is_empty();
        if let Some(target) = domain.target {
            self.look_again(target, now);
        }
        if waits {
            self.resolve(id);
        }
    }

    /// Is mail of the domain to wait behind it, whatever is known of its way?
    pub(super) fn is_set_aside(&self, domain: DomainId) -> bool {
        self.places.domains.get(domain).is_some_and(|domain| self.throttle.domain_paused(&domain.name).is_some())
    }

    /// Drops what was learned of a provider's limits; says what that was.
    pub(super) fn order_forget(&mut self, ticket: Ticket, provider: &Arc<str>, source: Option<&str>, now: Timestamp) {
        let known = self.known_provider(provider).and_then(|()| self.known_source(provider, source, now));
        if let Err(answer) = known {
            return self.act(Action::LaneAnswer { ticket, answer: Err(answer) });
        }
        let mut texts = Vec::new();
        for (lane, what) in self.throttle.forget(provider, source, now) {
            let text = match what.is_empty() {
                true => format!("{lane}: nothing was learned of its limits"),
                false => format!("{lane}: forgotten, an operator says so: {}", what.join("; ")),
            };
            self.blocked_by.remove(&lane);
            self.over_for(&lane, now);
            let change = LaneChange::Resumed;
            texts.push(match what.is_empty() {
                true => text,
                false => self.announce(&lane, &change, EventKind::Resumed, text, None, now),
            });
        }
        if self.throttle.is_paused(provider) {
            texts.push(format!("{provider} stays paused by an operator: weir resume {provider}"));
        } else if self.throttle.everything_paused().is_some() {
            texts.push("everything stays paused by an operator: weir resume --all".to_string());
        }
        self.save(now);
        self.hasten(provider, now);
        self.wake_held_back(now);
        self.act(Action::LaneAnswer { ticket, answer: Ok(texts) });
    }

    /// The event of an order that is about no lane.
    fn note_order(&mut self, kind: EventKind, text: &str, now: Timestamp) -> String {
        let mut event = Event::new(now, kind);
        event.text = Some(text.to_string());
        self.act(Action::Commit(vec![Change::Note(event)]));
        text.to_string()
    }

    /// Those with a profile, with a lane, and with mail.
    fn known_provider(&self, provider: &Arc<str>) -> Result<(), String> {
        let has_target = || self.places.targets.iter().any(|(_, target)| target.provider == *provider);
        if **provider != *EVERYTHING
            && (self.profile_names.contains(provider) || self.throttle.knows(provider) || has_target())
        {
            return Ok(());
        }
        let targets = self.places.targets.iter().map(|(_, target)| target.provider.clone());
        let all: BTreeSet<Arc<str>> = self.profile_names.iter().cloned().chain(targets.take(NAMED_MAX)).collect();
        let names: Vec<&str> = all.iter().map(|name| &**name).collect();
        Err(format!("no such provider: {provider}; there are {}", named(&names)))
    }

    fn known_source(&self, provider: &Arc<str>, source: Option<&str>, now: Timestamp) -> Result<(), String> {
        let lanes = self.throttle.status_of(provider, now);
        let known: BTreeSet<Arc<str>> =
            self.sources.iter().map(|own| own.name.clone()).chain(lanes.into_iter().map(|lane| lane.source)).collect();
        let names: Vec<&str> =
            known.iter().map(|name| &**name).filter(|name| *name != crate::throttle::EVERY_SOURCE).collect();
        match source {
            Some(source) if !names.contains(&source) => {
                Err(format!("no such source: {source}; there are {}", named(&names)))
            }
            _ => Ok(()),
        }
    }
}

/// As many as somebody would read.
fn named(names: &[&str]) -> String {
    match names.len().checked_sub(NAMED_MAX) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more (weir status)", names[..NAMED_MAX].join(", ")),
    }
}
