//! Something a person should look at, and its end.

use std::sync::Arc;

/// Raised as long as the state lasts; whoever is told decides how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is about, the same each time: `blocked outlook default`, `disk`. Alerts with one key are one.
    pub key: String,
    /// False: the state is over.
    pub raised: bool,
    pub text: String,
    /// What a person should do.
    pub remedy: String,
    /// The provider it speaks of: word of it must not depend on mail to there.
    pub provider: Option<Arc<str>>,
}
