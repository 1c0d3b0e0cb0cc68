//! `[[listener]]`, `[tls]`, `[relay]` and `[limits]`: where mail comes in, how, from whom, and how much.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::auth::options::User;
use crate::smtp::offers::Offers;
pub use crate::smtp::offers::{LogIn, Tls as ListenerTls};
use crate::types::{ByteSize, Domain, RateLimit};

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub address: SocketAddr,
    /// Whether it speaks TLS, and when. Anything but `off` takes a certificate in `[tls]`.
    #[serde(default)]
    pub tls: ListenerTls,
    /// Whether clients may log in, or must; only inside TLS or from the trusted networks.
    #[serde(default)]
    pub auth: LogIn,
    /// BDAT beside DATA (RFC 3030). Exim uses it for every message where it is offered.
    #[serde(default)]
    pub chunking: Chunking,
}

impl Listener {
    /// In clear text, with nothing but the defaults.
    pub fn at(address: SocketAddr) -> Listener {
        Listener { address, tls: ListenerTls::Off, auth: LogIn::Optional, chunking: Chunking::Off }
    }

    pub fn offers(&self) -> Offers {
        Offers { tls: self.tls, log_in: self.auth, chunking: self.chunking == Chunking::On }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chunking {
    #[default]
    Off,
    On,
}

/// `[tls]`: what the listeners show of themselves. Both files are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate, then those that signed it, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM, without a passphrase.
    pub key: PathBuf,
}

/// `[relay]`: who may send through weir.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// Clients in these networks may relay.
    pub trusted_networks: Vec<IpNet>,
    /// If not empty: the only domains mail may come from (the empty sender of a report is always taken).
    pub sender_domains: Vec<Domain>,
    /// What may stand in the From field of a message's header.
    pub from: HeaderFrom,
    /// What our Received field tells of the client.
    pub received: ReceivedField,
    /// The domain of addresses that have none, from clients that may relay: of the envelope, and of the fields that name people.
    /// None: refused in the envelope.
    #[serde(with = "domain_or_empty")]
    pub qualify: Option<Domain>,
    /// Where mail to a bare `<postmaster>`, and reports that can be returned to nobody, go. Empty: refused.
    pub postmaster: String,
    /// A file with one `name:hash` a line: users who may log in. Empty: none but those of `user`.
    pub users_file: String,
    /// Users who may log in, and settings for those of `users_file`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<User>,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            trusted_networks: ["127.0.0.0/8", "::1/128"].iter().filter_map(|n| n.parse().ok()).collect(),
            sender_domains: Vec::new(),
            from: HeaderFrom::Any,
            received: ReceivedField::Full,
            qualify: None,
            postmaster: String::new(),
            users_file: String::new(),
            user: Vec::new(),
        }
    }
}

/// Whom a message may say it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderFrom {
    Any,
    /// Only addresses of the user's `sender_domains`, else of `relay.sender_domains`, else of the envelope sender's domain.
    Aligned,
}

/// What is told of the client in the Received field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceivedField {
    /// Its name for itself and its address (RFC 5321 section 4.4).
    #[default]
    Full,
    /// Neither: what stands behind the relay is nobody's business.
    Private,
}

/// A domain, or "" for none.
mod domain_or_empty {
    use serde::de::Error;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::types::Domain;

    pub fn serialize<S: Serializer>(domain: &Option<Domain>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(domain.as_ref().map_or("", Domain::as_str))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Domain>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" => Ok(None),
            text => Domain::parse(text).map(Some).map_err(D::Error::custom),
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
    /// Messages in a time from one client, trusted or not; beyond it `450 4.7.1` at MAIL.
    pub messages_per_client: RateLimit,
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
            messages_per_client: RateLimit::Unlimited,
            queue_messages: 5_000_000,
            bare_newlines: BareNewlines::Normalize,
            min_free_disk: ByteSize(256 << 20),
        }
    }
}
