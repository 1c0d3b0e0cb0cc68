//! A file of rules, read and checked.
//!
//! A rule that breaks one of the room's own laws (a block of our address that would suppress a recipient) is refused
//! here with the file, the rule and the fault, so that no table can harm a user's list by a slip.

use std::sync::Arc;

use serde::Deserialize;

use super::condition::{Condition, ConditionText};
use super::scan::Scan;
use super::verdict;
use crate::types::{Class, Reading, Reply, Scope, Stage, Verdict};

/// A table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule table `{file}`{}: {fault}", .rule.as_ref().map(|r| format!(", rule `{r}`")).unwrap_or_default())]
pub struct RuleError {
    pub file: String,
    /// The rule at fault; none if the fault is the file's.
    pub rule: Option<String>,
    pub fault: String,
}

impl RuleError {
    pub(super) fn new(file: &str, rule: Option<&str>, fault: String) -> RuleError {
        RuleError { file: file.to_string(), rule: rule.map(str::to_string), fault }
    }
}

/// The rules of one file, and in which order its provider asks which files.
#[derive(Debug)]
pub(super) struct RuleFile {
    /// Names of tables, its own among them. Empty: the file is only there for others.
    pub order: Vec<String>,
    pub rules: Vec<Arc<Rule>>,
}

#[derive(Debug)]
pub(super) struct Rule {
    name: Arc<str>,
    /// Ways to match, of which one must hold.
    conditions: Vec<Condition>,
    class: Class,
    scope: Scope,
    suppress: bool,
    breaker: bool,
    /// Where the reply is known to come, for rules that ask for no stage.
    at: Option<Stage>,
    cause: Arc<str>,
    remedy: Arc<str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    order: Vec<String>,
    /// The throttle's part of the file.
    #[serde(default, rename = "profile")]
    _profile: serde::de::IgnoredAny,
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: String,
    #[serde(rename = "match")]
    conditions: Vec<ConditionText>,
    class: Class,
    scope: Scope,
    #[serde(default)]
    suppress: bool,
    #[serde(default)]
    breaker: bool,
    at: Option<Stage>,
    cause: String,
    remedy: String,
    /// What the rule rests on: for those who keep the table.
    source: String,
}

impl RuleFile {
    pub(super) fn parse(file: &str, text: &str) -> Result<RuleFile, RuleError> {
        let read: FileText = toml::from_str(text).map_err(|e| {
            let rule = e.span().and_then(|span| rule_around(text, span.start));
            RuleError::new(file, rule, e.to_string().trim_end().to_string())
        })?;
        let mut rules: Vec<Arc<Rule>> = Vec::with_capacity(read.rule.len());
        for rule in read.rule {
            let fault = |fault| RuleError::new(file, Some(&rule.name), fault);
            if rules.iter().any(|other| *other.name == *rule.name) {
                return Err(fault("the name is used twice".to_string()));
            }
            rules.push(Arc::new(Rule::new(&rule).map_err(fault)?));
        }
        Ok(RuleFile { order: read.order, rules })
    }
}

impl Rule {
    fn new(text: &RuleText) -> Result<Rule, String> {
        let is_kebab = |name: &str| {
            !name.is_empty()
                && name
                    .split('-')
                    .all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        };
        if !is_kebab(&text.name) {
            return Err("a name is made of small letters and digits joined by `-`".to_string());
        }
        if text.conditions.is_empty() {
            return Err("`match` is empty: the rule would never be used".to_string());
        }
        if text.suppress && (text.breaker || text.scope != Scope::Recipient) {
            return Err("`suppress` goes with scope `recipient` and without `breaker` only: what is said about somebody else says nothing about the recipient".to_string());
        }
        if text.breaker && text.scope != Scope::Source {
            return Err("`breaker` goes with scope `source` only: it stops all mail of the source".to_string());
        }
        for (key, words) in [("cause", &text.cause), ("remedy", &text.remedy), ("source", &text.source)] {
            if words.trim().is_empty() {
                return Err(format!("`{key}` is empty: people read it"));
            }
        }
        let conditions: Vec<Condition> = text.conditions.iter().map(Condition::new).collect::<Result<_, _>>()?;
        let names_recipient = |c: &Condition| {
            !c.stages.is_empty() && c.stages.iter().all(|stage| matches!(stage, Stage::Rcpt | Stage::Data))
        };
        if text.suppress && !conditions.iter().all(names_recipient) {
            return Err("`suppress` needs `stage` in each `match`: rcpt, and data only where the words speak of every recipient".to_string());
        }
        Ok(Rule {
            name: text.name.as_str().into(),
            conditions,
            class: text.class,
            scope: text.scope,
            suppress: text.suppress,
            breaker: text.breaker,
            at: text.at,
            cause: text.cause.as_str().into(),
            remedy: text.remedy.as_str().into(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The stage at which this rule, matched by `condition`, expects its reply.
    pub(super) fn expected_stage(&self, condition: &Condition) -> Option<Stage> {
        condition.stages.first().copied().or(self.at)
    }

    /// May it match replies whose code begins with `digit`?
    pub(super) fn concerns(&self, digit: u16) -> bool {
        (self.class == Class::Delivered) == (digit == 2) && self.conditions.iter().any(|c| c.concerns(digit))
    }

    /// The condition that holds, if one does. Success and refusal are never mixed up, whatever a rule says.
    pub(super) fn matched(&self, stage: Option<Stage>, scan: &Scan<'_>) -> Option<&Condition> {
        if (self.class == Class::Delivered) != (scan.code / 100 == 2) {
            return None;
        }
        self.conditions.iter().find(|condition| condition.holds(stage, scan))
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
        }
    }
}

/// The name of the rule in which `place` lies; `name` is the first key of a rule by custom.
fn rule_around(text: &str, place: usize) -> Option<&str> {
    let start = text.get(..place)?.rfind("[[rule]]")?;
    let line = text[start..].lines().find_map(|line| line.trim().strip_prefix("name"))?;
    let name = line.trim_start().strip_prefix('=')?.trim();
    name.strip_prefix('"')?.split('"').next()
}
