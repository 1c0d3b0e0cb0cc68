//! An SPF record in its parts (RFC 7208 sections 4.5, 4.6.1, 5, 6 and 12).
//!
//! Rule that always holds: a record with one wrong term is wrong as a whole, wherever the term stands (section 4.6).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::macros::{DomainSpec, check_macro_string};

/// What a mechanism that matches says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// How much of an address counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    pub v4: u8,
    pub v6: u8,
}

/// Whole addresses.
const WHOLE: Lengths = Lengths { v4: 32, v6: 128 };

#[derive(Clone, Debug, PartialEq)]
pub enum Mechanism {
    All,
    Include(DomainSpec),
    /// None: the domain whose record this is.
    A(Option<DomainSpec>, Lengths),
    Mx(Option<DomainSpec>, Lengths),
    Ptr(Option<DomainSpec>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(DomainSpec),
}

/// A mechanism with what it says, and as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    pub qualifier: Qualifier,
    pub mechanism: Mechanism,
    pub text: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub directives: Vec<Directive>,
    pub redirect: Option<DomainSpec>,
}

/// Is this TXT record one of SPF's? Its version ends at a blank or at the end (section 4.5).
pub fn is_spf(text: &str) -> bool {
    let version = text.split(' ').next().unwrap_or_default();
    version.eq_ignore_ascii_case("v=spf1")
}

impl Record {
    /// Reads the record behind its version; the term that is wrong otherwise.
    pub fn parse(text: &str) -> Result<Record, String> {
        if !text.is_ascii() {
            return Err("it holds characters that are not ASCII".to_string());
        }
        let mut record = Record::default();
        let mut has_explanation = false;
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            let wrong = || format!("`{}` is no term of SPF", term.escape_debug());
            match modifier(term) {
                Some(("redirect", value)) => {
                    let domain = DomainSpec::parse(value).ok_or_else(wrong)?;
                    if record.redirect.replace(domain).is_some() {
                        return Err("`redirect=` stands there twice".to_string());
                    }
                }
                Some(("exp", value)) => {
                    DomainSpec::parse(value).ok_or_else(wrong)?;
                    if std::mem::replace(&mut has_explanation, true) {
                        return Err("`exp=` stands there twice".to_string());
                    }
                }
                Some((_, value)) => check_macro_string(value).ok_or_else(wrong)?,
                None => record.directives.push(directive(term).ok_or_else(wrong)?),
            }
        }
        Ok(record)
    }

    /// Does it end with `all`? Nothing behind it is ever looked at, `redirect=` neither.
    pub fn has_all(&self) -> bool {
        self.directives.iter().any(|directive| directive.mechanism == Mechanism::All)
    }
}

/// `name=value`; the names that mean something in lower case.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let known = ["redirect", "exp"].into_iter().find(|known| name.eq_ignore_ascii_case(known));
    is_name.then(|| (known.unwrap_or(name), value))
}

fn directive(term: &str) -> Option<Directive> {
    let (qualifier, rest) = match term.as_bytes().first()? {
        b'+' => (Qualifier::Pass, &term[1..]),
        b'-' => (Qualifier::Fail, &term[1..]),
        b'~' => (Qualifier::SoftFail, &term[1..]),
        b'?' => (Qualifier::Neutral, &term[1..]),
        _ => (Qualifier::Pass, term),
    };
    let name_end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, argument) = rest.split_at(name_end);
    let mechanism = mechanism(&name.to_ascii_lowercase(), argument)?;
    Some(Directive { qualifier, mechanism, text: term.to_string() })
}

/// `argument` begins with `:` or `/`, or is empty.
fn mechanism(name: &str, argument: &str) -> Option<Mechanism> {
    let value = argument.strip_prefix(':');
    Some(match name {
        "all" if argument.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(DomainSpec::parse(value?)?),
        "exists" => Mechanism::Exists(DomainSpec::parse(value?)?),
        "ptr" if argument.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(DomainSpec::parse(value?)?)),
        "a" => {
            let (domain, lengths) = domain_and_lengths(argument)?;
            Mechanism::A(domain, lengths)
        }
        "mx" => {
            let (domain, lengths) = domain_and_lengths(argument)?;
            Mechanism::Mx(domain, lengths)
        }
        "ip4" => {
            let (address, length) = split_length(value?);
            Mechanism::Ip4(address.parse().ok()?, length.map_or(Some(32), |text| prefix_length(text, 32))?)
        }
        "ip6" => {
            let (address, length) = split_length(value?);
            Mechanism::Ip6(address.parse().ok()?, length.map_or(Some(128), |text| prefix_length(text, 128))?)
        }
        _ => return None,
    })
}

fn split_length(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)))
}

/// `:domain/24//64`, each part optional. A slash may stand in a macro, too, so the lengths are taken from the end.
fn domain_and_lengths(argument: &str) -> Option<(Option<DomainSpec>, Lengths)> {
    let mut lengths = WHOLE;
    let mut rest = argument;
    if let Some((before, length)) = rest.rsplit_once("//").filter(|(_, length)| is_digits(length)) {
        lengths.v6 = prefix_length(length, 128)?;
        rest = before;
    }
    if let Some((before, length)) = rest.rsplit_once('/').filter(|(_, length)| is_digits(length)) {
        lengths.v4 = prefix_length(length, 32)?;
        rest = before;
    }
    if rest.is_empty() {
        return Some((None, lengths));
    }
    Some((Some(DomainSpec::parse(rest.strip_prefix(':')?)?), lengths))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Without leading zeros (section 12).
fn prefix_length(text: &str, max: u8) -> Option<u8> {
    let is_plain = is_digits(text) && (text == "0" || !text.starts_with('0'));
    text.parse::<u8>().ok().filter(|length| is_plain && *length <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_whatever_its_letter_case() {
        let record =
            Record::parse("v=spf1 IP4:192.0.2.0/24 a/24//64 ~MX:mail.example.com ?ptr Redirect=a.example.com").unwrap();
        assert_eq!(record.directives.len(), 4);
        assert_eq!(record.directives[0].mechanism, Mechanism::Ip4("192.0.2.0".parse().unwrap(), 24));
        assert_eq!(record.directives[1].mechanism, Mechanism::A(None, Lengths { v4: 24, v6: 64 }));
        assert_eq!(record.directives[2].qualifier, Qualifier::SoftFail);
        assert!(record.redirect.is_some() && !record.has_all());
        assert!(Record::parse("v=spf1 -all").unwrap().has_all());
    }

    #[test]
    fn one_wrong_term_makes_the_record_wrong() {
        for terms in [
            "ipv4:192.0.2.1",
            "-all.",
            "ip4:192.0.2.1/33",
            "ip4:192.0.2.1/024",
            "ip4:1.2.3",
            "a:/24",
            "include",
            "all:x",
            "a:example.com:8080",
            "redirect=a.example.com redirect=b.example.com",
            "exists:%{z}.example.com",
            "-all ipv6:::1",
            "include:exämple.com",
        ] {
            assert!(Record::parse(&format!("v=spf1 {terms}")).is_err(), "{terms}");
        }
    }

    #[test]
    fn the_version_ends_at_a_blank() {
        assert!(is_spf("v=spf1") && is_spf("V=SPF1 -all") && !is_spf("v=spf10 -all") && !is_spf("spf1"));
    }
}
