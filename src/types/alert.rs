//! Something a person should look at, and its end.

use std::sync::Arc;

/// Before the words of an all-clear.
pub const ALL_CLEAR: &str = "over: ";

/// Raised as long as the state lasts; whoever is told decides how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is about, the same each time: `blocked outlook default`, `disk`. Alerts with one key are one.
    pub key: String,
    /// False: the state is over.
    pub raised: bool,
    /// Of one that is over, with `ALL_CLEAR` before it: the words in which that is told. Else it is told in those in which it was
    /// raised.
    pub text: String,
    /// What a person should do.
    pub remedy: String,
    /// The provider it speaks of: word of it must not depend on mail to there.
    pub provider: Option<Arc<str>>,
}

impl Alert {
    /// The words of an all-clear, where it has its own.
    pub fn all_clear(&self) -> Option<&str> {
        self.text.strip_prefix(ALL_CLEAR).filter(|words| !self.raised && !words.is_empty())
    }
}
