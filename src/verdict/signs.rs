//! Whose reply it is, by its words: names of hosts, pages and products that no other receiver names.
//!
//! For people who have a reply and nothing else; where a reply was heard on a connection, its host tells.

use std::collections::BTreeMap;

use super::file::{RuleError, RuleFile};
use super::phrases::{Lexicon, Phrases};

#[derive(Debug)]
pub(super) struct Signs {
    phrases: Phrases,
    /// Of each phrase its length and its provider.
    known: Vec<(usize, String)>,
}

impl Signs {
    pub(super) fn new(files: &BTreeMap<&str, RuleFile>) -> Result<Signs, RuleError> {
        let (mut lexicon, mut known) = (Lexicon::default(), Vec::new());
        for (name, file) in files {
            for sign in &file.signs {
                let fault =
                    |fault| RuleError::new(name, None, format!("`{sign}` in `signs` cannot be looked for: {fault}"));
                let number = usize::from(lexicon.number(sign).map_err(fault)?);
                if number == known.len() {
                    known.push((sign.len(), (*name).to_string()));
                }
            }
        }
        Ok(Signs { phrases: Phrases::new(lexicon), known })
    }

    /// The longest sign says most.
    pub(super) fn find(&self, text: &[u8]) -> Option<&str> {
        let found = self.phrases.find(text);
        let there = found.numbers().filter_map(|number| self.known.get(number));
        there.max_by_key(|(length, _)| *length).map(|(_, provider)| provider.as_str())
    }
}
