//! Who signs a message: the keys of its From domain, or of the nearest domain above it that has any.
//!
//! Rules that always hold: `example.net` never signs for `fexample.net`; a message without a From field, with two, or with one that could
//! be read in two ways is nobody's; of one domain every key signs, so that RSA and Ed25519 stand on one message.

use std::sync::Arc;

use super::header::{Field, Scan};
use super::key::Key;
use super::record;
use super::signing::Unsigned;
use crate::smtp::from::Authors;
use crate::types::{Domain, Mailbox};

/// A key with its place in the DNS.
#[derive(Debug)]
pub struct Signer {
    pub domain: Domain,
    pub selector: String,
    pub key: Key,
    /// Mail that carries a signature of this domain is left as it is.
    pub skip_signed: bool,
}

impl Signer {
    /// Where its record stands.
    pub fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// All that sign, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Signers(Vec<Arc<Signer>>);

impl FromIterator<Arc<Signer>> for Signers {
    fn from_iter<T: IntoIterator<Item = Arc<Signer>>>(signers: T) -> Signers {
        Signers(signers.into_iter().collect())
    }
}

impl Signers {
    pub fn new(signers: Vec<Signer>) -> Signers {
        Signers(signers.into_iter().map(Arc::new).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Signer>> {
        self.0.iter()
    }

    /// Those of the longest domain that is `domain` or stands above it.
    pub fn of(&self, domain: &Domain) -> impl Iterator<Item = &Arc<Signer>> {
        let fits = |signer: &&Arc<Signer>| domain.is_within(signer.domain.as_str());
        let longest = self.0.iter().filter(fits).map(|signer| signer.domain.as_str().len()).max();
        let domain = domain.clone();
        self.0.iter().filter(move |signer| {
            Some(signer.domain.as_str().len()) == longest && domain.is_within(signer.domain.as_str())
        })
    }

    /// Is a DKIM-Signature with this value one of a key of these?
    pub fn have_made(&self, value: &[u8]) -> bool {
        let value = String::from_utf8_lossy(value);
        let (domain, selector) = (record::tag(&value, "d"), record::tag(&value, "s"));
        let (Some(domain), Some(selector)) = (domain.and_then(|d| Domain::parse(&d).ok()), selector) else {
            return false;
        };
        self.0.iter().any(|signer| signer.domain == domain && signer.selector.eq_ignore_ascii_case(&selector))
    }

    /// Those who sign a message with this header.
    pub(super) fn choose(&self, header: &Scan) -> Result<Vec<Arc<Signer>>, Unsigned> {
        let domains = author_domains(header.fields()).ok_or(Unsigned::NoAuthor)?;
        let mut chosen: Vec<Arc<Signer>> = Vec::new();
        for signer in domains.iter().flat_map(|domain| self.of(domain)) {
            if !chosen.iter().any(|known| Arc::ptr_eq(known, signer)) {
                chosen.push(signer.clone());
            }
        }
        if chosen.is_empty() {
            return Err(Unsigned::NoKey);
        }
        let signed: Vec<Domain> = header.signatures().filter_map(signing_domain).collect();
        chosen.retain(|signer| !signer.skip_signed || !signed.contains(&signer.domain));
        if chosen.is_empty() { Err(Unsigned::SignedAlready) } else { Ok(chosen) }
    }
}

/// The domains of all authors; none where it is not certain who they are.
fn author_domains(fields: &[Field]) -> Option<Vec<Domain>> {
    let mut from = fields.iter().filter(|field| field.is("From"));
    let (Some(field), None) = (from.next(), from.next()) else { return None };
    let mut authors = Authors::Missing;
    authors.add(field.value());
    match authors {
        Authors::Mailboxes(mailboxes) => Some(mailboxes.iter().map(|mailbox| mailbox.domain().clone()).collect()),
        _ => plain_address(field.value()).map(|domain| vec![domain]),
    }
}

/// Of a field that is no list of addresses, as programs write it that put no quotes round a comma, or write another character set: the one
/// address in angle brackets, where there is no other `@` and no other bracket.
fn plain_address(value: &[u8]) -> Option<Domain> {
    let value = String::from_utf8_lossy(value);
    let (before, rest) = value.split_once('<')?;
    let (address, after) = rest.split_once('>')?;
    let is_single = !before.contains(['@', '>', '(', '"', ':', ';', '\\']) && after.trim().is_empty();
    let mailbox = Mailbox::parse(address.trim()).ok()?;
    (is_single && !address.contains(['<', '"'])).then(|| mailbox.domain().clone())
}

/// `d=` of a signature that looks like one (RFC 6376 section 6.1.1).
fn signing_domain(field: &Field) -> Option<Domain> {
    let value = String::from_utf8_lossy(field.value());
    let tag = |name| record::tag(&value, name).filter(|value| !value.is_empty());
    let is_whole =
        tag("v").as_deref() == Some("1") && ["a", "b", "bh", "h", "s"].into_iter().all(|name| tag(name).is_some());
    Domain::parse(&tag("d")?).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::super::key::Kind;
    use super::*;

    fn signers(entries: &[(&str, &str, bool)]) -> Signers {
        let signer = |(domain, selector, skip_signed): &(&str, &str, bool)| Signer {
            domain: Domain::parse(domain).unwrap(),
            selector: selector.to_string(),
            key: Key::generate(Kind::Ed25519).unwrap().0,
            skip_signed: *skip_signed,
        };
        Signers::new(entries.iter().map(signer).collect())
    }

    fn chosen(signers: &Signers, header: &[u8]) -> Result<Vec<String>, Unsigned> {
        let mut scan = Scan::default();
        scan.take(header);
        scan.take(b"\r\n");
        signers.choose(&scan).map(|chosen| chosen.iter().map(|signer| signer.name()).collect())
    }

    #[test]
    fn the_nearest_domain_above_signs_with_all_its_keys() {
        let signers = signers(&[
            ("example.net", "a", false),
            ("example.net", "b", false),
            ("news.example.net", "n", false),
            ("bücher.example", "u", false),
        ]);
        for (from, expected) in [
            ("x@example.net", &["a._domainkey.example.net", "b._domainkey.example.net"][..]),
            ("x@EXAMPLE.net", &["a._domainkey.example.net", "b._domainkey.example.net"]),
            ("x@shop.example.net", &["a._domainkey.example.net", "b._domainkey.example.net"]),
            ("x@a.news.example.net", &["n._domainkey.news.example.net"]),
            ("\"a@evil.example\" <x@news.example.net>", &["n._domainkey.news.example.net"]),
            ("x@b\u{fc}cher.example", &["u._domainkey.xn--bcher-kva.example"]),
            ("x@xn--bcher-kva.example", &["u._domainkey.xn--bcher-kva.example"]),
            ("Firm, Inc. <x@news.example.net>", &["n._domainkey.news.example.net"]),
            ("a@other.example, x@news.example.net", &["n._domainkey.news.example.net"]),
        ] {
            assert_eq!(chosen(&signers, format!("From: {from}\r\n").as_bytes()).unwrap(), expected, "{from}");
        }
        let latin = b"From: M\xfcller <x@news.example.net>\r\n";
        assert_eq!(chosen(&signers, latin).unwrap(), ["n._domainkey.news.example.net"]);
    }

    #[test]
    fn nobody_signs_for_another_nor_where_the_author_is_uncertain() {
        let signers = signers(&[("example.net", "a", false)]);
        for (header, expected) in [
            ("From: x@fexample.net\r\n", Unsigned::NoKey),
            ("From: x@net\r\n", Unsigned::NoKey),
            ("From: x@example.net.evil.example\r\n", Unsigned::NoKey),
            ("From: x@[192.0.2.1]\r\n", Unsigned::NoKey),
            ("To: x@example.net\r\n", Unsigned::NoAuthor),
            ("From: x@example.net\r\nfrom: x@example.net\r\n", Unsigned::NoAuthor),
            ("From: a@evil.example <x@example.net>\r\n", Unsigned::NoAuthor),
            ("From: <x@example.net> <a@evil.example>\r\n", Unsigned::NoAuthor),
            ("From: \"x <x@example.net>\r\n", Unsigned::NoAuthor),
            ("From: x@example.net a@evil.example\r\n", Unsigned::NoAuthor),
            ("From: undisclosed:;\r\n", Unsigned::NoAuthor),
            ("From:\r\n", Unsigned::NoAuthor),
        ] {
            assert_eq!(chosen(&signers, header.as_bytes()), Err(expected), "{header}");
        }
    }

    #[test]
    fn mail_that_is_signed_is_signed_beside_it_unless_that_is_not_wanted() {
        let signers = signers(&[("example.net", "a", true), ("example.net", "b", false)]);
        let with = |signature: &str| format!("DKIM-Signature: {signature}\r\nFrom: x@example.net\r\n");
        let good = "v=1; a=rsa-sha256; d=Example.NET; s=x; h=From; bh=aGFzaA==; b=c2ln";
        let names = |header: &str| chosen(&signers, header.as_bytes()).unwrap().len();
        assert_eq!(names(&with(good)), 1);
        assert_eq!(names(&with(&good.replace("Example.NET", "other.example"))), 2);
        assert_eq!(names(&with("v=1; d=example.net")), 2, "it looks like none");
        let all = self::signers(&[("example.net", "a", true)]);
        assert_eq!(chosen(&all, with(good).as_bytes()), Err(Unsigned::SignedAlready));
    }
}
