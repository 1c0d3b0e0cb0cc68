//! `[[dkim]]`: a key, and the domain whose mail it signs.

use serde::{Deserialize, Serialize};

use crate::types::Secret;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dkim {
    /// Mail from this domain and from those below it is signed; of several entries those of the longest domain that fits.
    pub domain: String,
    /// The key's record is `SELECTOR._domainkey.DOMAIN`.
    pub selector: String,
    /// The private key: PEM, RSA (PKCS#1 or PKCS#8) or Ed25519 (PKCS#8).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_file: String,
    /// The key itself.
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub key: Secret,
    /// Mail that carries a signature of this domain already is left as it is.
    pub skip_signed: bool,
    /// Where the entry comes from.
    #[serde(skip)]
    pub origin: Origin,
}

/// How an entry came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Written down.
    #[default]
    Configured,
    /// A key that was mounted for another relay image: its rights are that image's custom.
    Mounted,
    /// Made by weir at the first start.
    Generated,
}

impl Dkim {
    /// How it is spoken of.
    pub fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// Can this be a selector? One label, or several (RFC 6376 section 3.1).
pub fn is_selector(text: &str) -> bool {
    let is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
    };
    text.len() <= 190 && text.split('.').all(is_good)
}

/// Can this be a key? Whether it is one shows when it is read.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text != crate::types::MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_a_name_in_the_dns() {
        for (text, is_one) in [
            ("weir1", true),
            ("2026-11.relay", true),
            ("s_1", true),
            ("", false),
            ("a..b", false),
            ("-a", false),
            ("a b", false),
            ("a;b", false),
        ] {
            assert_eq!(is_selector(text), is_one, "{text}");
        }
    }
}
