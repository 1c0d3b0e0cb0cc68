//! Macros of SPF (RFC 7208 section 7): `%{ir}.%{v}._spf.%{d2}` and the like.
//!
//! What only an explanation may hold (`c`, `r`, `t`) is taken in one alone, and explanations are nobody's business here:
//! they go to whoever was refused.

use std::net::IpAddr;

/// What a macro can stand for.
#[derive(Clone, Copy, Debug)]
pub struct Meaning<'a> {
    /// `local@domain`
    pub sender: &'a str,
    /// The domain whose record is read now.
    pub domain: &'a str,
    pub ip: IpAddr,
    pub helo: &'a str,
    /// The name of the address; empty where nothing asks for it.
    pub ptr: &'a str,
}

/// A domain with macros in it, as it is written; known to be well formed.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainSpec(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq)]
struct Macro {
    letter: u8,
    /// Written as a capital: the value is escaped as in a URL.
    is_escaped: bool,
    /// How many parts are kept, from the right.
    keep: Option<usize>,
    is_reversed: bool,
    delimiters: String,
}

/// Longest name in the DNS (RFC 7208 section 7.3).
const NAME_MAX: usize = 253;

impl DomainSpec {
    /// Ends in a macro or a label that a top-level domain can be (section 7.1).
    pub fn parse(text: &str) -> Option<DomainSpec> {
        let parts = parts(text, false)?;
        let is_macro = matches!(parts.last()?, Part::Macro(_)) || ["%%", "%_", "%-"].iter().any(|m| text.ends_with(m));
        let end = text.strip_suffix('.').unwrap_or(text);
        let has_top_label = end.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label));
        (is_macro || has_top_label).then_some(DomainSpec(parts))
    }

    /// The name that is asked for. Of one that is too long the labels on the left go.
    pub fn expand(&self, meaning: &Meaning<'_>) -> String {
        let mut name: String = self.0.iter().map(|part| part.expand(meaning)).collect();
        if name.ends_with('.') {
            name.pop();
        }
        while name.len() > NAME_MAX {
            match name.split_once('.') {
                Some((_, rest)) => name = rest.to_string(),
                None => break,
            }
        }
        name
    }

    /// Does it need the name of the address, which takes look-ups?
    pub fn asks_for_ptr(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Macro(Macro { letter: b'p', .. })))
    }
}

/// Is this the value of a modifier that nobody knows?
pub fn check_macro_string(text: &str) -> Option<()> {
    parts(text, true).map(|_| ())
}

fn is_top_label(label: &str) -> bool {
    let is_plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let has_letter = label.bytes().any(|b| !b.is_ascii_digit());
    !label.is_empty() && is_plain && has_letter && !label.starts_with('-') && !label.ends_with('-')
}

fn parts(text: &str, in_modifier: bool) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first != '%' {
            if !('!'..='~').contains(&first) {
                return None;
            }
            literal.push(first);
            rest = &rest[1..];
            continue;
        }
        let replaced = match rest.as_bytes().get(1)? {
            b'%' => "%",
            b'_' => " ",
            b'-' => "%20",
            b'{' => {
                let end = rest.find('}')?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Macro(Macro::parse(&rest[2..end], in_modifier)?));
                rest = &rest[end + 1..];
                continue;
            }
            _ => return None,
        };
        literal.push_str(replaced);
        rest = &rest[2..];
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Some(parts)
}

impl Part {
    fn expand(&self, meaning: &Meaning<'_>) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Macro(one) => one.expand(meaning),
        }
    }
}

impl Macro {
    /// What stands between the braces: a letter, a number, `r`, delimiters.
    fn parse(text: &str, in_modifier: bool) -> Option<Macro> {
        let letter = *text.as_bytes().first()?;
        let lower = letter.to_ascii_lowercase();
        let known: &[u8] = if in_modifier { b"slodiphvcrt" } else { b"slodiphv" };
        if !known.contains(&lower) {
            return None;
        }
        let rest = text.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let keep = match &rest[..digits] {
            "" => None,
            // More parts than a name can have are all of them.
            number => Some(number.parse::<usize>().unwrap_or(usize::MAX)).filter(|keep| *keep > 0).map(Some)?,
        };
        let rest = &rest[digits..];
        let is_reversed = rest.starts_with(['r', 'R']);
        let delimiters = if is_reversed { &rest[1..] } else { rest };
        delimiters.bytes().all(|b| b".-+,/_=".contains(&b)).then_some(())?;
        let delimiters = if delimiters.is_empty() { "." } else { delimiters }.to_string();
        Some(Macro { letter: lower, is_escaped: letter.is_ascii_uppercase(), keep, is_reversed, delimiters })
    }

    fn expand(&self, meaning: &Meaning<'_>) -> String {
        let (local, domain_of_sender) = meaning.sender.rsplit_once('@').unwrap_or(("postmaster", meaning.sender));
        let value = match self.letter {
            b's' => meaning.sender.to_string(),
            b'l' => local.to_string(),
            b'o' => domain_of_sender.to_string(),
            b'd' => meaning.domain.to_string(),
            b'i' => dotted(meaning.ip),
            b'p' => if meaning.ptr.is_empty() { "unknown" } else { meaning.ptr }.to_string(),
            b'h' => meaning.helo.to_string(),
            _ => if meaning.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_string(),
        };
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.is_reversed {
            parts.reverse();
        }
        let skipped = self.keep.map_or(0, |keep| parts.len().saturating_sub(keep));
        let value = parts[skipped..].join(".");
        if self.is_escaped { url_escaped(&value) } else { value }
    }
}

/// `192.0.2.1`, and IPv6 nibble by nibble.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// Everything but the unreserved characters of RFC 3986.
fn url_escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> String {
        let meaning = Meaning {
            sender: "strong-bad@email.example.com",
            domain: "email.example.com",
            ip: "192.0.2.3".parse().unwrap(),
            helo: "mx.example.org",
            ptr: "",
        };
        DomainSpec::parse(text).unwrap_or_else(|| panic!("{text}")).expand(&meaning)
    }

    /// The table of section 7.4.
    #[test]
    fn macros_stand_for_what_the_rfc_says() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{p}._spf.example.com", "unknown._spf.example.com"),
            ("%{S}.example.com", "strong-bad%40email.example.com.example.com"),
        ] {
            assert_eq!(expand(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in
            ["", "example", "%{d0}", "%{x}.example.com", "%", "%{d", "a.1", "a.-b", "%{c}.example.com", "a b.com"]
        {
            assert_eq!(DomainSpec::parse(text), None, "{text}");
        }
        assert!(check_macro_string("%{c}%%%_%- anything").is_none(), "a blank ends a term");
        assert!(check_macro_string("%{c}%%").is_some());
    }

    #[test]
    fn of_a_name_that_is_too_long_the_left_goes() {
        let long = format!("{}.example.com", ["abcdefgh"; 40].join("."));
        let name = expand(&long);
        assert!(name.len() <= 253 && name.ends_with(".abcdefgh.example.com") && name.starts_with("abcdefgh."));
    }
}
