//! The little of DER (X.690) that keys need: elements, and the numbers of an RSA key (RFC 8017 appendix A.1, RFC 5208, RFC 5280).

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `SEQUENCE { rsaEncryption, NULL }`.
const RSA: [u8; 15] = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

/// The numbers of an RSA key that signing takes, most significant octet first, without leading zeros.
pub(super) struct RsaNumbers<'a> {
    pub(super) modulus: &'a [u8],
    pub(super) public_exponent: &'a [u8],
    pub(super) private_exponent: &'a [u8],
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

/// A number without its leading zeros, and what follows.
fn number(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = element(der, INTEGER)?;
    let first = digits.iter().position(|&octet| octet != 0).unwrap_or(digits.len());
    Some((&digits[first..], rest))
}

/// Of a private key as PKCS#1 or PKCS#8.
pub(super) fn rsa_private(der: &[u8]) -> Option<RsaNumbers<'_>> {
    let (_version, rest) = number(element(der, SEQUENCE)?.0)?;
    let rest = match element(rest, SEQUENCE) {
        Some((_algorithm, rest)) => number(element(element(rest, OCTET_STRING)?.0, SEQUENCE)?.0)?.1,
        None => rest,
    };
    let (modulus, rest) = number(rest)?;
    let (public_exponent, rest) = number(rest)?;
    let (private_exponent, _) = number(rest)?;
    Some(RsaNumbers { modulus, public_exponent, private_exponent })
}

/// The modulus of a public key in SubjectPublicKeyInfo or as PKCS#1.
pub(super) fn rsa_modulus(der: &[u8]) -> Option<&[u8]> {
    let inside = element(der, SEQUENCE)?.0;
    let key = match element(inside, SEQUENCE) {
        Some((_, rest)) => element(element(rest, BIT_STRING)?.0.get(1..)?, SEQUENCE)?.0,
        None => inside,
    };
    Some(number(key)?.0).filter(|modulus| !modulus.is_empty())
}

/// The length of a number.
pub(super) fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// A public key as SubjectPublicKeyInfo, as it stands in the DNS.
pub(super) fn public_key_info(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let key = wrapped(SEQUENCE, &[integer(modulus), integer(exponent)].concat());
    let bit_string = wrapped(BIT_STRING, &[&[0][..], &key].concat());
    wrapped(SEQUENCE, &[&RSA[..], &bit_string].concat())
}

/// The PKCS#1 form of the same.
pub(super) fn public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    wrapped(SEQUENCE, &[integer(modulus), integer(exponent)].concat())
}

fn integer(digits: &[u8]) -> Vec<u8> {
    let is_negative = digits.first().is_none_or(|first| first & 0x80 != 0);
    wrapped(INTEGER, &[if is_negative { &[0][..] } else { &[] }, digits].concat())
}

fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().position(|&octet| octet != 0).unwrap_or(length.len() - 1)..];
    let mut element = vec![tag];
    if content.len() > 0x7f {
        element.push(0x80 | digits.len() as u8);
    }
    element.extend_from_slice(digits);
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_found_again() {
        for length in [1, 127, 128, 255, 256, 70_000] {
            let modulus = vec![0x81; length];
            let info = public_key_info(&modulus, &[1, 0, 1]);
            assert_eq!(rsa_modulus(&info), Some(&modulus[..]), "{length}");
            assert_eq!(rsa_modulus(&public_key(&modulus, &[3])), Some(&modulus[..]));
            assert_eq!(bits(&modulus), length * 8);
        }
    }

    #[test]
    fn nonsense_is_no_key() {
        let info = public_key_info(&[0x81; 256], &[1, 0, 1]);
        for end in 0..info.len() {
            assert_eq!(rsa_modulus(&info[..end]), None, "{end}");
            assert!(rsa_private(&info[..end]).is_none());
        }
        assert_eq!(rsa_modulus(&[0x30, 0xff, 0, 0]), None);
    }
}
