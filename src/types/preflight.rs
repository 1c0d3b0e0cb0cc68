//! What is done with mail that a receiver is about to refuse because its domain is not authenticated.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preflight {
    /// Nothing.
    Off,
    /// A person is told.
    #[default]
    Alert,
    /// And the domain's mail waits before the receiver refuses it.
    Hold,
}
