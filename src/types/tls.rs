//! How a connection to a host is protected.

use serde::{Deserialize, Serialize};

/// From the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Never.
    Off,
    /// STARTTLS where offered, any certificate; clear text on a new connection if TLS fails (RFC 7435).
    Opportunistic,
    /// STARTTLS always, any certificate; without it the mail waits.
    Encrypt,
    /// STARTTLS always, with a certificate that names the host and chains to a trusted root.
    Verify,
}

/// What the MTA-STS policy of a recipient domain (RFC 8461 section 5) makes of a connection for its mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StsMode {
    /// It is told what would have been refused, and nothing is.
    Testing,
    /// Only a verified host that the policy names gets the mail.
    Enforce,
}
