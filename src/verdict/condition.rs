//! What a reply must look like for a rule to match: code, enhanced code, words, tag, stage.
//!
//! All that a condition names must hold; of a list of codes, tags or stages one must. What it does not name it does
//! not ask.

use super::options::ConditionOptions;
use super::phrases::{Found, Lexicon};
use super::scan::Scan;
use crate::types::{Enhanced, Stage};

/// One way to match a rule.
#[derive(Debug)]
pub(super) struct Condition {
    codes: Box<[CodePattern]>,
    enhanced: Box<[EnhancedPattern]>,
    tags: Box<[TagPattern]>,
    pub(super) stages: Box<[Stage]>,
    /// Numbers of phrases.
    all: Box<[u16]>,
    any: Box<[u16]>,
    and: Box<[u16]>,
    not: Box<[u16]>,
    ip: bool,
}

/// What a reply must have before a condition is worth a closer look.
#[derive(Debug, PartialEq)]
pub(super) enum Trigger<'a> {
    /// One of these phrases.
    Phrases(&'a [u16]),
    Tag,
    EnhancedCode,
    Nothing,
}

impl Condition {
    /// The error says what is wrong and what would be right.
    pub(super) fn new(text: &ConditionOptions, lexicon: &mut Lexicon) -> Result<Condition, String> {
        let condition = Condition {
            codes: each("code", &text.code, CodePattern::parse, "`550` or a class like `5xx`")?,
            enhanced: each(
                "enhanced",
                &text.enhanced,
                EnhancedPattern::parse,
                "`4.7.650`, `4.7.500-699`, `x.7.x` or `none`",
            )?,
            tags: each("tag", &text.tag, TagPattern::parse, "`RP-001`, or with x for a digit `S31xx`")?,
            stages: text.stage.as_slice().into(),
            all: phrases("all", &text.all, lexicon)?,
            any: phrases("any", &text.any, lexicon)?,
            and: phrases("and", &text.and, lexicon)?,
            ip: text.ip,
            not: phrases("not", &text.not, lexicon)?,
        };
        let asks = [condition.codes.len(), condition.enhanced.len(), condition.tags.len(), condition.stages.len()];
        let words = condition.all.len() + condition.any.len() + condition.and.len();
        if asks.iter().sum::<usize>() + words + usize::from(condition.ip) == 0 {
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

    /// Does it ask for more than code and stage?
    pub(super) fn reads_text(&self) -> bool {
        let words = self.all.len() + self.any.len() + self.and.len() + self.not.len();
        self.ip || words + self.tags.len() + self.enhanced.len() > 0
    }

    /// What is cheapest to look for first.
    pub(super) fn trigger(&self) -> Trigger<'_> {
        if !self.any.is_empty() {
            Trigger::Phrases(&self.any)
        } else if let Some(first) = self.all.get(..1) {
            Trigger::Phrases(first)
        } else if !self.and.is_empty() {
            Trigger::Phrases(&self.and)
        } else if !self.tags.is_empty() {
            Trigger::Tag
        } else if !self.enhanced.is_empty() && !self.enhanced.contains(&EnhancedPattern::None) {
            Trigger::EnhancedCode
        } else {
            Trigger::Nothing
        }
    }

    /// `stage`: none if it is not known; then no stage is asked for. `found`: the phrases in the reply.
    pub(super) fn holds(&self, stage: Option<Stage>, scan: &Scan<'_>, found: &Found) -> bool {
        is_one_of(&self.codes, |code| code.matches(scan.code))
            && stage.is_none_or(|stage| is_one_of(&self.stages, |&s| s == stage))
            && is_one_of(&self.enhanced, |enhanced| enhanced.matches(scan.enhanced()))
            && is_one_of(&self.tags, |tag| scan.tags().any(|t| tag.matches(t)))
            && is_one_of(&self.any, |&phrase| found.has(phrase))
            && is_one_of(&self.and, |&phrase| found.has(phrase))
            && (!self.ip || scan.names_ip())
            && self.all.iter().all(|&phrase| found.has(phrase))
            && !self.not.iter().any(|&phrase| found.has(phrase))
    }
}

/// An empty list asks nothing.
fn is_one_of<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

fn each<T>(key: &str, texts: &[String], parse: fn(&str) -> Option<T>, example: &str) -> Result<Box<[T]>, String> {
    let read = |text: &String| {
        parse(text).ok_or_else(|| format!("`{text}` in `{key}` cannot be read: write it like {example}"))
    };
    texts.iter().map(read).collect()
}

fn phrases(key: &str, texts: &[String], lexicon: &mut Lexicon) -> Result<Box<[u16]>, String> {
    let read = |text: &String| {
        lexicon.number(text).map_err(|fault| format!("`{text}` in `{key}` cannot be looked for: {fault}"))
    };
    texts.iter().map(read).collect()
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

    fn matches(&self, tag: &[u8]) -> bool {
        self.0.len() == tag.len()
            && self.0.iter().zip(tag).all(|(place, b)| place.map_or(b.is_ascii_digit(), |p| p == *b))
    }
}

#[cfg(test)]
mod tests {
    use super::super::phrases::Phrases;
    use super::*;
    use crate::types::Reply;

    fn condition(text: &str) -> Result<(Condition, Phrases), String> {
        let text: ConditionOptions = toml::from_str(text).unwrap();
        let mut lexicon = Lexicon::default();
        Condition::new(&text, &mut lexicon).map(|condition| (condition, Phrases::new(lexicon)))
    }

    fn holds(text: &str, stage: Option<Stage>, reply: &str) -> bool {
        let (condition, phrases) = condition(text).unwrap();
        let reply = Reply::parse(reply).unwrap();
        let scan = Scan::of(&reply);
        let holds = condition.holds(stage, &scan, &phrases.find(scan.text()));
        // Whatever holds was worth a look.
        let found = phrases.find(scan.text());
        let looked_at = match condition.trigger() {
            Trigger::Phrases(any) => any.iter().any(|&phrase| found.has(phrase)),
            Trigger::Tag => scan.tags().next().is_some(),
            Trigger::EnhancedCode => scan.enhanced().is_some(),
            Trigger::Nothing => true,
        };
        assert!(looked_at || !holds, "{text} of {}", String::from_utf8_lossy(scan.text()));
        holds
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
            ("any = ['user', 'box']\nand = ['full', 'gone']", "550 the box is gone", true),
            ("any = ['user', 'box']\nand = ['full', 'gone']", "550 the box", false),
            ("and = ['full', 'gone']", "550 gone", true),
            ("ip = true", "550 go, 192.0.2.1", true),
            ("ip = true", "550 go, 192.0.2", false),
            ("stage = ['mail', 'rcpt']", "550 x", true),
            ("stage = ['data']", "550 x", false),
        ] {
            assert_eq!(holds(condition, Some(Stage::Rcpt), reply), expected, "{condition} of {reply}");
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
            assert!(self::condition(condition).is_err(), "{condition}");
        }
    }

    #[test]
    fn a_stage_that_is_not_known_is_not_asked_for() {
        assert!(holds("stage = ['data']", None, "550 x"));
    }
}
