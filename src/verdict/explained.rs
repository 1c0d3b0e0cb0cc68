//! What a reply means, for those who ask: the reading, whose rules it was read by, and what weir does about it.

use std::time::Duration;

use serde::Serialize;

use super::{Rules, does, whose};
use crate::types::{Class, Reply, Scope, Stage, Verdict};

/// Whom nothing names.
pub const USUAL: &str = "outlook";

/// A reply, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    pub code: u16,
    pub enhanced: Option<String>,
    pub tag: Option<String>,
    pub provider: String,
    /// How the provider came about: `asked` for, told by the `words`, or by `default`.
    pub chosen: &'static str,
    /// The table of rules that read it: a provider's, or what stands before or behind several.
    pub rules: String,
    pub stage: Stage,
    pub class: Class,
    pub scope: Scope,
    pub verdict: Verdict,
    pub suppress: bool,
    pub breaker: bool,
    /// Whose affair it is.
    pub whose: &'static str,
    /// What weir does.
    pub does: String,
    pub cause: String,
    pub remedy: String,
    pub rule: String,
}

/// Reads `text`; the error says what is wrong with it. `pause`: the unit of a provider's waits.
pub fn explained(
    rules: &Rules,
    text: &str,
    asked: Option<&str>,
    stage: Option<Stage>,
    pause: impl Fn(&str) -> Duration,
) -> Result<Explained, String> {
    let Some(reply) = Reply::parse(text) else {
        return Err("the reply must begin with its three-digit code, as in \"550 5.1.1 no such user\"".to_string());
    };
    let (provider, chosen) = match (asked, rules.recognize(&reply)) {
        (Some(asked), _) => (asked, "asked"),
        (None, Some(named)) => (named, "words"),
        (None, None) => (USUAL, "default"),
    };
    let (reading, stage) = rules.explain(provider, stage, &reply);
    let table = rules.list(provider).find(|rule| *rule.name == *reading.rule).map_or("none", |rule| rule.table);
    Ok(Explained {
        code: reply.code(),
        enhanced: reply.enhanced().map(|enhanced| enhanced.to_string()),
        tag: reading.tag.clone(),
        provider: provider.to_string(),
        chosen,
        rules: table.to_string(),
        stage,
        class: reading.class,
        scope: reading.scope,
        verdict: reading.verdict,
        suppress: reading.suppress,
        breaker: reading.breaker,
        whose: whose(&reading),
        does: does(&reading, pause(provider)),
        cause: reading.cause.to_string(),
        remedy: reading.remedy.to_string(),
        rule: reading.rule.to_string(),
    })
}
