//! The rules of one provider in their order, ready to be asked.
//!
//! The first rule with a condition that holds reads the reply. So that not every condition need be asked, each is filed
//! under what a reply must have for it ([`Trigger`]): an ordinary reply leaves a dozen of two hundred.

use std::sync::Arc;

use super::condition::{Condition, Trigger};
use super::phrases::{Found, Lexicon, Phrases};
use super::rule::Rule;
use super::scan::Scan;
use crate::types::Stage;

/// Conditions of one provider's rules; the shipped tables have under 200.
const CONDITIONS_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Table {
    rules: Vec<Arc<Rule>>,
    /// In the order in which they are asked, each with the place of its rule.
    conditions: Vec<(usize, Condition)>,
    phrases: Phrases,
    /// For each first digit of a code the conditions that concern it.
    by_digit: [Concerned; 10],
    /// Those that ask for one of some phrases, by the phrase.
    by_phrase: Vec<Set>,
    with_tag: Set,
    with_enhanced: Set,
    with_nothing: Set,
}

#[derive(Clone, Copy, Debug, Default)]
struct Concerned {
    conditions: Set,
    /// One of them asks for more than code and stage.
    reads_text: bool,
}

impl Table {
    /// `rules` in the order in which they are asked. The error names the rule at fault.
    pub(super) fn new(rules: Vec<Arc<Rule>>) -> Result<Table, (Arc<Rule>, String)> {
        let mut lexicon = Lexicon::default();
        let mut conditions = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            for text in &rule.conditions {
                let condition = Condition::new(text, &mut lexicon).map_err(|fault| (rule.clone(), fault))?;
                conditions.push((at, condition));
            }
            if conditions.len() > CONDITIONS_MAX {
                let fault = format!("the provider's rules have over {CONDITIONS_MAX} `match` entries");
                return Err((rule.clone(), fault));
            }
        }
        let phrases = Phrases::new(lexicon);
        let mut table = Table {
            rules,
            conditions: Vec::new(),
            by_digit: [Concerned::default(); 10],
            by_phrase: vec![Set::default(); phrases.count()],
            phrases,
            with_tag: Set::default(),
            with_enhanced: Set::default(),
            with_nothing: Set::default(),
        };
        for (rule, condition) in conditions {
            table.file(rule, condition);
        }
        Ok(table)
    }

    fn file(&mut self, rule: usize, condition: Condition) {
        let number = self.conditions.len();
        let is_success = self.rules.get(rule).is_some_and(|rule| rule.is_success());
        for (digit, concerned) in (0u16..).zip(&mut self.by_digit) {
            // Success and refusal are never mixed up, whatever a rule says.
            if condition.concerns(digit) && is_success == (digit == 2) {
                concerned.conditions.add(number);
                concerned.reads_text |= condition.reads_text();
            }
        }
        match condition.trigger() {
            Trigger::Phrases(any) => {
                for &phrase in any {
                    if let Some(set) = self.by_phrase.get_mut(usize::from(phrase)) {
                        set.add(number);
                    }
                }
            }
            Trigger::Tag => self.with_tag.add(number),
            Trigger::EnhancedCode => self.with_enhanced.add(number),
            Trigger::Nothing => self.with_nothing.add(number),
        }
        self.conditions.push((rule, condition));
    }

    /// The rules in the order in which they are asked.
    pub(super) fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule that reads the reply, and the stage at which it expects it. `stage`: none if it is not known.
    pub(super) fn find(&self, stage: Option<Stage>, scan: &Scan<'_>) -> Option<(&Rule, Option<Stage>)> {
        let concerned = self.by_digit.get(usize::from(scan.code / 100))?;
        let mut asked = self.with_nothing;
        let mut found = Found::default();
        // Nearly every reply is a success, and its code says enough.
        if concerned.reads_text {
            found = self.phrases.find(scan.text());
            self.add_triggered(&mut asked, scan, &found);
        }
        let holds = |number: usize| {
            let (rule, condition) = self.conditions.get(number)?;
            let rule = self.rules.get(*rule)?;
            condition.holds(stage, scan, &found).then(|| (&**rule, condition.stages.first().copied().or(rule.at)))
        };
        asked.both(&concerned.conditions).iter().find_map(holds)
    }

    fn add_triggered(&self, asked: &mut Set, scan: &Scan<'_>, found: &Found) {
        if scan.tags().next().is_some() {
            asked.join(&self.with_tag);
        }
        if scan.enhanced().is_some() {
            asked.join(&self.with_enhanced);
        }
        for phrase in found.numbers() {
            if let Some(set) = self.by_phrase.get(phrase) {
                asked.join(set);
            }
        }
    }
}

/// Numbers of conditions.
#[derive(Clone, Copy, Debug, Default)]
struct Set([u64; CONDITIONS_MAX / 64]);

impl Set {
    fn add(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    fn join(&mut self, other: &Set) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    fn both(mut self, other: &Set) -> Set {
        self.0.iter_mut().zip(other.0).for_each(|(word, mask)| *word &= mask);
        self
    }

    /// The lowest first.
    fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_tells_its_numbers_in_order() {
        let numbers = [0, 1, 63, 64, 127, 500, CONDITIONS_MAX - 1];
        let mut set = Set::default();
        numbers.iter().rev().for_each(|&number| set.add(number));
        assert_eq!(set.iter().collect::<Vec<_>>(), numbers);
        let mut other = Set::default();
        other.add(64);
        other.add(65);
        assert_eq!(set.both(&other).iter().collect::<Vec<_>>(), [64]);
    }
}
