//! `[bounces]`: what senders hear about mail that did not arrive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Span;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounces {
    /// `mail`: reports by mail (RFC 3464). `none`: events alone.
    pub mode: BounceMode,
    /// A delay report, once, to those who asked with NOTIFY=DELAY, after this long.
    pub delay_after: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BounceMode {
    Mail,
    None,
}

impl Default for Bounces {
    fn default() -> Bounces {
        Bounces { mode: BounceMode::Mail, delay_after: Span(Duration::from_secs(4 * 3600)) }
    }
}
