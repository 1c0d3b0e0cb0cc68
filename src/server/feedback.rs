//! The way back as the relay goes it: tokens onto mail that leaves, and what comes of answers, by SMTP, by the command, over HTTP and by one
//! click.
//!
//! Rules that always hold:
//! - what was answered with a success is on disk: the entry of the list, and the event;
//! - of one message each thing is told once: the same report again changes nothing and writes nothing;
//! - so many answers are read at once, and of what changes nothing so many events are written in a minute: no flood takes the disk, the
//!   memory or the time of others.

mod events;

use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::events::{derived, event, first_reply, name, named, of_sent, on_list, shortened};
use super::rules;
use super::sealing::Copies;
use crate::clock::Clock;
use crate::config::Config;
use crate::feedback::fields::Way;
use crate::feedback::judgement::{Judgement, Known, judge};
use crate::feedback::key;
use crate::feedback::options::Feedback as Options;
use crate::feedback::reading::{self, Complaint, Reading, Status};
use crate::feedback::store::{Sent, Store, Told};
use crate::feedback::token::{NoToken, Purpose, Token};
use crate::inbound::WayBack;
use crate::spool::{Change, Spool};
use crate::suppress::{Entry, Hit, List, Source};
use crate::types::{
    Class, Delivery, Domain, Envelope, Event, EventKind, Mailbox, Own, Reading as Verdict, Reply, ReversePath, Scope,
    Timestamp,
};

/// Answers that are read at once: each takes a few milliseconds of a processor.
const READ_AT_ONCE: usize = 2;
/// Those that may wait for that; more are asked to come later.
const WAITING_MAX: usize = 64;
/// Events in a minute of answers that change nothing.
const EVENTS_PER_MINUTE: u32 = 100;
/// The provider of words that nobody knows.
const ANYBODY: &str = "default";
/// Hosts of Microsoft's business mail, which reports after the 250.
const MICROSOFT: [&str; 2] = ["outlook.com", "mx.microsoft"];

pub(super) struct Feedback {
    store: Store,
    in_force: RwLock<Arc<InForce>>,
    suppressions: List,
    rules: Arc<rules::InForce>,
    spool: Spool,
    clock: Clock,
    turns: Semaphore,
    waiting: AtomicU32,
    minute: AtomicI64,
    written: AtomicU32,
}

/// What of the configuration holds now.
struct InForce {
    way: Way,
    options: Options,
}

/// What the relay is built with.
pub(super) struct Parts {
    pub store: Store,
    pub suppressions: List,
    pub rules: Arc<rules::InForce>,
    pub spool: Spool,
    pub clock: Clock,
}

/// An answer that was handed in.
pub(super) struct Answer<'a> {
    /// Its head: what is beyond is not read.
    pub head: Vec<u8>,
    /// Where it was sent to, if that is known.
    pub recipient: Option<&'a Mailbox>,
    pub client: Option<IpAddr>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub event: EventKind,
    /// Whose mail it speaks of, where a token says so.
    pub sent: Option<Sent>,
    /// The recipient is held back now, and was not before.
    pub suppressed: bool,
    /// For a person.
    pub text: String,
}

/// What one click came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Click {
    Done,
    Unknown,
    Expired,
    Failed,
}

/// A token that counts, and whom it speaks for.
struct Found {
    purpose: Purpose,
    addressed: bool,
    sent: Sent,
}

/// Why a token speaks for nobody.
enum Nobody {
    /// It counts for none, and why.
    None(String),
    /// The database of tokens does not answer.
    Unknown(String),
}

/// Who waits for a turn; given back on drop.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InForce {
    /// None: `[feedback]` is off.
    fn of(config: &Config) -> Result<Option<Arc<InForce>>, String> {
        let options = config.feedback.clone();
        let Some(domain) = options.domain() else { return Ok(None) };
        let keys = key::read_or_make(&options, &config.data_dir)?;
        Ok(Some(Arc::new(InForce { way: Way::new(domain, &options.url, keys), options })))
    }
}

/// What a changed configuration brings, or why it cannot be had; nothing is changed yet.
pub(super) struct Prepared(Option<Arc<InForce>>);

pub(super) fn prepare(config: &Config) -> Result<Prepared, String> {
    InForce::of(config).map(Prepared)
}

impl Feedback {
    pub(super) fn new(prepared: Prepared, parts: Parts) -> Option<Arc<Feedback>> {
        let Parts { store, suppressions, rules, spool, clock } = parts;
        let in_force = RwLock::new(prepared.0?);
        Some(Arc::new(Feedback {
            store,
            in_force,
            suppressions,
            rules,
            spool,
            clock,
            turns: Semaphore::new(READ_AT_ONCE),
            waiting: AtomicU32::new(0),
            minute: AtomicI64::new(0),
            written: AtomicU32::new(0),
        }))
    }

    /// Keys and domains from now on. Where it all is, and whether it is at all, holds until a restart.
    pub(super) fn set(&self, prepared: Prepared) {
        if let Some(next) = prepared.0 {
            *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = next;
        }
    }

    fn in_force(&self) -> Arc<InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep(&self) -> Duration {
        self.in_force().options.keep.0
    }

    /// Does mail from this sender get List-Unsubscribe?
    pub(super) fn inserts_fields(&self, sender: &ReversePath) -> bool {
        lists(&self.in_force().options.list_unsubscribe, sender)
    }

    /// Does each recipient of this sender get a copy of his own?
    pub(super) fn makes_copies(&self, sender: &ReversePath, takes_fields: bool) -> bool {
        let in_force = self.in_force();
        lists(&in_force.options.return_path, sender)
            || (takes_fields && lists(&in_force.options.list_unsubscribe, sender))
    }

    /// Gives each delivery, of one recipient, what its copy has of its own. The tokens are known for good when it returns.
    pub(super) async fn stamp(
        &self,
        envelope: &Envelope,
        deliveries: &mut [Delivery],
        copies: Option<Copies>,
    ) -> Result<(), String> {
        let in_force = self.in_force();
        let expires = envelope.received + in_force.options.keep.0;
        let with_path = lists(&in_force.options.return_path, &envelope.sender);
        let copies = copies.filter(|_| lists(&in_force.options.list_unsubscribe, &envelope.sender));
        let mut headers = match &copies {
            Some(copies) => {
                let fields = deliveries.iter().filter_map(|delivery| {
                    let recipient = &delivery.recipients.first()?.address;
                    Some(in_force.way.unsubscribe(delivery.id, recipient, expires))
                });
                copies.signed(fields.collect()).await?.into_iter()
            }
            None => Vec::new().into_iter(),
        };
        let mut rows = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let Some(recipient) = delivery.recipients.first().map(|recipient| recipient.address.clone()) else {
                continue;
            };
            let return_path = if with_path { in_force.way.return_path(delivery.id, &recipient, expires) } else { None };
            let header = headers.next().unwrap_or_default();
            delivery.own = Some(Arc::new(Own { return_path, header }));
            let (sender, message_id) = (envelope.sender.clone(), envelope.message_id.clone());
            rows.push(Sent { delivery: delivery.id, recipient, sender, message_id });
        }
        self.store.add(rows).await.map_err(|error| error.to_string())
    }

    /// May an answer come to this address? None: it is none of ours.
    pub(super) fn way_back(&self, recipient: &Mailbox) -> Option<WayBack> {
        let in_force = self.in_force();
        if recipient.domain() != in_force.way.domain() {
            return None;
        }
        Some(match self.find(&in_force, recipient.local_part()) {
            Ok(_) if self.waiting.load(Ordering::Relaxed) as usize >= WAITING_MAX => WayBack::Busy,
            Ok(_) => WayBack::Open,
            // Nobody knows whether it is one: the answer may come again.
            Err(Nobody::Unknown(error)) => {
                tracing::error!("{error}");
                WayBack::Busy
            }
            Err(Nobody::None(why)) => WayBack::Shut(why),
        })
    }

    /// Whom a token speaks for; else why nobody.
    fn find(&self, in_force: &InForce, text: &str) -> Result<(Purpose, Sent), Nobody> {
        let token = Token::read(text, in_force.way.keys(), self.clock.now()).map_err(|why| {
            Nobody::None(match why {
                NoToken::Other => "there is no mailbox here but for answers to single messages".to_string(),
                why => format!("the token does not count: {why}"),
            })
        })?;
        let sent = self.store.get(token.delivery).map_err(|error| Nobody::Unknown(error.to_string()))?;
        let sent = sent.filter(|sent| token.is_for(&sent.recipient)).map(|sent| (token.purpose, sent));
        sent.ok_or_else(|| Nobody::None("nothing is known any more of its message".to_string()))
    }

    /// The token of an answer that counts. Of those that it quotes all must speak of one message and recipient.
    fn attribute(&self, reading: &Reading, recipient: Option<&Mailbox>) -> Result<Option<Found>, String> {
        let in_force = self.in_force();
        let envelope = recipient.filter(|recipient| recipient.domain() == in_force.way.domain());
        let addressed =
            envelope.map(Mailbox::local_part).into_iter().chain(reading.addressed.iter().map(String::as_str));
        for text in addressed {
            if let Some((purpose, sent)) = self.found(&in_force, text)? {
                return Ok(Some(Found { purpose, addressed: true, sent }));
            }
        }
        let mut first = None::<(Purpose, Sent)>;
        for text in &reading.quoted {
            let Some(found) = self.found(&in_force, text)? else { continue };
            match &first {
                Some((_, sent)) if sent.delivery != found.1.delivery => return Ok(None),
                Some(_) => {}
                None => first = Some(found),
            }
        }
        Ok(first.map(|(purpose, sent)| Found { purpose, addressed: false, sent }))
    }

    /// None: it speaks for nobody. An error: that cannot be told now.
    fn found(&self, in_force: &InForce, text: &str) -> Result<Option<(Purpose, Sent)>, String> {
        match self.find(in_force, text) {
            Ok(found) => Ok(Some(found)),
            Err(Nobody::None(_)) => Ok(None),
            Err(Nobody::Unknown(error)) => Err(error),
        }
    }

    /// Reads an answer and does what comes of it. An error means: try again later.
    pub(super) async fn take(&self, answer: Answer<'_>) -> Result<Outcome, String> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if waiting as usize >= WAITING_MAX {
            return Err("too many answers are read just now".to_string());
        }
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let Answer { head, recipient, client } = answer;
        let read = tokio::task::spawn_blocking(move || reading::read(&head)).await;
        let reading = read.map_err(|error| format!("the answer could not be read: {error}"))?;
        let found = self.attribute(&reading, recipient)?;
        let known = found.as_ref().map(|found| Known {
            purpose: found.purpose,
            addressed: found.addressed,
            recipient: &found.sent.recipient,
        });
        let sent = found.as_ref().map(|found| &found.sent);
        match (judge(&reading, known), sent) {
            (Judgement::Returned(status), Some(sent)) => self.returned(&reading, status, sent, client).await,
            (Judgement::Complained(complaint), Some(sent)) => self.complained(&reading, complaint, sent, client).await,
            (Judgement::Unsubscribed, Some(sent)) => {
                let words = format!("asked by mail to get no more ({})", name(&reading));
                self.unsubscribed(sent, words, reading.message_id.clone(), client).await
            }
            (Judgement::Nothing(why), sent) => self.nothing(&reading, why, sent.cloned(), client).await,
            (_, None) => self.nothing(&reading, "it carries no token that counts", None, client).await,
        }
    }

    /// The message came back: as if its receiver had refused the recipient in the dialogue.
    async fn returned(
        &self,
        reading: &Reading,
        status: &Status,
        sent: &Sent,
        client: Option<IpAddr>,
    ) -> Result<Outcome, String> {
        if self.store.is_told(sent.delivery, Told::Returned).map_err(text)? {
            return Ok(again(EventKind::Returned, sent));
        }
        let now = self.clock.now();
        let reply = Reply::parse(&status.reply).unwrap_or_else(|| Reply::new(550, status.reply.as_str()));
        let provider = self.provider(status, &reply);
        let read = self.rules.get().explain(&provider, None, &reply).0;
        let words = format!("{} ({})", shortened(&status.reply), name(reading));
        let mut event = event(EventKind::Returned, now, sent, reading, client);
        event.reply = Some(status.reply.clone());
        event.class = Some(read.class);
        event.rule = Some(read.rule.clone());
        event.provider = Some(provider.as_str().into());
        event.derived = derived(&status.derived);
        let mut outcome = Outcome {
            event: EventKind::Returned,
            sent: Some(sent.clone()),
            suppressed: false,
            text: format!("{} came back: {}", sent.recipient, status.reply),
        };
        let mut events = vec![event];
        if speaks_of_recipient(&read) {
            let hit = Hit {
                mailbox: sent.recipient.clone(),
                class: read.class,
                reply: words.clone(),
                rule: read.rule.clone(),
                tag: read.tag.clone(),
                provider: provider.as_str().into(),
                source: Source::Bounce,
                sender_domain: sender_domain(sent),
                message: sent.delivery.message,
                wave: None,
                at: now,
            };
            outcome.suppressed = self.suppressions.note_refusal(hit).await.map_err(text)?.is_new;
            if outcome.suppressed {
                events.push(on_list(now, sent, words, read.class, Some(&read.rule)));
            }
        }
        self.write(events).await?;
        self.store.tell(sent.delivery, Told::Returned).await.map_err(text)?;
        Ok(outcome)
    }

    async fn complained(
        &self,
        reading: &Reading,
        complaint: &Complaint,
        sent: &Sent,
        client: Option<IpAddr>,
    ) -> Result<Outcome, String> {
        if self.store.is_told(sent.delivery, Told::Complained).map_err(text)? {
            return Ok(again(EventKind::Complained, sent));
        }
        let by = if complaint.by.is_empty() { String::new() } else { format!(", {}", complaint.by) };
        let words = format!("complained of this mail: {}{by} ({})", complaint.what, name(reading));
        let mut event = event(EventKind::Complained, self.clock.now(), sent, reading, client);
        event.text = Some(words.clone());
        event.derived = if complaint.named.is_empty() {
            derived(&[&complaint.derived[..], &["recipient"]].concat())
        } else {
            derived(&complaint.derived)
        };
        let outcome = self.hold_back(sent, Source::Complaint, &words, Some(event)).await?;
        self.store.tell(sent.delivery, Told::Complained).await.map_err(text)?;
        Ok(outcome)
    }

    /// The same a second time changes nothing; a wish for mail that came later counts anew.
    async fn unsubscribed(
        &self,
        sent: &Sent,
        words: String,
        report: Option<String>,
        client: Option<IpAddr>,
    ) -> Result<Outcome, String> {
        let mut event = of_sent(EventKind::Unsubscribed, self.clock.now(), sent, client);
        event.text = Some(words.clone());
        event.report = report;
        self.hold_back(sent, Source::Unsubscribe, &words, Some(event)).await
    }

    /// Mail of this sender's domain goes to the recipient no more, until somebody takes the entry away.
    async fn hold_back(
        &self,
        sent: &Sent,
        source: Source,
        words: &str,
        event: Option<Event>,
    ) -> Result<Outcome, String> {
        let now = self.clock.now();
        let kind = event.as_ref().map_or(EventKind::Feedback, |event| event.kind);
        let domain = sender_domain(sent);
        let standing = self.suppressions.entries(&sent.recipient).map_err(text)?;
        let is_held = |entry: &Entry| {
            entry.sender_domain == domain && matches!(entry.source, Source::Complaint | Source::Unsubscribe)
        };
        let text_of = |what: &str| format!("{}: {words}; {what}", sent.recipient);
        if standing.iter().any(is_held) {
            if kind == EventKind::Complained {
                self.write(event.into_iter().collect()).await?;
            }
            let text = text_of("no mail of this sender goes there already");
            return Ok(Outcome { event: kind, sent: Some(sent.clone()), suppressed: false, text });
        }
        let entry = Entry::new(&sent.recipient, Class::Other, words, source, now);
        self.suppressions.add(Entry { sender_domain: domain, ..entry }).await.map_err(text)?;
        let mut events: Vec<Event> = event.into_iter().collect();
        events.push(on_list(now, sent, words.to_string(), Class::Other, None));
        self.write(events).await?;
        let text = text_of("no mail of this sender goes there any more");
        Ok(Outcome { event: kind, sent: Some(sent.clone()), suppressed: true, text })
    }

    /// An event, and no more. Whom it may be about is found out for the event alone.
    async fn nothing(
        &self,
        reading: &Reading,
        why: &str,
        sent: Option<Sent>,
        client: Option<IpAddr>,
    ) -> Result<Outcome, String> {
        let now = self.clock.now();
        let outcome = Outcome {
            event: EventKind::Feedback,
            sent: sent.clone(),
            suppressed: false,
            text: format!("nothing is changed: {why}"),
        };
        if !self.may_write(now) {
            return Ok(outcome);
        }
        let mut derived_of = Vec::new();
        let by_id = || reading.original_id.as_deref().and_then(|id| self.store.find(id).ok()?);
        let about = sent.or_else(|| by_id().inspect(|_| derived_of.extend(["id", "sender", "recipient"])));
        let mut event = match &about {
            Some(sent) => event(EventKind::Feedback, now, sent, reading, client),
            None => Event::new(now, EventKind::Feedback),
        };
        if about.is_none()
            && let Some(named) = named(&reading.kind)
        {
            event.recipient = Some(shortened(named));
            derived_of.push("recipient");
        }
        event.client = client;
        event.report = reading.message_id.clone();
        event.message_id = event.message_id.or_else(|| reading.original_id.clone());
        event.reply = first_reply(&reading.kind);
        event.text = Some(format!("{why} ({})", name(reading)));
        event.derived = derived(&derived_of);
        self.write(vec![event]).await?;
        Ok(outcome)
    }

    /// One click (RFC 8058): the same answer, however often.
    pub(super) async fn click(&self, token: &str, client: IpAddr) -> Click {
        let in_force = self.in_force();
        let sent = match self.look(&in_force, token) {
            Ok(sent) => sent,
            Err(click) => return click,
        };
        match self.unsubscribed(&sent, "unsubscribed with one click".to_string(), None, Some(client)).await {
            Ok(_) => Click::Done,
            Err(error) => {
                tracing::error!("a click to unsubscribe could not be recorded: {error}");
                Click::Failed
            }
        }
    }

    /// What a click would come to; changes nothing.
    pub(super) fn peek(&self, token: &str) -> Click {
        self.look(&self.in_force(), token).map_or_else(|click| click, |_| Click::Done)
    }

    fn look(&self, in_force: &InForce, token: &str) -> Result<Sent, Click> {
        match Token::read(token, in_force.way.keys(), self.clock.now()) {
            Ok(token) if token.purpose == Purpose::Unsubscribe => match self.store.get(token.delivery) {
                Ok(sent) => sent.filter(|sent| token.is_for(&sent.recipient)).ok_or(Click::Unknown),
                Err(error) => {
                    tracing::error!("{error}");
                    Err(Click::Failed)
                }
            },
            Err(NoToken::Expired) => Err(Click::Expired),
            _ => Err(Click::Unknown),
        }
    }

    /// By whose rules the words are read: those of whoever is known by them, or by the host that reports.
    fn provider(&self, status: &Status, reply: &Reply) -> String {
        if let Some(known) = self.rules.get().recognize(reply) {
            return known.to_string();
        }
        let is_microsoft = |host: &String| {
            let host = host.to_ascii_lowercase();
            MICROSOFT.iter().any(|name| host == *name || host.ends_with(&format!(".{name}")))
        };
        if status.hosts.iter().any(is_microsoft) { "microsoft365".to_string() } else { ANYBODY.to_string() }
    }

    fn may_write(&self, now: Timestamp) -> bool {
        let minute = now.secs() / 60;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.written.store(0, Ordering::Relaxed);
        }
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        if written == EVENTS_PER_MINUTE {
            tracing::warn!("many answers come that change nothing: of those of this minute no more are told");
        }
        written < EVENTS_PER_MINUTE
    }

    /// Durable when it returns.
    async fn write(&self, events: Vec<Event>) -> Result<(), String> {
        self.spool.settle(events.into_iter().map(Change::Note).collect());
        self.spool.flush().await.map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn lists(domains: &[Domain], sender: &ReversePath) -> bool {
    sender.mailbox().is_some_and(|sender| domains.contains(sender.domain()))
}

fn sender_domain(sent: &Sent) -> Option<Domain> {
    sent.sender.mailbox().map(|sender| sender.domain().clone())
}

/// Only what speaks of the recipient counts; what is said about us, our mail or the way to there holds nobody back.
fn speaks_of_recipient(read: &Verdict) -> bool {
    !read.breaker && (read.suppress || read.scope == Scope::Recipient)
}

fn again(event: EventKind, sent: &Sent) -> Outcome {
    let text = format!("{}: the same was told before, and nothing is changed", sent.recipient);
    Outcome { event, sent: Some(sent.clone()), suppressed: false, text }
}

#[cfg(test)]
mod tests;
