//! `[[provider]]`: the limits a receiver is kept to. Overrides of a shipped profile by name, or new ones.
//!
//! Keys that are not given keep the shipped profile's value, and behind it the default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Preflight, Rate, RateLimit, Span, TlsMode};

/// The unit of all times of learning at a provider whose profile has no other.
pub const PAUSE: Span = Span(Duration::from_secs(600));
/// No wait grows beyond this.
pub const PAUSE_MAX: Span = Span(Duration::from_secs(24 * 3600));
/// The first probe after a block.
pub const PROBE_BLOCK: Span = Span(Duration::from_secs(3600));
pub const INITIAL_CONNECTIONS: usize = 5;
/// What the growth guard lets through in any case, where it is on.
pub const GROWTH_FLOOR: Rate = Rate::per_hour(500);

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
    /// Connections a lane starts with; one that knows nothing of the receiver sends a single message first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_connections: Option<usize>,
    /// Messages on one connection before it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_connection: Option<u32>,
    /// Recipients of one transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_message: Option<usize>,
    /// Recipients in a time at most, from each source; `unlimited`: what is learned decides alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<RateLimit>,
    /// In an hour at most this many times the recipients of the busiest clean hour of the last 30 days; 0: no guard.
    /// Danger: without it a sudden jump of volume can cost the address its reputation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<f64>,
    /// What the growth guard lets through in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_floor: Option<Rate>,
    /// BDAT is used where its hosts offer it; off as well where `[delivery] chunking` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunking: Option<bool>,
    /// TLS towards its hosts: stronger than `[delivery] tls`, weaker than a `[[tls_policy]]` of the recipients' domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// The unit of this provider's waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Span>,
    /// Waits are doubled on each repeat up to this, or to the like part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_max: Option<Span>,
    /// The first probe after a block of our address; doubled up to 24 times this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_block: Option<Span>,
    /// A mailbox of our own there, for probes; empty: a queued message is risked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// What is done when mail of a sender domain lacks what this receiver asks for beyond `preflight_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Preflight>,
    /// Beyond so many recipients of a sender domain in a day the receiver refuses what SPF, DKIM and DMARC do not speak for; 0: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight_from: Option<u32>,
    /// Recipients on the first, second, … day of a new address, for sources that list this provider in `warm_up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Vec<u32>>,
    /// Rules for this provider's replies, asked before the shipped ones. The verdict reads them (`verdict::options`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule: Vec<toml::Table>,
}
