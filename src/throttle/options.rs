//! `[[provider]]`: the limits a receiver is kept to. Overrides of a shipped profile by name, or new ones.
//!
//! Keys that are not given keep the shipped profile's value, and behind it the default.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderOptions {
    pub name: String,
    /// MX host names, `*.suffix` or exact; the longest suffix wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<Vec<String>>,
    /// Recipient domains, used only where no MX decides (fixed routes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// Simultaneous connections over all sources, hosts and domains of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<usize>,
    /// Connections a lane starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_connections: Option<usize>,
    /// Messages on one connection before it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u32>,
    /// Recipients of one transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_message: Option<usize>,
}
