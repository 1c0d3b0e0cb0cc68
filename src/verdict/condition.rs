//! What a reply must look like for a rule to match: code, enhanced code, words, tag, stage.
//!
//! All that a condition names must hold; of a list of codes, tags or stages one must. What it does not name it does
//! not ask.

use serde::Deserialize;

use super::scan::{Phrase, Scan};
use crate::types::{Enhanced, Stage};

/// One way to match a rule.
#[derive(Debug)]
pub(super) struct Condition {
    codes: Vec<CodePattern>,
    enhanced: Vec<EnhancedPattern>,
    tags: Vec<TagPattern>,
    pub(super) stages: Vec<Stage>,
    all: Vec<Phrase>,
    any: Vec<Phrase>,
    not: Vec<Phrase>,
}

/// A condition as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConditionText {
    /// `"550"`, or a class: `"5xx"`.
    code: Vec<String>,
    /// `"4.7.650"`, a range `"4.7.500-699"`, any number `"x.7.x"`, or `"none"`: the reply has no enhanced code.
    enhanced: Vec<String>,
    /// `"RP-001"`; a lower case x stands for one digit: `"S31xx"`.
    tag: Vec<String>,
    stage: Vec<Stage>,
    /// Words that must all be there.
    all: Vec<String>,
    /// Words of which one must be there.
    any: Vec<String>,
    /// Words that must not be there.
    not: Vec<String>,
}

impl Condition {
    /// The error says what is wrong and what would be right.
    pub(super) fn new(text: &ConditionText) -> Result<Condition, String> {
        let condition = Condition {
            codes: each("code", &text.code, CodePattern::parse, "`550` or a class like `5xx`")?,
            enhanced: each(
                "enhanced",
                &text.enhanced,
                EnhancedPattern::parse,
                "`4.7.650`, `4.7.500-699`, `x.7.x` or `none`",
            )?,
            tags: each("tag", &text.tag, TagPattern::parse, "`RP-001`, or with x for a digit `S31xx`")?,
            stages: text.stage.clone(),
            all: phrases("all", &text.all)?,
            any: phrases("any", &text.any)?,
            not: phrases("not", &text.not)?,
        };
        let asks = [condition.codes.len(), condition.enhanced.len(), condition.tags.len(), condition.stages.len()];
        if asks.iter().sum::<usize>() + condition.all.len() + condition.any.len() == 0 {
            return Err(
                "a `match` names no code, enhanced code, tag, stage or words: it would match every reply".to_string()
            );
        }
        Ok(condition)
    }

    /// May it hold for replies whose code begins with `digit`?
    pub(super) fn concerns(&self, digit: u16) -> bool {
        is_one_of(&self.codes, |code| match *code {
            CodePattern::Exact(exact) => exact / 100 == digit,
            CodePattern::Class(class) => class == digit,
        })
    }

    /// `stage`: none if it is not known; then no stage is asked for.
    pub(super) fn holds(&self, stage: Option<Stage>, scan: &Scan<'_>) -> bool {
        is_one_of(&self.codes, |code| code.matches(scan.code))
            && stage.is_none_or(|stage| is_one_of(&self.stages, |&s| s == stage))
            && is_one_of(&self.enhanced, |enhanced| enhanced.matches(scan.enhanced()))
            && is_one_of(&self.tags, |tag| scan.tags().any(|t| tag.matches(t)))
            && is_one_of(&self.any, |phrase| scan.contains(phrase))
            && self.all.iter().all(|phrase| scan.contains(phrase))
            && !self.not.iter().any(|phrase| scan.contains(phrase))
    }
}

/// An empty list asks nothing.
fn is_one_of<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

fn each<T>(key: &str, texts: &[String], parse: fn(&str) -> Option<T>, example: &str) -> Result<Vec<T>, String> {
    let read = |text: &String| {
        parse(text).ok_or_else(|| format!("`{text}` in `{key}` cannot be read: write it like {example}"))
    };
    texts.iter().map(read).collect()
}

fn phrases(key: &str, texts: &[String]) -> Result<Vec<Phrase>, String> {
    each(key, texts, Phrase::new, "`user unknown`: three bytes or more, single blanks, no mail address")
}

/// A reply code or a class of them.
#[derive(Debug, PartialEq)]
enum CodePattern {
    Exact(u16),
    Class(u16),
}

impl CodePattern {
    fn parse(text: &str) -> Option<CodePattern> {
        if text.len() != 3 || !text.starts_with(['2', '3', '4', '5']) {
            return None;
        }
        match text.strip_suffix("xx") {
            Some(class) => class.parse().ok().map(CodePattern::Class),
            None => text.parse().ok().map(CodePattern::Exact),
        }
    }

    fn matches(&self, code: u16) -> bool {
        match *self {
            CodePattern::Exact(exact) => code == exact,
            CodePattern::Class(class) => code / 100 == class,
        }
    }
}

/// Enhanced codes, or their absence.
#[derive(Debug, PartialEq)]
enum EnhancedPattern {
    None,
    /// Each number between two others, both included.
    Between([(u16, u16); 3]),
}

impl EnhancedPattern {
    fn parse(text: &str) -> Option<EnhancedPattern> {
        if text == "none" {
            return Some(EnhancedPattern::None);
        }
        let mut parts = text.split('.').map(number_range);
        let ranges = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(EnhancedPattern::Between(ranges))
    }

    fn matches(&self, code: Option<Enhanced>) -> bool {
        match (self, code) {
            (EnhancedPattern::None, code) => code.is_none(),
            (EnhancedPattern::Between(_), None) => false,
            (EnhancedPattern::Between(ranges), Some(code)) => {
                let numbers = [u16::from(code.class), code.subject, code.detail];
                ranges.iter().zip(numbers).all(|(&(least, most), number)| (least..=most).contains(&number))
            }
        }
    }
}

/// Reads `650`, `500-699` or `x`.
fn number_range(text: &str) -> Option<(u16, u16)> {
    if text == "x" {
        return Some((0, 999));
    }
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|&n| n <= 999);
    let range = (number(least)?, number(most)?);
    (range.0 <= range.1).then_some(range)
}

/// A tag in lower case, in which `None` is any digit.
#[derive(Debug, PartialEq)]
struct TagPattern(Vec<Option<u8>>);

impl TagPattern {
    fn parse(text: &str) -> Option<TagPattern> {
        let is_tag = text.len() >= 3 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-().".contains(&b));
        let places = text.bytes().map(|b| (b != b'x').then(|| b.to_ascii_lowercase()));
        is_tag.then(|| TagPattern(places.collect()))
    }

    fn matches(&self, tag: &str) -> bool {
        self.0.len() == tag.len()
            && self.0.iter().zip(tag.bytes()).all(|(place, b)| place.map_or(b.is_ascii_digit(), |p| p == b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Reply;

    fn holds(condition: &str, reply: &str) -> bool {
        let text: ConditionText = toml::from_str(condition).unwrap();
        Condition::new(&text).unwrap().holds(Some(Stage::Rcpt), &Scan::of(&Reply::parse(reply).unwrap()))
    }

    #[test]
    fn asks_for_all_that_it_names() {
        for (condition, reply, expected) in [
            ("code = ['550', '4xx']", "550 x", true),
            ("code = ['550', '4xx']", "450 x", true),
            ("code = ['550', '4xx']", "551 x", false),
            ("enhanced = ['4.7.500-699']", "451 4.7.500 x", true),
            ("enhanced = ['4.7.500-699']", "451 4.7.699 x", true),
            ("enhanced = ['4.7.500-699']", "451 4.7.700 x", false),
            ("enhanced = ['4.7.500-699']", "451 5.7.500 x", false),
            ("enhanced = ['x.1.x']", "550 5.1.10 x", true),
            ("enhanced = ['none']", "550 x", true),
            ("enhanced = ['none']", "550 5.1.1 x", false),
            ("tag = ['S31xx']", "550 (S3140)", true),
            ("tag = ['S31xx']", "550 (S775) and (s3150)", true),
            ("tag = ['S31xx']", "550 (S3240)", false),
            ("all = ['USER', 'unknown']", "550 Unknown user", true),
            ("all = ['user', 'unknown']", "550 user", false),
            ("any = ['nobody', 'unknown']", "550 unknown", true),
            ("any = ['user']\nnot = ['spam']", "550 user spam", false),
            ("stage = ['mail', 'rcpt']", "550 x", true),
            ("stage = ['data']", "550 x", false),
        ] {
            assert_eq!(holds(condition, reply), expected, "{condition} of {reply}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for condition in [
            "",
            "not = ['spam']",
            "code = ['5x']",
            "code = ['750']",
            "code = ['xxx']",
            "enhanced = ['5.1']",
            "enhanced = ['5.1.1.1']",
            "enhanced = ['4.7.699-500']",
            "enhanced = ['4.7.1000']",
            "tag = ['']",
            "any = ['ab']",
            "any = ['two  blanks']",
            "any = ['a@b.example']",
        ] {
            let text: ConditionText = toml::from_str(condition).unwrap();
            assert!(Condition::new(&text).is_err(), "{condition}");
        }
    }

    #[test]
    fn a_stage_that_is_not_known_is_not_asked_for() {
        let text: ConditionText = toml::from_str("stage = ['data']").unwrap();
        assert!(Condition::new(&text).unwrap().holds(None, &Scan::of(&Reply::new(550, "x"))));
    }
}
