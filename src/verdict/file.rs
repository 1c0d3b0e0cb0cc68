//! A table of rules, read: one of `config/providers`, or the `[[provider.rule]]` of one provider.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::options::{ConditionOptions, RULES_MAX, RuleOptions};
use super::rule::Rule;

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
    /// Where this provider takes requests for removal from its block lists.
    pub delisting: String,
    /// Words by which its replies are known.
    pub signs: Vec<String>,
    pub rules: Vec<Arc<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    order: Vec<String>,
    #[serde(default)]
    delisting: String,
    #[serde(default)]
    signs: Vec<String>,
    /// The throttle's part of the file.
    #[serde(default, rename = "profile")]
    _profile: serde::de::IgnoredAny,
    /// Words that several rules ask for, by a name: `"@us"` in a list stands for all of them.
    #[serde(default)]
    words: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    rule: Vec<RuleOptions>,
}

impl RuleFile {
    pub(super) fn parse(file: &str, text: &str) -> Result<RuleFile, RuleError> {
        let mut read: FileText = toml::from_str(text).map_err(|e| {
            let rule = e.span().and_then(|span| rule_around(text, span.start));
            RuleError::new(file, rule, e.to_string().trim_end().to_string())
        })?;
        for rule in &mut read.rule {
            for condition in &mut rule.conditions {
                spell_out(condition, &read.words).map_err(|fault| RuleError::new(file, Some(&rule.name), fault))?;
            }
            for (key, words) in [("remedy", &rule.remedy), ("source", &rule.source)] {
                if words.trim().is_empty() {
                    let fault = format!("`{key}` is missing: a table of the program says it for each rule");
                    return Err(RuleError::new(file, Some(&rule.name), fault));
                }
            }
        }
        let rules = checked(file, file, &read.rule)?;
        Ok(RuleFile { order: read.order, delisting: read.delisting, signs: read.signs, rules })
    }
}

/// Puts the lists that are named into the place of their names.
fn spell_out(condition: &mut ConditionOptions, lists: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for words in [&mut condition.all, &mut condition.any, &mut condition.and, &mut condition.not] {
        let mut spelled = Vec::with_capacity(words.len());
        for word in words.drain(..) {
            match word.strip_prefix('@') {
                None => spelled.push(word),
                Some(name) => {
                    let list = lists.get(name).ok_or_else(|| format!("`{word}` is no list of words of this file"))?;
                    spelled.extend(list.iter().cloned());
                }
            }
        }
        *words = spelled;
    }
    Ok(())
}

/// The rules an operator wrote for `provider`.
pub(super) fn own_rules(provider: &str, written: &[toml::Table]) -> Result<Vec<Arc<Rule>>, RuleError> {
    let file = format!("[[provider]] {provider}");
    if written.len() > RULES_MAX {
        let fault = format!("over {RULES_MAX} rules of its own");
        return Err(RuleError::new(&file, None, fault));
    }
    let read = |table: &toml::Table| {
        let name = table.get("name").and_then(toml::Value::as_str);
        let rule = toml::Value::Table(table.clone()).try_into::<RuleOptions>();
        rule.map_err(|error| RuleError::new(&file, name, error.message().to_string()))
    };
    let rules = written.iter().map(read).collect::<Result<Vec<RuleOptions>, RuleError>>()?;
    checked(&file, OWN, &rules)
}

/// The table of an operator's rules.
const OWN: &str = "own";

fn checked(file: &str, table: &str, written: &[RuleOptions]) -> Result<Vec<Arc<Rule>>, RuleError> {
    let mut rules: Vec<Arc<Rule>> = Vec::with_capacity(written.len());
    for rule in written {
        let fault = |fault| RuleError::new(file, Some(&rule.name), fault);
        if rules.iter().any(|other| *other.name == *rule.name) {
            return Err(fault("the name is used twice".to_string()));
        }
        let read = Rule::new(rule).map_err(fault)?;
        rules.push(Arc::new(Rule { table: table.into(), ..read }));
    }
    Ok(rules)
}

/// The name of the rule in which `place` lies; `name` is the first key of a rule by custom.
fn rule_around(text: &str, place: usize) -> Option<&str> {
    let start = text.get(..place)?.rfind("[[rule]]")?;
    let line = text[start..].lines().find_map(|line| line.trim().strip_prefix("name"))?;
    let name = line.trim_start().strip_prefix('=')?.trim();
    name.strip_prefix('"')?.split('"').next()
}
