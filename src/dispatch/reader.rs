//! Reads the replies of one transaction: each different one once, for the recipients and for the lane.

use std::sync::Arc;

use super::message::Resolved;
use crate::outbound::Outcome;
use crate::throttle::LaneName;
use crate::types::{Class, Reading, Recipient, Reply, Scope, Stage, Timestamp, Verdict};

/// The host lacks what the message needs, SMTPUTF8 (RFC 6531 section 3.2), 8BITMIME, or enough of its time: another MX host may do.
pub(super) fn lacks_extension(results: &[(Recipient, Resolved)]) -> bool {
    let lacks = |resolved: &Resolved| {
        matches!(resolved, Resolved::Outcome(Outcome::Unsendable { status: "5.6.7" | "5.6.3" | "5.4.7", .. }))
    };
    !results.is_empty() && results.iter().all(|(_, resolved)| lacks(resolved))
}

/// RCPT was answered with yes.
fn was_accepted(resolved: &Resolved) -> bool {
    matches!(resolved, Resolved::Outcome(Outcome::Replied { stage: Stage::Data, .. } | Outcome::InDoubt { .. }))
}

/// On which connection a transaction was held.
pub(super) struct Where {
    pub lane: LaneName,
    pub mx: Arc<str>,
    pub started: Timestamp,
    pub now: Timestamp,
    /// Messages that the connection had carried before.
    pub carried: u32,
}

/// Reads the replies of one transaction, each different one once.
pub(super) struct Reader {
    provider: Arc<str>,
    memory: Vec<(Stage, Reply, Reading)>,
    /// For the lane: each different reading once, with its words.
    pub readings: Vec<(Reading, String)>,
    /// The host does not take BDAT: the message goes by DATA at once.
    pub goes_by_data: bool,
    /// Some recipient's RCPT was accepted.
    pub anyone_accepted: bool,
    /// How many were.
    accepted: usize,
    /// The peer answered something.
    pub anything_said: bool,
    /// Recipients delivered to.
    pub delivered: u32,
    /// The rules for which the lane has a wait.
    pub waits: Vec<Arc<str>>,
    /// Whether each rule that was met leaves the message untouched.
    pub slows: Vec<(Arc<str>, bool)>,
    /// Refused in that way.
    pub untouched: Vec<Recipient>,
    /// The domain's hosts are asked for again, for those it found misrouted.
    pub routes_afresh: bool,
}

impl Reader {
    pub(super) fn new(results: &[(Recipient, Resolved)], place: &Where) -> Reader {
        let said = |stage: Option<Stage>| {
            results.iter().any(|(_, resolved)| match resolved {
                Resolved::Outcome(Outcome::Replied { stage: at, .. }) => stage.is_none_or(|wanted| wanted == *at),
                Resolved::Outcome(Outcome::InDoubt { .. }) => true,
                _ => false,
            })
        };
        Reader {
            provider: place.lane.provider.clone(),
            memory: Vec::new(),
            readings: Vec::new(),
            goes_by_data: false,
            anyone_accepted: said(Some(Stage::Data)),
            accepted: results.iter().filter(|(_, resolved)| was_accepted(resolved)).count(),
            anything_said: said(None),
            delivered: 0,
            waits: Vec::new(),
            slows: Vec::new(),
            routes_afresh: false,
            untouched: Vec::new(),
        }
    }

    /// Reads all of it, before anything is done about any.
    pub(super) fn read_all(&mut self, rules: &crate::verdict::Rules, results: &[(Recipient, Resolved)]) {
        for (_, resolved) in results {
            if let Resolved::Outcome(Outcome::Replied { stage, reply }) = resolved {
                let reading = self.read(rules, *stage, reply);
                self.delivered += u32::from(reading.verdict == Verdict::Delivered);
            }
        }
    }

    pub(super) fn read(&mut self, rules: &crate::verdict::Rules, stage: Stage, reply: &Reply) -> Reading {
        if let Some((.., reading)) = self.memory.iter().find(|(s, r, _)| *s == stage && r == reply) {
            return reading.clone();
        }
        let reading = rules.read(&self.provider, stage, reply);
        self.readings.push((reading.clone(), reply.to_string()));
        self.memory.push((stage, reply.clone(), reading.clone()));
        reading
    }

    /// How many recipients were taken where others were refused for good because they were too many.
    pub(super) fn taken_before_too_many(&self) -> Option<usize> {
        let is_final = |(reading, _): &(Reading, String)| {
            reading.class == Class::TooManyRecipients && reading.verdict == Verdict::Bounce
        };
        (self.accepted > 0 && self.readings.iter().any(is_final)).then_some(self.accepted)
    }

    pub(super) fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// Does the refusal concern this recipient alone, so that the list should know of it? What is said of the whole message
    /// and names somebody is about whom it names.
    pub(super) fn is_about(&self, recipient: &Recipient, stage: Stage, reply: &Reply, reading: &Reading) -> bool {
        if stage == Stage::Rcpt {
            return reading.suppress || reading.scope == Scope::Recipient;
        }
        let text = String::from_utf8_lossy(reply.bytes()).to_ascii_lowercase();
        let is_named = text.contains(&recipient.address.as_str().to_ascii_lowercase());
        reading.suppress && (is_named || !text.contains('@'))
    }

    /// The one deferral that was said of the message as a whole, if recipients are left that were not offered.
    pub(super) fn refuses_all(&self, pending: &[Recipient]) -> Option<(String, Reading)> {
        if pending.is_empty() || self.readings.iter().any(|(reading, _)| reading.verdict != Verdict::Retry) {
            return None;
        }
        let (stage, reply, reading) = self.memory.first()?;
        matches!(stage, Stage::Mail | Stage::Data).then(|| (reply.to_string(), reading.clone()))
    }
}
