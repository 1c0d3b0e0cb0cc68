//! A rule, checked: what a reply that matches it means.
//!
//! A rule that breaks one of the room's own laws (a block of our address that would suppress a recipient) is refused
//! here, so that no table, shipped or written by an operator, can harm a user's list by a slip.

use std::sync::Arc;

use super::condition::Condition;
use super::named::{AGAIN_MAX, AGAIN_MIN, named_wait};
use super::options::{ConditionOptions, Probe, RuleOptions};
use super::phrases::Lexicon;
use super::verdict;
use crate::types::{Class, Effects, Reading, Reply, Scope, Span, Stage, Verdict};

/// The longest wait a rule may ask for, in units of the provider's `pause`.
const WAIT_MAX: f64 = 100.0;
/// More refusals than this are not waited for: every one of them is mail that comes back.
const AFTER_MAX: u8 = 100;
/// Longer texts are not read by anybody.
const TEXT_MAX: usize = 2000;

#[derive(Debug)]
pub(super) struct Rule {
    pub name: Arc<str>,
    /// The table that it stands in.
    pub table: Arc<str>,
    pub class: Class,
    pub scope: Scope,
    pub suppress: bool,
    pub breaker: bool,
    pub at: Option<Stage>,
    pub effects: Effects,
    pub cause: Arc<str>,
    pub remedy: Arc<str>,
    pub source: String,
    /// Checked, and made into conditions where a table is put together.
    pub conditions: Vec<ConditionOptions>,
}

impl Rule {
    /// The error says what is wrong and what would be right.
    pub(super) fn new(text: &RuleOptions) -> Result<Rule, String> {
        is_readable(text)?;
        keeps_the_laws(text)?;
        // Nobody asks this lexicon: the conditions are only checked here.
        let mut lexicon = Lexicon::default();
        for condition in &text.conditions {
            Condition::new(condition, &mut lexicon)?;
        }
        Ok(Rule {
            name: text.name.as_str().into(),
            table: Arc::from(""),
            class: text.class,
            scope: text.scope,
            suppress: text.suppress,
            breaker: text.breaker,
            at: text.at,
            effects: effects(text)?,
            cause: text.cause.as_str().into(),
            remedy: text.remedy.as_str().into(),
            source: text.source.clone(),
            conditions: text.conditions.clone(),
        })
    }

    /// Is this about success? A reply of success is read by such rules alone, and they read nothing else.
    pub(super) fn is_success(&self) -> bool {
        self.class == Class::Delivered
    }

    pub(super) fn reading(&self, stage: Stage, reply: &Reply, tag: Option<String>) -> Reading {
        let verdict = verdict(reply);
        // Before RCPT nobody was named yet.
        let names_recipient = matches!(stage, Stage::Rcpt | Stage::Data);
        Reading {
            verdict,
            class: self.class,
            scope: self.scope,
            suppress: self.suppress && names_recipient && verdict == Verdict::Bounce,
            breaker: self.breaker,
            rule: Arc::clone(&self.name),
            tag,
            cause: Arc::clone(&self.cause),
            remedy: Arc::clone(&self.remedy),
            effects: self.effects_of(reply),
        }
    }

    fn effects_of(&self, reply: &Reply) -> Effects {
        let is_own_wait = self.effects.again_secs.is_some() || self.is_mailbox_limit();
        let named = if is_own_wait || self.puts_off_alone(reply) { named_wait(reply, is_own_wait) } else { None };
        let named = named.and_then(|wait| u16::try_from(wait.as_secs()).ok());
        Effects { again_secs: named.or(self.effects.again_secs), ..self.effects }
    }

    /// Where the lane is spoken of, it waits; all else is about this delivery.
    fn puts_off_alone(&self, reply: &Reply) -> bool {
        verdict(reply) == Verdict::Retry
            && !matches!(self.scope, Scope::Source | Scope::Connection | Scope::SenderDomain)
            && self.class != Class::TooManyRecipients
    }

    fn is_mailbox_limit(&self) -> bool {
        (self.class, self.scope) == (Class::RateLimit, Scope::Recipient)
    }
}

/// The scopes that make sense with a class: what weir does follows from both, and for other pairs it would do nothing, or
/// the wrong thing. docs/rules.md has them as a table.
pub(super) fn scopes(class: Class) -> &'static [Scope] {
    match class {
        Class::Delivered | Class::TooManyRecipients => &[Scope::Message],
        Class::RateLimit => &[Scope::Source, Scope::SenderDomain, Scope::Recipient, Scope::RecipientDomain],
        Class::MessageLimit => &[Scope::Connection],
        Class::ConnectionLimit | Class::IpBlock => &[Scope::Source],
        Class::SenderBlock => &[Scope::SenderDomain, Scope::Message],
        Class::Authentication => &[Scope::Source, Scope::SenderDomain, Scope::Message],
        Class::Content => &[Scope::Message, Scope::SenderDomain],
        Class::RecipientUnknown | Class::RecipientDisabled | Class::MailboxFull => &[Scope::Recipient],
        Class::RecipientPolicy => &[Scope::Recipient, Scope::RecipientDomain, Scope::Message],
        Class::Routing => &[Scope::RecipientDomain, Scope::Message, Scope::Server],
        Class::Tls => &[Scope::Connection, Scope::Server, Scope::RecipientDomain],
        Class::Protocol => &[Scope::Source, Scope::Connection, Scope::Message, Scope::Recipient, Scope::Server],
        Class::Temporary => {
            &[Scope::Connection, Scope::Message, Scope::Recipient, Scope::RecipientDomain, Scope::Server]
        }
        Class::Other => &[
            Scope::Connection,
            Scope::SenderDomain,
            Scope::Message,
            Scope::Recipient,
            Scope::RecipientDomain,
            Scope::Server,
        ],
    }
}

fn is_readable(text: &RuleOptions) -> Result<(), String> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if text.name.len() > 64 || !text.name.split('-').all(is_word) {
        return Err("a name is made of small letters and digits joined by `-`, 64 at most".to_string());
    }
    if text.conditions.is_empty() {
        return Err("`match` is empty: the rule would never be used".to_string());
    }
    if text.cause.trim().is_empty() {
        return Err("`cause` is empty: people read it".to_string());
    }
    if [&text.cause, &text.remedy, &text.source].iter().any(|words| words.len() > TEXT_MAX) {
        return Err(format!("`cause`, `remedy` and `source` have at most {TEXT_MAX} bytes"));
    }
    Ok(())
}

fn keeps_the_laws(text: &RuleOptions) -> Result<(), String> {
    let sensible = scopes(text.class);
    if !sensible.contains(&text.scope) {
        let names: Vec<String> = sensible.iter().map(|scope| format!("`{scope}`")).collect();
        return Err(format!(
            "class `{}` does not go with scope `{}`: weir would not know what to slow down; write scope {}",
            text.class,
            text.scope,
            names.join(" or ")
        ));
    }
    if text.class == Class::Protocol && text.scope == Scope::Source && !text.breaker {
        return Err("class `protocol` with scope `source` needs `breaker = true`: our name is refused, and nothing goes until it is mended".to_string());
    }
    if text.suppress && (text.breaker || text.scope != Scope::Recipient) {
        return Err("`suppress` goes with scope `recipient` and without `breaker` only: what is said about somebody else says nothing about the recipient".to_string());
    }
    if text.provisional && !text.suppress {
        return Err("`provisional` goes with `suppress` only: it says how long the recipient is listed".to_string());
    }
    if text.breaker && text.scope != Scope::Source {
        return Err("`breaker` goes with scope `source` only: it stops all mail of the source".to_string());
    }
    let names_recipient = |c: &ConditionOptions| {
        !c.stage.is_empty() && c.stage.iter().all(|stage| matches!(stage, Stage::Rcpt | Stage::Data))
    };
    if text.suppress && !text.conditions.iter().all(names_recipient) {
        return Err(
            "`suppress` needs `stage` in each `match`: rcpt, and data only where the words speak of every recipient"
                .to_string(),
        );
    }
    Ok(())
}

fn effects(text: &RuleOptions) -> Result<Effects, String> {
    let limits = [Class::RateLimit, Class::MessageLimit, Class::ConnectionLimit];
    let wait = match text.wait {
        None => None,
        Some(_) if !limits.contains(&text.class) => {
            return Err("`wait` goes with class `rate-limit`, `message-limit` or `connection-limit` only".to_string());
        }
        Some(wait) if (0.01..=WAIT_MAX).contains(&wait) => Some((wait * 100.0).round() as u16),
        Some(wait) => return Err(format!("`wait` is {wait}: from 0.01 to {WAIT_MAX} times the provider's `pause`")),
    };
    let after = match text.after {
        None => 0,
        Some(_) if text.scope != Scope::SenderDomain => {
            return Err("`after` goes with scope `sender-domain` only: nothing else is held back by count".to_string());
        }
        Some(after) if (1..=AFTER_MAX).contains(&after) => after,
        Some(after) => return Err(format!("`after` is {after}: from 1 to {AFTER_MAX} refusals")),
    };
    let again_secs = match text.again {
        None => None,
        Some(_) if (text.class, text.scope) != (Class::Temporary, Scope::Recipient) => {
            return Err(
                "`again` goes with class `temporary` and scope `recipient` only: it is about one delivery".to_string()
            );
        }
        Some(again) if (AGAIN_MIN..=AGAIN_MAX).contains(&again.0) => u16::try_from(again.0.as_secs()).ok(),
        Some(again) => return Err(format!("`again` is {again}: from {} to {}", Span(AGAIN_MIN), Span(AGAIN_MAX))),
    };
    if text.probe.is_some() && (text.class != Class::IpBlock || !text.breaker) {
        return Err("`probe` goes with class `ip-block` and `breaker` only: nothing else is probed for".to_string());
    }
    let (probe_early, provisional) = (text.probe == Some(Probe::Early), text.provisional);
    Ok(Effects { wait, after, again_secs, probe_early, provisional })
}
