//! `[queue]`: when a deferred delivery is tried again, and when it is given up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Span;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Waits after the first, second, … deferral of a message; the last one repeats. Each is spread by a tenth.
    pub retry: Vec<Span>,
    /// How long a message is tried before it is returned (RFC 5321 section 4.5.4.1: at least 4 to 5 days).
    pub expire: Span,
}

impl Default for Queue {
    fn default() -> Queue {
        let minutes = |m: u64| Span(Duration::from_secs(m * 60));
        Queue { retry: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(), expire: minutes(4 * 24 * 60) }
    }
}
