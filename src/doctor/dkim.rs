//! DKIM as the DNS and the header of a message show it (RFC 6376): who signed, and whether the record of that key is good.
//!
//! Pure. Rule that always holds: a record that cannot be read is no key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Who says that he signed: the tags `d` and `s` of one DKIM-Signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) domain: String,
    pub(super) selector: String,
}

impl Signature {
    /// Where its key lies.
    pub(super) fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

/// What a key record is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Good(String),
    /// It works, but (a test, a short key).
    Weak(String),
    Bad(String),
}

/// The values of a header's fields called `name`, unfolded.
fn fields<'h>(header: &'h str, name: &'h str) -> impl Iterator<Item = String> + 'h {
    let mut unfolded: Vec<String> = Vec::new();
    for line in header.lines().take_while(|line| !line.is_empty()) {
        match unfolded.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => field.push_str(line),
            _ => unfolded.push(line.to_string()),
        }
    }
    unfolded.into_iter().filter_map(move |field| {
        let (found, value) = field.split_once(':')?;
        found.trim_end().eq_ignore_ascii_case(name).then(|| value.trim().to_string())
    })
}

/// `a=b; c=d`, blanks within values taken out (RFC 6376 section 3.2).
fn tag(list: &str, wanted: &str) -> Option<String> {
    let tags = list.split(';').filter_map(|tag| tag.split_once('='));
    let mut found = tags.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value);
    found.next().map(|value| value.split_whitespace().collect())
}

/// All signatures of a message.
pub(super) fn signatures(header: &str) -> Vec<Signature> {
    let signature = |value: String| {
        let (domain, selector) = (tag(&value, "d")?.to_ascii_lowercase(), tag(&value, "s")?);
        (!domain.is_empty() && !selector.is_empty()).then_some(Signature { domain, selector })
    };
    fields(header, "DKIM-Signature").filter_map(signature).collect()
}

/// The domain of the address in From, where there is one.
pub(super) fn from_domain(header: &str) -> Option<String> {
    let value = fields(header, "From").next()?;
    let address = value.rsplit_once('<').map_or(value.as_str(), |(_, rest)| rest.split('>').next().unwrap_or_default());
    let domain = address.rsplit_once('@')?.1.trim().trim_end_matches('.').to_ascii_lowercase();
    (!domain.is_empty() && !domain.contains([' ', ',', '"'])).then_some(domain)
}

/// What the TXT records at a selector's name come to.
pub(super) fn key(records: &[String]) -> Key {
    let is_key = |text: &&String| tag(text, "p").is_some();
    let text = match records.iter().filter(is_key).collect::<Vec<_>>().as_slice() {
        [] => return Key::Bad("no key stands there (no p=)".to_string()),
        [one] => *one,
        many => return Key::Bad(format!("{} keys stand there, and one is allowed", many.len())),
    };
    if tag(text, "v").is_some_and(|version| version != "DKIM1") {
        return Key::Bad("its v= is not DKIM1".to_string());
    }
    let data = tag(text, "p").unwrap_or_default();
    if data.is_empty() {
        return Key::Bad("the key was revoked (p= is empty)".to_string());
    }
    let Ok(bytes) = STANDARD.decode(&data) else {
        return Key::Bad("its p= is no base64: a part of it may be missing".to_string());
    };
    let kind = tag(text, "k").unwrap_or_else(|| "rsa".to_string());
    let is_test = tag(text, "t").is_some_and(|flags| flags.split(':').any(|flag| flag == "y"));
    let size = match kind.as_str() {
        "ed25519" if bytes.len() == 32 => "Ed25519".to_string(),
        "ed25519" => return Key::Bad("an Ed25519 key has 32 octets, and this one has not".to_string()),
        "rsa" => match rsa_bits(&bytes) {
            None => return Key::Bad("its p= is no RSA key: a part of it may be missing".to_string()),
            Some(bits) if bits < 1024 => {
                return Key::Bad(format!("RSA with {bits} bits: receivers take 1024 and more"));
            }
            Some(bits) if bits < 2048 => return Key::Weak(format!("RSA with {bits} bits: 2048 are asked for today")),
            Some(bits) => format!("RSA with {bits} bits"),
        },
        other => return Key::Bad(format!("its k={other} is a kind of key that nobody knows")),
    };
    if is_test {
        return Key::Weak(format!("{size}, marked as a test (t=y): receivers take it as if nobody had signed"));
    }
    Key::Good(size)
}

/// The length of an RSA key in SubjectPublicKeyInfo or as PKCS#1.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    // `SEQUENCE { SEQUENCE { algorithm }, BIT STRING { key } }`, where the key is `SEQUENCE { modulus, exponent }`.
    let inside = element(der, 0x30)?.0;
    let key = match element(inside, 0x30) {
        Some((_, rest)) => element(element(rest, 0x03)?.0.get(1..)?, 0x30)?.0,
        None => inside,
    };
    let modulus = element(key, 0x02)?.0;
    let significant = modulus.iter().position(|&octet| octet != 0).map(|at| &modulus[at..])?;
    Some(significant.len() * 8 - significant[0].leading_zeros() as usize)
}

/// One element of DER with this tag: its content, and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*length) {
        short @ 0..=0x7f => (short, rest),
        long => {
            let octets = long & 0x7f;
            let number = rest.get(..octets).filter(|_| octets <= 4)?;
            (number.iter().fold(0usize, |n, &octet| n << 8 | usize::from(octet)), rest.get(octets..)?)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Received: from x\r\nDKIM-Signature: v=1; a=rsa-sha256; d=News.weir.dev;\r\n\ts=s 1; h=From;\r\n b=abc\r\n\
                          from: \"Shop, the <one>\" <shop@news.weir.dev>\r\nDKIM-Signature: v=1; d=esp.example; s=x; b=y\r\n\r\n\
                          DKIM-Signature: d=body.example; s=b\r\n";

    #[test]
    fn signatures_are_read_in_the_header_alone() {
        let found: Vec<String> = signatures(HEADER).iter().map(Signature::name).collect();
        assert_eq!(found, ["s1._domainkey.news.weir.dev", "x._domainkey.esp.example"]);
        assert_eq!(from_domain(HEADER).as_deref(), Some("news.weir.dev"));
        assert_eq!(from_domain("From: app@weir.dev\r\n").as_deref(), Some("weir.dev"));
        assert_eq!(from_domain("From: nobody\r\n"), None);
        assert_eq!(signatures("DKIM-Signature: nonsense\r\n"), []);
    }

    /// An RSA key of so many bits in SubjectPublicKeyInfo; its modulus is no product of primes, which nobody looks at here.
    fn rsa(bits: usize) -> String {
        let wrap = |tag: u8, content: &[u8]| {
            let length = content.len();
            [&[tag, 0x82, u8::try_from(length >> 8).unwrap(), (length & 0xff) as u8][..], content].concat()
        };
        let modulus = [&[0u8, 0x80][..], &vec![1; bits / 8 - 1]].concat();
        let key = wrap(0x30, &[wrap(0x02, &modulus), vec![0x02, 3, 1, 0, 1]].concat());
        let bit_string = wrap(0x03, &[&[0u8][..], &key].concat());
        let algorithm = [0x30u8, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        STANDARD.encode(wrap(0x30, &[&algorithm[..], &bit_string].concat()))
    }

    #[test]
    fn a_key_is_judged_by_what_stands_in_the_dns() {
        let judged = |text: &str| key(&[text.to_string()]);
        assert_eq!(judged(&format!("v=DKIM1; k=rsa; p={}", rsa(2048))), Key::Good("RSA with 2048 bits".into()));
        assert!(matches!(judged(&format!("p={}", rsa(1024))), Key::Weak(text) if text.contains("1024")));
        assert!(matches!(judged(&format!("p={}", rsa(512))), Key::Bad(text) if text.contains("512")));
        let ed = STANDARD.encode([7; 32]);
        assert_eq!(judged(&format!("v=DKIM1; k=ed25519; p={ed}")), Key::Good("Ed25519".into()));
        assert!(matches!(judged(&format!("k=ed25519; t=s:y; p={ed}")), Key::Weak(text) if text.contains("test")));
        let cut = &rsa(2048)[..200];
        for (text, says) in [
            ("v=spf1 -all".to_string(), "no key"),
            ("v=DKIM1; p=".to_string(), "revoked"),
            ("v=DKIM1; p=a-b".to_string(), "base64"),
            (format!("v=DKIM1; p={cut}"), "missing"),
            (format!("v=DKIM2; p={ed}"), "v="),
            (format!("k=dsa; p={ed}"), "k=dsa"),
        ] {
            assert!(matches!(judged(&text), Key::Bad(fault) if fault.contains(says)), "{text}: {:?}", judged(&text));
        }
        let two = format!("k=ed25519; p={ed}");
        assert!(matches!(key(&[two.clone(), two]), Key::Bad(fault) if fault.contains("2 keys")));
    }
}
