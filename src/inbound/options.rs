//! `[[listener]]`, `[relay]` and `[limits]`: where mail comes in, from whom, and how much.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::types::{ByteSize, Domain};

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: SocketAddr,
}

/// `[relay]`: who may send through weir.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Clients in these networks may relay.
    pub trusted_networks: Vec<IpNet>,
    /// If not empty: the only domains mail may come from (the empty sender of a report is always taken).
    pub sender_domains: Vec<Domain>,
    /// Where mail to a bare `<postmaster>`, and reports that can be returned to nobody, go. Empty: refused.
    pub postmaster: String,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            trusted_networks: ["127.0.0.0/8", "::1/128"].iter().filter_map(|n| n.parse().ok()).collect(),
            sender_domains: Vec::new(),
            postmaster: String::new(),
        }
    }
}

/// `[limits]`: what one message, one client and all of them together may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest message, as SIZE of EHLO announces it (RFC 1870).
    pub message_size: ByteSize,
    /// Recipients of one message; beyond it `452 4.5.3` (RFC 5321 section 4.5.3.1.10).
    pub recipients: usize,
    /// Inbound connections in all. Over it, the one idle longest outside a transaction is closed to make room.
    pub connections: usize,
    /// Inbound connections of one client outside the trusted networks. Over it, the greeting waits.
    pub connections_per_client: usize,
    /// Messages in the queue; beyond it `452 4.3.1` at MAIL.
    pub queue_messages: u64,
    /// What happens to a CR or LF that stands alone in a message.
    pub bare_newlines: BareNewlines,
    /// Free space of the disk of `data_dir` below which `452 4.3.1` answers MAIL.
    pub min_free_disk: ByteSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewlines {
    /// Each becomes CRLF.
    Normalize,
    /// The message is refused with `550 5.6.0`.
    Reject,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_size: ByteSize(35 << 20),
            recipients: 1000,
            connections: 1000,
            connections_per_client: 200,
            queue_messages: 5_000_000,
            bare_newlines: BareNewlines::Normalize,
            min_free_disk: ByteSize(256 << 20),
        }
    }
}
