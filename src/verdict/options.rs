//! A rule as people write it: in `config/providers/*.toml`, and as `[[provider.rule]]` of the configuration.
//!
//! What a rule says is checked where it becomes one ([`RuleOptions::check`]); here is only its form. docs/rules.md
//! tells how rules work.

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::types::{Class, Scope, Span, Stage};

/// Own rules of one provider; the shipped tables have under a hundred.
pub const RULES_MAX: usize = 200;

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleOptions {
    /// Small letters and digits joined by `-`: it stands in events and in `weir explain`.
    pub name: String,
    /// Ways to match, of which one must hold.
    #[serde(rename = "match")]
    pub conditions: Vec<ConditionOptions>,
    pub class: Class,
    pub scope: Scope,
    /// The recipient comes onto the suppression list.
    #[serde(default)]
    pub suppress: bool,
    /// With `suppress`: for some days only, unless the receiver takes another recipient within the hour. For rules that
    /// conclude from what is not said.
    #[serde(default)]
    pub provisional: bool,
    /// All mail of the source to the provider stops.
    #[serde(default)]
    pub breaker: bool,
    /// Where the reply is known to come, for rules that ask for no stage.
    pub at: Option<Stage>,
    /// How long the lane waits, in units of the provider's `pause`.
    pub wait: Option<f64>,
    /// So many refusals of different messages within an hour before anything is held back.
    pub after: Option<u8>,
    pub probe: Option<Probe>,
    /// The delivery alone is tried again after this, unless the reply names a time.
    pub again: Option<Span>,
    /// Why, for a person.
    pub cause: String,
    /// What to do, for a person.
    #[serde(default)]
    pub remedy: String,
    /// What the rule rests on: for those who keep the table.
    #[serde(default)]
    pub source: String,
}

/// When the first probe after a block goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Soon, with mail of another sender: the block may have been about the content of one.
    Early,
}

/// One way to match. All that it names must hold; of a list one entry must, of `all` every one, of `not` none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConditionOptions {
    /// `"550"`, or a class: `"5xx"`.
    pub code: Vec<String>,
    /// `"4.7.650"`, a range `"4.7.500-699"`, any number `"x.7.x"`, or `"none"`: the reply has no enhanced code.
    pub enhanced: Vec<String>,
    /// `"RP-001"`; a lower case x stands for one digit: `"S31xx"`.
    pub tag: Vec<String>,
    pub stage: Vec<Stage>,
    /// Words that must all be there.
    pub all: Vec<String>,
    /// Words of which one must be there. A blank at an end of them asks for the end of a word there.
    pub any: Vec<String>,
    /// The same once more: one of these, too.
    pub and: Vec<String>,
    /// An IP address must stand in the reply.
    pub ip: bool,
    /// Words that must not be there.
    pub not: Vec<String>,
}

impl RuleOptions {
    /// What is wrong with the rule, for whoever wrote it.
    pub fn check(&self) -> Result<(), String> {
        Rule::new(self).map(drop)
    }
}
