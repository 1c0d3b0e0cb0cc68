//! `[events]`: where the event log goes and how long it is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{ByteSize, Span};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    pub output: Output,
    /// Rotated files older than this are deleted.
    pub keep: Span,
    /// The oldest rotated files are deleted when all together are larger than this.
    pub max_size: ByteSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    File,
    Stdout,
    Both,
}

impl Default for Events {
    fn default() -> Events {
        Events { output: Output::File, keep: Span(Duration::from_secs(14 * 86_400)), max_size: ByteSize(1 << 30) }
    }
}
