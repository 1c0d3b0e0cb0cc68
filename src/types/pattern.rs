//! How people choose by address: one, all of a domain, or the empty sender.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AddressError, Domain, Mailbox, ReversePath};

/// An address, `@domain` for all addresses there, or `<>` for the empty sender of reports.
#[derive(Clone, Debug, PartialEq)]
pub enum AddressPattern {
    Null,
    Domain(Domain),
    Mailbox(Mailbox),
}

impl AddressPattern {
    pub fn matches(&self, address: &Mailbox) -> bool {
        match self {
            AddressPattern::Null => false,
            AddressPattern::Domain(domain) => domain == address.domain(),
            AddressPattern::Mailbox(mailbox) => mailbox.key() == address.key(),
        }
    }

    pub fn matches_sender(&self, sender: &ReversePath) -> bool {
        match sender.mailbox() {
            None => *self == AddressPattern::Null,
            Some(mailbox) => self.matches(mailbox),
        }
    }
}

impl FromStr for AddressPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<AddressPattern, AddressError> {
        if text == "<>" {
            return Ok(AddressPattern::Null);
        }
        match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(AddressPattern::Domain),
            None => Mailbox::parse(text).map(AddressPattern::Mailbox),
        }
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressPattern::Null => f.write_str("<>"),
            AddressPattern::Domain(domain) => write!(f, "@{domain}"),
            AddressPattern::Mailbox(mailbox) => f.write_str(mailbox.as_str()),
        }
    }
}

impl Serialize for AddressPattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressPattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<AddressPattern, D::Error> {
        let text = String::deserialize(d)?;
        text.parse()
            .map_err(|e| serde::de::Error::custom(format!("`{text}` is no address, no @domain and not <>: {e}")))
    }
}

/// Is it the same Message-ID, angle brackets or not?
pub fn same_message_id(wanted: &str, found: Option<&str>) -> bool {
    fn bare(id: &str) -> &str {
        let id = id.trim();
        id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).unwrap_or(id)
    }
    found.is_some_and(|found| bare(found) == bare(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_sender_is_written_as_in_smtp() {
        let pattern: AddressPattern = "<>".parse().unwrap();
        assert!(pattern.matches_sender(&ReversePath::Null));
        assert!(!pattern.matches_sender(&ReversePath::parse("news@example.com").unwrap()));
        let domain: AddressPattern = "@example.com".parse().unwrap();
        assert!(!domain.matches_sender(&ReversePath::Null));
    }
}
