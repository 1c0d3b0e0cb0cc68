//! A key as the DNS has it (RFC 6376 section 3.6.1): written for zone files, read, and compared with the key that signs.
//!
//! Pure. Rule that always holds: a record that cannot be read is no key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::der;
use super::key::{BITS_GOOD, BITS_MIN, Key};

/// Octets of one string of a TXT record (RFC 1035 section 3.3).
const STRING_MAX: usize = 255;

/// What a key record is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    Good(String),
    /// It works, but (a test, a short key).
    Weak(String),
    /// No key stands among the records.
    Missing,
    /// `p=` is empty: the key is withdrawn.
    Revoked,
    Bad(String),
}

/// What the DNS says of the key that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    Agrees(String),
    /// It is this key, but (a test, a short key).
    Weak(String),
    /// Another key stands there.
    Differs(String),
    Missing,
    Revoked,
    Bad(String),
}

/// `a=b; c=d`, blanks within values taken out (RFC 6376 section 3.2).
pub fn tag(list: &str, wanted: &str) -> Option<String> {
    let tags = list.split(';').filter_map(|tag| tag.split_once('='));
    let mut found = tags.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value);
    found.next().map(|value| value.split_whitespace().collect())
}

/// The record of a key, as one text.
pub fn text(key: &Key) -> String {
    format!("v=DKIM1; k={}; p={}", key.kind().as_str(), STANDARD.encode(key.public()))
}

/// A text as strings of a TXT record.
pub fn strings(text: &str) -> Vec<String> {
    text.as_bytes().chunks(STRING_MAX).map(|octets| String::from_utf8_lossy(octets).into_owned()).collect()
}

/// As a zone file has it.
pub fn zone_line(name: &str, text: &str) -> String {
    let strings: Vec<String> = strings(text).iter().map(|string| format!("\"{string}\"")).collect();
    format!("{name}. IN TXT {}", strings.join(" "))
}

/// The one key among the TXT records of a name.
fn only(records: &[String]) -> Result<&String, Published> {
    let is_key = |text: &&String| tag(text, "p").is_some();
    match records.iter().filter(is_key).collect::<Vec<_>>().as_slice() {
        [] => Err(Published::Missing),
        [one] => Ok(one),
        many => Err(Published::Bad(format!("{} keys stand there, and one is allowed", many.len()))),
    }
}

/// What the TXT records at a selector's name come to.
pub fn judge(records: &[String]) -> Published {
    only(records).map_or_else(|fault| fault, |text| of_text(text))
}

fn of_text(text: &str) -> Published {
    let bad = |what: &str| Published::Bad(what.to_string());
    if tag(text, "v").is_some_and(|version| version != "DKIM1") {
        return bad("its v= is not DKIM1");
    }
    let allows = |name: &str, wanted: &[&str]| {
        tag(text, name).is_none_or(|list| list.split(':').any(|entry| wanted.contains(&entry)))
    };
    if !allows("h", &["sha256"]) {
        return bad("its h= leaves out sha256");
    }
    if !allows("s", &["*", "email"]) {
        return bad("its s= says that it is not for mail");
    }
    let data = tag(text, "p").unwrap_or_default();
    if data.is_empty() {
        return Published::Revoked;
    }
    let Ok(bytes) = STANDARD.decode(&data) else { return bad("its p= is no base64: a part of it may be missing") };
    let kind = tag(text, "k").unwrap_or_else(|| "rsa".to_string());
    let size = match kind.as_str() {
        "ed25519" if bytes.len() == 32 => "Ed25519".to_string(),
        "ed25519" => return bad("an Ed25519 key has 32 octets, and this one has not"),
        "rsa" => match der::rsa_modulus(&bytes).map(der::bits) {
            None => return bad("its p= is no RSA key: a part of it may be missing"),
            Some(bits) if bits < BITS_MIN => {
                return Published::Bad(format!("RSA with {bits} bits: receivers take {BITS_MIN} and more"));
            }
            Some(bits) if bits < BITS_GOOD => {
                return Published::Weak(format!("RSA with {bits} bits: {BITS_GOOD} are asked for today"));
            }
            Some(bits) => format!("RSA with {bits} bits"),
        },
        other => return Published::Bad(format!("its k={other} is a kind of key that nobody knows")),
    };
    if tag(text, "t").is_some_and(|flags| flags.split(':').any(|flag| flag == "y")) {
        return Published::Weak(format!("{size}, marked as a test (t=y): receivers take it as if nobody had signed"));
    }
    Published::Good(size)
}

/// Is what stands there the key that signs?
pub fn compare(records: &[String], key: &Key) -> Agreement {
    let text = match only(records) {
        Ok(text) => text,
        Err(Published::Bad(what)) => return Agreement::Bad(what),
        Err(_) => return Agreement::Missing,
    };
    let judged = of_text(text);
    let is_same = tag(text, "p").is_some_and(|data| is_public_key(&data, key))
        && tag(text, "k").is_none_or(|kind| kind == key.kind().as_str());
    match judged {
        Published::Good(what) if is_same => Agreement::Agrees(what),
        Published::Weak(what) if is_same => Agreement::Weak(what),
        Published::Good(what) | Published::Weak(what) => Agreement::Differs(what),
        Published::Missing => Agreement::Missing,
        Published::Revoked => Agreement::Revoked,
        Published::Bad(what) => Agreement::Bad(what),
    }
}

/// Some publish an RSA key as PKCS#1, which verifiers take as well.
fn is_public_key(data: &str, key: &Key) -> bool {
    let Ok(bytes) = STANDARD.decode(data) else { return false };
    let modulus = der::rsa_modulus(key.public());
    bytes == key.public() || modulus.is_some_and(|modulus| der::rsa_modulus(&bytes) == Some(modulus))
}

#[cfg(test)]
mod tests {
    use super::super::key::Kind;
    use super::*;

    /// An RSA key of so many bits; its modulus is no product of primes, which nobody looks at here.
    fn rsa(bits: usize) -> String {
        STANDARD.encode(der::public_key_info(&[&[0x80][..], &vec![1; bits / 8 - 1]].concat(), &[1, 0, 1]))
    }

    #[test]
    fn a_key_is_judged_by_what_stands_in_the_dns() {
        let judged = |text: &str| judge(&[text.to_string()]);
        assert_eq!(judged(&format!("v=DKIM1; k=rsa; p={}", rsa(2048))), Published::Good("RSA with 2048 bits".into()));
        assert!(matches!(judged(&format!("p={}", rsa(1024))), Published::Weak(text) if text.contains("1024")));
        assert!(matches!(judged(&format!("p={}", rsa(512))), Published::Bad(text) if text.contains("512")));
        let ed = STANDARD.encode([7; 32]);
        assert_eq!(judged(&format!("v=DKIM1; k=ed25519; p={ed}")), Published::Good("Ed25519".into()));
        assert!(matches!(judged(&format!("k=ed25519; t=s:y; p={ed}")), Published::Weak(text) if text.contains("test")));
        assert_eq!(judged("v=spf1 -all"), Published::Missing);
        assert_eq!(judged("v=DKIM1; p="), Published::Revoked);
        let cut = &rsa(2048)[..200];
        for (text, says) in [
            ("v=DKIM1; p=a-b".to_string(), "base64"),
            (format!("v=DKIM1; p={cut}"), "missing"),
            (format!("v=DKIM2; p={ed}"), "v="),
            (format!("k=dsa; p={ed}"), "k=dsa"),
            (format!("k=ed25519; h=sha1; p={ed}"), "h="),
            (format!("k=ed25519; s=tlsrpt; p={ed}"), "s="),
        ] {
            assert!(
                matches!(judged(&text), Published::Bad(fault) if fault.contains(says)),
                "{text}: {:?}",
                judged(&text)
            );
        }
        let two = format!("k=ed25519; p={ed}");
        assert!(matches!(judge(&[two.clone(), two]), Published::Bad(fault) if fault.contains("2 keys")));
    }

    #[test]
    fn the_key_that_signs_is_told_from_every_other() {
        for kind in [Kind::Rsa, Kind::Ed25519] {
            let (key, other) = (Key::generate(kind).unwrap().0, Key::generate(kind).unwrap().0);
            let own = text(&key);
            assert_eq!(compare(std::slice::from_ref(&own), &key), Agreement::Agrees(key.what()));
            assert_eq!(compare(&["v=spf1 -all".into(), own.clone()], &key), Agreement::Agrees(key.what()));
            assert_eq!(compare(&[text(&other)], &key), Agreement::Differs(key.what()));
            assert_eq!(compare(&["v=DKIM1; p=".into()], &key), Agreement::Revoked);
            assert_eq!(compare(&[], &key), Agreement::Missing);
            assert!(matches!(compare(&[format!("{own}; t=y")], &key), Agreement::Weak(_)));
            assert!(matches!(compare(&[own.replace("k=", "k=x")], &key), Agreement::Bad(_)));
        }
        let (rsa, ed) = (Key::generate(Kind::Rsa).unwrap().0, Key::generate(Kind::Ed25519).unwrap().0);
        assert!(matches!(compare(&[text(&rsa)], &ed), Agreement::Differs(_)));
    }

    #[test]
    fn a_record_is_split_as_zone_files_want_it() {
        let (key, _) = Key::generate(Kind::Rsa).unwrap();
        let line = zone_line("s._domainkey.example.com", &text(&key));
        let (name, strings) = line.split_once(" IN TXT ").unwrap();
        assert_eq!(name, "s._domainkey.example.com.");
        let strings: Vec<&str> = strings.split('"').filter(|part| !part.trim().is_empty()).collect();
        assert!(strings.len() == 2 && strings[0].len() == STRING_MAX, "{line}");
        assert_eq!(strings.concat(), text(&key));
    }
}
