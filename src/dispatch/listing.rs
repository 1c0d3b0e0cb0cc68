//! What a refusal comes to for the recipient: to the suppression list, by what the receiver says of others.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::doubt::{Listed, Relist, Trust, unproven};
use super::ending::Ending;
use super::message::Action;
use super::reader::{Reader, Where};
use crate::queue::RecipientKey;
use crate::spool::Change;
use crate::suppress::Hit;
use crate::types::{Class, Event, Mailbox, Reading, Recipient, Reply, Scope, Stage, Submitter, Timestamp, Verdict};
use crate::verdict::bare_words;

/// A refusal that the list is deciding about.
#[derive(Debug)]
pub(super) struct Listing {
    /// That he came onto the list, for when he has.
    event: Event,
    receiver: Arc<str>,
    listed: Listed,
}

impl Core {
    /// Counts an answer about a recipient; names the wave of unknown users it belongs to.
    pub(super) fn note_recipient(
        &mut self,
        reading: &Reading,
        stage: Stage,
        who: Option<Submitter>,
        place: &Where,
    ) -> Option<Arc<str>> {
        let is_about =
            reading.verdict == Verdict::Delivered || (stage == Stage::Rcpt && reading.scope == Scope::Recipient);
        if !is_about {
            return None;
        }
        let unknown = reading.class == Class::RecipientUnknown;
        let wave = self.throttle.note_recipient(&place.lane, unknown, place.now);
        self.tell_counted(place.now);
        // While a receiver calls everybody unknown, that says nothing about those who write.
        if let Some(who) = who.filter(|_| wave.is_none())
            && let Some(mining) = self.throttle.note_client(&who.to_string(), unknown, place.now)
        {
            self.raise_mining(who, &mining, place.now);
        }
        wave
    }

    /// The receiver took a recipient: what it refuses now is meant.
    pub(super) fn took_somebody(&mut self, receiver: &Arc<str>, now: Timestamp) {
        let whom = self.doubts.took(receiver, now);
        self.relist(receiver, whom);
        self.same_words_over(receiver, now);
    }

    fn relist(&mut self, receiver: &str, whom: Vec<(Mailbox, Relist)>) {
        if !whom.is_empty() {
            self.act(Action::Relist { whom, wave: unproven(receiver) });
        }
    }

    pub(super) fn suppress(
        &mut self,
        recipient: &Recipient,
        reply: &Reply,
        reading: &Reading,
        wave: Option<Arc<str>>,
        ending: &Ending,
        reader: &Reader,
    ) {
        let (key, now, receiver) = (super::key_of(&recipient.address), ending.now(), reader.provider().clone());
        let words: Arc<str> = bare_words(reply, &recipient.address).into();
        let (trust, whom) = match reader.anyone_accepted {
            true => (self.doubts.trust(&receiver, now), Vec::new()),
            false => self.doubts.refused(&receiver, &words, key, now),
        };
        let whom = [self.doubts.in_wave(&receiver, wave.as_ref(), now), whom].concat();
        let taken_off = whom.iter().filter(|(_, how)| *how == Relist::Off).count();
        self.relist(&receiver, whom);
        // What is counted or concluded rests on the receiver meaning this one.
        let is_said = matches!(reading.class, Class::RecipientUnknown | Class::RecipientDisabled);
        let concluded = reading.effects.provisional || !is_said;
        if let Trust::Doubted { now: begins } = trust
            && concluded
        {
            if begins {
                self.raise_same_words(&receiver, &reply.to_string(), taken_off, now);
            }
            return;
        }
        let provisional = match trust {
            Trust::Proven => false,
            Trust::Unproven => reading.effects.provisional || reading.class == Class::Other,
            Trust::Doubted { .. } => true,
        };
        let is_own = provisional && wave.is_none();
        let wave = wave.or_else(|| provisional.then(|| unproven(&receiver)));
        // Nobody asks for this recipient again before the list has decided.
        self.gate.hold(key);
        let event = ending.on_list(recipient, reply, reading);
        let listed = Listed { mailbox: recipient.address.clone(), words, concluded, provisional: is_own, at: now };
        self.listings.entry(key).or_default().push_back(Listing { event, receiver, listed });
        let hit = Box::new(Hit { wave, ..ending.hit(recipient, reply, reading) });
        self.act(Action::Suppress { hit, key });
    }

    /// The list has decided: if it holds the recipient back now, those that waited for the answer are told by the list, not by
    /// the receiver.
    pub(super) fn suppressed(&mut self, key: RecipientKey, listed: bool, now: Timestamp) {
        let told = self.listings.get_mut(&key).and_then(VecDeque::pop_front);
        if self.listings.get(&key).is_some_and(VecDeque::is_empty) {
            self.listings.remove(&key);
        }
        if let Some(Listing { event, receiver, listed }) = told.filter(|_| listed) {
            self.act(Action::Commit(vec![Change::Note(Event { time: now, ..event })]));
            let whom = self.doubts.listed(&receiver, listed, now);
            self.relist(&receiver, whom);
        }
        let mut free = self.gate.let_go(key);
        while let Some(id) = free.pop() {
            if !self.unpark(id) {
                free.extend(self.gate.pass_on(&[key]));
            }
        }
    }
}
