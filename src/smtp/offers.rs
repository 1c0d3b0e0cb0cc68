//! What a listener offers beyond plain SMTP, and what it insists on: TLS (RFC 3207, RFC 8314), AUTH (RFC 4954), CHUNKING (RFC 3030).

use serde::{Deserialize, Serialize};

/// One listener's. The default is a listener in clear text that offers a log-in to those who may use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    pub tls: Tls,
    pub log_in: LogIn,
    /// BDAT beside DATA.
    pub chunking: bool,
}

/// Whether a listener speaks TLS, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    #[default]
    Off,
    /// STARTTLS is offered.
    Starttls,
    /// STARTTLS is offered, and nothing is taken without it.
    Require,
    /// TLS from the first octet, as on port 465 (RFC 8314 section 3.3).
    Implicit,
}

/// Whether clients may log in, or must. A log-in is possible only inside TLS or from a trusted network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogIn {
    Off,
    #[default]
    Optional,
    Require,
}

impl Tls {
    /// Does it take a certificate?
    pub fn is_used(self) -> bool {
        self != Tls::Off
    }

    /// Is nothing taken without it?
    pub fn is_required(self) -> bool {
        matches!(self, Tls::Require | Tls::Implicit)
    }

    pub fn is_implicit(self) -> bool {
        self == Tls::Implicit
    }
}

impl LogIn {
    pub fn is_required(self) -> bool {
        self == LogIn::Require
    }
}
