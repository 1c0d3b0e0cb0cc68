//! A try of one delivery: over which addresses it has come, and whom it has still to offer.

use std::sync::Arc;
use std::time::Duration;

use super::message::Excerpt;
use super::opening::Next;
use super::passed_on::PassedOn;
use crate::outbound::{Hello, OpenError};
use crate::route::order::Candidate;
use crate::types::{Delivery, Envelope, Recipient, Refusal, Reply};

/// A try of one delivery, from its first connection to its last transaction.
pub(super) struct Attempt {
    pub candidates: Vec<Candidate>,
    /// The candidate in use.
    pub next: usize,
    /// Why those before it were no use.
    pub said: Vec<Said>,
    /// At the candidate in use more has failed than this.
    pub hello: Option<Hello>,
    /// The hosts that lack what the message needs: it must go to another, so to no connection that stands.
    pub unable: Vec<Arc<str>>,
    /// The next attempt stands in the spool already.
    pub planned: bool,
    /// The domain's hosts have been asked for afresh.
    pub routed_afresh: bool,
    /// The last transaction was refused for the sake of the lane.
    pub slowed: bool,
    pub base: Option<(Arc<Envelope>, Delivery)>,
    /// Not offered yet.
    pub pending: Vec<Recipient>,
    pub deferred: Vec<Recipient>,
    /// The longest wait that replies asked of this delivery alone; none: somebody was put off for another reason.
    pub again: Option<Duration>,
    pub refusal: Option<Refusal>,
    pub excerpt: Option<Excerpt>,
    pub relayed: Vec<(Recipient, PassedOn)>,
}

/// What became of one candidate.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub mx: Arc<str>,
    pub text: String,
    pub reply: Option<Reply>,
    /// The host said no for good, at its greeting.
    pub permanent: bool,
    /// It did not let us in.
    pub is_login: bool,
}

impl Attempt {
    pub(super) fn new() -> Attempt {
        Attempt {
            candidates: Vec::new(),
            next: 0,
            said: Vec::new(),
            hello: None,
            unable: Vec::new(),
            planned: false,
            routed_afresh: false,
            slowed: false,
            base: None,
            pending: Vec::new(),
            deferred: Vec::new(),
            again: None,
            refusal: None,
            excerpt: None,
            relayed: Vec::new(),
        }
    }

    /// Nothing that was offered has an outcome of its own: as if the delivery had not been offered.
    pub(super) fn is_untouched(&self) -> bool {
        let whole = |(_, delivery): &(Arc<Envelope>, Delivery)| {
            delivery.failed.is_empty() && delivery.recipients.len() == self.pending.len()
        };
        self.slowed && self.deferred.is_empty() && self.relayed.is_empty() && self.base.as_ref().is_some_and(whole)
    }

    /// A recipient is to be offered again later; `again`: after this, by its own reply.
    pub(super) fn put_off(&mut self, recipient: Recipient, again: Option<Duration>) {
        self.again = match (self.deferred.is_empty(), self.again) {
            (true, _) => again,
            // All who wait have one next attempt: by the schedule, unless each of them named a time.
            (false, known) => known.zip(again).map(|(known, again)| known.max(again)),
        };
        self.deferred.push(recipient);
    }

    /// A transaction of it has been held already.
    pub(super) fn goes_on(&self) -> bool {
        self.base.is_some()
    }

    /// The candidate in use was no use: on to the next, past the other addresses of a host that has said no.
    pub(super) fn failed(&mut self, candidate: &Candidate, error: &OpenError, next: Next) {
        let text = match &error.reply {
            Some(reply) if next != Next::Login => format!("{} ({}): {}", candidate.name, candidate.address, reply),
            _ if next == Next::Login => error.text.clone(),
            _ => format!("{}: {}", candidate.name, error.text),
        };
        let permanent = matches!(next, Next::Host | Next::Final);
        let is_login = next == Next::Login;
        self.said.push(Said { mx: candidate.name.clone(), text, reply: error.reply.clone(), permanent, is_login });
        self.next += 1;
        if next == Next::Host {
            let rest = self.candidates.split_off(self.next.min(self.candidates.len()));
            self.candidates.extend(rest.into_iter().filter(|c| c.host != candidate.host));
        }
    }
}
