//! Private keys: RSA (PKCS#1, PKCS#8) and Ed25519 (PKCS#8), read from PEM, made, and used (RFC 6376 section 3.3, RFC 8463).

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::der;
use super::short::ShortKey;

/// Verifiers must take keys of this length (RFC 8301 section 3.2); shorter ones they must not.
pub const BITS_MIN: usize = 1024;
/// What signers should use.
pub const BITS_GOOD: usize = 2048;
/// More takes longer to verify than receivers bear.
const BITS_MAX: usize = 8192;
/// Of the base64 of a PEM file (RFC 7468 section 2).
const PEM_LINE: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Of 2048 bits where it is made: every verifier knows it, and its record fits into a UDP answer.
    #[default]
    Rsa,
    Ed25519,
}

impl Kind {
    /// As `k=` of a record names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Rsa => "rsa",
            Kind::Ed25519 => "ed25519",
        }
    }
}

/// Why a text is no key that can sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("holds no private key: it takes PEM, `-----BEGIN PRIVATE KEY-----` or `-----BEGIN RSA PRIVATE KEY-----`")]
    None,
    #[error(
        "holds a key with a passphrase, which nobody could type at a start: write it without one (openssl pkey -in OLD -out NEW)"
    )]
    Encrypted,
    #[error("holds a public key: the private one signs")]
    Public,
    #[error("holds a {0}, and DKIM knows RSA and Ed25519 (PKCS#8) alone: make one with `weir dkim keygen`")]
    Kind(String),
    #[error(
        "holds an RSA key of {0} bits: receivers ignore signatures of less than {BITS_MIN}, make one with `weir dkim keygen`"
    )]
    Short(usize),
    #[error("holds an RSA key of {0} bits: receivers check none of more than {BITS_MAX}")]
    Long(usize),
    #[error("holds a key that is damaged: a part of it is missing, or its numbers do not belong together")]
    Damaged,
}

/// A key that signs.
pub struct Key {
    secret: Secret,
    bits: usize,
    /// As it stands in the DNS.
    public: Vec<u8>,
}

enum Secret {
    Rsa(RsaKeyPair),
    Short(ShortKey),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())
    }
}

impl Key {
    /// Reads the first private key in PEM, or one that is base64 alone.
    pub fn read(text: &[u8]) -> Result<Key, KeyError> {
        Key::of_der(&private_der(&String::from_utf8_lossy(text))?)
    }

    fn of_der(der: &[u8]) -> Result<Key, KeyError> {
        let Some(numbers) = der::rsa_private(der) else { return Key::of_ed25519(der) };
        let bits = der::bits(numbers.modulus);
        let secret = match bits {
            ..BITS_MIN => return Err(KeyError::Short(bits)),
            BITS_MIN..BITS_GOOD => Secret::Short(ShortKey::of(&numbers).ok_or(KeyError::Damaged)?),
            BITS_GOOD..=BITS_MAX => {
                let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
                Secret::Rsa(pair.map_err(|_| KeyError::Damaged)?)
            }
            _ => return Err(KeyError::Long(bits)),
        };
        let key = Key { secret, bits, public: der::public_key_info(numbers.modulus, numbers.public_exponent) };
        // Numbers that do not belong together are found here and not at the first message.
        let trial = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"");
        key.sign(&trial).map(|_| key).ok_or(KeyError::Damaged)
    }

    fn of_ed25519(der: &[u8]) -> Result<Key, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Damaged)?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Key { secret: Secret::Ed25519(pair), bits: 256, public })
    }

    /// A new key, and its PEM.
    pub fn generate(kind: Kind) -> Result<(Key, String), KeyError> {
        let der = match kind {
            Kind::Rsa => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Damaged)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Damaged)?;
                der.as_ref().to_vec()
            }
            Kind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Damaged)?;
                pair.to_pkcs8v1().map_err(|_| KeyError::Damaged)?.as_ref().to_vec()
            }
        };
        Ok((Key::of_der(&der)?, pem(&der)))
    }

    pub fn kind(&self) -> Kind {
        match self.secret {
            Secret::Rsa(_) | Secret::Short(_) => Kind::Rsa,
            Secret::Ed25519(_) => Kind::Ed25519,
        }
    }

    /// `RSA with 2048 bits`, `Ed25519`.
    pub fn what(&self) -> String {
        match self.kind() {
            Kind::Rsa => format!("RSA with {} bits", self.bits),
            Kind::Ed25519 => "Ed25519".to_string(),
        }
    }

    /// Is it shorter than signers should use?
    pub fn is_short(&self) -> bool {
        self.kind() == Kind::Rsa && self.bits < BITS_GOOD
    }

    /// `a=` of a signature.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.kind() {
            Kind::Rsa => "rsa-sha256",
            Kind::Ed25519 => "ed25519-sha256",
        }
    }

    /// `p=` of the record, before base64.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// How long a signature is, before base64.
    pub(super) fn signature_octets(&self) -> usize {
        match &self.secret {
            Secret::Rsa(pair) => pair.public_modulus_len(),
            Secret::Short(key) => key.octets(),
            Secret::Ed25519(_) => 64,
        }
    }

    /// Signs the hash of a header. None: the key cannot, which `read` has ruled out.
    pub(super) fn sign(&self, digest: &Digest) -> Option<Vec<u8>> {
        match &self.secret {
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, digest, &mut signature).ok()?;
                Some(signature)
            }
            Secret::Short(key) => key.sign(digest),
            // The hash is what is signed (RFC 8463 section 3).
            Secret::Ed25519(pair) => Some(pair.try_sign(digest.as_ref()).ok()?.as_ref().to_vec()),
        }
    }
}

/// Decodes the private key in `text`. In variables its line ends may be written as `\n`.
fn private_der(text: &str) -> Result<Vec<u8>, KeyError> {
    let mut rest = text;
    let mut fault = KeyError::None;
    while let Some((_, block)) = rest.split_once("-----BEGIN ") {
        let (label, block) = block.split_once("-----").ok_or(KeyError::None)?;
        let (content, after) = block.split_once("-----END ").ok_or(KeyError::Damaged)?;
        match label {
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            _ if content.contains("ENCRYPTED") => return Err(KeyError::Encrypted),
            "PRIVATE KEY" | "RSA PRIVATE KEY" => return decoded(content).ok_or(KeyError::Damaged),
            // Before an EC key.
            "EC PARAMETERS" => {}
            other if other.ends_with("PRIVATE KEY") => return Err(KeyError::Kind(other.to_lowercase())),
            other if other.ends_with("PUBLIC KEY") => fault = KeyError::Public,
            _ => {}
        }
        rest = after;
    }
    if rest.len() < text.len() {
        return Err(fault);
    }
    decoded(text).filter(|der| !der.is_empty()).ok_or(KeyError::None)
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let text: String = text.replace("\\n", "").replace("\\r", "").split_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN PRIVATE KEY-----\n".to_string();
    for line in text.as_bytes().chunks(PEM_LINE) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END PRIVATE KEY-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_is_read_again_in_every_spelling() {
        for kind in [Kind::Rsa, Kind::Ed25519] {
            let (key, pem) = Key::generate(kind).unwrap();
            let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            for text in
                [pem.clone(), pem.replace('\n', "\r\n"), pem.replace('\n', "\\n"), format!("# ours\n{pem}"), body]
            {
                let again = Key::read(text.as_bytes()).unwrap();
                assert_eq!((again.public(), again.kind()), (key.public(), kind));
            }
            assert!(!key.is_short() && !format!("{key:?}").contains(&pem[30..60]));
        }
    }

    #[test]
    fn what_is_no_key_says_so() {
        let (_, pem) = Key::generate(Kind::Ed25519).unwrap();
        for (text, fault) in [
            (String::new(), KeyError::None),
            ("hello".to_string(), KeyError::None),
            (pem.replace("PRIVATE", "ENCRYPTED PRIVATE"), KeyError::Encrypted),
            (pem.replace("PRIVATE", "PUBLIC"), KeyError::Public),
            (pem.replace("PRIVATE", "EC PRIVATE"), KeyError::Kind("ec private key".into())),
            ("-----BEGIN PRIVATE KEY-----\nMC4CAQAw\n-----END PRIVATE KEY-----".to_string(), KeyError::Damaged),
            (pem[..60].to_string(), KeyError::Damaged),
            (pem.replace("PRIVATE KEY", "CERTIFICATE"), KeyError::None),
        ] {
            assert_eq!(Key::read(text.as_bytes()).unwrap_err(), fault, "{text}");
        }
    }
}
