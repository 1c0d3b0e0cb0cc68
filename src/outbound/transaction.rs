//! One message handed over on an open connection (RFC 5321 section 3.3, RFC 2920, RFC 3030).
//!
//! - It reports what the receiver said to each recipient, word for word, and decides nothing about tries to come.
//! - RCPT is never sent without the message behind it.
//! - The first error of a flight is the cause. The replies behind it are read nevertheless, so that each is taken for
//!   what it answers; when the connection breaks instead, the refusal still counts.
//! - A peer without 8BITMIME gets seven bits (`lowered`), or nothing.
//! - Content whose end was never sent cannot have been delivered. Once the end was sent and no answer came, nobody
//!   knows: that is reported as such.
//! - A peer that offers CHUNKING and does not know BDAT takes the content behind it for commands: it is told nothing more on
//!   that connection, and the report says that DATA is to be tried.
//! - When the relay stops, a message that the peer cannot have as a whole is given up as unsaid; one that it has is waited for.
//! - Whatever breaks the order of commands and replies ends the use of the connection.

use std::time::Duration;

use super::command;
use super::connection::{Connection, State};
use super::content::{self, BLOCK_BYTES};
use super::ledger::Ledger;
use super::lowered::{Lowered, NotLowered, Reader};
use super::wire::Holds;
use super::{Bdat, Outcome, Report, Transaction};
use crate::smtp::outgoing::{DataEncoder, has_clean_lines};
use crate::types::{Body, ByMode, DeliverBy, Reply, Stage};

/// The largest content that is sent in one flight with its envelope. If the receiver refuses every recipient, the
/// content was sent for nothing (RFC 3030 has it read and dropped); above this that costs more than a round trip.
pub const ONE_FLIGHT_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Rset,
    Mail,
    /// The recipient's place.
    Rcpt(usize),
    Data,
    /// The content is behind it.
    BdatLast,
}

/// What ended a transaction without a reply.
struct Lost {
    stage: Stage,
    text: String,
}

impl Connection {
    /// Tries to hand over one message. Whatever happens the report has an outcome for each recipient.
    pub async fn transact(&mut self, transaction: &Transaction) -> Report {
        let mut ledger = Ledger::new(transaction.recipients.len());
        self.bdat = Bdat::Untold;
        self.wire.set_holds(Holds::Part);
        self.lowered = None;
        let lacks_smtputf8 = !self.capabilities.smtputf8 && needs_smtputf8(transaction).await;
        if let Some(obstacle) = self.obstacle(transaction, lacks_smtputf8) {
            ledger.settle(&obstacle);
        } else if let Err(obstacle) = self.lower(transaction).await {
            ledger.settle(&obstacle);
        } else if let Some(obstacle) = self.too_large(transaction) {
            ledger.settle(&obstacle);
        } else if let Err(lost) = self.attempt(transaction, &mut ledger).await {
            ledger.settle(&Outcome::Unsaid { stage: lost.stage, text: self.tell(&lost.text) });
        }
        let (reusable, bdat) = (self.is_reusable(), self.bdat);
        let (dsn, deliver_by) = (self.capabilities.dsn, self.capabilities.deliver_by);
        Report { outcomes: ledger.into_outcomes(), reusable, dsn, deliver_by, bdat }
    }

    /// Why this message cannot go to this peer, whatever it would say.
    fn obstacle(&self, transaction: &Transaction, lacks_smtputf8: bool) -> Option<Outcome> {
        if lacks_smtputf8 {
            let text = self.tell("SMTPUTF8 is not offered, which this message's addresses or header fields need");
            return Some(Outcome::Unsendable { status: "5.6.7", text });
        }
        if let Some(by) = transaction.by.filter(|by| self.is_too_late(*by)) {
            let (left, min) = (by.secs, self.capabilities.deliver_by_min);
            let text =
                self.tell(&format!("{left} seconds are left to deliver the message in, and {min} are asked for"));
            return Some(Outcome::Unsendable { status: "5.4.7", text });
        }
        None
    }

    /// Finds out how the content is sent to a peer that takes seven bits. One with SMTPUTF8 takes eight (RFC 6531 section 3.1).
    async fn lower(&mut self, transaction: &Transaction) -> Result<(), Outcome> {
        if self.capabilities.eight_bit_mime || self.capabilities.smtputf8 {
            return Ok(());
        }
        match Lowered::of(&transaction.envelope, &transaction.body, self.anew.as_ref()).await {
            Ok(lowered) => self.lowered = lowered,
            Err(NotLowered::Obstacle(why)) => {
                let text = self.tell(&format!("8BITMIME is not offered, and the message cannot be converted: {why}"));
                return Err(Outcome::Unsendable { status: "5.6.3", text });
            }
            Err(NotLowered::Fault(text)) => return Err(Outcome::Unsaid { stage: Stage::Mail, text: self.tell(&text) }),
        }
        Ok(())
    }

    /// Octets of the content as it is sent.
    fn size_bytes(&self, transaction: &Transaction) -> u64 {
        self.lowered.as_ref().map_or(transaction.body.size_bytes(), |lowered| lowered.size_bytes)
    }

    fn too_large(&self, transaction: &Transaction) -> Option<Outcome> {
        let (size, max) = (self.size_bytes(transaction), self.capabilities.size_max?);
        (size > max).then(|| {
            let text = self.tell(&format!("messages of at most {max} octets are taken, this one has {size}"));
            Outcome::Unsendable { status: "5.3.4", text }
        })
    }

    /// The peer takes no message that is to come back after so short a time (RFC 2852 section 4.1.4).
    fn is_too_late(&self, by: DeliverBy) -> bool {
        let offered = &self.capabilities;
        offered.deliver_by && by.mode == ByMode::Return && by.secs < offered.deliver_by_min.max(1)
    }

    async fn attempt(&mut self, transaction: &Transaction, ledger: &mut Ledger) -> Result<(), Lost> {
        self.hear(ledger).await?;
        if ledger.is_settled() {
            return Ok(());
        }
        if let Some(content) = self.one_flight_content(transaction) {
            return self.in_one_flight(transaction, content, ledger).await;
        }
        // Opened first: a message that cannot be read is not announced.
        let opened = Reader::open(&transaction.body, self.lowered.as_ref()).await;
        let content = opened.map_err(|text| Lost { stage: Stage::Mail, text })?;
        if self.offer(transaction, ledger).await? {
            self.deliver(content, ledger).await?;
        }
        Ok(())
    }

    /// Takes what the peer said since the last transaction. Read as the answer to MAIL it would put every later
    /// reply in the wrong place.
    async fn hear(&mut self, ledger: &mut Ledger) -> Result<(), Lost> {
        if !self.is_reusable() {
            return Err(Lost { stage: Stage::Mail, text: "the connection has come to its end before".to_string() });
        }
        let said = match self.wire.said() {
            Some(said) => said,
            None if self.wire.has_unread() => self.wire.reply(self.timeouts.aftermath).await,
            None => return Ok(()),
        };
        self.note_unasked(&said);
        match said {
            Ok(reply) if reply.code() == 421 => ledger.reply(Stage::Mail, reply),
            Ok(reply) => return Err(Lost { stage: Stage::Mail, text: format!("a reply to nothing: {reply}") }),
            Err(text) => return Err(Lost { stage: Stage::Mail, text }),
        }
        Ok(())
    }

    /// MAIL, RCPT and DATA: in one flight where the peer offers PIPELINING, else one by one. True: the content may come.
    /// False: every recipient has an outcome.
    async fn offer(&mut self, transaction: &Transaction, ledger: &mut Ledger) -> Result<bool, Lost> {
        let mut commands = Vec::with_capacity(transaction.recipients.len() + 3);
        commands.extend((self.state == State::Unfinished).then_some(Command::Rset));
        commands.push(Command::Mail);
        commands.extend((0..transaction.recipients.len()).map(Command::Rcpt));
        commands.push(Command::Data);
        self.state = State::Unfinished;

        let is_flight = self.capabilities.pipelining;
        if is_flight {
            commands.iter().for_each(|&command| self.write(command, transaction));
        }
        let mut peer_has_recipients = false;
        for command in commands {
            if !is_flight {
                if ledger.is_settled() {
                    return Ok(false);
                }
                self.write(command, transaction);
            }
            let reply = self.reply_to(command, ledger).await?;
            self.note(command, &reply, ledger)?;
            if self.state == State::Closing {
                // No content was sent, so nothing was delivered: the farewell speaks of all who are left.
                ledger.reply(command.stage(), reply);
                return Ok(false);
            }
            peer_has_recipients |= matches!(command, Command::Rcpt(_)) && reply.is_positive();
            if command == Command::Data && reply.code() / 100 == 3 {
                if ledger.has_accepted() {
                    return Ok(true);
                }
                self.send_nothing(peer_has_recipients, ledger).await?;
            }
        }
        Ok(false)
    }

    /// The peer waits for content although it refused all: it gets none (RFC 2920 section 3.1). Should it have taken
    /// recipients behind a refused MAIL, even a single dot could be delivered to them; the connection is given up.
    async fn send_nothing(&mut self, peer_has_recipients: bool, ledger: &Ledger) -> Result<(), Lost> {
        if peer_has_recipients {
            return Err(self.lost(Stage::Data, "content was wanted for a refused sender".to_string()));
        }
        DataEncoder::new().finish(self.wire.output());
        let reply = self.reply_to(Command::Data, ledger).await?;
        if reply.code() == 421 {
            self.state = State::Closing;
        }
        Ok(())
    }

    /// The content behind 354, and the reply that decides.
    async fn deliver(&mut self, mut content: Reader, ledger: &mut Ledger) -> Result<(), Lost> {
        let mut encoder = DataEncoder::new();
        loop {
            let output = self.wire.output();
            let goes_on = content
                .next(|block| encoder.encode(block, output))
                .await
                .map_err(|text| self.lost(Stage::Data, text))?;
            if !goes_on {
                encoder.finish(self.wire.output());
                self.wire.set_holds(Holds::All);
            }
            if (!goes_on || self.wire.unsent() >= BLOCK_BYTES)
                && let Some(early) = self.send().await?
            {
                return self.take_early(early, ledger);
            }
            if !goes_on {
                break;
            }
        }
        // The end of data is out: from here on no answer means that nobody knows.
        match self.wire.reply(self.timeouts.end_of_data).await {
            Ok(reply) => self.take_answer(reply, ledger),
            Err(text) => self.doubt(&text, ledger),
        }
        Ok(())
    }

    /// Writes what is queued of the content. A reply that comes before all is written is returned.
    async fn send(&mut self) -> Result<Option<Reply>, Lost> {
        self.wire.send(self.timeouts.data_block).await.map_err(|text| self.lost(Stage::Data, text))
    }

    /// A refusal in the middle of the content is an answer, and the rest is not sent; a yes to half a message is none.
    fn take_early(&mut self, reply: Reply, ledger: &mut Ledger) -> Result<(), Lost> {
        if !is_refusal(&reply) {
            return Err(self.lost(Stage::Data, format!("answered before the content had ended: {reply}")));
        }
        self.state = State::Lost;
        ledger.reply(Stage::Data, reply);
        Ok(())
    }

    fn take_answer(&mut self, reply: Reply, ledger: &mut Ledger) {
        if reply.code() / 100 == 3 {
            return self.doubt(&format!("no answer to the content, but {reply}"), ledger);
        }
        self.state = if reply.code() == 421 { State::Closing } else { State::Ready };
        ledger.reply(Stage::Data, reply);
    }

    fn doubt(&mut self, text: &str, ledger: &mut Ledger) {
        self.state = State::Lost;
        let text = self.tell(&format!("{text} after the end of the content; it may have been delivered"));
        ledger.settle(&Outcome::InDoubt { text });
    }

    /// Content that may go out together with its envelope, as it is.
    fn one_flight_content<'a>(&self, transaction: &'a Transaction) -> Option<&'a [u8]> {
        let offered = transaction.chunking && self.capabilities.pipelining && self.capabilities.chunking;
        match &transaction.body {
            // An unfinished transaction is reset first, by `offer`: a refused RSET must not have content behind it.
            Body::Inline(content) if offered && self.lowered.is_none() && self.state == State::Ready => {
                (content.len() <= ONE_FLIGHT_BYTES_MAX && has_clean_lines(content)).then_some(content)
            }
            _ => None,
        }
    }

    /// MAIL, RCPT, BDAT LAST and the content at once: one round trip.
    async fn in_one_flight(
        &mut self,
        transaction: &Transaction,
        content: &[u8],
        ledger: &mut Ledger,
    ) -> Result<(), Lost> {
        let commands = || {
            let recipients = (0..transaction.recipients.len()).map(Command::Rcpt);
            std::iter::once(Command::Mail).chain(recipients).chain(std::iter::once(Command::BdatLast))
        };
        self.state = State::Unfinished;
        commands().for_each(|command| self.write(command, transaction));
        self.wire.output().extend_from_slice(content);
        self.wire.set_holds(Holds::Unanswered);

        // A 421 does not end the reading here: the peer may have taken the content before it or in spite of it.
        let mut farewell = None;
        for command in commands() {
            if command == Command::BdatLast && ledger.has_accepted() {
                self.wire.set_holds(Holds::All);
            }
            let noted = match self.reply_to(command, ledger).await {
                Ok(reply) => self.note(command, &reply, ledger).map(|()| reply),
                Err(lost) => Err(lost),
            };
            match noted {
                Ok(reply) if reply.code() == 421 => farewell = farewell.or(Some((command.stage(), reply))),
                Ok(_) => {}
                Err(lost) if self.bdat == Bdat::Refused => return Err(lost),
                Err(lost) => return self.break_flight(lost, farewell, ledger),
            }
        }
        Ok(())
    }

    fn break_flight(&mut self, lost: Lost, farewell: Option<(Stage, Reply)>, ledger: &mut Ledger) -> Result<(), Lost> {
        if farewell.is_none() && !ledger.is_settled() && self.wire.has_ended() {
            let was_at_it = lost.stage == Stage::Data && ledger.has_accepted() && self.wire.was_broken_off();
            self.bdat = if was_at_it { Bdat::Lost } else { Bdat::Suspect };
        }
        match farewell {
            Some((stage, reply)) => ledger.reply(stage, reply),
            None if self.wire.is_sent() => self.doubt(&lost.text, ledger),
            None => return Err(lost),
        }
        Ok(())
    }

    fn write(&mut self, command: Command, transaction: &Transaction) {
        let capabilities = &self.capabilities;
        let size_bytes = self.size_bytes(transaction);
        self.wire.say(|out| match command {
            Command::Rset => command::line(out, &["RSET"]),
            Command::Mail => {
                let Transaction { envelope, body, by, .. } = transaction;
                command::mail(out, envelope, body, size_bytes, *by, capabilities);
            }
            Command::Rcpt(i) => {
                if let Some(recipient) = transaction.recipients.get(i) {
                    command::rcpt(out, recipient, capabilities);
                }
            }
            Command::Data => command::line(out, &["DATA"]),
            Command::BdatLast => command::line(out, &["BDAT ", &transaction.body.size_bytes().to_string(), " LAST"]),
        });
    }

    async fn reply_to(&mut self, command: Command, ledger: &Ledger) -> Result<Reply, Lost> {
        let is_aftermath = ledger.is_settled() || self.state == State::Closing;
        let limit = |own: Duration| if is_aftermath { own.min(self.timeouts.aftermath) } else { own };
        let result = match command {
            Command::Rset | Command::Mail => self.wire.reply(limit(self.timeouts.mail)).await,
            Command::Rcpt(_) => self.wire.reply(limit(self.timeouts.rcpt)).await,
            Command::Data => self.wire.reply(limit(self.timeouts.data)).await,
            Command::BdatLast => match self.wire.send(limit(self.timeouts.data_block)).await {
                Ok(None) => self.wire.reply(limit(self.timeouts.end_of_data)).await,
                Ok(Some(early)) if is_refusal(&early) => Ok(early),
                Ok(Some(early)) => Err(format!("answered before the content had ended: {early}")),
                Err(text) => Err(text),
            },
        };
        result.map_err(|text| self.lost(command.stage(), format!("{text}, instead of the reply to {}", command.name())))
    }

    /// Enters a reply for what it says by its first digit (RFC 5321 section 4.3.2: other codes are to be expected).
    fn note(&mut self, command: Command, reply: &Reply, ledger: &mut Ledger) -> Result<(), Lost> {
        match (command, reply.code() / 100) {
            (Command::Rset | Command::Mail, 2) | (Command::Data, 3) => {}
            (Command::Rcpt(i), 2) => ledger.accept(i),
            (Command::Rcpt(i), 4 | 5) => ledger.refuse(i, reply.clone()),
            (Command::Mail | Command::Data, 4 | 5) => ledger.reply(command.stage(), reply.clone()),
            (Command::BdatLast, 5) if ledger.has_accepted() && is_unknown_command(reply) => {
                self.bdat = Bdat::Refused;
                // What of the content was taken for commands is answered one by one, and would be obeyed.
                return Err(self.lost(Stage::Data, format!("BDAT is offered, and was answered by {reply}")));
            }
            (Command::BdatLast, 2 | 4 | 5) => {
                if reply.is_positive() && ledger.has_accepted() {
                    self.bdat = Bdat::Taken;
                }
                // Behind a refused BDAT the peer's state is open (RFC 3030 section 2): RSET follows.
                if reply.is_positive() && ledger.has_accepted() && self.state == State::Unfinished {
                    self.state = State::Ready;
                }
                ledger.reply(Stage::Data, reply.clone());
            }
            // The other message's end, not this one's fault: a refused RSET must not bounce anybody.
            (Command::Rset, 4) if reply.code() == 421 => {}
            (Command::BdatLast, _) => self.doubt(&format!("no answer to the content, but {reply}"), ledger),
            _ => return Err(self.lost(command.stage(), format!("{} was answered by {reply}", command.name()))),
        }
        if reply.code() == 421 {
            self.state = State::Closing;
        }
        Ok(())
    }

    fn lost(&mut self, stage: Stage, text: String) -> Lost {
        self.state = State::Lost;
        Lost { stage, text }
    }
}

/// Many programs ask for SMTPUTF8 always. It is needed where an address or the header has what is not ASCII; without it
/// the message is an ordinary one (RFC 6531 section 3.2). A content that cannot be read shows itself when it is sent.
async fn needs_smtputf8(transaction: &Transaction) -> bool {
    let Transaction { envelope, recipients, body, .. } = transaction;
    !envelope.sender.as_str().is_ascii()
        || recipients.iter().any(|recipient| !recipient.address.is_ascii())
        || (envelope.smtputf8 && !content::header_is_ascii(body).await.unwrap_or(true))
}

/// A syntax error or an unknown command, rather than a word about the message (RFC 5321 section 4.2.2).
fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code(), 500 | 502 | 503 | 504)
}

fn is_refusal(reply: &Reply) -> bool {
    reply.is_transient() || reply.is_permanent()
}

impl Command {
    fn stage(self) -> Stage {
        match self {
            Command::Rset | Command::Mail => Stage::Mail,
            Command::Rcpt(_) => Stage::Rcpt,
            Command::Data | Command::BdatLast => Stage::Data,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Command::Rset => "RSET",
            Command::Mail => "MAIL",
            Command::Rcpt(_) => "RCPT",
            Command::Data => "DATA",
            Command::BdatLast => "BDAT",
        }
    }
}
