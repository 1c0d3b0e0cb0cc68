//! Until when a certificate holds: the one thing of it that changes without anybody doing anything.
//!
//! Only as much of the DER is read as it takes to find `notAfter` (RFC 5280 section 4.1). What cannot be read has no end that is
//! known; whether it is a certificate at all is the business of TLS.

use crate::types::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT` in front of the version.
const VERSION: u8 = 0xA0;

/// The end of the validity of the certificate in `der`.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = element(fields, VERSION)?;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        (_, fields) = element(fields, *fields.first()?)?;
    }
    let (validity, _) = element(fields, SEQUENCE)?;
    let (_, rest) = element(validity, *validity.first()?)?;
    let kind = *rest.first()?;
    let (end, _) = element(rest, kind)?;
    time(kind, std::str::from_utf8(end).ok()?)
}

/// The content of the element of this tag at the beginning of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// `YYMMDDHHMMSSZ`, with years from 1950 to 2049, or `YYYYMMDDHHMMSSZ` (sections 4.1.2.5.1 and 4.1.2.5.2).
fn time(kind: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))?;
    let (year, rest) = match (kind, digits.len()) {
        (UTC_TIME, 12) => {
            let year: u32 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let two = |at: usize| &rest[at..at + 2];
    let text = format!("{year:04}-{}-{}T{}:{}:{}Z", two(0), two(2), two(4), two(6), two(8));
    Timestamp::parse_rfc3339(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(year: i32) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_string()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        for (year, end) in [(2027, "2027-02-03T00:00:00"), (1999, "1999-02-03T00:00:00"), (2077, "2077-02-03T00:00:00")]
        {
            let found = not_after(&issued(year)).map(|end| end.to_string()).unwrap_or_default();
            assert!(found.starts_with(end), "{year}: {found}");
        }
    }

    #[test]
    fn what_is_none_has_no_end_wherever_it_is_cut() {
        let whole = issued(2030);
        for cut in 0..whole.len() {
            let _ = not_after(&whole[..cut]);
            let mut broken = whole.clone();
            broken[cut] ^= 0xFF;
            let _ = not_after(&broken);
        }
        for text in ["270203000000", "2702030000Z", "27020300000aZ", "279903000000Z", ""] {
            assert_eq!(time(UTC_TIME, text), None, "{text}");
        }
    }
}
