//! `[suppression]`: what happens to mail for recipients who were refused for good.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suppression {
    pub at_injection: AtInjection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtInjection {
    /// `550 5.1.1` at RCPT.
    Reject,
    /// Accepted, recorded, not sent.
    Drop,
}

impl Default for Suppression {
    fn default() -> Suppression {
        Suppression { at_injection: AtInjection::Reject }
    }
}
