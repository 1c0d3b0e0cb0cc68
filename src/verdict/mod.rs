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
mod scan;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use table::RuleError;

use crate::types::{Class, Reading, Reply, Scope, Stage, Verdict};
use scan::Scan;
use table::{Rule, RuleFile};

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
}

/// The rules of one provider in the order in which they are asked: for each first digit of a code those that concern it.
type Table = [Vec<Arc<Rule>>; 10];

impl Rules {
    /// The tables that ship with weir.
    pub fn shipped() -> Rules {
        Rules::from_tables(&SHIPPED).expect("the shipped tables are read by a test")
    }

    /// Reads tables given as name and TOML text. A table with an `order` belongs to the provider of its name; one
    /// without is only there for others to name in theirs.
    pub fn from_tables(texts: &[(&str, &str)]) -> Result<Rules, RuleError> {
        let mut files = BTreeMap::new();
        for (name, text) in texts {
            files.insert(*name, RuleFile::parse(name, text)?);
        }
        let mut providers = BTreeMap::new();
        for (name, file) in &files {
            if !file.order.is_empty() {
                providers.insert((*name).to_string(), in_order(name, file, &files)?);
            }
        }
        let missing =
            || RuleError::new(DEFAULT, None, "the table that reads for everybody else is missing".to_string());
        let default = providers.remove(DEFAULT).ok_or_else(missing)?;
        Ok(Rules(Arc::new(Tables { providers, default })))
    }

    /// Reads `reply`, which `provider`'s host gave at `stage`. Providers without a table of their own are read by `default`.
    pub fn read(&self, provider: &str, stage: Stage, reply: &Reply) -> Reading {
        self.explain(provider, Some(stage), reply).0
    }

    /// As `read`, where the stage may be unknown: then it is the one that the rule expects, and it is returned.
    pub fn explain(&self, provider: &str, stage: Option<Stage>, reply: &Reply) -> (Reading, Stage) {
        let scan = Scan::of(reply);
        let table = self.0.providers.get(provider).unwrap_or(&self.0.default);
        let rules = table.get(usize::from(reply.code() / 100)).map_or(&[][..], Vec::as_slice);
        let found = rules.iter().find_map(|rule| Some((rule, rule.matched(stage, &scan)?)));
        let expected = found.and_then(|(rule, condition)| rule.expected_stage(condition));
        let stage = stage.or(expected).unwrap_or(Stage::Rcpt);
        // Nobody labels a success, and this way its words need not be looked at.
        let tag = if reply.is_positive() { None } else { scan.tags().next().map(str::to_ascii_uppercase) };
        let reading = match found {
            Some((rule, _)) => rule.reading(stage, reply, tag),
            None => unread(reply, tag),
        };
        (reading, stage)
    }

    /// The names of the providers that have a table of their own, `default` not among them.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.0.providers.keys().map(String::as_str)
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

fn in_order(name: &str, file: &RuleFile, files: &BTreeMap<&str, RuleFile>) -> Result<Table, RuleError> {
    let mut rules: Vec<&Arc<Rule>> = Vec::new();
    for part in &file.order {
        let Some(part) = files.get(part.as_str()) else {
            let known: Vec<&str> = files.keys().copied().collect();
            let fault = format!("`order` names `{part}`, but the tables are {}", known.join(", "));
            return Err(RuleError::new(name, None, fault));
        };
        for rule in &part.rules {
            if rules.iter().any(|other| other.name() == rule.name()) {
                let fault = "the name is taken: a rule is known by it in events and in `weir explain`".to_string();
                return Err(RuleError::new(name, Some(rule.name()), fault));
            }
            rules.push(rule);
        }
    }
    let concerned = |digit: u16| rules.iter().filter(|r| r.concerns(digit)).map(|r| Arc::clone(r)).collect();
    Ok([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(concerned))
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
    }
}
