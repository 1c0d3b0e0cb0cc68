//! The receiver itself: what it says to whom, at which time. Pure, and the same again for the same seed and the same calls.
//!
//! Rules that always hold:
//! - a limit refuses what goes beyond it and nothing else; what was let in counts, whatever became of it;
//! - the rate is asked at MAIL, for the first recipient; further recipients of a transaction that was let in count and are
//!   taken, so a window may stand above its limit by the recipients of transactions under way. Where the profile says so it is asked
//!   for each recipient at RCPT instead, or for all of them at the end of the content, and what counts is what was let in there;
//! - a connection counts from [`Receiver::connect`] to [`Receiver::lost`]: a reply that closes does not yet end it;
//! - what is said is counted, and nothing else is (`judgement`).

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::judgement::Judgement;
use super::penalty::Penalty;
use super::profile::{HostState, Limits, Profile, Stage};
use super::standing::{Ignored, Standing, Trust};
use super::transaction::{Mail, Memory, RECIPIENTS_MAX, Transaction, hash};
use super::window::{Counts, Scope};
use super::words::Wording;
use crate::types::{Reply, Span, Timestamp};

/// Source addresses known at a time; more are counted as one.
const SOURCES_MAX: usize = 10_000;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// None: not a word. With `closes` nobody listens at all, without it the connection stays silent for ever.
    pub reply: Option<Reply>,
    /// How long it takes.
    pub after: Duration,
    /// The receiver hangs up after the reply; tell it with [`Receiver::lost`] when that has happened.
    pub closes: bool,
}

#[derive(Clone, Debug)]
pub struct Receiver {
    profile: Profile,
    start: Timestamp,
    seed: u64,
    chance: fastrand::Rng,
    sessions: BTreeMap<SessionId, Session>,
    last_session: u64,
    sources: BTreeMap<IpAddr, Source>,
    /// What all sources together have used.
    together: Counts,
    /// How long anything counted can matter.
    keep: Duration,
    memory: Memory,
    judgement: Judgement,
}

#[derive(Clone, Debug)]
struct Session {
    source: IpAddr,
    /// Where it is counted: the source, unless too many are known.
    account: IpAddr,
    host: String,
    /// One connection too many, which was let in to be told so at MAIL.
    surplus: bool,
    /// MAIL commands that were let in.
    messages: u32,
    transaction: Option<Transaction>,
}

#[derive(Clone, Debug, Default)]
struct Source {
    open: u32,
    counts: Counts,
    standing: Standing,
    penalty: Penalty,
}

/// Why a transaction is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Block,
    Limited,
    Connections,
    Messages,
    Rate,
    /// A penalty runs for having passed the rate.
    Penalty,
}

impl Receiver {
    /// `start`: the moment from which the changes of the profile are counted.
    pub fn new(profile: Profile, seed: u64, start: Timestamp) -> Receiver {
        Receiver {
            keep: profile.looks_back(),
            together: Counts::default(),
            profile,
            start,
            seed,
            chance: fastrand::Rng::with_seed(seed),
            sessions: BTreeMap::new(),
            last_session: 0,
            sources: BTreeMap::new(),
            memory: Memory::default(),
            judgement: Judgement::default(),
        }
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What a sender in good standing who knows everything may use now.
    pub fn limits_at(&self, now: Timestamp) -> Limits {
        self.profile.limits_at(self.start, now)
    }

    /// The end of the block that the profile's schedule has now.
    pub fn blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.profile.blocked_until(self.start, now)
    }

    /// When `limits_at` or `blocked_until` give something else next.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.profile.next_change(self.start, now)
    }

    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Whether a connection from `source` would be within the limits.
    pub fn has_room(&self, source: IpAddr, now: Timestamp) -> bool {
        let limits = self.limits_at(now);
        let of_source = self.sources.get(&self.account(source)).map_or(0, |source| source.open);
        let free = |open: u32, limit: Option<u32>| limit.is_none_or(|limit| open < limit);
        free(self.judgement.connections_open, limits.connections) && free(of_source, limits.connections_per_source)
    }

    /// Whether a message from `source` would be within the limits, were it alone.
    pub fn would_take(&mut self, source: IpAddr, now: Timestamp) -> bool {
        self.has_room(source, now) && self.refusal_of_source(source, now).is_none()
    }

    /// A connection from `source` to an MX host; without a session it has ended with what was said.
    pub fn connect(&mut self, source: IpAddr, host: &str, now: Timestamp) -> (Option<SessionId>, Said) {
        match self.profile.host_state(host) {
            HostState::Silent => return (None, Said { reply: None, after: Duration::ZERO, closes: false }),
            HostState::Refusing => return (None, Said { reply: None, after: Duration::ZERO, closes: true }),
            HostState::Up => {}
        }
        let surplus = self.is_surplus(source, now);
        let wording = match self.refusal_at_connect(surplus, source, now) {
            Some(refusal) => Some(self.refuse(refusal, source, now)),
            None => self.trouble(Stage::Connect, now),
        };
        let after = self.delay(self.profile.latency.connect);
        if let Some(wording) = wording {
            return (None, Said { reply: Some(wording.to(source, host, now)), after, closes: true });
        }
        let id = self.open(source, host, surplus);
        let text = format!("{host} Microsoft ESMTP MAIL Service ready at {}", now.rfc5322());
        (Some(id), Said { reply: Some(Reply::new(220, text)), after, closes: false })
    }

    pub fn ehlo(&mut self, session: SessionId, name: &str, _now: Timestamp) -> Said {
        let Some(host) = self.sessions.get(&session).map(|session| session.host.clone()) else {
            return Said::nobody();
        };
        if self.profile.strict_helo && !name.contains('.') && !name.starts_with('[') {
            return self.object(501, "5.5.4 Invalid domain name");
        }
        let size = self.profile.message_size.0;
        let text =
            format!("{host} Hello\nSIZE {size}\nPIPELINING\nDSN\nENHANCEDSTATUSCODES\n8BITMIME\nCHUNKING\nSMTPUTF8");
        self.drop_transaction(session);
        self.say(250, text)
    }

    pub fn mail(&mut self, session: SessionId, mail: &Mail<'_>, now: Timestamp) -> Said {
        let Some(known) = self.sessions.get(&session) else {
            return Said::nobody();
        };
        let source = known.source;
        if known.transaction.as_ref().is_some_and(|transaction| !transaction.refused) {
            return self.object(503, "5.5.2 Sender already specified");
        }
        let refusal = self.refusal(session, source, self.profile.refuses_at, now);
        let wording = match refusal {
            Some(refusal) => Some(self.refuse(refusal, source, now)),
            None => self.trouble(Stage::Mail, now),
        };
        if let Some(wording) = wording {
            let final_refusal = wording.code() >= 500;
            self.put(session, final_refusal.then(|| Transaction::new(mail, true)));
            return self.word(session, &wording, now);
        }
        if mail.size_bytes.is_some_and(|size| size > self.profile.message_size.0) {
            self.judgement.refused.size += 1;
            self.put(session, Some(Transaction::new(mail, true)));
            return self.say(552, "5.3.4 Message size exceeds fixed maximum message size");
        }
        if let Stage::Connect | Stage::Mail = self.profile.refuses_at {
            self.count(source, now);
        }
        if let Some(known) = self.sessions.get_mut(&session) {
            known.messages += 1;
            known.transaction = Some(Transaction::new(mail, false));
        }
        self.say(250, "2.1.0 Sender OK")
    }

    pub fn rcpt(&mut self, session: SessionId, recipient: &str, now: Timestamp) -> Said {
        let Some(known) = self.sessions.get(&session) else {
            return Said::nobody();
        };
        let source = known.source;
        let Some(transaction) = &known.transaction else {
            return self.object(503, "5.5.2 Need mail command");
        };
        let (key, accepted, refused) = (transaction.key(recipient), transaction.accepted.len(), transaction.refused);
        if self.memory.was_refused(key) {
            self.judgement.retransmitted += 1;
        }
        if refused {
            self.memory.refuse(key);
            return self.object(503, "5.5.2 Need mail command");
        }
        let wording = match self.refusal_at_rcpt(source, now) {
            Some(wording) => Some(wording),
            None => self.refusal_of_recipient(recipient, accepted, now),
        };
        if let Some(wording) = wording {
            if wording.code() >= 500 {
                self.memory.refuse(key);
            }
            return self.word(session, &wording, now);
        }
        if accepted > 0 && matches!(self.profile.refuses_at, Stage::Connect | Stage::Mail) {
            self.count(source, now);
        }
        if let Some(transaction) = self.sessions.get_mut(&session).and_then(|known| known.transaction.as_mut()) {
            transaction.accepted.push(key);
        }
        self.say(250, "2.1.5 Recipient OK")
    }

    /// DATA: whether the content may come.
    pub fn data(&mut self, session: SessionId, _now: Timestamp) -> Said {
        match self.recipients(session) {
            None => Said::nobody(),
            Some(0) => self.object(503, "5.5.2 Need rcpt command"),
            Some(_) => self.say(354, "Start mail input; end with <CRLF>.<CRLF>"),
        }
    }

    /// The end of the content, by a dot or the last BDAT.
    pub fn data_end(&mut self, session: SessionId, size_bytes: u64, now: Timestamp) -> Said {
        let recipients = match self.recipients(session) {
            None => return Said::nobody(),
            Some(0) => return self.object(503, "5.5.2 Need rcpt command"),
            Some(recipients) => recipients,
        };
        let keys = self.put(session, None).map(|transaction| transaction.accepted).unwrap_or_default();
        let after = self.delay(self.profile.latency.data);
        let too_large = size_bytes > self.profile.message_size.0;
        let wording = if too_large { None } else { self.refusal_at_data_end(session, recipients, now) };
        if too_large || wording.as_ref().is_some_and(|wording| wording.code() >= 500) {
            keys.iter().for_each(|key| self.memory.refuse(*key));
        }
        if too_large {
            self.judgement.refused.size += 1;
            return Said { after, ..self.say(552, "5.3.4 Message size exceeds fixed maximum message size") };
        }
        if let Some(wording) = wording {
            return Said { after, ..self.word(session, &wording, now) };
        }
        self.judgement.messages_accepted += 1;
        self.judgement.recipients_accepted += recipients as u64;
        let text = format!("2.6.0 [InternalId={}] Queued mail for delivery", self.judgement.messages_accepted);
        Said { after, ..self.say(250, text) }
    }

    pub fn reset(&mut self, session: SessionId, _now: Timestamp) -> Said {
        if !self.sessions.contains_key(&session) {
            return Said::nobody();
        }
        self.drop_transaction(session);
        self.say(250, "2.0.0 Resetting")
    }

    pub fn quit(&mut self, session: SessionId, _now: Timestamp) -> Said {
        if !self.sessions.contains_key(&session) {
            return Said::nobody();
        }
        self.drop_transaction(session);
        Said { closes: true, ..self.say(221, "2.0.0 Service closing transmission channel") }
    }

    /// The connection is gone, whoever closed it. Once more does no harm.
    pub fn lost(&mut self, session: SessionId, _now: Timestamp) {
        if let Some(known) = self.sessions.remove(&session) {
            self.judgement.connections_open -= 1;
            if let Some(source) = self.sources.get_mut(&known.account) {
                source.open -= 1;
            }
        }
    }
}

impl Said {
    /// To a session that has ended.
    fn nobody() -> Said {
        Said { reply: None, after: Duration::ZERO, closes: true }
    }
}
