//! Which limit refuses, and what is counted for it.
//!
//! The order in which limits are asked at MAIL: a block, a source that is limited because it pressed on, a connection too many, the
//! messages of the connection, a penalty, the rate. The first one speaks.

use super::*;

impl Receiver {
    /// Counts the connection at the peak, and says whether it is one too many.
    pub(super) fn is_surplus(&mut self, source: IpAddr, now: Timestamp) -> bool {
        let limits = self.limits_at(now);
        let open = self.judgement.connections_open;
        let reached = |open: u32, limit: Option<u32>| limit.is_some_and(|limit| open >= limit);
        self.judgement.connections_peak = self.judgement.connections_peak.max(open + 1);
        let ceiling = reached(open, limits.connections);
        if ceiling {
            self.judgement.ceiling_passed += 1;
        }
        ceiling || reached(self.source(source).open, limits.connections_per_source)
    }

    /// Limits are asked at the greeting where their words close the connection, or where the profile wants it so.
    pub(super) fn refusal_at_connect(&mut self, surplus: bool, source: IpAddr, now: Timestamp) -> Option<Refusal> {
        if surplus && self.profile.words.connections.closes() {
            return Some(Refusal::Connections);
        }
        match self.profile.refuses_at {
            Stage::Connect => self.refusal_of_source(source, now),
            _ => None,
        }
    }

    /// At MAIL. What is said of the source is said here unless it is said `later`.
    pub(super) fn refusal(
        &mut self,
        session: SessionId,
        source: IpAddr,
        later: Stage,
        now: Timestamp,
    ) -> Option<Refusal> {
        let of_source = match later {
            Stage::Connect | Stage::Mail => self.refusal_of_source(source, now),
            Stage::Rcpt | Stage::Data => None,
        };
        if let Some(Refusal::Block | Refusal::Limited) = of_source {
            return of_source;
        }
        if self.is_still_surplus(session, source, now) {
            return Some(Refusal::Connections);
        }
        let messages = self.sessions.get(&session).map_or(0, |session| session.messages);
        let most = self.limits_at(now).messages_per_connection;
        if most.is_some_and(|most| messages >= most) { Some(Refusal::Messages) } else { of_source }
    }

    /// For one recipient, where the rate is asked at RCPT; who is let in counts.
    pub(super) fn refusal_at_rcpt(&mut self, source: IpAddr, now: Timestamp) -> Option<Wording> {
        if self.profile.refuses_at != Stage::Rcpt {
            return None;
        }
        let refusal = self.refusal_of_source(source, now);
        if refusal.is_none() {
            self.count(source, now);
        }
        refusal.map(|refusal| self.refuse(refusal, source, now))
    }

    /// For the whole message, where the rate is asked at its end; else what goes wrong by chance.
    pub(super) fn refusal_at_data_end(
        &mut self,
        session: SessionId,
        recipients: usize,
        now: Timestamp,
    ) -> Option<Wording> {
        let source = self.sessions.get(&session)?.source;
        if self.profile.refuses_at == Stage::Data {
            if let Some(refusal) = self.refusal_of_source(source, now) {
                return Some(self.refuse(refusal, source, now));
            }
            (0..recipients).for_each(|_| self.count(source, now));
        }
        self.trouble(Stage::Data, now)
    }

    /// A connection that was one too many is none any more when others have ended.
    fn is_still_surplus(&mut self, session: SessionId, source: IpAddr, now: Timestamp) -> bool {
        let limits = self.limits_at(now);
        let within = |open: u32, limit: Option<u32>| limit.is_none_or(|limit| open <= limit);
        let has_room = within(self.judgement.connections_open, limits.connections)
            && within(self.source(source).open, limits.connections_per_source);
        self.sessions.get_mut(&session).is_some_and(|session| {
            session.surplus &= !has_room;
            session.surplus
        })
    }

    pub(super) fn refusal_of_source(&mut self, source: IpAddr, now: Timestamp) -> Option<Refusal> {
        let limits = self.limits_at(now);
        let scheduled = self.blocked_until(now).is_some();
        let windows = limits.windows();
        let source = self.source(source);
        match source.standing.trust(now) {
            Trust::Blocked => return Some(Refusal::Block),
            _ if scheduled => return Some(Refusal::Block),
            Trust::Limited => return Some(Refusal::Limited),
            Trust::Good => {}
        }
        if source.penalty.holds(now) {
            return Some(Refusal::Penalty);
        }
        let own = source.counts.has_room(&windows, Scope::Source, now);
        let has_room = own && self.together.has_room(&windows, Scope::All, now);
        (!has_room).then_some(Refusal::Rate)
    }

    /// Counts a refusal and says its words. Messages over the number of a connection are no sign of not listening.
    pub(super) fn refuse(&mut self, refusal: Refusal, source: IpAddr, now: Timestamp) -> Wording {
        let rules = self.profile.reputation;
        if let Refusal::Rate | Refusal::Penalty = refusal {
            self.count_refused(source, now);
            self.source(source).penalty.refuse(&rules, now);
        }
        let standing = &mut self.source(source).standing;
        let ignored = match refusal {
            Refusal::Messages => Ignored::default(),
            Refusal::Connections => standing.refuse_connection(&rules, now),
            Refusal::Rate | Refusal::Penalty | Refusal::Limited | Refusal::Block => {
                standing.refuse_message(&rules, now)
            }
        };
        self.judgement.pressed_on += u64::from(ignored.pressed_on);
        self.judgement.too_often += u64::from(ignored.too_often);
        self.judgement.blocks += u64::from(ignored.blocked);
        let (refused, words) = (&mut self.judgement.refused, &self.profile.words);
        let (count, wording) = match refusal {
            Refusal::Block => (&mut refused.block, &words.block),
            Refusal::Limited => (&mut refused.limited, &words.limited),
            Refusal::Connections => (&mut refused.connections, &words.connections),
            Refusal::Messages => (&mut refused.messages, &words.messages),
            Refusal::Rate => (&mut refused.rate, &words.rate),
            Refusal::Penalty => (&mut refused.penalty, &words.rate),
        };
        *count += 1;
        wording.clone()
    }

    pub(super) fn refusal_of_recipient(&mut self, recipient: &str, accepted: usize, now: Timestamp) -> Option<Wording> {
        let most = self.limits_at(now).recipients_per_message.map_or(RECIPIENTS_MAX, |most| most as usize);
        let refused = &mut self.judgement.refused;
        if accepted >= most.min(RECIPIENTS_MAX) {
            refused.recipients += 1;
            return Some(self.profile.words.recipients.clone());
        }
        let mailboxes = &self.profile.mailboxes;
        if is_among(recipient, &mailboxes.unknown, mailboxes.unknown_share, (self.seed, "unknown")) {
            refused.unknown += 1;
            self.judgement.unknown_again += u64::from(self.memory.unknown(recipient));
            return Some(self.profile.words.unknown.clone());
        }
        if is_among(recipient, &mailboxes.full, mailboxes.full_share, (self.seed, "full")) {
            refused.full += 1;
            return Some(self.profile.words.full.clone());
        }
        self.trouble(Stage::Rcpt, now)
    }

    /// What goes wrong by chance. It is nobody's fault: it starts no series, and no penalty.
    pub(super) fn trouble(&mut self, stage: Stage, now: Timestamp) -> Option<Wording> {
        let chance = &mut self.chance;
        let troubles = self.profile.troubles_at(self.start, now);
        let trouble =
            troubles.iter().filter(|trouble| trouble.stage == stage).find(|trouble| chance.f64() < trouble.share)?;
        self.judgement.refused.noise += 1;
        Some(trouble.reply.clone())
    }

    pub(super) fn open(&mut self, source: IpAddr, host: &str, surplus: bool) -> SessionId {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.judgement.connections += 1;
        self.judgement.connections_open += 1;
        let account = self.account(source);
        self.source(source).open += 1;
        let session = Session { source, account, host: host.to_string(), surplus, messages: 0, transaction: None };
        self.sessions.insert(id, session);
        id
    }

    /// Counts a recipient in the windows of its source, and in those of all.
    pub(super) fn count(&mut self, source: IpAddr, now: Timestamp) {
        let (windows, keep) = (self.limits_at(now).windows(), self.keep);
        self.source(source).counts.take(&windows, Scope::Source, now, keep);
        self.together.take(&windows, Scope::All, now, keep);
    }

    /// Counts an attempt that was refused where refused ones count.
    fn count_refused(&mut self, source: IpAddr, now: Timestamp) {
        let (windows, keep) = (self.limits_at(now).windows(), self.keep);
        self.source(source).counts.refuse(&windows, Scope::Source, now, keep);
        self.together.refuse(&windows, Scope::All, now, keep);
    }

    pub(super) fn account(&self, source: IpAddr) -> IpAddr {
        match self.sources.contains_key(&source) || self.sources.len() < SOURCES_MAX {
            true => source,
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }

    fn source(&mut self, source: IpAddr) -> &mut Source {
        let account = self.account(source);
        self.sources.entry(account).or_default()
    }

    /// How many recipients the open transaction has; none: there is no such session.
    pub(super) fn recipients(&self, session: SessionId) -> Option<usize> {
        let session = self.sessions.get(&session)?;
        Some(session.transaction.as_ref().map_or(0, |transaction| transaction.accepted.len()))
    }

    /// Puts a transaction in the place of the present one, which comes back.
    pub(super) fn put(&mut self, session: SessionId, transaction: Option<Transaction>) -> Option<Transaction> {
        let session = self.sessions.get_mut(&session)?;
        std::mem::replace(&mut session.transaction, transaction)
    }

    /// Ends the present transaction without a message: with accepted recipients it has only tried addresses out.
    pub(super) fn drop_transaction(&mut self, session: SessionId) {
        if self.put(session, None).is_some_and(|transaction| !transaction.accepted.is_empty()) {
            self.judgement.probed += 1;
        }
    }

    pub(in crate::simulate) fn has_recipients(&self, session: SessionId) -> bool {
        self.recipients(session).is_some_and(|recipients| recipients > 0)
    }

    pub(in crate::simulate) fn say(&mut self, code: u16, text: impl Into<String>) -> Said {
        let after = self.delay(self.profile.latency.command);
        Said { reply: Some(Reply::new(code, text.into())), after, closes: false }
    }

    pub(super) fn word(&mut self, session: SessionId, wording: &Wording, now: Timestamp) -> Said {
        let Some(known) = self.sessions.get(&session) else {
            return Said::nobody();
        };
        let reply = wording.to(known.source, &known.host, now);
        let after = self.delay(self.profile.latency.command);
        Said { reply: Some(reply), after, closes: wording.closes() }
    }

    /// A command that makes no sense, or none at this place.
    pub(in crate::simulate) fn object(&mut self, code: u16, text: &str) -> Said {
        self.judgement.refused.protocol += 1;
        self.say(code, text)
    }

    pub(super) fn delay(&mut self, span: Span) -> Duration {
        match self.profile.latency.jitter {
            0.0 => span.0,
            jitter => span.0.mul_f64(1.0 + jitter * (2.0 * self.chance.f64() - 1.0)),
        }
    }
}

/// By name, or by the chance that the seed gives this address once and for all.
fn is_among(recipient: &str, named: &[String], share: f64, salt: (u64, &str)) -> bool {
    if named.iter().any(|name| name.eq_ignore_ascii_case(recipient)) {
        return true;
    }
    // As many different addresses as a share can tell apart.
    const STEPS: u32 = 1_000_000;
    let drawn = u32::try_from(hash(&(salt, recipient.to_ascii_lowercase())) % u64::from(STEPS)).unwrap_or(0);
    f64::from(drawn) < share * f64::from(STEPS)
}
