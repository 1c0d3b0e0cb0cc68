//! One client's dialogue: reads commands and content, lets the session judge, asks admission and intake, answers.
//!
//! Rules that always hold:
//! - `250` for a message is written only after the intake has it safe, and nothing slow stands between the two (RFC 1047);
//! - a session that waits for a command ends at once when the relay stops; one past the end of the content is always
//!   answered; content that still flows may come to its end;
//! - slow clients hold nothing for long: a command, content, a message and the reading of replies have limits of time, which
//!   shrink while places are short (`pressure`);
//! - a session outside a transaction ends at once when it is asked to make room, whatever it waits for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::auth::{Denied, User};
use crate::smtp::offers::Tls;
use crate::smtp::replies::{self, Said};
use crate::smtp::sasl::{self, Credentials};
use crate::smtp::{Action, ForwardPath, Mail, Rcpt, Session, Transaction};
use crate::types::{Priority, QueueId, Recipient, ReversePath, Submitter, Timestamp};

use super::admission::{Admission, Sender};
use super::allowances::{Aside, UsedUp};
use super::door::Door;
use super::front::Front;
use super::held::Hold;
use super::intake::{Intake, RefusedRecipient, Standing, Suppressed, WayBack};
use super::overload::{Gauge, Place, Rank};
use super::receive::Incoming;
use super::transcript;
use super::wire::{self, Line, Lost, Wire};

/// While the relay stops, content that does not flow, and a client that does not read, are not waited for longer than this.
pub(super) const STOPPING_SILENCE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Connection<'a, I: Intake, S> {
    pub(super) front: &'a Front<I>,
    door: &'a Door,
    pub(super) wire: Wire<S>,
    pub(super) session: Session,
    pub(super) client: IpAddr,
    trusted: bool,
    /// Who logged in.
    pub(super) user: Option<Arc<User>>,
    pub(super) admission: Arc<Admission>,
    place: &'a Place,
    pub(super) gauge: Gauge<'a>,
    /// For the recipients of the current transaction.
    hold: Hold,
    pub(super) stop: &'a CancellationToken,
    /// When the current transaction began.
    begun: Option<Timestamp>,
    /// A message that comes in chunks and is not complete.
    pub(super) chunks: Option<Box<Incoming<I::Body>>>,
    /// What is set aside of the disk for the current message, until its content begins.
    pub(super) space: Option<I::Space>,
    /// What the current message takes of the user's day.
    pub(super) aside: Option<Aside>,
}

impl<'a, I: Intake, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'a, I, S> {
    pub(super) fn new(
        front: &'a Front<I>,
        door: &'a Door,
        stream: S,
        client: IpAddr,
        admission: Arc<Admission>,
        place: &'a Place,
        stop: &'a CancellationToken,
    ) -> Connection<'a, I, S> {
        let trusted = admission.trusts(client);
        let mut session = Session::new(front.settings.clone(), front.offers(door), trusted);
        session.qualify(admission.qualify(trusted).cloned());
        Connection {
            front,
            door,
            wire: Wire::new(stream),
            session,
            client,
            trusted,
            user: None,
            admission,
            place,
            gauge: place.gauge(),
            hold: front.recipients.hold(),
            stop,
            begun: None,
            chunks: None,
            space: None,
            aside: None,
        }
    }

    pub(super) async fn run(self) {
        // What is logged of it names the client, so that sessions side by side can be told apart.
        let span =
            tracing::debug_span!(target: "weir::inbound", "session", client = %self.client, id = fastrand::u16(..));
        self.run_within().instrument(span).await;
    }

    async fn run_within(mut self) {
        tracing::debug!("{} connected", self.client);
        let place = self.place;
        tokio::select! {
            biased;
            // Outside a transaction there is nothing that may not be cut off.
            () = place.asked_to_leave() => self.wire.close_at_once(&replies::MADE_ROOM.plain()).await,
            () = self.talk_to_the_end() => {}
        }
    }

    async fn talk_to_the_end(&mut self) {
        let Err(lost) = self.talk().await;
        tracing::debug!("{} left: {lost:?}", self.client);
        let last_word = match lost {
            Lost::Silent => Some(replies::SILENT),
            Lost::MakeRoom => Some(replies::MADE_ROOM),
            Lost::Stopping => Some(replies::STOPPING),
            Lost::Gone => return,
            Lost::SentAway => {
                if self.front.complaints.is_due(Submitter::Client(self.client)) {
                    tracing::warn!("{} sent away: too many errors or idle commands on one connection", self.client);
                }
                None
            }
            Lost::Parted => None,
        };
        if let Some(answer) = last_word {
            answer.plain().write(&mut self.wire.output);
        }
        self.wire.close(lost != Lost::Parted).await;
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, Lost> {
        if self.door.offers.tls == Tls::Implicit {
            self.secure().await?;
            self.knock();
        }
        self.session.greet(&mut self.wire.output);
        loop {
            let action = self.hear().await?;
            let action = self.decide(action).await?;
            self.mark_place()?;
            if self.session.transaction().is_none() {
                self.chunks = None;
                self.space = None;
                self.aside = None;
                self.hold.resize(0);
            }
            match action {
                Action::Part => return Err(Lost::Parted),
                Action::Close => return Err(Lost::SentAway),
                Action::Skip(octets) => self.pass_over(octets, None).await?,
                _ if self.wire.is_full() => self.flush().await?,
                _ => {}
            }
        }
    }

    /// Waits for the next command and lets the session judge it.
    async fn hear(&mut self) -> Result<Action, Lost> {
        let since = self.now();
        loop {
            let patience = self.gauge.patience();
            self.session.tolerate(patience.errors, patience.idle_commands);
            let line_max = if self.session.is_logging_in() { sasl::LINE_MAX } else { wire::LINE_MAX };
            match self.wire.line(line_max) {
                Line::Whole(length, whole) => {
                    let line = &self.wire.input[..length];
                    tracing::debug!("C: {}", transcript::shown(line, self.session.is_logging_in()));
                    self.session.set_time(self.front.clock.now());
                    let action = self.session.command(&self.wire.input[..length], &mut self.wire.output);
                    self.wire.input.advance(whole);
                    return Ok(action);
                }
                Line::TooLong => return Ok(self.session.line_too_long(&mut self.wire.output)),
                Line::Endless => {
                    self.session.line_too_long(&mut self.wire.output);
                    return Ok(Action::Close);
                }
                Line::Partial => {}
            }
            self.flush().await?;
            let left = left(since, self.gauge.patience().command, self.now()).min(self.message_time_left());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Lost::Stopping),
                () = self.gauge.changed() => {}
                read = timeout(left, self.wire.read_command()) => drop(read.map_err(|_| Lost::Silent)??),
            };
        }
    }

    /// Does what the session asks for; what comes back needs no decision.
    async fn decide(&mut self, action: Action) -> Result<Action, Lost> {
        match action {
            Action::Admit(mail) => Ok(self.admit(*mail)),
            Action::AdmitRecipient(rcpt) => Ok(self.admit_recipient(*rcpt)),
            Action::Receive => {
                let said = self.receive().await?;
                Ok(self.session.end(&said, &mut self.wire.output))
            }
            Action::ReceiveChunk { octets, last } => self.receive_chunk(octets, last).await,
            Action::Refused if !self.wire.input.is_empty() => Ok(self.session.out_of_sync(&mut self.wire.output)),
            Action::StartTls => {
                self.knock();
                self.secure().await?;
                self.session.secured();
                self.recognise(None);
                self.knock();
                Ok(Action::Listen)
            }
            Action::LogIn(credentials) => self.log_in(credentials).await,
            other => Ok(other),
        }
    }

    async fn secure(&mut self) -> Result<(), Lost> {
        let Some(acceptor) = &self.door.acceptor else { return Err(Lost::Gone) };
        let handshake = timeout(self.gauge.patience().handshake, self.wire.secure(acceptor));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Lost::Gone),
            secured = handshake => secured.unwrap_or(Err(Lost::Gone)),
        }
    }

    async fn log_in(&mut self, credentials: Credentials) -> Result<Action, Lost> {
        self.knock();
        self.flush().await?;
        let Credentials { user, password } = &credentials;
        let checked = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Lost::Stopping),
            checked = self.front.auth.log_in(self.client, user, password.expose()) => checked,
        };
        Ok(match checked {
            Ok(user) => {
                tracing::debug!("{} logged in as {}", self.client, user.name);
                let action = self.session.logged_in(user.name.clone(), &mut self.wire.output);
                self.recognise(Some(user));
                action
            }
            Err(Denied::Wrong) => {
                self.recognise(None);
                self.session.log_in_refused(&replies::LOG_IN_REFUSED.plain(), &mut self.wire.output)
            }
            Err(denied) => {
                let said = replies::LOG_IN_LATER.with(denied.to_string());
                self.session.log_in_refused(&said, &mut self.wire.output)
            }
        })
    }

    /// Who logs in is known from then on, and who begins anew behind STARTTLS is not.
    fn recognise(&mut self, user: Option<Arc<User>>) {
        self.user = user;
        self.session.qualify(self.admission.qualify(self.may_relay()).cloned());
        self.place.set_rank(if self.may_relay() { Rank::Known } else { Rank::Stranger });
    }

    /// Who it is, is known before it says a word: a user, or the operator.
    pub(super) fn introduce(&mut self, user: Option<Arc<User>>) {
        self.trusted = user.is_none();
        self.recognise(user);
    }

    /// A client that is not known yet is on its way to a log-in.
    fn knock(&self) {
        if !self.may_relay() {
            self.place.set_rank(Rank::Knocking);
        }
    }

    fn sender(&self) -> Sender<'_> {
        Sender { may_relay: self.may_relay(), user: self.user.as_deref() }
    }

    /// May this client send through weir?
    pub(super) fn may_relay(&self) -> bool {
        self.trusted || self.user.is_some()
    }

    fn admit(&mut self, mut mail: Mail) -> Action {
        let most = self.user_now().map_or(Priority::High, |user| user.class_max);
        let asked = mail.requests.priority;
        mail.requests.priority = asked.map(|priority| priority.at_most(most));
        let lowered = mail.requests.priority.filter(|priority| Some(*priority) != asked);
        let admitted = self
            .pace()
            .and_then(|()| self.admission.sender(self.sender(), &mail))
            .and_then(|()| self.room_for(&mail))
            .and_then(|space| self.count().map(|()| space));
        match admitted {
            Ok(space) => {
                self.space = Some(space);
                self.session.begin(mail, lowered, &mut self.wire.output)
            }
            Err(said) => {
                self.complain(&said);
                self.session.refuse(&said, &mut self.wire.output)
            }
        }
    }

    /// What is set aside for the message. A client that may not relay announces what it likes: for it nothing is.
    fn room_for(&self, mail: &Mail) -> Result<I::Space, Said> {
        let (intake, size) = (&self.front.intake, mail.size_bytes.unwrap_or(0));
        let kept = self.may_relay().then_some(size);
        intake.room(size).and_then(|()| intake.set_aside(kept)).map_err(|no| replies::NO_ROOM.with(no.0))
    }

    fn submitter(&self) -> Submitter {
        Submitter::new(self.user.as_deref().map(|user| &*user.name), self.client)
    }

    /// The user as the settings are by now: limits that were changed hold on connections that are open, too.
    fn user_now(&self) -> Option<Arc<User>> {
        let user = self.user.as_ref()?;
        Some(self.front.auth.user(&user.name).unwrap_or_else(|| user.clone()))
    }

    /// May a message come now, for all that is known before it is counted?
    fn pace(&self) -> Result<(), Said> {
        if let Some(why) = self.front.slowed.reason(&self.submitter(), self.now()) {
            return Err(replies::SLOWED.with(why.to_string()));
        }
        let Some(user) = self.user_now() else { return Ok(()) };
        let Some(limit) = user.daily_recipients else { return Ok(()) };
        let has_room = self.front.allowances.has_room(&user.name, limit, self.now());
        has_room.map_err(|used_up| day_used_up(&user.name, limit, used_up))
    }

    /// Counts the message. The user's rate comes first: what it refuses takes nothing from others at the same address.
    fn count(&self) -> Result<(), Said> {
        if let Some(user) = self.user_now() {
            self.front.rates.user(&user.name, user.rate).map_err(|then| {
                replies::TOO_FAST.with(format!("{} has a rate of {} and goes on at {then}", user.name, user.rate))
            })?;
        }
        self.front.rates.client(self.client).map_err(|(rate, then)| {
            let client = self.client;
            replies::TOO_FAST.with(format!("{client} has limits.messages_per_client = {rate} and goes on at {then}"))
        })
    }

    /// Takes what one more recipient takes: memory while its message is under way, and a part of the user's day.
    fn take_up(&mut self, recipient: &Recipient) -> Result<(), Said> {
        if !self.hold.add(recipient) {
            return Err(replies::TOO_MANY_UNDER_WAY.plain());
        }
        let Some(user) = self.user_now() else { return Ok(()) };
        let Some(limit) = user.daily_recipients else { return Ok(()) };
        let now = self.now();
        let taken = self.front.allowances.set_aside(&mut self.aside, &user.name, limit, now);
        taken.map_err(|used_up| day_used_up(&user.name, limit, used_up))
    }

    /// An answer to our mail, from anybody. It comes alone: what is done with it is none of what is done with mail.
    fn admit_answer(&mut self, way: WayBack, rcpt: Rcpt) -> Action {
        let is_first = self.session.transaction().is_some_and(|transaction| !transaction.has_recipients());
        let said = match (way, rcpt.path) {
            (WayBack::Open, ForwardPath::Mailbox(address)) if is_first => {
                let recipient = Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify };
                if self.hold.add(&recipient) {
                    return self.session.add(recipient, &mut self.wire.output);
                }
                replies::TOO_MANY_UNDER_WAY.plain()
            }
            (WayBack::Open, _) => replies::ANSWER_ALONE.plain(),
            (WayBack::Busy, _) => replies::ANSWERS_BUSY.plain(),
            (WayBack::Shut(why), _) => {
                let said = replies::NO_ANSWER_WANTED.with(why);
                self.complain(&said);
                if !self.may_relay() {
                    return self.session.error(&said, &mut self.wire.output);
                }
                said
            }
        };
        self.session.refuse_recipient(&said, &mut self.wire.output)
    }

    /// Is what comes an answer to our mail?
    pub(super) fn is_answer(&self, recipients: &[Recipient]) -> bool {
        recipients.first().is_some_and(|recipient| self.front.intake.way_back(&recipient.address).is_some())
    }

    fn admit_recipient(&mut self, rcpt: Rcpt) -> Action {
        if let ForwardPath::Mailbox(address) = &rcpt.path
            && let Some(way) = self.front.intake.way_back(address)
        {
            return self.admit_answer(way, rcpt);
        }
        if self.session.transaction().is_some_and(|transaction| self.is_answer(&transaction.recipients)) {
            return self.session.refuse_recipient(&replies::ANSWER_ALONE.plain(), &mut self.wire.output);
        }
        let address = match self.admission.recipient(self.may_relay(), self.client, rcpt.path) {
            Ok(address) => address,
            Err(said) => {
                self.complain(&said);
                return if self.may_relay() {
                    self.session.refuse_recipient(&said, &mut self.wire.output)
                } else {
                    self.session.error(&said, &mut self.wire.output)
                };
            }
        };
        let recipient = Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify };
        let sender = self.session.transaction().map_or(&ReversePath::Null, |t| &t.mail.sender);
        let standing = self.front.intake.standing(&recipient.address, sender);
        if !matches!(standing, Standing::Refuse(_))
            && let Err(said) = self.take_up(&recipient)
        {
            self.complain(&said);
            return self.session.refuse_recipient(&said, &mut self.wire.output);
        }
        match standing {
            Standing::Welcome => self.session.add(recipient, &mut self.wire.output),
            Standing::Drop => self.session.add_dropped(recipient, &mut self.wire.output),
            Standing::Refuse(suppressed) => {
                let said = suppressed_answer(&suppressed);
                let refusal = RefusedRecipient {
                    time: self.now(),
                    sender: self.session.transaction().map_or(&ReversePath::Null, |t| &t.mail.sender),
                    recipient: &recipient.address,
                    suppressed: &suppressed,
                    said: &said.line(),
                    client: self.client,
                };
                self.front.intake.refused(refusal);
                self.session.refuse_recipient(&said, &mut self.wire.output)
            }
        }
    }

    /// Sends the replies that have gathered, to a client that reads them in time.
    pub(super) async fn flush(&mut self) -> Result<(), Lost> {
        let since = self.now();
        loop {
            let stopping = self.stop.is_cancelled();
            let allowed = if stopping { STOPPING_SILENCE_MAX } else { self.gauge.patience().write };
            let left = left(since, allowed, self.now());
            tokio::select! {
                biased;
                sent = timeout(left, self.wire.flush()) => return sent.unwrap_or(Err(Lost::Gone)),
                () = self.stop.cancelled(), if !stopping => {}
                () = self.gauge.changed() => {}
            }
        }
    }

    /// Keeps the place's mark in step: only a connection outside a transaction may be asked to make room. The transaction
    /// of a client without an accepted recipient that is not trusted protects nothing.
    fn mark_place(&mut self) -> Result<(), Lost> {
        if self.session.is_logging_in() {
            self.knock();
        }
        let counts = |t: &Transaction| self.may_relay() || !t.recipients.is_empty();
        match (self.session.transaction().is_some_and(counts), self.begun) {
            (true, None) => {
                self.begun = Some(self.now());
                if !self.place.busy() {
                    return Err(Lost::MakeRoom);
                }
            }
            (false, Some(_)) => {
                self.begun = None;
                self.place.idle();
            }
            _ => {}
        }
        Ok(())
    }

    fn complain(&self, said: &Said) {
        let who = self.submitter();
        if self.front.complaints.is_due(who.clone()) {
            match who {
                Submitter::User(name) => tracing::warn!("{} ({name}) refused: {}", self.client, said.line()),
                Submitter::Client(_) => tracing::warn!("{} refused: {}", self.client, said.line()),
            }
        }
    }

    /// Tells the operator of a message that could not be stored.
    pub(super) fn report(&self, id: QueueId, why: &str) {
        if self.front.complaints.fault_is_due() {
            tracing::error!(%id, client = %self.client, "message not stored: {why}");
        }
    }

    pub(super) fn message_time_left(&self) -> Duration {
        self.begun.map_or(Duration::MAX, |begun| left(begun, self.gauge.patience().message, self.now()))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.front.clock.now()
    }
}

pub(super) fn left(since: Timestamp, allowed: Duration, now: Timestamp) -> Duration {
    allowed.saturating_sub(now.since(since))
}

fn day_used_up(user: &str, limit: u64, used_up: UsedUp) -> Said {
    let until = used_up.until;
    replies::DAY_USED_UP.with(format!("{user} has had its daily_recipients = {limit} and goes on at {until}"))
}

/// Reason and date, then the receiver's words.
fn suppressed_answer(suppressed: &Suppressed) -> Said {
    let since = suppressed.since.to_string();
    let date = since.split('T').next().unwrap_or_default();
    let words = match suppressed.by_receiver {
        true => format!("{} since {date}, the receiver said: {}", suppressed.class, suppressed.reply),
        false => format!("since {date}, {}", suppressed.reply),
    };
    replies::SUPPRESSED.with(words)
}
