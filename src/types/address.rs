//! Mail addresses and domains (RFC 5321 section 4.1.2, RFC 6531).
//!
//! Rules that always hold:
//! - a `Mailbox` keeps its text verbatim: what the client wrote is what the receiver gets (`a..b@docomo.ne.jp` and
//!   quoted local parts included), but for a final dot of the domain, which many write and receivers refuse;
//! - its domain is what stands behind the last `@` outside quotes, and nothing else steers mail: `%`, `!` and source
//!   routes have no meaning here;
//! - a `Domain` is in A-labels, lower case, without a final dot, or an address literal.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Limits of RFC 5321 section 4.5.3.1, in octets.
pub const LOCAL_PART_MAX: usize = 64;
pub const DOMAIN_MAX: usize = 255;
/// The path without its angle brackets (256 with them, section 4.5.3.1.3).
pub const PATH_MAX: usize = 254;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("there is no domain: expected local-part@domain")]
    NoDomain,
    #[error("the local part is empty")]
    NoLocalPart,
    #[error("the local part is longer than {LOCAL_PART_MAX} octets")]
    LocalPartTooLong,
    #[error("the domain is longer than {DOMAIN_MAX} octets")]
    DomainTooLong,
    #[error("the address is longer than {PATH_MAX} octets")]
    PathTooLong,
    #[error("a quoted local part does not end, or something follows its end")]
    Quote,
    #[error("a character that may not stand in an address, or only in quotes: {0:?}")]
    Character(char),
    #[error("a label of the domain is empty, longer than 63 octets or has characters no host name has")]
    Label,
    #[error("the address literal is no IP address: expected [192.0.2.1] or [IPv6:2001:db8::1]")]
    Literal,
    #[error("source routes are not taken: write the address alone")]
    SourceRoute,
}

/// Where mail goes: a domain name in A-labels, or an address literal. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

impl Domain {
    /// Takes U-labels and A-labels in any letter case. A final dot, as zone files have it, is taken off.
    pub fn parse(text: &str) -> Result<Domain, AddressError> {
        Domain::parse_exact(without_final_dot(text))
    }

    fn parse_exact(text: &str) -> Result<Domain, AddressError> {
        if text.is_empty() {
            return Err(AddressError::NoDomain);
        }
        if text.len() > DOMAIN_MAX {
            return Err(AddressError::DomainTooLong);
        }
        if let Some(inner) = text.strip_prefix('[') {
            return Domain::parse_literal(inner.strip_suffix(']').ok_or(AddressError::Literal)?);
        }
        // Checked before IDNA as well: its mapping would swallow some of these.
        if let Some(bad) = text.chars().find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-._".contains(*c)) {
            return Err(AddressError::Character(bad));
        }
        let name = if text.is_ascii() && !text.to_ascii_lowercase().contains("xn--") {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| AddressError::Label)?
        };
        if name.len() > 253 {
            return Err(AddressError::DomainTooLong);
        }
        let label_is_good = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A name of digits and dots is an address that lost its brackets, and no name in the DNS ends in digits alone.
        let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if last_is_number || !name.split('.').all(label_is_good) {
            return Err(AddressError::Label);
        }
        Ok(Domain(name.into()))
    }

    fn parse_literal(inner: &str) -> Result<Domain, AddressError> {
        let is_v6 = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let address: IpAddr = if is_v6 {
            inner[5..].parse::<Ipv6Addr>().map_err(|_| AddressError::Literal)?.into()
        } else {
            inner.parse::<Ipv4Addr>().map_err(|_| AddressError::Literal)?.into()
        };
        Ok(Domain::literal_of(address))
    }

    /// The literal that names `address`.
    pub fn literal_of(address: IpAddr) -> Domain {
        match address {
            IpAddr::V4(v4) => Domain(format!("[{v4}]").into()),
            IpAddr::V6(v6) => Domain(format!("[IPv6:{v6}]").into()),
        }
    }

    /// The address, if this is a literal.
    pub fn literal(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        inner.strip_prefix("IPv6:").unwrap_or(inner).parse().ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this `parent` or a name below it?
    pub fn is_within(&self, parent: &str) -> bool {
        self.0.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Domain, D::Error> {
        let text = String::deserialize(d)?;
        Domain::parse(&text).map_err(|e| serde::de::Error::custom(format!("`{text}` is no domain: {e}")))
    }
}

/// `local-part@domain`, verbatim.
#[derive(Clone, PartialEq, Eq)]
pub struct Mailbox {
    text: Box<str>,
    /// Where the `@` before the domain stands.
    at: u16,
    domain: Domain,
}

impl Mailbox {
    /// Reads an address without angle brackets.
    pub fn parse(text: &str) -> Result<Mailbox, AddressError> {
        let text = without_final_dot(text);
        if text.starts_with('@') {
            return Err(AddressError::SourceRoute);
        }
        let at = local_part_end(text)?;
        if at == 0 {
            return Err(AddressError::NoLocalPart);
        }
        let domain = Domain::parse_exact(&text[at + 1..])?;
        if at > LOCAL_PART_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        if text.len() > PATH_MAX {
            return Err(AddressError::PathTooLong);
        }
        Ok(Mailbox { text: text.into(), at: u16::try_from(at).unwrap_or(u16::MAX), domain })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn local_part(&self) -> &str {
        &self.text[..usize::from(self.at)]
    }

    /// The domain as written.
    pub fn domain_text(&self) -> &str {
        &self.text[usize::from(self.at) + 1..]
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The form under which two spellings of one mailbox are the same: domain in A-labels, both parts without case, quotes
    /// that change nothing taken off. For the suppression list and for counting, never for delivery.
    pub fn key(&self) -> String {
        let local = self.local_part();
        let mut plain = String::with_capacity(local.len());
        if let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) {
            let mut characters = inner.chars();
            while let Some(c) = characters.next() {
                plain.extend(if c == '\\' { characters.next() } else { Some(c) });
            }
            let needs_quotes = plain.is_empty() || local_part_end(&format!("{plain}@x")) != Ok(plain.len());
            if needs_quotes {
                // What need not be escaped may be, which makes no other mailbox.
                plain = format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""));
            }
        } else {
            plain.push_str(local);
        }
        let lower = plain.to_lowercase();
        // A few letters grow when they become small; the key stays an address that can be read.
        let lower = if lower.len() > LOCAL_PART_MAX { plain.to_ascii_lowercase() } else { lower };
        format!("{lower}@{}", self.domain.as_str().to_ascii_lowercase())
    }
}

/// Also in the forms that IDNA takes for a dot.
fn without_final_dot(text: &str) -> &str {
    let name = text.strip_suffix(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).unwrap_or(text);
    // A literal is no name.
    if name.ends_with(']') { text } else { name }
}

/// The place of the `@` that ends the local part, whose characters are checked on the way.
///
/// Looser than RFC 5321's Dot-string on purpose: addresses with doubled, leading or final dots exist and are delivered.
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    let mut characters = text.char_indices();
    if text.starts_with('"') {
        characters.next();
        while let Some((_, c)) = characters.next() {
            match c {
                '\\' => match characters.next() {
                    Some((_, ' '..='~')) => {}
                    Some((_, other)) => return Err(AddressError::Character(other)),
                    None => return Err(AddressError::Quote),
                },
                '"' => {
                    return match characters.next() {
                        Some((at, '@')) => Ok(at),
                        Some(_) => Err(AddressError::Quote),
                        None => Err(AddressError::NoDomain),
                    };
                }
                c if c.is_control() => return Err(AddressError::Character(c)),
                _ => {}
            }
        }
        return Err(AddressError::Quote);
    }
    for (at, c) in characters {
        match c {
            '@' => return Ok(at),
            // RFC 5322 atext, the dot, and everything beyond ASCII (RFC 6531 section 3.3).
            'a'..='z' | 'A'..='Z' | '0'..='9' => {}
            c if "!#$%&'*+-/=?^_`{|}~.".contains(c) => {}
            c if !c.is_ascii() && !c.is_control() && !c.is_whitespace() => {}
            c => return Err(AddressError::Character(c)),
        }
    }
    Err(AddressError::NoDomain)
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Mailbox, D::Error> {
        let text = String::deserialize(d)?;
        Mailbox::parse(&text).map_err(|e| serde::de::Error::custom(format!("`{text}` is no mail address: {e}")))
    }
}

/// The argument of MAIL FROM: a mailbox, or `<>` for reports that must never be answered by another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReversePath {
    Null,
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Without angle brackets; empty for `<>`.
    pub fn as_str(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::Mailbox(mailbox) => mailbox.as_str(),
        }
    }

    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Reads what `as_str` writes.
    pub fn parse(text: &str) -> Result<ReversePath, AddressError> {
        if text.is_empty() { Ok(ReversePath::Null) } else { Mailbox::parse(text).map(ReversePath::Mailbox) }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ReversePath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ReversePath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<ReversePath, D::Error> {
        let text = String::deserialize(d)?;
        ReversePath::parse(&text).map_err(|e| serde::de::Error::custom(format!("`{text}` is no mail address: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_what_is_really_used_and_keeps_it_verbatim() {
        for (text, local, domain) in [
            ("a..b@docomo.ne.jp", "a..b", "docomo.ne.jp"),
            ("User.Name+tag@EXAMPLE.com", "User.Name+tag", "example.com"),
            (r#""a b"@x.test"#, r#""a b""#, "x.test"),
            (r#""a@b\"c"@x.test"#, r#""a@b\"c""#, "x.test"),
            (r#"""@x.test"#, r#""""#, "x.test"),
            ("u@[192.0.2.1]", "u", "[192.0.2.1]"),
            ("u@[IPv6:2001:db8::1]", "u", "[IPv6:2001:db8::1]"),
            ("user%other@x.test", "user%other", "x.test"),
            ("d!u@x.test", "d!u", "x.test"),
            ("用户@例子.test", "用户", "xn--fsqu00a.test"),
        ] {
            let mailbox = Mailbox::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((mailbox.as_str(), mailbox.local_part(), mailbox.domain().as_str()), (text, local, domain));
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "@",
            "a@",
            "@b",
            "a",
            "a b@c.test",
            "a@b c",
            "a@.test",
            "a@b..test",
            "a@-b.test",
            "a@b.test..",
            "a@.",
            "a@[192.0.2.1].",
            "a@127.0.0.1.",
            "a@127.0.0.1",
            "\"a@b.test",
            "\"a\"b@c.test",
            "a@[1.2.3]",
            "a@[IPv6:zz]",
            "@x:a@b.test",
            "a@b@c.test",
            "a\t@b.test",
            "a\0@b.test",
            "a@b.test ",
            "a,b@c.test",
            "a<b@c.test",
            "a@b\u{0}c.test",
        ] {
            assert!(Mailbox::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_final_dot_of_the_domain_is_taken_off() {
        for (written, kept) in [
            ("u@Example.com.", "u@Example.com"),
            ("a.@x.test.", "a.@x.test"),
            ("u@x.test\u{3002}", "u@x.test"),
            ("用户@例子.test.", "用户@例子.test"),
        ] {
            let mailbox = Mailbox::parse(written).unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!((mailbox.as_str(), &mailbox), (kept, &Mailbox::parse(kept).unwrap()));
        }
        assert_eq!(Domain::parse("Example.com."), Domain::parse("example.com"));
        assert!(Domain::parse(".").is_err());
    }

    #[test]
    fn limits_of_length_are_exact() {
        let local = |n: usize| format!("{}@x.test", "a".repeat(n));
        assert!(Mailbox::parse(&local(64)).is_ok());
        assert_eq!(Mailbox::parse(&local(65)), Err(AddressError::LocalPartTooLong));
        let label = "a".repeat(63);
        let long = format!("{label}.{label}.{label}");
        assert!(Mailbox::parse(&format!("{}@{long}", "b".repeat(62))).is_ok());
        assert_eq!(Mailbox::parse(&format!("{}@{long}", "b".repeat(63))), Err(AddressError::PathTooLong));
    }

    #[test]
    fn one_mailbox_has_one_key() {
        let key = |text: &str| Mailbox::parse(text).unwrap().key();
        assert_eq!(key("User@EXAMPLE.com"), key("user@example.com"));
        assert_eq!(key(r#""user"@example.com"#), key("user@example.com"));
        assert_eq!(key("u@münchen.test"), key("u@xn--mnchen-3ya.test"));
        assert_ne!(key(r#""a b"@x.test"#), key("ab@x.test"));
        assert_eq!(key(r#""\a\ b\"c"@x.test"#), r#""a b\"c"@x.test"#);
        assert_eq!(key(r#""\us\er"@x.test"#), "user@x.test");
        assert_eq!(key("u@X.TEST"), key("U@x.test"));
        let grows = key(&format!("{}@x.test", "\u{130}".repeat(32)));
        assert_eq!(Mailbox::parse(&grows).map(|mailbox| mailbox.key()), Ok(grows));
    }

    #[test]
    fn within_means_label_by_label() {
        let host = Domain::parse("a.mail.test").unwrap();
        assert!(host.is_within("mail.test") && host.is_within("a.mail.test"));
        assert!(!host.is_within("il.test"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_taken_stays_verbatim(text in ".{0,80}") {
            if let Ok(mailbox) = Mailbox::parse(&text) {
                prop_assert_eq!(mailbox.as_str(), without_final_dot(&text));
                prop_assert!(!text.chars().any(char::is_control));
                let _ = mailbox.key();
            }
        }
    }
}
