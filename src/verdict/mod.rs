//! Verdict: what a reply means for the message, the lane and the recipient.
//!
//! Pure: tables of rules and a reply go in, a `Reading` comes out. The tables are data (`config/providers`), so that a
//! new wording of a receiver is a new rule and no new code. Rules that always hold, whatever a table says:
//!
//! - the verdict follows the reply code alone (RFC 5321 section 4.2.1): 2 delivered, 5 bounce, all else retry;
//! - the first rule that matches reads the reply, and every reply is read;
//! - only a rejection of a recipient, given to RCPT or to a whole transaction, ever suppresses one;
//! - what is said about our address (scope source, breaker) suppresses nobody;
//! - a mail address inside a reply has no say in how it is read.

mod condition;
mod explained;
mod file;
mod named;
pub mod options;
mod phrases;
mod rule;
mod scan;
mod signs;
mod table;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use explained::{Explained, USUAL, explained};
pub use file::RuleError;
pub use scan::bare_words;
pub use words::{does, for_the_message, whose};

use crate::types::{Class, Effects, Reading, Reply, Scope, Stage, Verdict};
use file::{RuleFile, own_rules};
use rule::Rule;
use scan::Scan;
use signs::Signs;
use table::Table;

/// The tables that are part of the program, by name.
const SHIPPED: [(&str, &str); 7] = [
    ("certain", include_str!("../../config/providers/shared/certain.toml")),
    ("microsoft", include_str!("../../config/providers/shared/microsoft.toml")),
    ("outlook", include_str!("../../config/providers/outlook.toml")),
    ("microsoft365", include_str!("../../config/providers/microsoft365.toml")),
    ("gmail", include_str!("../../config/providers/gmail.toml")),
    ("yahoo", include_str!("../../config/providers/yahoo.toml")),
    (DEFAULT, include_str!("../../config/providers/default.toml")),
];

/// The table that reads for every provider without one of its own.
const DEFAULT: &str = "default";

/// All rule tables, ready to read replies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rules(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    providers: BTreeMap<String, Table>,
    default: Table,
    signs: Signs,
    /// Where providers take requests for removal from their block lists.
    delisting: BTreeMap<String, String>,
}

/// A rule as it is listed for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<'a> {
    pub name: &'a str,
    /// The table that it stands in: a provider's, `certain`, `microsoft`, `default`, or `own` for an operator's.
    pub table: &'a str,
    pub class: Class,
    pub scope: Scope,
    pub suppress: bool,
    pub breaker: bool,
    pub effects: Effects,
    pub cause: &'a str,
    pub remedy: &'a str,
    /// What it rests on; empty where an operator's rule does not say.
    pub source: &'a str,
}

impl Rules {
    /// The tables that ship with weir.
    pub fn shipped() -> Rules {
        Rules::from_tables(&SHIPPED).expect("the shipped tables are read by a test")
    }

    /// The shipped tables with an operator's own rules, by provider, before them. An own rule with the name of a shipped one
    /// replaces it; a provider without a shipped table has the own rules and behind them those of `default`.
    pub fn with_own<'a>(own: impl IntoIterator<Item = (&'a str, &'a [toml::Table])>) -> Result<Rules, RuleError> {
        Rules::build(&SHIPPED, own)
    }

    /// Reads tables given as name and TOML text. A table with an `order` belongs to the provider of its name; one
    /// without is only there for others to name in theirs.
    pub fn from_tables(texts: &[(&str, &str)]) -> Result<Rules, RuleError> {
        Rules::build(texts, [])
    }

    fn build<'a>(
        texts: &[(&str, &str)],
        own: impl IntoIterator<Item = (&'a str, &'a [toml::Table])>,
    ) -> Result<Rules, RuleError> {
        let mut files = BTreeMap::new();
        for (name, text) in texts {
            files.insert(*name, RuleFile::parse(name, text)?);
        }
        let mut providers = BTreeMap::new();
        for (name, file) in files.iter().filter(|(_, file)| !file.order.is_empty()) {
            providers.insert((*name).to_string(), in_order(name, file, &files)?);
        }
        let mut own: Vec<(&str, &[toml::Table])> = own.into_iter().filter(|(_, rules)| !rules.is_empty()).collect();
        // What is said of everybody else stands behind the rules of providers that only an operator knows.
        own.sort_by_key(|(name, _)| *name != DEFAULT);
        for (name, rules) in own {
            let behind = providers.get(name).or(providers.get(DEFAULT)).cloned().unwrap_or_default();
            providers.insert(name.to_string(), in_front(own_rules(name, rules)?, behind));
        }
        let mut tables = BTreeMap::new();
        for (name, rules) in providers {
            let fault = |(rule, fault): (Arc<Rule>, String)| RuleError::new(&name, Some(&rule.name), fault);
            let table = Table::new(rules).map_err(fault)?;
            tables.insert(name, table);
        }
        let missing =
            || RuleError::new(DEFAULT, None, "the table that reads for everybody else is missing".to_string());
        let default = tables.remove(DEFAULT).ok_or_else(missing)?;
        let signs = Signs::new(&files)?;
        let delisting = files.into_iter().filter(|(_, file)| !file.delisting.is_empty());
        let delisting = delisting.map(|(name, file)| (name.to_string(), file.delisting)).collect();
        Ok(Rules(Arc::new(Tables { providers: tables, default, signs, delisting })))
    }

    /// Reads `reply`, which `provider`'s host gave at `stage`. Providers without a table of their own are read by `default`.
    pub fn read(&self, provider: &str, stage: Stage, reply: &Reply) -> Reading {
        self.explain(provider, Some(stage), reply).0
    }

    /// As `read`, where the stage may be unknown: then it is the one that the rule expects, and it is returned.
    pub fn explain(&self, provider: &str, stage: Option<Stage>, reply: &Reply) -> (Reading, Stage) {
        let scan = Scan::of(reply);
        let found = self.table(provider).find(stage, &scan);
        let stage = stage.or(found.and_then(|(_, expected)| expected)).unwrap_or(Stage::Rcpt);
        // Nobody labels a success, and this way its words need not be looked at.
        let tag = if reply.is_positive() { None } else { scan.tags().next().map(upper_case) };
        let reading = match found {
            Some((rule, _)) => rule.reading(stage, reply, tag),
            None => unread(reply, tag),
        };
        (reading, stage)
    }

    /// Whose words these are, if they tell: a provider with a table of its own, or `default` for a receiver that is known to have
    /// none.
    pub fn recognize(&self, reply: &Reply) -> Option<&str> {
        self.0.signs.find(Scan::of(reply).text())
    }

    /// How the rule called `name` reads `reply`: for a reply that it has read before. None if there is no such rule (any more).
    pub fn reread(&self, provider: &str, name: &str, reply: &Reply) -> Option<Reading> {
        let rule = self.table(provider).rules().iter().find(|rule| &*rule.name == name)?;
        let tag = Scan::of(reply).tags().next().map(upper_case);
        Some(rule.reading(rule.at.unwrap_or(Stage::Rcpt), reply, tag))
    }

    /// The names of the providers that have a table of their own, `default` not among them.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.0.providers.keys().map(String::as_str)
    }

    /// The rules that read `provider`'s replies, in the order in which they are asked.
    pub fn list(&self, provider: &str) -> impl Iterator<Item = Listed<'_>> {
        self.table(provider).rules().iter().map(|rule| Listed {
            name: &rule.name,
            table: &rule.table,
            class: rule.class,
            scope: rule.scope,
            suppress: rule.suppress,
            breaker: rule.breaker,
            effects: rule.effects,
            cause: &rule.cause,
            remedy: &rule.remedy,
            source: &rule.source,
        })
    }

    /// The page on which `provider` takes requests for removal from its block lists, if it is known.
    pub fn delisting(&self, provider: &str) -> Option<&str> {
        self.0.delisting.get(provider).map(String::as_str)
    }

    fn table(&self, provider: &str) -> &Table {
        self.0.providers.get(provider).unwrap_or(&self.0.default)
    }
}

/// The verdict on the message. It follows the first digit of the code and nothing else.
fn verdict(reply: &Reply) -> Verdict {
    match reply.code() / 100 {
        2 => Verdict::Delivered,
        5 => Verdict::Bounce,
        _ => Verdict::Retry,
    }
}

/// The rules of the tables that `file` names, one behind the other.
fn in_order(name: &str, file: &RuleFile, files: &BTreeMap<&str, RuleFile>) -> Result<Vec<Arc<Rule>>, RuleError> {
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for part in &file.order {
        let Some(part) = files.get(part.as_str()) else {
            let known: Vec<&str> = files.keys().copied().collect();
            let fault = format!("`order` names `{part}`, but the tables are {}", known.join(", "));
            return Err(RuleError::new(name, None, fault));
        };
        for rule in &part.rules {
            if rules.iter().any(|other| other.name == rule.name) {
                let fault = "the name is taken: a rule is known by it in events and in `weir explain`".to_string();
                return Err(RuleError::new(name, Some(&rule.name), fault));
            }
            rules.push(Arc::clone(rule));
        }
    }
    Ok(rules)
}

/// `own` before `behind`, of which those go that an own one replaces.
fn in_front(own: Vec<Arc<Rule>>, behind: Vec<Arc<Rule>>) -> Vec<Arc<Rule>> {
    let stays = |rule: &Arc<Rule>| !own.iter().any(|other| other.name == rule.name);
    let behind: Vec<Arc<Rule>> = behind.into_iter().filter(stays).collect();
    own.into_iter().chain(behind).collect()
}

fn upper_case(tag: &[u8]) -> String {
    String::from_utf8_lossy(tag).to_ascii_uppercase()
}

/// For tables that leave gaps; the shipped ones have none.
fn unread(reply: &Reply, tag: Option<String>) -> Reading {
    Reading {
        verdict: verdict(reply),
        class: if reply.is_positive() { Class::Delivered } else { Class::Other },
        scope: Scope::Message,
        suppress: false,
        breaker: false,
        rule: "none".into(),
        tag,
        cause: "No rule knows this reply.".into(),
        remedy: "Read the receiver's own words.".into(),
        effects: Effects::default(),
    }
}
